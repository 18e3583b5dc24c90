"""RL²: what the policy is told and remembers, its outer step against one written out by hand, and that it learns."""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, Normal

from metarl.agents import Rl2PpoConfig
from metarl.agents.recurrent import Cell
from metarl.agents.rl2 import AdaptedRl2, Rl2Ppo
from metarl.agents.sequences import PreviousStep, TrialSequences, concatenate, told
from metarl.learning.episodes import Episodes, Trials
from metarl.learning.protocols import AdaptationProtocol, State, Transition
from tests.agents.test_recurrent import gru_step, lstm_step
from tests.agents.toys import Toy, box, discrete
from tests.agents.worlds import collect, held_out_returns, lively, trained

SMALL = Rl2PpoConfig(meta_batch=5, episodes_per_trial=3, hidden=6, epochs=2, minibatches=2, chunk_length=None)
BOX, DISCRETE = Toy(box(2), ragged=True, scale=3.0), Toy(discrete(3), ragged=True, scale=3.0)
worlds = pytest.mark.parametrize("world", [BOX, DISCRETE], ids=["box", "discrete"])
cells = pytest.mark.parametrize("cell", ["gru", "lstm"])


def agent(world: Toy = BOX, **options: Any) -> Rl2Ppo:
    made = dataclasses.replace(SMALL, **options).build(world.spaces)
    assert isinstance(made, Rl2Ppo)
    return made


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# What the policy is told, and remembers.


def test_a_trial_starts_with_nothing_in_memory() -> None:
    carry = agent().start(agent().init(0), 5).initial_carry(2, None)
    assert [tuple(part.shape) for part in carry] == [(5, 2, 2), (5, 2), (5, 2), (5, 2, 6)]
    assert not any(part.any() for part in carry)


@cells
@worlds
def test_adapting_leaves_the_memory_that_acting_had_built_up(cell: Cell, world: Toy) -> None:
    """The memory is recomputed from the episodes in one pass; here it is also stepped through, with unequal lengths."""
    rl2 = agent(world, cell=cell)
    state = lively(rl2.init(0))
    policy = rl2.start(state, 5)
    support = collect(rl2, state, world).episodes[0]
    assert len(set(support.lengths.flatten().tolist())) > 1
    adapted = policy.adapt(support).initial_carry(1, None)
    for index, length in enumerate(support.lengths[:, 0].tolist()):
        alone = rl2.start(state, 1)
        carry = alone.initial_carry(1, None)
        for step in range(length):
            here = (slice(index, index + 1), slice(0, 1), step)
            _, carry = alone.act(support.observations[here], carry, None)
            executed = support.actions[here] if world.spaces.discrete else support.actions[here].clamp(-1, 1)
            done = torch.tensor([[step == length - 1]])
            carry = alone.observe(
                carry, Transition(executed, support.rewards[here], done, torch.full((1, 1, 3), torch.nan))
            )
        for stepped, recomputed in zip(carry, adapted, strict=True):
            torch.testing.assert_close(stepped[0, 0], recomputed[index, 0], rtol=1e-5, atol=1e-6)


@worlds
def test_the_last_action_reward_and_done_arrive_with_the_next_episodes_first_observation(world: Toy) -> None:
    rl2 = agent(world)
    state = lively(rl2.init(0))
    support = collect(rl2, state, world).episodes[0]
    actions, rewards, done, _ = rl2.start(state, 5).adapt(support).initial_carry(1, None)
    for index, length in enumerate(support.lengths[:, 0].tolist()):
        drawn = support.actions[index, 0, length - 1]
        assert torch.equal(actions[index, 0], told(drawn, world.spaces))
        assert float(rewards[index, 0]) == float(support.rewards[index, 0, length - 1])
        assert float(done[index, 0]) == 1.0
    if not world.spaces.discrete:
        assert bool((support.actions.abs() > 1).any())  # some noise was clipped off


