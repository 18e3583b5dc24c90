"""Task-blind PPO: its outer step against one written out by hand; it learns, and knows nothing but its observation."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, Normal

from metarl.agents import PpoConfig
from metarl.agents.ppo import Ppo
from metarl.learning.episodes import Trials
from metarl.learning.protocols import AdaptationProtocol, State, Transition
from tests.agents.toys import Toy, box, discrete
from tests.agents.worlds import collect, held_out_returns, lively, trained

SMALL = PpoConfig(meta_batch=8, hidden=(6, 5), epochs=1, minibatches=1)
BOX, DISCRETE = Toy(box(2), ragged=True, scale=3.0), Toy(discrete(3), ragged=True, scale=3.0)
worlds = pytest.mark.parametrize("world", [BOX, DISCRETE], ids=["box", "discrete"])


def agent(world: Toy = BOX, **options: Any) -> Ppo:
    made = dataclasses.replace(SMALL, **options).build(world.spaces)
    assert isinstance(made, Ppo)
    return made


def by_hand(ppo: Ppo, state: State, trials: Trials) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The gradient of all steps' loss, shortened, and the parts of the loss: loops in float64, one step at a time."""
    config, episodes = ppo.config, trials.query
    leaves = {
        name: value.double().requires_grad_()
        for name, value in state.parameters.items()
        if not name.startswith("input_")
    }
    mean, deviation = state.parameters["input_mean"], state.parameters["input_variance"].sqrt() + 1e-6
    count = float(state.parameters["input_total"])

    def network(observation: Tensor) -> tuple[Tensor, Tensor]:
        x = ((observation.double() - mean[:-1]) / deviation[:-1]).clamp(-10, 10)
        for layer in (0, 2):
            x = torch.tanh(leaves[f"body.{layer}.weight"] @ x + leaves[f"body.{layer}.bias"])
        outputs = leaves["heads.policy.linear.weight"] @ x + leaves["heads.policy.linear.bias"]
        return outputs, (leaves["heads.value.weight"] @ x + leaves["heads.value.bias"])[0]

    lengths = episodes.lengths[:, 0].tolist()
    discounted = [
        sum(config.discount**k * float(reward) for k, reward in enumerate(episodes.rewards[index, 0, t:length]))
        for index, length in enumerate(lengths)
        for t in range(length)
    ]
    merged = (count * float(mean[-1]) + sum(discounted)) / (count + len(discounted))
    before = count * (float(state.parameters["input_variance"][-1]) + float(mean[-1]) ** 2)
    scale = math.sqrt((before + sum(x**2 for x in discounted)) / (count + len(discounted)) - merged**2)

    log_probs, entropies, values, gained = list[Tensor](), list[Tensor](), list[Tensor](), list[float]()
    for index, length in enumerate(lengths):
        v = list[Tensor]()
        for t in range(length):
            outputs, value = network(episodes.observations[index, 0, t])
            distribution: Distribution = (
                Categorical(logits=outputs)
                if ppo.spaces.discrete
                else Independent(Normal(outputs, leaves["heads.policy.log_std"].exp()), 1)
            )
            log_probs.append(distribution.log_prob(episodes.actions[index, 0, t]))
            entropies.append(distribution.entropy())
            v.append(value)
        final = float(network(episodes.final_observations[index, 0])[1].detach())
        own, following = list[float](), 0.0
        for t in reversed(range(length)):
            last = t == length - 1
            discount = 0.0 if last and bool(episodes.terminated[index, 0]) else config.discount
            v_tp1 = final if last else float(v[t + 1].detach())
            delta = float(episodes.rewards[index, 0, t]) / scale + discount * v_tp1 - float(v[t].detach())
            following = delta + discount * config.gae_lambda * following
            own.append(following)
        gained += own[::-1]
        values += v
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
def test_the_first_gradient_and_losses_are_those_written_out(world: Toy, max_norm: float) -> None:
    """Adam's first moment after one step is a tenth of the gradient, its second a thousandth of its square."""
    ppo = agent(world, max_gradient_norm=max_norm, entropy_coefficient=0.3)
    state = lively(ppo.init(0))
    trials = collect(ppo, state, world)
    assert 0 < int(trials.query.terminated.sum()) < 8
    after, metrics = ppo.meta_step(state, trials, np.random.default_rng(0))
    gradients, expected = by_hand(ppo, state, trials)
    assert (expected.pop("norm") > max_norm) == (max_norm < 1)
    largest = float(max(gradient.abs().max() for gradient in gradients.values()))
    for name, gradient in gradients.items():
        first, second = (after.optimizer[f"{part}.{name}"].double() for part in ("exp_avg", "exp_avg_sq"))
        torch.testing.assert_close(10 * first, gradient, rtol=1e-3, atol=1e-4 * largest)
        torch.testing.assert_close(1000 * second, gradient**2, rtol=1e-3, atol=1e-4 * largest**2)
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
    assert metrics["approx_kl"] == pytest.approx(0, abs=1e-6) and metrics["clip_fraction"] == 0


