"""Task-blind PPO: what it learns from against formulas, and that it knows nothing of the task or the past."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from metarl.agents.ppo import Ppo, PpoConfig
from metarl.learning.protocols import AdaptationProtocol, State, Transition
from metarl.testing import check_agent
from tests.agents.toys import Toy, box, discrete
from tests.agents.worlds import collect, held_out_returns, lively, trained

SMALL = PpoConfig(meta_batch=6, hidden=(8,), epochs=2, minibatches=2)
TOY = Toy(box(2), horizon=8, ragged=True, scale=5.0)


def build(config: PpoConfig = SMALL, toy: Toy = TOY) -> Ppo:
    return config.build(toy.spaces)


@pytest.mark.parametrize("toy", [TOY, Toy(discrete(3), horizon=7, ragged=True)], ids=["box", "discrete"])
def test_the_contract_holds(toy: Toy) -> None:
    check_agent(SMALL, toy)


@pytest.mark.parametrize("toy", [TOY, Toy(discrete(3), horizon=7, ragged=True)], ids=["box", "discrete"])
def test_the_first_pass_sees_what_acting_saw(toy: Toy) -> None:
    """One pass over one minibatch: the policy has not changed yet, so the ratio is 1, and no loss is clipped."""
    ppo = build(dataclasses.replace(SMALL, epochs=1, minibatches=1), toy)
    state = lively(ppo.init(0))
    trials = collect(ppo, state, toy)
    _, metrics = ppo.meta_step(state, trials, np.random.default_rng(0))
    assert metrics["approx_kl"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["clip_fraction"] == 0.0
    observations, rollout, _ = ppo.build_batch(state.parameters, trials.query, 1.0)
    with torch.no_grad():
        acted = ppo.start(state, 6).act(trials.query.observations[:, :, 0], (), None)[0][:, 0]
        distribution = ppo.apply(ppo.learned(state.parameters), observations).distribution
    starts = torch.cat([torch.tensor([0]), trials.query.lengths[:-1, 0].cumsum(0)])
    torch.testing.assert_close(distribution.mode()[starts], acted)
    torch.testing.assert_close(distribution.log_prob(rollout.actions), rollout.log_probs)


def test_advantages_are_gae_of_scaled_rewards_and_standardised() -> None:
    """Against the recursion written out: truncated episodes bootstrap on the final observation, terminated ones not."""
    ppo, scale = build(), 2.5
    state = lively(ppo.init(0))
    episodes = collect(ppo, state, TOY).query
    assert 0 < int(episodes.terminated.sum()) < 6
    _, rollout, _ = ppo.build_batch(state.parameters, episodes, scale)
    mean, variance = (state.parameters[f"input_{name}"][:-1] for name in ("mean", "variance"))
    expected, targets = list[float](), list[float]()
    for task in range(6):
        length, ended = int(episodes.lengths[task, 0]), bool(episodes.terminated[task, 0])
        seen = torch.cat([episodes.observations[task, 0, :length], episodes.final_observations[task]])
        inputs = ((seen.double() - mean) / variance.sqrt()).clamp(-10, 10).float()
        with torch.no_grad():
            v = ppo.apply(ppo.learned(state.parameters), inputs).values.tolist()
        v[length] = 0.0 if ended else v[length]
        following, advantages = 0.0, [0.0] * length
        for t in reversed(range(length)):
            reward = float(episodes.rewards[task, 0, t]) / scale
            following = reward + SMALL.discount * v[t + 1] - v[t] + SMALL.discount * SMALL.gae_lambda * following
            advantages[t] = following
        expected.extend(advantages)
        targets.extend(a + b for a, b in zip(advantages, v[:length], strict=True))
    raw = torch.tensor(expected)
    torch.testing.assert_close(rollout.targets, torch.tensor(targets), rtol=1e-4, atol=1e-4)
    standardised = (raw - raw.mean()) / raw.std(correction=0)
    torch.testing.assert_close(rollout.advantages, standardised, rtol=1e-4, atol=1e-4)


def test_rewards_of_any_scale_give_the_same_step() -> None:
    """They are divided by the standard deviation of the discounted returns."""
    after = list[State]()
    for scale in (1.0, 1024.0):
        toy = dataclasses.replace(TOY, scale=scale)
        ppo = build(SMALL, toy)
        state = ppo.init(0)
        after.append(ppo.meta_step(state, collect(ppo, state, toy), np.random.default_rng(0))[0])
    for name, _ in build().network.named_parameters():
        torch.testing.assert_close(after[0].parameters[name], after[1].parameters[name], rtol=1e-3, atol=1e-4)
    assert float(after[1].parameters["input_variance"][-1]) > 1e5 * float(after[0].parameters["input_variance"][-1])


def test_normalisation_that_is_off_leaves_everything_as_it_is() -> None:
    ppo = build(dataclasses.replace(SMALL, normalise_observations=False, normalise_rewards=False))
    state = ppo.init(0)
    after, metrics = ppo.meta_step(state, collect(ppo, state, TOY), np.random.default_rng(0))
    assert not after.parameters["input_mean"].any()
    assert bool((after.parameters["input_variance"] == 1).all())
    assert metrics["reward_scale"] == 1.0


def test_it_neither_adapts_nor_remembers() -> None:
    ppo = build()
    assert ppo.protocol == AdaptationProtocol(num_adaptations=0, episodes_per_adaptation=1)
    state = lively(ppo.init(0))
    policy, episodes = ppo.start(state, 6), collect(ppo, state, TOY).query
    observations, carry = episodes.observations[:, :, 0], policy.initial_carry(1, None)
    told = Transition(torch.ones(6, 1, 2), torch.full((6, 1), 5.0), torch.ones(6, 1, dtype=torch.bool), observations)
    acted, _ = policy.act(observations, carry, None)
    assert torch.equal(acted, policy.act(observations, policy.observe(carry, told), None)[0])
    adapted = policy.adapt(episodes)
    assert torch.equal(acted, adapted.act(observations, adapted.initial_carry(1, None), None)[0])


@pytest.mark.parametrize(
    "wrong", [{"meta_batch": 0}, {"learning_rate": 0.0}, {"epochs": 0}, {"hidden": ()}, {"gae_lambda": 1.5}]
)
def test_options_out_of_range_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PpoConfig(**wrong)


@pytest.mark.parametrize("action", [box(1), discrete(2)], ids=["box", "discrete"])
def test_it_learns_what_the_observation_tells_and_nothing_else(action: Any) -> None:
    config = PpoConfig(meta_batch=32, hidden=(16,), learning_rate=1e-2)
    for hint in (True, False):
        toy = Toy(action, horizon=4, noise=0.1, hint=hint)
        ppo = build(config, toy)
        untrained, _ = held_out_returns(ppo, ppo.init(0), toy)
        after, _ = held_out_returns(ppo, trained(ppo, toy, 15), toy)
        if hint:
            assert after.low > untrained.high + 0.5, (untrained, after)
        else:
            assert after.low < untrained.high + 0.5, (untrained, after)
