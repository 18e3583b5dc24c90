"""RL²: what the policy is told and remembers, what it learns from, and that it learns."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from metarl import agents, envs
from metarl.agents import policies
from metarl.agents.recurrent import Previous, Rl2Actor, Trials, concatenate
from metarl.agents.rl2 import Rl2Ppo, Rl2PpoConfig
from metarl.learning.episodes import Episodes
from metarl.learning.protocols import Actor, State
from metarl.tasks import Task

HORIZON = 6


@dataclasses.dataclass(frozen=True)
class Signs:
    """A stand-in for a sampler. A task hides a sign; the reward is the sign times the executed action.

    So one reward gives the task away, and the observations say nothing: they are noise, or zero.
    """

    horizon: int = HORIZON
    ragged: bool = True
    """Episodes of 1 to `horizon` steps, some of them terminated, instead of `horizon`."""
    noise: float = 1.0
    """Standard deviation of the observations."""
    action_size: int = 2

    def collect(self, actor: Actor, tasks: Sequence[Task], episodes: int, seed: int) -> Episodes:
        shape, generator = (len(tasks), episodes), torch.Generator().manual_seed(seed)
        lengths = torch.randint(1, self.horizon + 1, shape, generator=generator)
        lengths = lengths if self.ragged else torch.full(shape, self.horizon)
        terminated = (torch.rand(shape, generator=generator) < 0.5) & self.ragged
        observations = self.noise * torch.randn(*shape, self.horizon + 1, 3, generator=generator)
        signs = torch.tensor([task["sign"] for task in tasks])[:, None]
        actions, rewards = torch.zeros(*shape, self.horizon, self.action_size), torch.zeros(*shape, self.horizon)
        memory = actor.begin(episodes)
        for step in range(self.horizon):
            drawn, memory = actor.act(observations[:, :, step], memory, generator)
            executed = drawn.clamp(-1, 1)
            reward = signs * executed.mean(-1)
            memory = actor.feedback(memory, executed, reward, step + 1 >= lengths)
            running = step < lengths
            actions[:, :, step], rewards[:, :, step] = drawn * running[..., None], reward * running
        taken = torch.arange(self.horizon) < lengths[..., None]
        return Episodes(
            observations=observations[:, :, :-1] * taken[..., None],
            final_observations=observations.gather(2, lengths[..., None, None].expand(*shape, 1, 3))[:, :, 0],
            actions=actions,
            rewards=rewards,
            terminated=terminated,
            diverged=torch.zeros(shape, dtype=torch.bool),
            lengths=lengths,
        )


TASKS = tuple(Task.of("sign", sign=sign) for sign in (1.0, -1.0, -1.0, 1.0, 1.0))
SMALL = Rl2PpoConfig(meta_batch=5, episodes_per_trial=3, hidden=8, epochs=2, minibatches=2, chunk_length=None)


def _agent(config: Rl2PpoConfig = SMALL, sampler: Signs | None = None) -> Rl2Ppo:
    sampler = sampler or Signs()
    return Rl2Ppo(config, 3, sampler.action_size, sampler)


def _lively(state: State, log_std: float = -0.5) -> State:
    """The state with a policy whose mean depends strongly on its memory, and statistics that are not the identity."""
    generator = torch.Generator().manual_seed(7)
    parameters = dict(state.parameters)
    for name in ("mean.weight", "mean.bias", "value.weight"):
        parameters[name] = 0.3 * torch.randn(parameters[name].shape, generator=generator)
    parameters["log_std"] = torch.full_like(parameters["log_std"], log_std)
    parameters["input_mean"] = parameters["input_mean"] + 0.3
    parameters["input_variance"] = parameters["input_variance"] * 2.0
    return State(parameters, state.optimizer)


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def _no_transition(actor: Rl2Actor) -> Previous:
    return actor.policy.nothing_before(len(TASKS), torch.device("cpu"))


# What the policy is told, and remembers.


def test_a_trial_starts_with_nothing_in_memory() -> None:
    memory = _agent().start(_agent().init(0), 5).begin(2)
    assert [tuple(part.shape) for part in memory] == [(5, 2, 2), (5, 2), (5, 2), (5, 2, 8)]
    assert not any(part.any() for part in memory)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_adapting_leaves_the_memory_that_acting_had_built_up(cell: str) -> None:
    """The memory is recomputed from the episodes in one pass; here it is also stepped through, with unequal lengths."""
    agent = _agent(dataclasses.replace(SMALL, cell="lstm" if cell == "lstm" else "gru"))
    actor = agent.start(_lively(agent.init(0)), 5)
    support = Signs().collect(actor, TASKS, 1, seed=3)
    assert len(set(support.lengths.flatten().tolist())) > 1
    adapted = actor.adapt(support)
    for index, length in enumerate(support.lengths[:, 0].tolist()):
        memory, generator = tuple(part[index : index + 1] for part in actor.begin(1)), torch.Generator()
        for step in range(length):
            _, memory = actor.act(support.observations[index, 0, step][None, None], memory, generator)
            action = support.actions[index, 0, step].clamp(-1, 1)
            done = torch.tensor([[step == length - 1]])
            memory = actor.feedback(memory, action[None, None], support.rewards[index, 0, step][None, None], done)
        for stepped, recomputed in zip(memory, adapted.begin(1), strict=True):
            torch.testing.assert_close(stepped[0, 0], recomputed[index, 0], rtol=1e-5, atol=1e-6)


def test_the_last_action_reward_and_done_arrive_with_the_next_episodes_first_observation() -> None:
    agent = _agent()
    actor = agent.start(_lively(agent.init(0), log_std=1.0), 5)
    support = Signs().collect(actor, TASKS, 1, seed=3)
    actions, rewards, done, _ = actor.adapt(support).begin(1)
    for index, length in enumerate(support.lengths[:, 0].tolist()):
        drawn = support.actions[index, 0, length - 1]
        torch.testing.assert_close(actions[index, 0], drawn.clamp(-1, 1))
        assert float(rewards[index, 0]) == float(support.rewards[index, 0, length - 1])
        assert float(done[index, 0]) == 1.0
    assert bool((support.actions.abs() > 1).any())  # some noise was clipped off


@pytest.mark.parametrize("part", ["actions", "rewards", "done"])
def test_each_part_of_the_last_transition_changes_what_the_policy_does_next(part: str) -> None:
    agent = _agent()
    actor = agent.start(_lively(agent.init(0), log_std=-20.0), 5)
    adapted = actor.adapt(Signs().collect(actor, TASKS, 1, seed=3))
    zeroed = adapted.before._replace(**{part: torch.zeros_like(getattr(adapted.before, part))})
    blind = dataclasses.replace(adapted, before=zeroed)
    observations = torch.zeros(5, 1, 3)
    told, _ = adapted.act(observations, adapted.begin(1), torch.Generator())
    untold, _ = blind.act(observations, blind.begin(1), torch.Generator())
    assert float((told - untold).abs().max()) > 1e-3


def test_trials_squeeze_out_the_padding_between_episodes() -> None:
    agent = _agent()
    rounds = agent.play(_lively(agent.init(0)), TASKS, _rng())
    trials = concatenate(rounds)
    previous = trials.previous(_no_transition(agent.start(agent.init(0), 5)))
    assert trials.rewards.shape[1] == int(trials.lengths.max()) < 3 * HORIZON
    for index in range(5):
        lengths = [int(episodes.lengths[index, 0]) for episodes in rounds]
        rewards = torch.cat([episodes.rewards[index, 0, : lengths[i]] for i, episodes in enumerate(rounds)])
        seen = torch.cat([episodes.observations[index, 0, : lengths[i]] for i, episodes in enumerate(rounds)])
        total = sum(lengths)
        torch.testing.assert_close(trials.rewards[index, :total], rewards)
        torch.testing.assert_close(trials.observations[index, :total], seen)
        assert not trials.rewards[index, total:].any() and not trials.actions[index, total:].any()
        ends = np.cumsum(lengths)
        assert trials.done[index].nonzero().flatten().tolist() == [end - 1 for end in ends]
        assert previous.done[index, : total + 1].nonzero().flatten().tolist() == [
            e for e in ends if e < len(previous.done[index])
        ]
        torch.testing.assert_close(previous.rewards[index, 1:total], rewards[:-1])
        assert float(previous.rewards[index, 0]) == 0.0


# What it learns from.


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_training_pass_sees_what_acting_saw(cell: str) -> None:
    """With hardly any noise the drawn actions are the means of the acting pass; the training pass finds the same."""
    agent = _agent(dataclasses.replace(SMALL, cell="lstm" if cell == "lstm" else "gru", chunk_length=4))
    state = _lively(agent.init(0), log_std=-20.0)
    rounds = agent.play(state, TASKS, _rng())
    trials = concatenate(rounds)
    previous = trials.previous(_no_transition(agent.start(state, 5)))
    outputs, _ = agent.run(state.parameters, trials.observations, previous, 4)
    assert float(trials.actions.std()) > 0.05
    torch.testing.assert_close(outputs.mean[trials.mask], trials.actions[trials.mask], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("length", [None, 1, 4, 100])
def test_segments_with_their_stored_memory_repeat_the_whole_trials_log_probs(cell: str, length: int | None) -> None:
    agent = _agent(dataclasses.replace(SMALL, cell="lstm" if cell == "lstm" else "gru", chunk_length=length))
    state = _lively(agent.init(0))
    rounds = agent.play(state, TASKS, _rng())
    trials = concatenate(rounds)
    batch, _ = agent.prepare(state.parameters, trials, rounds[-1], scale=1.0)
    outputs = agent.call(state.parameters, batch.observations, batch.previous, batch.carry)
    again = policies.gaussian_log_prob(batch.actions, outputs.mean, outputs.log_std)
    torch.testing.assert_close(again[batch.mask], batch.log_probs[batch.mask], rtol=1e-4, atol=1e-5)

    whole, _ = _agent().prepare(state.parameters, trials, rounds[-1], scale=1.0) if cell == "gru" else (batch, 0)
    assert int(batch.mask.sum()) == int(trials.lengths.sum())
    for name in ("log_probs", "advantages", "targets"):
        ours, theirs = getattr(batch, name)[batch.mask], getattr(whole, name)[whole.mask]
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    if length == 4:
        assert len(batch.mask) > 5 and any(bool(part.any()) for part in batch.carry)


def test_a_chunk_whose_memory_is_forgotten_has_other_log_probs() -> None:
    agent = _agent(dataclasses.replace(SMALL, chunk_length=4))
    state = _lively(agent.init(0))
    rounds = agent.play(state, TASKS, _rng())
    batch, _ = agent.prepare(state.parameters, concatenate(rounds), rounds[-1], scale=1.0)
    zeros = tuple(torch.zeros_like(part) for part in batch.carry)
    outputs = agent.call(state.parameters, batch.observations, batch.previous, zeros)
    forgotten = policies.gaussian_log_prob(batch.actions, outputs.mean, outputs.log_std)
    assert float((forgotten - batch.log_probs)[batch.mask].abs().max()) > 1e-2


def test_advantages_run_through_the_trial_and_bootstrap_only_where_it_was_truncated() -> None:
    """Against the recursion written out, trial by trial, with lengths that differ."""
    agent, scale = _agent(), 2.0
    gamma, lam = agent.config.discount, agent.config.gae_lambda
    generator = torch.Generator().manual_seed(0)
    lengths, terminated = torch.tensor([7, 4, 2]), torch.tensor([False, True, False])
    rewards, values = torch.randn(3, 9, generator=generator), torch.randn(3, 9, generator=generator)
    done = torch.zeros(3, 9)
    done[0, 2] = done[0, 6] = done[1, 1] = done[1, 3] = done[2, 1] = 1.0  # episodes that end within their trial
    rewards = rewards * (torch.arange(9) < lengths[:, None])
    trials = Trials(torch.zeros(3, 9, 3), torch.zeros(3, 9, 2), rewards, done, lengths)
    advantages = agent.advantages(trials, values, terminated, scale)
    for index, length in enumerate(lengths.tolist()):
        following, expected = 0.0, [0.0] * 9
        for t in reversed(range(length)):
            ended = t == length - 1 and bool(terminated[index])
            v_tp1 = 0.0 if ended else float(values[index, t + 1])
            following = (
                float(rewards[index, t]) / scale + gamma * v_tp1 - float(values[index, t]) + gamma * lam * following
            )
            expected[t] = following
        torch.testing.assert_close(advantages[index], torch.tensor(expected), rtol=1e-5, atol=1e-5)


def test_the_value_to_bootstrap_on_is_the_final_observations() -> None:
    """Changing the final observation changes truncated trials' last advantage, and no terminated one's."""
    agent = _agent()
    state = _lively(agent.init(0))
    rounds = agent.play(state, TASKS, _rng())
    terminated = torch.tensor([[True], [False], [True], [False], [False]])
    last = dataclasses.replace(rounds[-1], terminated=terminated)
    moved = dataclasses.replace(last, final_observations=last.final_observations + 1.0)
    trials = concatenate(rounds)
    rows, ends = torch.arange(5), trials.lengths - 1
    targets = [
        agent.prepare(state.parameters, trials, episodes, 1.0)[0].targets[rows, ends] for episodes in (last, moved)
    ]
    changed = (targets[0] - targets[1]).abs() > 1e-4
    assert changed.tolist() == [not ended for ended in terminated[:, 0].tolist()]


def test_running_statistics_are_those_of_everything_seen() -> None:
    agent = _agent()
    parameters = agent.init(0).parameters
    rounds = [agent.play(agent.init(0), TASKS, np.random.default_rng(seed)) for seed in (1, 2)]
    trials = [concatenate(episodes) for episodes in rounds]
    for each in trials:
        parameters = {**parameters, **agent.statistics(parameters, each)}
    seen = torch.cat([each.observations[each.mask] for each in trials]).double()
    rewards = torch.cat([each.rewards[each.mask] for each in trials]).double()
    assert float(parameters["input_count"]) == len(seen)
    torch.testing.assert_close(parameters["input_mean"][:3], seen.mean(0))
    torch.testing.assert_close(parameters["input_variance"][:3], seen.var(0, correction=0))
    torch.testing.assert_close(parameters["input_mean"][3], rewards.mean())
    torch.testing.assert_close(parameters["input_variance"][3], rewards.var(correction=0))
    returns = [
        sum(agent.config.discount**k * float(reward) for k, reward in enumerate(each.rewards[i, t : int(length)]))
        for each in trials for i, length in enumerate(each.lengths) for t in range(int(length))
    ]  # fmt: skip
    assert float(parameters["input_variance"][4]) == pytest.approx(np.var(returns), rel=1e-5)


def test_normalisation_that_is_off_leaves_everything_as_it_is() -> None:
    agent = _agent(dataclasses.replace(SMALL, normalise_observations=False, normalise_rewards=False))
    state, _ = agent.meta_step(agent.init(0), TASKS, _rng())
    assert not state.parameters["input_mean"].any()
    assert bool((state.parameters["input_variance"] == 1).all())


# The outer step.


@pytest.mark.parametrize("length", [None, 4])
def test_an_outer_step_depends_on_its_arguments_alone_and_changes_none(length: int | None, tmp_path: Path) -> None:
    """Bit for bit, and whatever the order of the state's tensors; all gradients are clipped, so their norm counts."""
    agent = _agent(dataclasses.replace(SMALL, chunk_length=length, max_gradient_norm=1e-3, epochs=8))
    state, _ = agent.meta_step(agent.init(0), TASKS, _rng())
    before = {name: x.clone() for name, x in {**state.parameters, **state.optimizer}.items()}
    torch.manual_seed(1)
    first, figures = agent.meta_step(state, TASKS, _rng())
    torch.manual_seed(2)
    save_file(dict(state.parameters), tmp_path / "params.safetensors")
    save_file(dict(state.optimizer), tmp_path / "optimizer.safetensors")
    parameters = load_file(tmp_path / "params.safetensors")
    shuffled = {name: parameters[name] for name in reversed(list(state.parameters))}
    loaded = State(shuffled, load_file(tmp_path / "optimizer.safetensors"))
    fresh = _agent(agent.config)
    second, again = fresh.meta_step(loaded, TASKS, _rng())

    assert figures == again
    for ours, theirs in ((first.parameters, second.parameters), (first.optimizer, second.optimizer)):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(torch.equal(before[name], x) for name, x in {**state.parameters, **state.optimizer}.items())
    assert any(not torch.equal(state.parameters[name], first.parameters[name]) for name in state.parameters)
    tensors: list[Tensor] = [*first.parameters.values(), *first.optimizer.values()]
    assert all(x.is_contiguous() and not x.requires_grad for x in tensors)
    assert len({x.data_ptr() for x in tensors}) == len(tensors)
    assert float(first.optimizer["step"]) == 2 * float(state.optimizer["step"]) == 2 * 8 * 2


