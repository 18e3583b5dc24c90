"""VariBAD: its loss against one written out by hand, what it believes and remembers, and that it learns."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, kl_divergence

from metarl.agents import VaribadConfig
from metarl.agents.sequences import concatenate
from metarl.agents.varibad import StoredTrials, Varibad
from metarl.learning.protocols import State, Transition
from metarl.maths import elbo
from metarl.runs.checkpoints import CheckpointFolder
from metarl.testing.agents import check_agent
from tests.agents.test_recurrent import UNITS, gru_step
from tests.agents.test_rl2 import BOX, DISCRETE, SIGNS
from tests.agents.toys import Toy
from tests.agents.worlds import collect, held_out_returns, lively, trained
from tests.runs.tiny import make_run

SMALL = VaribadConfig(
    meta_batch=5, episodes_per_trial=3, latent=2, encoder_hidden=UNITS, decoder_layers=(5,), hidden=(8,), minibatches=2,
    elbo_terms=4, decoded_steps=3, elbo_trials=3, buffer_trials=10, reconstruct_states=True,
)  # fmt: skip
worlds = pytest.mark.parametrize("world", [BOX, DISCRETE], ids=["box", "discrete"])


def agent(world: Toy = BOX, **options: Any) -> Varibad:
    return dataclasses.replace(SMALL, **options).build(world.spaces)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def stored(varibad: Varibad, state: State, world: Toy = BOX, seed: int = 0) -> StoredTrials:
    return StoredTrials.of(collect(varibad, state, world, seed=seed), varibad.spaces)


@worlds
def test_it_keeps_the_contract(world: Toy) -> None:
    check_agent(dataclasses.replace(SMALL, reconstruct_states=world is BOX), world)


# The model, written out.


def layer(leaves: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return leaves[f"{name}.weight"] @ x + leaves[f"{name}.bias"]


def beliefs_by_hand(leaves: dict[str, Tensor], transitions: list[tuple[Tensor, Tensor, Tensor]]) -> list[Tensor]:
    """[μ, log σ²] after no transition, after one, …"""
    h = torch.zeros(UNITS, dtype=torch.float64)
    cell = {name.removeprefix("encoder.memory.cell."): x for name, x in leaves.items() if ".cell." in name}
    found = [layer(leaves, "encoder.belief", h)]
    for transition in transitions:
        parts = [
            torch.relu(layer(leaves, f"encoder.embeddings.{number}", part)) for number, part in enumerate(transition)
        ]
        h = gru_step(cell, torch.cat(parts), h)
        found.append(layer(leaves, "encoder.belief", h))
    return found


def normal(belief: Tensor) -> Distribution:
    mean, log_variance = belief.chunk(2)
    return Independent(Normal(mean, (0.5 * log_variance).exp()), 1)


def loss_by_hand(
    varibad: Varibad, state: State, leaves: dict[str, Tensor], trials: StoredTrials, draws: elbo.Draws
) -> Tensor:
    """−ELBO by loops in float64."""
    size = varibad.spaces.observation_size
    mean, deviation = state.parameters["input_mean"], state.parameters["input_variance"].sqrt() + 1e-6

    def standard(x: Tensor, first: int) -> Tensor:
        part = slice(first, first + len(x))
        return ((x.double() - mean[part]) / deviation[part]).clamp(-10, 10)

    total = torch.zeros((), dtype=torch.float64)
    for row, length in enumerate(trials.lengths.tolist()):
        s = [standard(trials.observations[row, t], 0) for t in range(length)]
        following = [standard(trials.next_observations[row, t], 0) for t in range(length)]
        a = [trials.actions[row, t].double() for t in range(length)]
        r = [standard(trials.rewards[row, t : t + 1], size) for t in range(length)]
        beliefs = beliefs_by_hand(leaves, list(zip(following, a, r, strict=True)))
        for term, t in enumerate(draws.beliefs[row].tolist()):
            before = beliefs[t - 1] if t else torch.zeros_like(beliefs[0])
            q = normal(beliefs[t])
            total = total + varibad.config.kl_weight * kl_divergence(q, normal(before))
            z = q.mean + q.stddev * draws.noise[row, term].double()
            for i in draws.steps[row, term].tolist():
                state_, action = (
                    torch.relu(layer(leaves, f"decoder.{name}", x)) for name, x in (("state", s[i]), ("action", a[i]))
                )
                after = torch.relu(layer(leaves, "decoder.state", following[i]))
                hidden = torch.tanh(layer(leaves, "decoder.reward.0.0", torch.cat([z, state_, action, after])))
                total = total + (layer(leaves, "decoder.reward.1", hidden) - r[i]).square().sum()
                hidden = torch.tanh(layer(leaves, "decoder.next_state.0.0", torch.cat([z, state_, action])))
                total = total + (layer(leaves, "decoder.next_state.1", hidden) - following[i]).square().mean()
    return total / len(trials.lengths)


def test_the_elbo_and_its_gradient_are_those_written_out() -> None:
    varibad = agent(kl_weight=0.7)
    state = lively(varibad.init(0))
    trials = stored(varibad, state)
    assert len(set(trials.lengths.tolist())) > 1
    draws = elbo.Draws.sample(trials.lengths, 6, 4, 2, rng())
    assert 0 in draws.beliefs  # the prior is among them
    names = list(varibad.learned(state.parameters, "encoder", "decoder"))
    ours = {name: state.parameters[name].clone().requires_grad_() for name in names}
    loss, parts = varibad.elbo_loss({**state.parameters, **ours}, trials, draws)
    leaves = {name: state.parameters[name].double().requires_grad_() for name in names}
    expected = loss_by_hand(varibad, state, leaves, trials, draws)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    assert torch.equal(parts[0], loss.detach())
    found, wanted = (torch.autograd.grad(value, list(x.values())) for value, x in ((loss, ours), (expected, leaves)))
    largest = float(max(x.abs().max() for x in wanted))
    for name, one, other in zip(names, found, wanted, strict=True):
        assert bool(other.any()), name
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-4 * largest)


def test_draws_reach_every_belief_and_every_step_of_the_trial_and_nothing_else() -> None:
    lengths = torch.tensor([1, 4])
    draws = elbo.Draws.sample(lengths, 200, 50, 2, rng())
    assert draws.beliefs[0].unique().tolist() == [0, 1] and draws.beliefs[1].unique().tolist() == [0, 1, 2, 3, 4]
    assert not draws.steps[0].any() and draws.steps[1].unique().tolist() == [0, 1, 2, 3]
    for t in range(5):  # past and future, whatever the belief has seen
        assert draws.steps[1][draws.beliefs[1] == t].unique().tolist() == [0, 1, 2, 3]
    assert abs(float(draws.noise.mean())) < 0.1 and abs(float(draws.noise.std()) - 1) < 0.1


def test_the_prior_of_each_belief_is_the_one_before() -> None:
    same = torch.tensor([0.5, -0.3]).expand(1, 4, 2)  # a belief that never changes costs nothing after the first
    kl = elbo.sequential_kl(same)[0]
    torch.testing.assert_close(kl[0], kl_divergence(normal(same[0, 0]), Independent(Normal(torch.zeros(1), 1.0), 1)))
    assert not kl[1:].any()


# What it believes.


@worlds
def test_adapting_leaves_the_belief_that_acting_had_come_to(world: Toy) -> None:
    """The belief is recomputed from the episodes in one pass; here it is also stepped through, with unequal lengths."""
    varibad = agent(world)
    state = lively(varibad.init(0))
    trials = collect(varibad, state, world)
    adapted = varibad.start(state, 5).adapt(trials.episodes[0]).adapt(trials.episodes[1])
    for index in range(5):
        alone = varibad.start(state, 1)
        carry = alone.initial_carry(1, None)
        for episodes in trials.episodes[:2]:  # carried through both
            length = int(episodes.lengths[index, 0])
            for step in range(length):
                here = (slice(index, index + 1), slice(0, 1), step)
                executed = episodes.actions[here] if world.spaces.discrete else episodes.actions[here].clamp(-1, 1)
                last = step == length - 1
                following = (
                    episodes.final_observations[here[:2]] if last else episodes.observations[*here[:2], step + 1]
                )
                carry = alone.observe(
                    carry, Transition(executed, episodes.rewards[here], torch.tensor([[last]]), following)
                )
        for stepped, recomputed in zip(carry, adapted.carry, strict=True):
            torch.testing.assert_close(stepped[0, 0], recomputed[index], rtol=1e-4, atol=1e-5)
    assert float((adapted.carry.belief - varibad.prior(state.parameters, 5).belief).abs().min()) > 1e-5


def test_next_observations_are_those_that_the_steps_led_to() -> None:
    episodes = collect(agent(), agent().init(0), BOX).episodes[0]
    for task, length in enumerate(episodes.lengths[:, 0].tolist()):
        following = episodes.next_observations[task, 0]
        assert torch.equal(following[: length - 1], episodes.observations[task, 0, 1:length])
        assert torch.equal(following[length - 1], episodes.final_observations[task, 0])


# Learning from it.


def test_what_it_learns_from_is_what_it_did() -> None:
    """With hardly any noise the drawn actions are the means of the acting pass: the training pass finds the same."""
    varibad = agent()
    state = lively(varibad.init(0), **{"policy.policy.log_std": torch.full((2,), -20.0)})
    trials = collect(varibad, state, BOX)
    sequences = concatenate(trials.episodes)
    with torch.no_grad():
        beliefs = varibad.all_beliefs(state.parameters, StoredTrials.of(trials, varibad.spaces))
    _, rollout, _ = varibad.build_batch(state.parameters, sequences, beliefs, 1.0)
    assert len(rollout.mask) == int(sequences.lengths.sum())
    largest = 2 * (20 - 0.5 * math.log(2 * math.pi))
    squared = 2 * (largest - rollout.log_probs)
    assert float(squared.clamp_min(0).sqrt().max()) * math.exp(-20) < 1e-5


def test_advantages_go_on_into_the_next_episode_and_bootstrap_where_the_trial_was_cut_off() -> None:
    varibad = agent(gae_lambda=1.0)
    state = lively(varibad.init(0))
    trials = collect(varibad, state, BOX)
    sequences = concatenate(trials.episodes)._replace(terminated=torch.tensor([True, False, True, False, False]))
    beliefs = varibad.all_beliefs(state.parameters, StoredTrials.of(trials, varibad.spaces)).detach()
    _, rollout, _ = varibad.build_batch(state.parameters, sequences, beliefs, 1.0)
    first = torch.cat([torch.zeros(1, dtype=torch.int64), sequences.lengths.cumsum(0)[:-1]])
    for row, length in enumerate(sequences.lengths.tolist()):
        seen = varibad.standardised(
            state.parameters, sequences.final_observations[row : row + 1], beliefs[row, length][None]
        )
        final = 0.0 if sequences.terminated[row] else float(varibad.apply_policy(state.parameters, *seen).values)
        gained = sum(0.97**t * float(r) for t, r in enumerate(sequences.rewards[row, :length])) + 0.97**length * final
        assert float(rollout.targets[first[row]]) == pytest.approx(gained, rel=1e-3, abs=1e-4)


def test_the_policy_moves_nothing_of_the_encoder() -> None:
    """However far PPO goes, encoder and decoder come out the same; and they do move."""
    slow, fast = agent(), agent(learning_rate=0.1)
    state = lively(slow.init(0))
    trials = collect(slow, state, BOX)
    one, other = (each.meta_step(state, trials, rng())[0].parameters for each in (slow, fast))
    for name in slow.learned(state.parameters, "encoder", "decoder"):
        assert torch.equal(one[name], other[name]) and not torch.equal(one[name], state.parameters[name]), name
    for name in slow.learned(state.parameters, "policy"):
        assert not torch.equal(one[name], other[name]), name
    with_encoder = agent(encoder_learning_rate=0.1).meta_step(state, trials, rng())[0].parameters
    assert all(torch.equal(one[name], with_encoder[name]) for name in slow.learned(state.parameters, "policy"))


def test_the_buffer_holds_the_newest_trials_and_each_is_drawn_at_most_once() -> None:
    varibad = agent()
    state = varibad.init(0)
    for step in range(3):
        state, _ = varibad.meta_step(state, collect(varibad, state, BOX, seed=step), rng())
    store = state.store
    assert store.total == 3 and len(store.chunks) == 2  # of 5 trials each
    drawn = StoredTrials.draw(store, 100, rng(), "cpu")
    assert len(drawn.lengths) == 10
    sums = sorted(float(x) for x in drawn.rewards.sum(1))
    expected = sorted(float(x) for chunk in store.chunks for x in chunk["rewards"].sum(1))
    assert sums == pytest.approx(expected) and len(set(sums)) == 10
    assert len(StoredTrials.draw(store, 3, rng(), "cpu").lengths) == 3


def test_a_run_that_is_loaded_goes_on_bit_for_bit(tmp_path: Path) -> None:
    varibad = agent()
    state = varibad.init(0)
    for step in range(2):
        state, _ = varibad.meta_step(state, collect(varibad, state, BOX, seed=step), np.random.default_rng(step))
    folder = CheckpointFolder(make_run(tmp_path / "run"))
    folder.save(2, state)
    saved = folder.latest(varibad.init(0))
    assert saved is not None
    trials = collect(varibad, state, BOX, seed=9)
    one, other = (varibad.meta_step(each, trials, rng())[0] for each in (state, saved.state))
    assert one.parameters.keys() == other.parameters.keys()
    assert all(torch.equal(x, other.parameters[name]) for name, x in one.parameters.items())
    assert all(torch.equal(x, other.optimizer[name]) for name, x in one.optimizer.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent": 0}, "latent must be at least 1, got 0"),
        ({"kl_weight": -1.0}, "kl_weight must be at least 0, got -1.0"),
        ({"decoder_layers": ()}, "at least one layer"),
        ({"discount": 1.5}, r"discount must be in \(0, 1\], got 1.5"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **options)


def test_it_learns_to_use_in_later_episodes_what_the_first_one_told() -> None:
    """Episodes of one step, on held-out tasks: all that can help is the belief that crosses into the next episode."""
    config = VaribadConfig(
        meta_batch=32, episodes_per_trial=3, latent=2, encoder_hidden=16, hidden=(16,), decoder_layers=(16,),
        kl_weight=0.05, elbo_terms=4, decoded_steps=3, elbo_updates=3, elbo_trials=32, encoder_learning_rate=1e-2,
        learning_rate=1e-2, epochs=5, minibatches=2, clip=0.2, entropy_coefficient=0.0, buffer_trials=320,
    )  # fmt: skip
    varibad = config.build(SIGNS.spaces)
    after, gain = held_out_returns(varibad, trained(varibad, SIGNS, 20), SIGNS, trials=30)
    assert gain.low > 0.3, (after, gain)  # of at most 1; guessing gains nothing
