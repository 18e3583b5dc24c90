"""The running mean and variance of what a policy sees, to standardise it by.

They are tensors of an agent's state, in float64 so that counts of many millions still add up, and a resumed run goes on
with the same ones.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.maths.parameters import Parameters

NAMES = ("input_mean", "input_variance", "input_total")
"""What they are called among an agent's parameters."""
CLIP = 10.0
"""How far a standardised number may be from 0."""
_EPSILON = 1e-6


class RunningMeanStd(NamedTuple):
    """The mean and variance of all vectors so far."""

    mean: Float[Tensor, " feature"]
    variance: Float[Tensor, " feature"]
    total: Float[Tensor, ""]
    """How many vectors they are of."""

    @classmethod
    def initial(cls, size: int) -> "RunningMeanStd":
        """Of none: mean 0 and variance 1, which leave a vector as it is."""
        double = torch.float64
        return cls(torch.zeros(size, dtype=double), torch.ones(size, dtype=double), torch.zeros((), dtype=double))

    @classmethod
    def among(cls, parameters: Parameters) -> "RunningMeanStd":
        """Those of an agent."""
        return cls(*(parameters[name] for name in NAMES))

    def named(self) -> dict[str, Tensor]:
        """By their names among an agent's parameters."""
        return dict(zip(NAMES, self, strict=True))

    def merge(self, x: Float[Tensor, "sample feature"]) -> "RunningMeanStd":
        """With these vectors taken in (Chan, Golub & LeVeque 1979)."""
        x = x.double()
        delta, total = x.mean(0) - self.mean, self.total + len(x)
        variance = self.variance * self.total + x.var(0, correction=0) * len(x)
        variance = variance + delta**2 * self.total * len(x) / total
        return RunningMeanStd(self.mean + delta * len(x) / total, variance / total, total)

    def toward(self, other: "RunningMeanStd", share: float) -> "RunningMeanStd":
        """(1 − λ) these + λ others, for a share λ of the way.

        Statistics of no vectors are still of none before the end of the way: what is left of them is no data.
        """
        mean, variance, total = (torch.lerp(one, two, share) for one, two in zip(self, other, strict=True))
        still_none = share < 1 and not bool(self.total)
        return RunningMeanStd(mean, variance, torch.zeros_like(total) if still_none else total)

    def standardise(self, x: Float[Tensor, "*batch feature"]) -> Float[Tensor, "*batch feature"]:
        """(x − μ) / σ, at most ±`CLIP`."""
        mean, deviation = self.mean.to(x.dtype), self.variance.sqrt().to(x.dtype)
        return ((x - mean) / (deviation + _EPSILON)).clamp(-CLIP, CLIP)

    def fold(
        self, new: "RunningMeanStd", weight: Float[Tensor, "out feature"], bias: Float[Tensor, " out"]
    ) -> tuple[Float[Tensor, "out feature"], Float[Tensor, " out"]]:
        """A linear layer that makes of inputs standardised by `new` what it made of those standardised by these.

        W (x − μ)/σ + b = W' (x − μ')/σ' + b'   for   W' = W diag(σ'/σ),   b' = b + W (μ' − μ)/σ,

        exactly but for inputs that are clipped.
        """
        old_deviation, new_deviation = (each.variance.sqrt() + _EPSILON for each in (self, new))
        scale, shift = new_deviation / old_deviation, (new.mean - self.mean) / old_deviation
        return weight * scale.to(weight.dtype), bias + weight @ shift.to(weight.dtype)
