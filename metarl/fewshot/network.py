"""A network: an encoder, and a linear head on its features or none. A function of named parameters.

In a state the encoder's parameters are called `encoder.<name>`, the head's `head.weight` and `head.bias`.
"""

import dataclasses
from typing import NamedTuple, Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.fewshot.encoders.encoder import Encoder, LayeredEncoder, Statistics
from metarl.fewshot.learner import Inspection
from metarl.fewshot.linear import affine, init_linear
from metarl.learning.protocols import Parameters

HEAD = ("head.weight", "head.bias")
"""The names of the head's parameters: what ANIL adapts."""
ENCODER = "encoder."
"""What the names of the encoder's parameters begin with."""


@runtime_checkable
class NetworkLearner(Protocol):
    """A learner whose features one network makes."""

    @property
    def network(self) -> "Network | None":
        """With an encoder whose parameters are the state's `encoder.<name>`; None where features are the inputs."""
        ...


class Outputs(NamedTuple):
    """What a network makes of its inputs."""

    values: Float[Tensor, "..."]
    """[example, output], or [task, example, output]; features instead of outputs where there is no head."""
    statistics: Statistics
    """What the inputs were normalised by: given, or their own mean and variance."""


@final
@dataclasses.dataclass(frozen=True)
class Network:
    """head(encoder(x))."""

    encoder: Encoder
    outputs: int = 0
    """Width of the linear head; 0 for none, where features come out."""

    @property
    def normalises(self) -> bool:
        return self.encoder.normalises

    @property
    def num_features(self) -> int:
        return self.encoder.num_features

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        parameters = {ENCODER + name: value for name, value in self.encoder.init(generator).items()}
        return parameters | (init_linear("head", self.num_features, self.outputs, generator) if self.outputs else {})

    def __call__(
        self, parameters: Parameters, inputs: Float[Tensor, "example ..."], statistics: Statistics | None = None
    ) -> Outputs:
        """Normalises by the given statistics, or by those of the inputs; see `Encoder`."""
        skip = len(ENCODER)
        own = {name[skip:]: value for name, value in parameters.items() if name.startswith(ENCODER)}
        features, statistics = self.encoder(own, inputs, statistics)
        return Outputs(affine(parameters, "head", features) if self.outputs else features, statistics)

    def layers(
        self, parameters: Parameters, inputs: Float[Tensor, "1 query ..."], statistics: Statistics | None = None
    ) -> dict[str, Float[Tensor, "query unit"]]:
        """The values of each layer for the queries of one task; of an encoder that shows none, its `features` alone.

        Args:
            parameters: the task's own, with its axis or without.
            inputs: the queries.
            statistics: what normalises them, with the task's axis or without; None for the queries' own.
        """
        axes = {name: value.ndim for name, value in self.init(torch.Generator()).items()}
        task = {name: parameters[name][0] if parameters[name].ndim > axes[name] else parameters[name] for name in axes}
        own = {name.removeprefix(ENCODER): value for name, value in task.items() if name not in HEAD}
        if statistics is not None:
            pairs = statistics.items()
            statistics = {name: (mean.flatten(), variance.flatten()) for name, (mean, variance) in pairs}
        if isinstance(self.encoder, LayeredEncoder):
            found = dict(self.encoder.layers(own, inputs[0], statistics))
        else:
            found = {"features": self.encoder(own, inputs[0], statistics).features}
        *_, features = found.values()
        return {**found, "head": affine(task, "head", features)} if self.outputs else found

    def inspect(
        self,
        parameters: Parameters,
        inputs: Float[Tensor, "1 query ..."],
        support: Float[Tensor, "1 example ..."] | None,
    ) -> Inspection:
        """What happens inside where all parameters are the task's own.

        Args:
            parameters: of the task.
            inputs: its queries.
            support: what normalises them; None for the queries themselves.
        """
        with torch.no_grad():
            statistics = None if support is None else self(parameters, support).statistics
            return Inspection(self.layers(parameters, inputs, statistics), parameters, {})

    def predict(
        self,
        parameters: Parameters,
        inputs: Float[Tensor, "task query ..."],
        support: Float[Tensor, "task example ..."] | None = None,
        *,
        loop: bool = False,
    ) -> Float[Tensor, "task query output"]:
        """The values of tasks with parameters of their own or shared ones, differentiable.

        Args:
            parameters: with a task axis where tasks have their own.
            inputs: the queries of each task.
            support: the inputs whose statistics normalise the queries; None for the queries' own.
            loop: go through the tasks one by one; the parameters then all have a task axis.
        """
        if not loop:
            return self._normalised_by(support, parameters, inputs)
        tasks: list[Tensor] = []
        for task, queries in enumerate(inputs):
            own = {name: value[task] for name, value in parameters.items()}
            tasks.append(self._normalised_by(None if support is None else support[task], own, queries))
        return torch.stack(tasks)

    def _normalised_by(self, support: Tensor | None, parameters: Parameters, inputs: Tensor) -> Tensor:
        statistics = None if support is None else self(parameters, support).statistics
        return self(parameters, inputs, statistics).values