@pytest.mark.parametrize("part", ["actions", "rewards", "done"])
@worlds
def test_each_part_of_the_last_transition_changes_what_the_policy_does_next(part: str, world: Toy) -> None:
    rl2 = agent(world)
    state = lively(rl2.init(0))
    after = rl2.start(state, 5).adapt(collect(rl2, state, world).episodes[0])
    blind = dataclasses.replace(
        after, previous=after.previous._replace(**{part: torch.zeros_like(getattr(after.previous, part))})
    )
    memories = [each.act(torch.ones(5, 1, 3), each.initial_carry(1, None), None)[1][3] for each in (after, blind)]
    assert float((memories[0] - memories[1]).abs().max()) > 1e-3


# The outer step, written out.


class Played(NamedTuple):
    """One trial, step by step."""

    observations: list[Tensor]
    """One more than there are steps: the last is the final observation."""
    actions: list[Tensor]
    rewards: list[float]
    done: list[float]
    terminated: bool


def played(trials: Trials, index: int) -> Played:
    trial = Played([], [], [], [], bool(trials.query.terminated[index, 0]))
    for episodes in trials.episodes:
        for t in range(int(episodes.lengths[index, 0])):
            trial.observations.append(episodes.observations[index, 0, t].double())
            trial.actions.append(episodes.actions[index, 0, t])
            trial.rewards.append(float(episodes.rewards[index, 0, t]))
            trial.done.append(0.0)
        trial.done[-1] = 1.0
    trial.observations.append(trials.query.final_observations[index, 0].double())
    return trial


def reward_scale(rl2: Rl2Ppo, state: State, trials: list[Played]) -> float:
    """The standard deviation of all discounted returns, those of before included."""
    discounted = [
        sum(rl2.config.discount**k * reward for k, reward in enumerate(trial.rewards[t:]))
        for trial in trials
        for t in range(len(trial.rewards))
    ]
    mean, variance = (float(state.parameters[f"input_{name}"][-1]) for name in ("mean", "variance"))
    count, n = float(state.parameters["input_total"]), len(discounted)
    merged = (count * mean + sum(discounted)) / (count + n)
    square = (count * (variance + mean**2) + sum(x**2 for x in discounted)) / (count + n)
    return math.sqrt(square - merged**2)


def unrolled(
    rl2: Rl2Ppo, state: State, leaves: dict[str, Tensor], trial: Played
) -> tuple[list[Tensor], list[Distribution]]:
    """v of every observation, the final one included, and π at every step."""
    mean, deviation = state.parameters["input_mean"], state.parameters["input_variance"].sqrt() + 1e-6
    h = c = torch.zeros(rl2.config.hidden, dtype=torch.float64)
    values, distributions = list[Tensor](), list[Distribution]()
    action, reward, done = torch.zeros(rl2.spaces.action_size, dtype=torch.float64), 0.0, 0.0
    for t, observation in enumerate(trial.observations):
        final = t == len(trial.rewards)
        seen = torch.cat([observation, torch.tensor([reward], dtype=torch.float64)])
        seen = ((seen - mean[:-1]) / deviation[:-1]).clamp(-10, 10)
        # As if the last episode went on, as far as the value of its final observation is concerned.
        x = torch.cat([seen, action, torch.tensor([0.0 if final else done], dtype=torch.float64)])
        if rl2.config.cell == "gru":
            h = gru_step(leaves, x, h)
        else:
            h, c = lstm_step(leaves, x, h, c)
        values.append((leaves["heads.value.weight"] @ h + leaves["heads.value.bias"])[0])
        if final:
            break
        outputs = leaves["heads.policy.linear.weight"] @ h + leaves["heads.policy.linear.bias"]
        reward, done = trial.rewards[t], trial.done[t]
        if rl2.spaces.discrete:
            distributions.append(Categorical(logits=outputs))
            action = torch.nn.functional.one_hot(trial.actions[t], rl2.spaces.action_size).double()
        else:
            distributions.append(Independent(Normal(outputs, leaves["heads.policy.log_std"].exp()), 1))
            action = trial.actions[t].double().clamp(-1, 1)
    return values, distributions


