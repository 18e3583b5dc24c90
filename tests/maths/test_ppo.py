"""PPO's losses and passes against stable-baselines3's own training step, and against themselves in the limits."""

import dataclasses
from collections.abc import Mapping

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from torch import Tensor

from metarl.maths import adam, ppo
from metarl.maths.distributions import Gaussian
from metarl.maths.masked import masked_mean, standardise


def _everything(*shape: int) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.bool)


def test_losses_equal_those_that_stable_baselines3_logs() -> None:
    """Golden: SB3 runs `train()` once over one minibatch, with learning rate 0, on old log-probs shifted by noise."""
    clip, steps = 0.2, 64
    model = PPO(
        "MlpPolicy", gym.make("Pendulum-v1"), learning_rate=0.0, n_steps=steps, batch_size=steps, n_epochs=1,
        clip_range=clip, normalize_advantage=True, seed=0, device="cpu",
    )  # fmt: skip
    model.learn(steps)
    buffer = model.rollout_buffer
    buffer.log_probs += np.random.default_rng(0).normal(0, 0.3, buffer.log_probs.shape).astype(np.float32)
    model.train()
    logged = model.logger.name_to_value

    data = next(buffer.get(steps))
    with torch.no_grad():
        values, log_probs, _ = model.policy.evaluate_actions(data.observations, data.actions)
    values, mask = values.flatten(), _everything(steps)
    # SB3 divides by the standard deviation with Bessel's correction, we by the one without.
    advantages = standardise(data.advantages, mask) * ((steps - 1) / steps) ** 0.5
    ours = {
        "train/policy_gradient_loss": ppo.surrogate_loss(log_probs, data.old_log_prob, advantages, mask, clip),
        "train/value_loss": ppo.value_loss(values, data.returns, mask),
        "train/approx_kl": ppo.approximate_kl(log_probs, data.old_log_prob, mask),
        "train/clip_fraction": ppo.clip_fraction(log_probs, data.old_log_prob, mask, clip),
    }
    for name, value in ours.items():
        assert float(value) == pytest.approx(float(logged[name]), rel=1e-4), name
    assert 0.1 < float(ours["train/clip_fraction"]) < 0.9  # the clip was at work on both sides
    old_values = torch.as_tensor(buffer.values).flatten()
    targets = torch.as_tensor(buffer.returns).flatten()
    explained = ppo.explained_variance(old_values, targets, mask)
    assert float(explained) == pytest.approx(float(logged["train/explained_variance"]), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("advantage", [1.0, -1.0])
@pytest.mark.parametrize("ratio", [0.5, 0.9, 1.1, 1.5])
def test_surrogate_and_its_gradient_by_hand(advantage: float, ratio: float) -> None:
    """The gradient vanishes exactly where a step has already gone far enough in the direction it wanted."""
    log_prob = torch.tensor([ratio], dtype=torch.float64).log().requires_grad_()
    zero, mask = torch.zeros(1, dtype=torch.float64), _everything(1)
    loss = ppo.surrogate_loss(log_prob, zero, zero + advantage, mask, clip=0.2)
    loss.backward()
    exhausted = (advantage > 0 and ratio > 1.2) or (advantage < 0 and ratio < 0.8)
    clipped = min(max(ratio, 0.8), 1.2)
    assert log_prob.grad is not None
    assert float(loss.detach()) == pytest.approx(-min(ratio * advantage, clipped * advantage))
    assert float(log_prob.grad) == pytest.approx(0.0 if exhausted else -ratio * advantage)


def test_a_wide_clip_is_the_plain_policy_gradient() -> None:
    """Reduction: at ρ = 1 the surrogate's gradient is that of −E[log π A], whatever the clip."""
    torch.manual_seed(0)
    log_probs = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    advantages, mask = torch.randn(3, 5, dtype=torch.float64), _everything(3, 5)
    surrogate = ppo.surrogate_loss(log_probs, log_probs.detach(), advantages, mask, clip=1e9)
    plain = -masked_mean(log_probs * advantages, mask)
    torch.testing.assert_close(*torch.autograd.grad(surrogate, log_probs), *torch.autograd.grad(plain, log_probs))


def test_padding_counts_for_nothing_even_if_it_is_not_finite() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 6, dtype=torch.float64, generator=generator)
    old, advantages = x + 0.1 * torch.randn(4, 6, dtype=torch.float64, generator=generator), torch.flip(x, [0])
    mask = _everything(4, 6)
    mask[1, 3:] = mask[3, 1:] = False

    def spoiled(tensor: torch.Tensor) -> torch.Tensor:
        return torch.where(mask, tensor, torch.nan)

    everything = _everything(int(mask.sum()))
    torch.testing.assert_close(
        ppo.surrogate_loss(spoiled(x), spoiled(old), spoiled(advantages), mask, clip=0.1),
        ppo.surrogate_loss(x[mask], old[mask], advantages[mask], everything, clip=0.1),
    )
    for function in (ppo.value_loss, ppo.approximate_kl, ppo.explained_variance):
        torch.testing.assert_close(function(spoiled(x), spoiled(old), mask), function(x[mask], old[mask], everything))


