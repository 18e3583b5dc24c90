"""A residual projection onto a sphere: for features that are good as they are, such as a text encoder's.

    f(x) = s · z / ‖z‖,   z = x + W₂ max(x W₁ + b₁, 0) + b₂

W₂ and b₂ begin at zero, so that a learner begins with the directions of the inputs themselves. The radius s is learned;
for a learner that compares squared distances, s² / 2 is the inverse of a softmax's temperature over cosines.
"""

import dataclasses
import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from metarl import checks
from metarl.fewshot.encoders.encoder import Encoded, Statistics
from metarl.fewshot.examples import TaskSignature
from metarl.fewshot.linear import affine, init_linear
from metarl.learning.protocols import Parameters

_INNER, _OUTER, _RADIUS = "inner", "outer", "log_radius"


@dataclasses.dataclass(frozen=True)
class ProjectionConfig:
    """Options of a residual projection."""

    hidden: int = 64
    """Width of the layer in between: few training classes ask for a narrow one."""
    radius: float = 4.0
    """s in the beginning."""

    def __post_init__(self) -> None:
        checks.between(1, checks.WIDEST, hidden=self.hidden)
        checks.positive(radius=self.radius)

    def build(self, signature: TaskSignature) -> "Projection":
        if len(signature.shape) != 1:
            raise ValueError(f"a projection wants vectors, got inputs of shape {signature.shape}")
        return Projection(signature.shape[0], self.hidden, self.radius)


@final
@dataclasses.dataclass(frozen=True)
class Projection:
    """The function; its features are as wide as its inputs."""

    width: int
    hidden: int
    radius: float

    @property
    def normalises(self) -> bool:
        return False

    @property
    def num_features(self) -> int:
        return self.width

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        outer = {f"{_OUTER}.weight": torch.zeros(self.hidden, self.width), f"{_OUTER}.bias": torch.zeros(self.width)}
        radius = torch.tensor([math.log(self.radius)])
        return {**init_linear(_INNER, self.width, self.hidden, generator), **outer, _RADIUS: radius}

    def initial_statistics(self) -> Statistics:
        return {}

    def __call__(
        self, parameters: Parameters, inputs: Float[Tensor, "*example feature"], statistics: Statistics | None = None
    ) -> Encoded:
        x = inputs
        z = x + affine(parameters, _OUTER, torch.relu(affine(parameters, _INNER, x)))
        radius = parameters[_RADIUS].exp()
        if radius.ndim == 2:  # each task's own
            radius = radius[:, None]
        return Encoded(radius * torch.nn.functional.normalize(z, dim=-1), {})