def test_what_it_learns_from_are_the_steps_it_took_and_their_log_probabilities() -> None:
    ppo = agent()
    state = lively(ppo.init(0), **{"heads.policy.log_std": torch.full((2,), -20.0)})
    episodes = collect(ppo, state, BOX).query
    observations, rollout, _ = ppo.build_batch(state.parameters, episodes, 1.0)
    assert len(observations) == len(rollout.mask) == episodes.num_steps and bool(rollout.mask.all())
    assert torch.equal(rollout.actions, episodes.actions[episodes.mask])
    largest = 2 * (20 - 0.5 * math.log(2 * math.pi))
    squared = 2 * (largest - rollout.log_probs)
    assert float(squared.clamp_min(0).sqrt().max()) * math.exp(-20) < 1e-5


@pytest.mark.parametrize("rewards", [False, True])
@pytest.mark.parametrize("observations", [False, True])
def test_statistics_are_those_of_everything_seen_unless_they_are_off(observations: bool, rewards: bool) -> None:
    ppo = agent(normalise_observations=observations, normalise_rewards=rewards)
    state = ppo.init(0)
    episodes = collect(ppo, state, BOX).query
    statistics = ppo.merge_statistics(state.parameters, episodes)
    seen = episodes.observations[episodes.mask].double()
    if observations:
        torch.testing.assert_close(statistics.mean[:-1], seen.mean(0))
        torch.testing.assert_close(statistics.variance[:-1], seen.var(0, correction=0))
    else:
        assert not statistics.mean[:-1].any() and bool((statistics.variance[:-1] == 1).all())
    assert (float(statistics.variance[-1]) != 1) == rewards
    still = ppo.merge_statistics(state.parameters, dataclasses.replace(episodes, rewards=0 * episodes.rewards))
    assert float(still.variance[-1]) == 1


def test_it_neither_adapts_nor_remembers() -> None:
    ppo = agent()
    assert ppo.protocol == AdaptationProtocol(num_adaptations=0, episodes_per_adaptation=1)
    state = lively(ppo.init(0))
    policy = ppo.start(state, 8)
    observations = torch.randn(8, 2, 3)
    carry = policy.initial_carry(2, None)
    told = policy.observe(
        carry,
        Transition(torch.ones(8, 2, 2), torch.full((8, 2), 5.0), torch.ones(8, 2, dtype=torch.bool), observations),
    )
    adapted = policy.adapt(collect(ppo, state, BOX).query)
    acted = [each.act(observations, with_carry, None)[0] for each, with_carry in
             ((policy, carry), (policy, told), (adapted, carry))]  # fmt: skip
    assert torch.equal(acted[0], acted[1]) and torch.equal(acted[0], acted[2])


@pytest.mark.parametrize("world", [Toy(box(1), hint=True), Toy(discrete(3), hint=True)], ids=["box", "discrete"])
def test_it_learns_what_can_be_known_from_the_observation(world: Toy) -> None:
    """On held-out tasks, better than before training, by far."""
    ppo = agent(world, meta_batch=32, hidden=(16,), learning_rate=1e-2, epochs=8, minibatches=4)
    before, _ = held_out_returns(ppo, ppo.init(0), world)
    after, gain = held_out_returns(ppo, trained(ppo, world, 20), world)
    assert after.low > before.high + 1.0, (before, after)
    assert gain.value == 0  # there is one point of the curve


@pytest.mark.parametrize(
    "wrong", [{"meta_batch": 0}, {"learning_rate": 0.0}, {"epochs": 0}, {"hidden": ()}, {"gae_lambda": 0.0}]
)
def test_options_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        dataclasses.replace(SMALL, **wrong)
