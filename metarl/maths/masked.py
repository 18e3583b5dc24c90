"""Statistics of padded sequences: padding counts neither in a sum nor in the number that it is divided by."""

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

Axes = int | tuple[int, ...] | None
"""The axes that a statistic is taken over; None stands for all of them."""


def masked_mean(
    x: Float[Tensor, "*batch"], mask: Bool[Tensor, "*batch"], axes: Axes = None, *, keepdim: bool = False
) -> Float[Tensor, "*rest"]:
    """x̄ = Σ m x / Σ m. Zero where nothing is unmasked; what is masked may be NaN."""
    axes = tuple(range(x.ndim)) if axes is None else axes
    total = torch.where(mask, x, 0.0).sum(axes, keepdim=keepdim)
    return total / mask.sum(axes, keepdim=keepdim).clamp(min=1)


def standardise(x: Float[Tensor, "*batch"], mask: Bool[Tensor, "*batch"], axes: Axes = None) -> Float[Tensor, "*batch"]:
    """(x − x̄) / (s + 10⁻⁸), with mean x̄ and standard deviation s of the unmasked entries; zero elsewhere."""
    centred = torch.where(mask, x - masked_mean(x, mask, axes, keepdim=True), 0.0)
    return centred / (masked_mean(centred**2, mask, axes, keepdim=True).sqrt() + 1e-8)


def sequence_mask(lengths: Shaped[Tensor, "*batch"], steps: int) -> Bool[Tensor, "*batch {steps}"]:
    """True at the first `lengths` steps of each sequence."""
    return torch.arange(steps, device=lengths.device) < lengths[..., None]
