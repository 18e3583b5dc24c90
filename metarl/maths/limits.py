"""Smooth maps of all numbers onto an interval: limits that a learned number cannot leave, nor get stuck at.

Clamped at a limit, a parameter has no gradient there and would stay for good.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

Limits = tuple[float | None, float | None]
"""The lower and the upper end of an interval; None where there is none."""


def limit(x: Float[Tensor, "*batch"], limits: Limits) -> Float[Tensor, "*batch"]:
    """y = l + (u − l) σ(x), or l + log(1 + eˣ), or u − log(1 + e⁻ˣ) with one limit, or x with none."""
    low, high = limits
    if low is not None and high is not None:
        return low + (high - low) * torch.sigmoid(x)
    if low is not None:
        return low + softplus(x)
    return x if high is None else high - softplus(-x)


def unlimit(y: float, limits: Limits) -> float:
    """The x that `limit` takes to y.

    Raises:
        ValueError: y is not within the limits.
    """
    low, high = limits
    if (low is not None and y <= low) or (high is not None and y >= high):
        raise ValueError(f"{y:g} is not between {low} and {high}")
    if low is not None and high is not None:
        return math.log((y - low) / (high - y))
    if low is not None:
        return _inverse_softplus(y - low)
    return y if high is None else -_inverse_softplus(high - y)


def _inverse_softplus(y: float) -> float:
    """log(eʸ − 1), without overflow."""
    return y + math.log(-math.expm1(-y))
