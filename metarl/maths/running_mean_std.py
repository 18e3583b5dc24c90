"""The running mean and variance of what a policy sees, to standardise it by.

They are tensors of an agent's state, in float64 so that counts of many millions still add up, and a resumed run goes on
with the same ones.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.learning.protocols import Parameters

NAMES = ("input_mean", "input_variance", "input_count")
"""What they are called among an agent's parameters."""
CLIP = 10.0
"""How far a standardised number may be from 0."""


class Moments(NamedTuple):
    """The mean and variance of all vectors so far."""

    mean: Float[Tensor, " feature"]
    variance: Float[Tensor, " feature"]
    total: Float[Tensor, ""]
    """How many vectors they are of."""

    @classmethod
    def start(cls, size: int) -> "Moments":
        """Of none: they leave a vector as it is."""
        double = torch.float64
        return cls(torch.zeros(size, dtype=double), torch.ones(size, dtype=double), torch.zeros((), dtype=double))

    @classmethod
    def among(cls, parameters: Parameters) -> "Moments":
        """Those of an agent."""
        return cls(*(parameters[name] for name in NAMES))

    def named(self) -> dict[str, Tensor]:
        """By their names among an agent's parameters."""
        return dict(zip(NAMES, self, strict=True))

    def merged(self, x: Float[Tensor, "sample feature"]) -> "Moments":
        """With these vectors taken in (Chan, Golub & LeVeque 1979)."""
        x = x.double()
        delta, total = x.mean(0) - self.mean, self.total + len(x)
        variance = self.variance * self.total + x.var(0, correction=0) * len(x)
        variance = variance + delta**2 * self.total * len(x) / total
        return Moments(self.mean + delta * len(x) / total, variance / total, total)

    def standardised(self, x: Float[Tensor, "*batch feature"]) -> Float[Tensor, "*batch feature"]:
        """Standard deviations from the mean, at most `CLIP`."""
        mean, deviation = self.mean.to(x.dtype), self.variance.sqrt().to(x.dtype)
        return ((x - mean) / (deviation + 1e-6)).clamp(-CLIP, CLIP)