def test_figures_count_the_steps_and_are_finite() -> None:
    agent = _agent()
    rounds = agent.play(agent.init(0), TASKS, _rng())
    _, figures = agent.meta_step(agent.init(0), TASKS, _rng())
    assert figures["env_steps"] == sum(int(episodes.lengths.sum()) for episodes in rounds)
    assert figures["episodes"] == 15
    assert figures["return_first"] == pytest.approx(float(rounds[0].scores.mean()))
    assert figures["return_last"] == pytest.approx(float(rounds[-1].scores.mean()))
    assert all(math.isfinite(value) for value in figures.values()), figures


def test_schedule_is_the_trial() -> None:
    schedule = _agent().schedule
    assert (schedule.rounds, schedule.episodes) == (2, 1)


def test_initial_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(0)
    noise = torch.get_rng_state()
    first, second, other = _agent().init(0), _agent().init(0), _agent().init(1)
    assert torch.equal(torch.get_rng_state(), noise)
    assert all(torch.equal(first.parameters[name], second.parameters[name]) for name in first.parameters)
    assert not torch.equal(first.parameters["cell.weight_hh_l0"], other.parameters["cell.weight_hh_l0"])
    blocks = first.parameters["cell.weight_hh_l0"].split(8)
    assert all(torch.allclose(block @ block.T, torch.eye(8), atol=1e-5) for block in blocks)


