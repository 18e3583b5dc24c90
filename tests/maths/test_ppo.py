"""PPO's losses against stable-baselines3's own training step, and against themselves in the limits."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO

from metarl.maths import ppo


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
    advantages = ppo.normalise(data.advantages, mask) * ((steps - 1) / steps) ** 0.5
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
    plain = -ppo.masked_mean(log_probs * advantages, mask)
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
    torch.testing.assert_close(
        ppo.normalise(spoiled(advantages), mask)[mask], ppo.normalise(advantages[mask], everything)
    )
    for function in (ppo.value_loss, ppo.approximate_kl, ppo.explained_variance):
        torch.testing.assert_close(function(spoiled(x), spoiled(old), mask), function(x[mask], old[mask], everything))


def test_normalised_advantages_have_mean_0_and_deviation_1() -> None:
    advantages = 3 + 7 * torch.randn(1000, generator=torch.Generator().manual_seed(0))
    normalised = ppo.normalise(advantages, _everything(1000))
    assert float(normalised.mean()) == pytest.approx(0, abs=1e-5)
    assert float(normalised.std(correction=0)) == pytest.approx(1, abs=1e-5)


def test_explained_variance_of_perfect_constant_and_hopeless_critics() -> None:
    targets, mask = torch.tensor([1.0, 2.0, 3.0]), _everything(3)
    assert float(ppo.explained_variance(targets + 5, targets, mask)) == pytest.approx(1)
    assert float(ppo.explained_variance(torch.zeros(3), targets, mask)) == pytest.approx(0)
    assert float(ppo.explained_variance(-targets, targets, mask)) == pytest.approx(-3)
    assert torch.isnan(ppo.explained_variance(targets, torch.ones(3), mask))
