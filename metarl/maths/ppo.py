"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347) as pure functions.

All of them take a mask, because sequences in a batch differ in length: padding counts nowhere.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.maths import adam
from metarl.maths.distributions import Distribution
from metarl.maths.masked import masked_mean
from metarl.maths.parameters import Parameters, clip_by_global_norm

_ADAM_EPSILON = 1e-5  # as in OpenAI's baselines


@runtime_checkable
class PpoOptions(Protocol):
    """The part of an agent's options that its passes over the data need."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def epochs(self) -> int: ...
    @property
    def minibatches(self) -> int: ...
    @property
    def clip(self) -> float: ...
    @property
    def value_coefficient(self) -> float: ...
    @property
    def entropy_coefficient(self) -> float: ...
    @property
    def max_gradient_norm(self) -> float: ...


class Rollout(NamedTuple):
    """What PPO's losses compare a policy and a critic with."""

    actions: Tensor
    """[*batch, action], or [*batch] where they are discrete."""
    log_probs: Float[Tensor, "*batch"]
    """Under the parameters that acted."""
    advantages: Float[Tensor, "*batch"]
    """Standardised."""
    targets: Float[Tensor, "*batch"]
    """For the critic."""
    mask: Bool[Tensor, "*batch"]
    """False where there is only padding."""

    def pick(self, index: Int[Tensor, " minibatch"]) -> "Rollout":
        """Some rows of the first axis."""
        return Rollout(*(tensor[index] for tensor in self))


def surrogate_loss(
    log_probs: Float[Tensor, "*batch"],
    old_log_probs: Float[Tensor, "*batch"],
    advantages: Float[Tensor, "*batch"],
    mask: Bool[Tensor, "*batch"],
    clip: float,
) -> Float[Tensor, ""]:
    """−E min(ρ A, clip(ρ, 1 − ε, 1 + ε) A),   ρ = π(a | ·) / π_old(a | ·)   (Schulman et al. 2017, eq. 7)."""
    ratio = (log_probs - old_log_probs).exp()
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    return -masked_mean(surrogate, mask)


def value_loss(
    values: Float[Tensor, "*batch"], targets: Float[Tensor, "*batch"], mask: Bool[Tensor, "*batch"]
) -> Float[Tensor, ""]:
    """E (v − target)², the squared-error term of eq. 9; not clipped."""
    return masked_mean((values - targets) ** 2, mask)


def approximate_kl(
    log_probs: Float[Tensor, "*batch"], old_log_probs: Float[Tensor, "*batch"], mask: Bool[Tensor, "*batch"]
) -> Float[Tensor, ""]:
    """KL(π_old ‖ π) ≈ E_old [(ρ − 1) − log ρ], unbiased and never negative (http://joschu.net/blog/kl-approx.html)."""
    log_ratio = log_probs - old_log_probs
    return masked_mean(log_ratio.exp() - 1 - log_ratio, mask)


def clip_fraction(
    log_probs: Float[Tensor, "*batch"],
    old_log_probs: Float[Tensor, "*batch"],
    mask: Bool[Tensor, "*batch"],
    clip: float,
) -> Float[Tensor, ""]:
    """The share of samples whose ratio left [1 − ε, 1 + ε]."""
    outside = ((log_probs - old_log_probs).exp() - 1).abs() > clip
    return masked_mean(outside.to(log_probs.dtype), mask)


def explained_variance(
    values: Float[Tensor, "*batch"], targets: Float[Tensor, "*batch"], mask: Bool[Tensor, "*batch"]
) -> Float[Tensor, ""]:
    """1 − Var(target − v) / Var(target): 1 is a perfect critic, 0 no better than a constant, NaN without variance."""
    error, target = (targets - values)[mask], targets[mask]
    variance = target.var(correction=0)
    return torch.where(variance > 0, 1 - error.var(correction=0) / variance, torch.nan)


LOSSES = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")
"""What `loss` measures beside the loss itself."""


def loss(
    distribution: Distribution, values: Float[Tensor, "*batch"], rollout: Rollout, options: PpoOptions
) -> tuple[Float[Tensor, ""], Float[Tensor, " measure"]]:
    """L = L_policy + c_v L_value − c_e H (Schulman et al. 2017, eq. 9), and its `LOSSES`."""
    log_probs, mask = distribution.log_prob(rollout.actions), rollout.mask
    policy = surrogate_loss(log_probs, rollout.log_probs, rollout.advantages, mask, options.clip)
    value = value_loss(values, rollout.targets, mask)
    entropy = masked_mean(distribution.entropy(), mask)
    total = policy + options.value_coefficient * value - options.entropy_coefficient * entropy
    with torch.no_grad():
        kl = approximate_kl(log_probs, rollout.log_probs, mask)
        clipped = clip_fraction(log_probs, rollout.log_probs, mask, options.clip)
        return total, torch.stack([policy, value, entropy, kl, clipped])


def minimise(
    minibatch_loss: Callable[[Parameters, Int[Tensor, " minibatch"]], tuple[Tensor, Tensor]],
    parameters: Parameters,
    optimizer: Parameters,
    size: int,
    options: PpoOptions,
    rng: np.random.Generator,
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, float]]:
    """PPO's passes: Adam on minibatches of the data, in an order drawn anew for each epoch (algorithm 1).

    Args:
        minibatch_loss: `loss` at parameters, of the rows of a minibatch.
        parameters: before the first step.
        optimizer: Adam's moments.
        size: rows of the data.
        options: how often and how far.
        rng: draws the orders.

    Returns:
        The parameters and the moments after the last step, and the mean of the `LOSSES` over the steps.
    """
    learned, moments, logs = dict(parameters), dict(optimizer), list[Tensor]()
    device = next(iter(learned.values())).device
    for _ in range(options.epochs):
        order = torch.from_numpy(rng.permutation(size)).to(device)
        for index in order.tensor_split(min(options.minibatches, size)):
            leaves = {name: value.detach().requires_grad_() for name, value in learned.items()}
            total, log = minibatch_loss(leaves, index)
            gradients = dict(zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True))
            clipped = clip_by_global_norm(gradients, options.max_gradient_norm)
            learned, moments = adam.step(learned, clipped, moments, options.learning_rate, _ADAM_EPSILON)
            logs.append(log)
    return learned, moments, dict(zip(LOSSES, torch.stack(logs).mean(0).tolist(), strict=True))