def advantages(rl2: Rl2Ppo, trial: Played, values: list[Tensor], scale: float) -> list[float]:
    found, following = list[float](), 0.0
    v = [float(value.detach()) for value in values]
    for t in reversed(range(len(trial.rewards))):
        discount = 0.0 if t == len(trial.rewards) - 1 and trial.terminated else rl2.config.discount
        delta = trial.rewards[t] / scale + discount * v[t + 1] - v[t]
        following = delta + discount * rl2.config.gae_lambda * following
        found.append(following)
    return found[::-1]


def by_hand(rl2: Rl2Ppo, state: State, trials: Trials) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The gradient of all trials' loss, shortened, and the parts of the loss: loops in float64, one trial at a time."""
    config = rl2.config
    leaves = {
        name: value.double().requires_grad_()
        for name, value in state.parameters.items()
        if not name.startswith("input_")
    }
    every = [played(trials, index) for index in range(len(trials.tasks))]
    scale = reward_scale(rl2, state, every)
    log_probs, entropies, values, gained = list[Tensor](), list[Tensor](), list[Tensor](), list[float]()
    for trial in every:
        v, distributions = unrolled(rl2, state, leaves, trial)
        log_probs += [each.log_prob(action) for each, action in zip(distributions, trial.actions, strict=True)]
        entropies += [each.entropy() for each in distributions]
        values += v[:-1]
        gained += advantages(rl2, trial, v, scale)
    a, v = torch.tensor(gained, dtype=torch.float64), torch.stack(values)
    target = a + v.detach()
    a = (a - a.mean()) / a.std(correction=0)
    policy = -(torch.exp(torch.stack(log_probs) - torch.stack(log_probs).detach()) * a).mean()
    value, entropy = (v - target).square().mean(), torch.stack(entropies).mean()
    loss = policy + config.value_coefficient * value - config.entropy_coefficient * entropy
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    norm = float(torch.cat([gradient.flatten() for gradient in gradients]).norm())
    factor = min(1.0, config.max_gradient_norm / norm)
    measured = {
        "policy_loss": float(policy.detach()),
        "value_loss": float(value.detach()),
        "entropy": float(entropy.detach()),
        "explained_variance": 1 - float((target - v.detach()).var(correction=0) / target.var(correction=0)),
        "reward_scale": scale,
        "norm": norm,
    }
    return {name: factor * gradient for name, gradient in zip(leaves, gradients, strict=True)}, measured


@pytest.mark.parametrize("max_norm", [0.05, 1e6])
@worlds
@cells
def test_the_first_gradient_and_losses_are_those_written_out(cell: Cell, world: Toy, max_norm: float) -> None:
    """Adam's first moment after one step is a tenth of the gradient, its second a thousandth of its square."""
    rl2 = agent(world, cell=cell, epochs=1, minibatches=1, max_gradient_norm=max_norm, entropy_coefficient=0.3)
    state = lively(rl2.init(0))
    trials = collect(rl2, state, world)
    assert 0 < int(trials.query.terminated.sum()) < 5
    after, metrics = rl2.meta_step(state, trials, rng())
    gradients, expected = by_hand(rl2, state, trials)
    assert (expected.pop("norm") > max_norm) == (max_norm < 1)
    largest = float(max(gradient.abs().max() for gradient in gradients.values()))
    for name, gradient in gradients.items():
        first, second = (after.optimizer[f"{part}.{name}"].double() for part in ("exp_avg", "exp_avg_sq"))
        torch.testing.assert_close(10 * first, gradient, rtol=1e-3, atol=1e-4 * largest)
        torch.testing.assert_close(1000 * second, gradient**2, rtol=1e-3, atol=1e-4 * largest**2)
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
    assert metrics["approx_kl"] == pytest.approx(0, abs=1e-6) and metrics["clip_fraction"] == 0


# The batch.