# Bad input.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"meta_batch": 0}, "meta_batch must be at least 1, got 0"),
        ({"learning_rate": -1.0}, "learning_rate must be positive, got -1.0"),
        ({"discount": 1.5}, r"discount must be in \(0, 1\], got 1.5"),
        ({"chunk_length": 0}, "chunk_length must be at least 1"),
        ({"meta_batch": 2, "minibatches": 4, "chunk_length": None}, "2 whole trials cannot make 4 minibatches"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **options)


# In a real environment.


def test_outer_steps_on_point_navigation_do_not_depend_on_the_threads() -> None:
    dist, config = envs.make("point-navigation"), Rl2PpoConfig(
        meta_batch=4, hidden=8, epochs=2, minibatches=2, chunk_length=50
    )  # fmt: skip
    ends: list[State] = []
    for threads in (1, 2):
        agent = agents.make(config, dist, threads)
        state = agent.init(0)
        for step in range(2):
            rng = np.random.default_rng([0, step])
            state, figures = agent.meta_step(state, dist.sample("train", agent.meta_batch, rng), rng)
            assert figures["env_steps"] == 4 * 2 * 100
            assert all(math.isfinite(value) for value in figures.values()), figures
        ends.append(state)
    assert all(torch.equal(ends[0].parameters[name], ends[1].parameters[name]) for name in ends[0].parameters)


