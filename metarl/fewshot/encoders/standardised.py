"""An encoder whose features are standardised too, for learners that look at their directions."""

import dataclasses
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.fewshot.encoders.encoder import Encoded, Encoder, Statistics
from metarl.fewshot.encoders.normalisation import EPSILON
from metarl.learning.protocols import Parameters

STANDARD = "standardised"
"""The name of the statistics that `Standardised` adds."""


@final
@dataclasses.dataclass(frozen=True)
class Standardised:
    """(f(x) − μ) / √(σ² + ε), without a scale and a shift.

    What all inputs have in common, most of a rectified feature, would make all directions alike.
    """

    encoder: Encoder

    @property
    def normalises(self) -> bool:
        return True

    @property
    def num_features(self) -> int:
        return self.encoder.num_features

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        return self.encoder.init(generator)

    def initial_statistics(self) -> Statistics:
        standard = (torch.zeros(self.num_features), torch.ones(self.num_features))
        return {**self.encoder.initial_statistics(), STANDARD: standard}

    def __call__(
        self, parameters: Parameters, inputs: Float[Tensor, "example ..."], statistics: Statistics | None = None
    ) -> Encoded:
        """Without a task axis; standardises by the inputs' own statistics also where only the encoder's are given."""
        features, taken = self.encoder(parameters, inputs, statistics)
        given = None if statistics is None else statistics.get(STANDARD)
        mean, variance = (features.mean(0), features.var(0, correction=0)) if given is None else given
        return Encoded((features - mean) * torch.rsqrt(variance + EPSILON), {**taken, STANDARD: (mean, variance)})