@worlds
@cells
@pytest.mark.parametrize("length", [None, 1, 4, 100])
def test_segments_with_their_stored_memory_repeat_the_whole_trials_log_probs(
    cell: Cell, length: int | None, world: Toy
) -> None:
    from metarl.agents.recurrent import unroll

    rl2 = agent(world, cell=cell, chunk_length=length)
    state = lively(rl2.init(0))
    sequences = concatenate(collect(rl2, state, world).episodes)
    batch, _ = rl2.build_batch(state.parameters, sequences, 1.0)
    learned = {name: state.parameters[name] for name, _ in rl2.network.named_parameters()}
    outputs = unroll(rl2.network, learned, batch.inputs, batch.carry)
    rollout = batch.rollout
    again = outputs.distribution.log_prob(rollout.actions)
    torch.testing.assert_close(again[rollout.mask], rollout.log_probs[rollout.mask], rtol=1e-4, atol=1e-5)
    whole, _ = agent(world, cell=cell).build_batch(state.parameters, sequences, 1.0)
    assert int(rollout.mask.sum()) == int(sequences.lengths.sum())
    for name in ("log_probs", "advantages", "targets"):
        ours, theirs = getattr(rollout, name)[rollout.mask], getattr(whole.rollout, name)[whole.rollout.mask]
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    if length == 4:
        assert len(rollout.mask) > 5 and any(bool(part.any()) for part in batch.carry)
        forgotten = unroll(rl2.network, learned, batch.inputs, type(batch.carry)(*map(torch.zeros_like, batch.carry)))
        forgotten = forgotten.distribution.log_prob(rollout.actions)
        assert float((forgotten - rollout.log_probs)[rollout.mask].abs().max()) > 1e-2


@cells
def test_what_it_learns_from_is_what_it_did(cell: Cell) -> None:
    """With hardly any noise the drawn actions are the means of the acting pass: the training pass finds the same."""
    rl2 = agent(cell=cell, chunk_length=4)
    state = lively(rl2.init(0), **{"heads.policy.log_std": torch.full((2,), -20.0)})
    sequences = concatenate(collect(rl2, state, BOX).episodes)
    batch, _ = rl2.build_batch(state.parameters, sequences, 1.0)
    assert float(batch.rollout.actions[batch.rollout.mask].std()) > 0.05
    largest = 2 * (20 - 0.5 * math.log(2 * math.pi))  # log N(μ; μ, σ) of two actions
    squared = 2 * (largest - batch.rollout.log_probs[batch.rollout.mask])  # ‖a − μ‖² / σ²
    assert float(squared.clamp_min(0).sqrt().max()) * math.exp(-20) < 1e-5


def test_the_value_to_bootstrap_on_is_the_final_observations() -> None:
    """Changing the final observation changes truncated trials' last target, and no terminated one's."""
    rl2 = agent()
    state = lively(rl2.init(0))
    sequences = concatenate(collect(rl2, state, BOX).episodes)
    sequences = sequences._replace(terminated=torch.tensor([True, False, True, False, False]))
    moved = sequences._replace(final_observations=sequences.final_observations + 1.0)
    rows, ends = torch.arange(5), sequences.lengths - 1
    targets = [
        rl2.build_batch(state.parameters, each, 1.0)[0].rollout.targets[rows, ends] for each in (sequences, moved)
    ]
    assert ((targets[0] - targets[1]).abs() > 1e-4).tolist() == [False, True, False, True, True]


# Statistics.


def test_running_statistics_are_those_of_everything_seen() -> None:
    rl2 = agent()
    parameters, seen, gained = dict(rl2.init(0).parameters), [], []
    for seed in (1, 2):
        sequences = concatenate(collect(rl2, rl2.init(0), BOX, seed=seed).episodes)
        parameters |= rl2.merge_statistics(parameters, sequences).named()
        seen.append(torch.cat([sequences.observations, sequences.rewards[..., None]], -1)[sequences.mask].double())
        gained += [
            sum(rl2.config.discount**k * float(reward) for k, reward in enumerate(rewards[t : int(length)]))
            for rewards, length in zip(sequences.rewards, sequences.lengths, strict=True)
            for t in range(int(length))
        ]
    together = torch.cat(seen)
    assert float(parameters["input_total"]) == len(together)
    torch.testing.assert_close(parameters["input_mean"][:-1], together.mean(0))
    torch.testing.assert_close(parameters["input_variance"][:-1], together.var(0, correction=0))
    assert float(parameters["input_variance"][-1]) == pytest.approx(np.var(gained), rel=1e-5)


