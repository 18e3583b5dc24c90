"""Proximal policy optimisation's losses (Schulman et al. 2017, arXiv 1707.06347) as pure functions.

All of them take a mask, because sequences in a batch differ in length: padding counts neither in the sums nor in the
number that they are divided by.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def masked_mean(x: Float[Tensor, "*batch"], mask: Bool[Tensor, "*batch"]) -> Float[Tensor, ""]:
    """Σ m x / Σ m. Zero where nothing is unmasked."""
    return torch.where(mask, x, 0.0).sum() / mask.sum().clamp(min=1)


def normalise(advantages: Float[Tensor, "*batch"], mask: Bool[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """(A − mean A) / std A over the unmasked entries; zero elsewhere."""
    centred = torch.where(mask, advantages - masked_mean(advantages, mask), 0.0)
    return centred / (masked_mean(centred**2, mask).sqrt() + 1e-8)


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