# Learning.

GUESSING = Rl2PpoConfig(
    meta_batch=32, episodes_per_trial=3, hidden=16, epochs=5, minibatches=2, learning_rate=1e-2,
    initial_log_std=-0.5, entropy_coefficient=0.0, chunk_length=None,
)  # fmt: skip


def _train_to_guess(steps: int) -> tuple[float, float]:
    """Mean rewards in the first and the last of three one-step episodes, after some outer steps."""
    agent = _agent(GUESSING, Signs(horizon=1, ragged=False, noise=0.0, action_size=1))
    state, figures = agent.init(0), dict[str, float]()
    for step in range(steps):
        rng = np.random.default_rng([0, step])
        tasks = tuple(Task.of("sign", sign=float(sign)) for sign in rng.choice([-1.0, 1.0], 32))
        state, measured = agent.meta_step(state, tasks, rng)
        figures = dict(measured)
    return figures["return_first"], figures["return_last"]


def test_learns_to_use_in_later_episodes_what_the_first_one_told() -> None:
    """Episodes of one step: all that can help is what crosses the boundary between episodes."""
    first, last = _train_to_guess(40)
    assert abs(first) < 0.4
    assert last > 0.6


def test_learns_nothing_where_the_last_transition_of_an_episode_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ablation: an implementation that clears the previous transition when an episode ends cannot adapt here."""
    whole = Trials.previous

    def cleared(self: Trials, before: Previous) -> Previous:
        previous = whole(self, before)
        return Previous(*(x * (1 - (previous.done[..., None] if x.ndim == 3 else previous.done)) for x in previous))

    def forgetful(self: Rl2Actor, support: Episodes) -> Rl2Actor:
        adapted = remembering(self, support)
        return dataclasses.replace(adapted, before=_cleared(adapted.before))

    remembering = Rl2Actor.adapt
    monkeypatch.setattr(Trials, "previous", cleared)
    monkeypatch.setattr(Rl2Actor, "adapt", forgetful)
    _, last = _train_to_guess(40)
    assert abs(last) < 0.4


def _cleared(before: Previous) -> Previous:
    return Previous(*(torch.zeros_like(x) for x in before))