@pytest.mark.parametrize("rewards", [False, True])
@pytest.mark.parametrize("observations", [False, True])
def test_normalisation_that_is_off_leaves_everything_as_it_is(observations: bool, rewards: bool) -> None:
    rl2 = agent(normalise_observations=observations, normalise_rewards=rewards)
    state, metrics = rl2.meta_step(rl2.init(0), collect(rl2, rl2.init(0), BOX), rng())
    mean, variance = state.parameters["input_mean"], state.parameters["input_variance"]
    assert bool(mean[:3].any()) == observations and bool((variance[:3] != 1).any()) == observations
    assert bool(mean[3:].any()) == rewards and bool((variance[3:] != 1).any()) == rewards
    assert (metrics["reward_scale"] != 1) == rewards


def test_rewards_that_never_vary_are_not_scaled() -> None:
    still = dataclasses.replace(BOX, scale=0.0)
    rl2 = agent(still)
    state, metrics = rl2.meta_step(rl2.init(0), collect(rl2, rl2.init(0), still), rng())
    assert metrics["reward_scale"] == 1
    assert all(bool(value.isfinite().all()) for value in state.parameters.values())


# The rest of the outer step.


@pytest.mark.parametrize("length", [None, 4])
def test_passes_and_minibatches_are_counted(length: int | None) -> None:
    rl2 = agent(chunk_length=length, epochs=3)
    state = rl2.init(0)
    trials = collect(rl2, state, BOX)
    after, metrics = rl2.meta_step(state, trials, rng())
    assert float(after.optimizer["step"]) == 3 * 2
    assert metrics["approx_kl"] > 0 and all(math.isfinite(value) for value in metrics.values())


def test_the_protocol_is_the_trial() -> None:
    assert agent().protocol == AdaptationProtocol(2, 1)
    assert agent(episodes_per_trial=1).protocol == AdaptationProtocol(0, 1)


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
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **options)


def test_a_policy_without_memory_is_none_of_its_cells() -> None:
    wrong: Any = "none"
    with pytest.raises((ValueError, TypeCheckError), match="cell"):
        dataclasses.replace(SMALL, cell=wrong)


# Learning.

GUESSING = Rl2PpoConfig(
    meta_batch=32, episodes_per_trial=3, hidden=16, epochs=5, minibatches=2, learning_rate=1e-2,
    entropy_coefficient=0.0, chunk_length=None,
)  # fmt: skip
SIGNS, CHOICES = (Toy(action, horizon=1, noise=0.0) for action in (box(1), discrete(2)))


@pytest.mark.parametrize(("world", "cell"), [(SIGNS, "gru"), (SIGNS, "lstm"), (CHOICES, "gru")])
def test_it_learns_to_use_in_later_episodes_what_the_first_one_told(world: Toy, cell: Cell) -> None:
    """Episodes of one step, on held-out tasks: all that can help is what crosses the boundary between episodes."""
    rl2 = dataclasses.replace(GUESSING, cell=cell).build(world.spaces)
    after, gain = held_out_returns(rl2, trained(rl2, world, 40), world, trials=30)
    assert gain.low > 0.1, (after, gain)  # of at most 1 for signs and 0.5 for choices; guessing gains nothing


def test_it_learns_nothing_where_the_last_transition_of_an_episode_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ablation: an implementation that clears the previous step when an episode ends cannot adapt here."""
    whole, remembering = TrialSequences.previous, AdaptedRl2.adapt

    def cleared(previous: PreviousStep) -> PreviousStep:
        keep = 1 - previous.done
        return PreviousStep(previous.actions * keep[..., None], previous.rewards * keep, previous.done * keep)

    def forgetful(self: AdaptedRl2, support: Episodes) -> AdaptedRl2:
        adapted = remembering(self, support)
        return dataclasses.replace(adapted, previous=cleared(adapted.previous))

    monkeypatch.setattr(TrialSequences, "previous", lambda *arguments: cleared(whole(*arguments)))
    monkeypatch.setattr(AdaptedRl2, "adapt", forgetful)
    rl2 = GUESSING.build(SIGNS.spaces)
    _, gain = held_out_returns(rl2, trained(rl2, SIGNS, 40), SIGNS)
    assert abs(gain.value) < 0.2
