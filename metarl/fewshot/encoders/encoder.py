"""What an encoder is: a function from parameters and inputs to features, with nothing kept inside.

Where batch normalisation takes its mean and variance from is for the caller to say: of the inputs themselves, or given.
The encoder tells which it took, so that a caller can take the support's for the query, or keep running averages.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.fewshot.examples import TaskSignature
from metarl.learning.protocols import Parameters

Statistics = Mapping[str, tuple[Tensor, Tensor]]
"""Mean and variance of each channel, by the normalising layer's name; empty where there is no batch norm."""


class Encoded(NamedTuple):
    """What an encoder makes of its inputs."""

    features: Float[Tensor, "..."]
    """[example, feature], or [task, example, feature]."""
    statistics: Statistics
    """What the inputs were normalised by: given, or their own mean and variance."""


@runtime_checkable
class Encoder(Protocol):
    """A function of parameters and inputs: plain data, so that it pickles."""

    @property
    def normalises(self) -> bool:
        """Whether it has batch norm."""
        ...

    @property
    def num_features(self) -> int:
        """Numbers that an example is turned into."""
        ...

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Parameters before any learning."""
        ...

    def initial_statistics(self) -> Statistics:
        """Where the running averages of batch norm begin."""
        ...

    def __call__(
        self, parameters: Parameters, inputs: Float[Tensor, "example ..."], statistics: Statistics | None = None
    ) -> Encoded:
        """Normalises by the given statistics, or by those of the inputs.

        Inputs may have a task axis in front of the examples': each task is then normalised by itself, and any of the
        parameters and statistics may have a task axis too, for tasks that have their own.
        """
        ...


@runtime_checkable
class LayeredEncoder(Encoder, Protocol):
    """An encoder whose layers can be looked at."""

    def layers(
        self, parameters: Parameters, inputs: Float[Tensor, "example ..."], statistics: Statistics | None = None
    ) -> Mapping[str, Float[Tensor, "example feature"]]:
        """The values of each layer, by the name that its parameters begin with, in order; the last are the features."""
        ...


@runtime_checkable
class EncoderConfig(Protocol):
    """An encoder's options: a frozen dataclass that builds it."""

    def build(self, signature: TaskSignature) -> Encoder:
        """The encoder for inputs of this shape.

        Raises:
            ValueError: there is none.
        """
        ...