def test_explained_variance_of_perfect_constant_and_hopeless_critics() -> None:
    targets, mask = torch.tensor([1.0, 2.0, 3.0]), _everything(3)
    assert float(ppo.explained_variance(targets + 5, targets, mask)) == pytest.approx(1)
    assert float(ppo.explained_variance(torch.zeros(3), targets, mask)) == pytest.approx(0)
    assert float(ppo.explained_variance(-targets, targets, mask)) == pytest.approx(-3)
    assert torch.isnan(ppo.explained_variance(targets, torch.ones(3), mask))


@dataclasses.dataclass(frozen=True)
class Options:
    """What the passes need to be told."""

    learning_rate: float = 0.01
    epochs: int = 3
    minibatches: int = 4
    clip: float = 0.2
    value_coefficient: float = 0.7
    entropy_coefficient: float = 0.1
    max_gradient_norm: float = 0.5


def _rollout(size: int) -> ppo.Rollout:
    generator = torch.Generator().manual_seed(0)
    log_probs, advantages, targets = (torch.randn(size, generator=generator) for _ in range(3))
    mask = torch.rand(size, generator=generator) < 0.8
    return ppo.Rollout(torch.randn(size, 2, generator=generator), log_probs - 2, advantages, targets, mask)


def test_the_loss_rewards_entropy_and_punishes_the_critics_error() -> None:
    """L = L_policy + c_v L_value − c_e H, term by term, on the unmasked entries."""
    rollout, options = _rollout(50), Options()
    distribution, values = Gaussian(torch.zeros(50, 2), torch.linspace(-1, 0, 100).view(50, 2)), torch.ones(50)
    total, parts = ppo.loss(distribution, values, rollout, options)
    mask = rollout.mask
    oracle = torch.distributions.Independent(torch.distributions.Normal(0.0, distribution.log_std.exp()), 1)
    ratio = (oracle.log_prob(rollout.actions) - rollout.log_probs).exp()[mask]
    advantages = rollout.advantages[mask]
    policy = -torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages).mean()
    value = (rollout.targets[mask] - 1).square().mean()
    entropy = oracle.entropy()[mask].mean()
    torch.testing.assert_close(total, policy + 0.7 * value - 0.1 * entropy)
    torch.testing.assert_close(parts[:3], torch.stack([policy, value, entropy]))


def test_the_passes_are_adam_on_clipped_gradients_of_minibatches_in_a_new_order_each_epoch() -> None:
    """Against `torch.optim.Adam` and `clip_grad_norm_`; every row once an epoch."""
    data, options = torch.randn(10, 3, generator=torch.Generator().manual_seed(0)), Options()
    start = {"w": torch.tensor([1.0, -2.0, 0.5]), "b": torch.tensor(0.3)}
    orders: list[list[int]] = []

    def minibatch_loss(parameters: Mapping[str, Tensor], index: Tensor) -> tuple[Tensor, Tensor]:
        orders.append(index.tolist())
        loss = ((data[index] @ parameters["w"] + parameters["b"]) ** 2).mean() + 0.01 * parameters["w"].sum()
        return loss, loss.detach().expand(len(ppo.LOSSES))

    learned, moments, losses = ppo.minimise(
        minibatch_loss, start, adam.start(start), 10, options, np.random.default_rng(0)
    )
    assert [len(order) for order in orders] == 3 * [3, 3, 2, 2]
    epochs = [[row for order in orders[4 * epoch : 4 * epoch + 4] for row in order] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs) and epochs[0] != epochs[1]

    leaves = {name: value.clone().requires_grad_() for name, value in start.items()}
    optimizer = torch.optim.Adam(leaves.values(), lr=options.learning_rate, eps=1e-5)
    logged = []
    for order in orders[:]:
        optimizer.zero_grad()
        loss, _ = minibatch_loss(leaves, torch.tensor(order))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(leaves.values(), options.max_gradient_norm)
        optimizer.step()
        logged.append(float(loss.detach()))
    for name, leaf in leaves.items():
        torch.testing.assert_close(learned[name], leaf.detach(), rtol=1e-5, atol=1e-6)
    assert losses.keys() == set(ppo.LOSSES) and losses["entropy"] == pytest.approx(float(np.mean(logged)), rel=1e-5)
    assert float(moments["step"]) == 12


def test_there_are_no_more_minibatches_than_rows() -> None:
    sizes: list[int] = []

    def minibatch_loss(parameters: Mapping[str, Tensor], index: Tensor) -> tuple[Tensor, Tensor]:
        sizes.append(len(index))
        return parameters["w"].sum(), torch.zeros(len(ppo.LOSSES))

    start = {"w": torch.zeros(2)}
    ppo.minimise(minibatch_loss, start, adam.start(start), 2, Options(epochs=1), np.random.default_rng(0))
    assert sizes == [1, 1]
