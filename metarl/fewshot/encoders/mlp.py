"""A multi-layer perceptron with ReLU, for vectors."""

import dataclasses
import itertools
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from metarl import checks
from metarl.fewshot.encoders.encoder import Encoded, Statistics
from metarl.fewshot.examples import TaskSignature
from metarl.fewshot.linear import affine, init_linear
from metarl.learning.protocols import Parameters


@dataclasses.dataclass(frozen=True)
class MlpConfig:
    """Options of a multi-layer perceptron; the default is that of Finn et al. (2017, §5.1) for sinusoids."""

    hidden: tuple[int, ...] = (40, 40)
    """Widths of the layers; the last one's values are the features."""

    def __post_init__(self) -> None:
        checks.layers(self.hidden)

    def build(self, signature: TaskSignature) -> "Mlp":
        if len(signature.shape) != 1:
            raise ValueError(f"a multi-layer perceptron wants vectors, got inputs of shape {signature.shape}")
        return Mlp(signature.shape[0], self.hidden)


@final
@dataclasses.dataclass(frozen=True)
class Mlp:
    """x ← max(x Wᵢ + bᵢ, 0), layer by layer."""

    inputs: int
    """Width of a vector."""
    hidden: tuple[int, ...]

    @property
    def normalises(self) -> bool:
        return False

    @property
    def num_features(self) -> int:
        return self.hidden[-1]

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        parameters: dict[str, Tensor] = {}
        for index, (width_in, width_out) in enumerate(itertools.pairwise((self.inputs, *self.hidden))):
            parameters |= init_linear(f"hidden.{index}", width_in, width_out, generator)
        return parameters

    def initial_statistics(self) -> Statistics:
        return {}

    def __call__(
        self, parameters: Parameters, inputs: Float[Tensor, "*example feature"], statistics: Statistics | None = None
    ) -> Encoded:
        *_, features = self.layers(parameters, inputs, statistics).values()
        return Encoded(features, {})

    def layers(
        self, parameters: Parameters, inputs: Float[Tensor, "*example feature"], statistics: Statistics | None = None
    ) -> dict[str, Float[Tensor, "*example unit"]]:
        x, found = inputs, dict[str, Tensor]()
        for index in range(len(self.hidden)):
            name = f"hidden.{index}"
            x = found[name] = torch.relu(affine(parameters, name, x))
        return found
