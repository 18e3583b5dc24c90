"""What a few-shot learner is given: examples of several tasks, as plain tensors."""

import dataclasses
from typing import Literal, NamedTuple, final

from jaxtyping import Float, Shaped
from torch import Tensor


class Examples(NamedTuple):
    """Inputs and what they should be mapped to; a leading task axis where it is for a whole meta-batch."""

    inputs: Float[Tensor, "..."]
    """[task, example, feature, ...], float32."""
    targets: Shaped[Tensor, "..."]
    """[task, example, ...]. For classification int64, the numbers of the ways (0 … ways − 1) and no further axis; for
    regression the float32 values."""

    def to(self, device: str) -> "Examples":
        """The same on another device."""
        return Examples(self.inputs.to(device), self.targets.to(device))


class Batch(NamedTuple):
    """The tasks of a meta-batch: what each is adapted to, and what it is judged on."""

    support: Examples
    query: Examples


@final
@dataclasses.dataclass(frozen=True)
class TaskSignature:
    """The shapes of a data set's tasks: what a learner has to know to build its network."""

    kind: Literal["classification", "regression"]
    """Whether targets are the numbers of ways or real values."""
    shape: tuple[int, ...]
    """Of one input: (features,) or (channels, height, width)."""
    ways: int
    """Classes in a task that is evaluated; 0 for regression."""
    shots: int
    """Examples in a support: of each class, or, for regression, in all."""
    outputs: int
    """Numbers that a prediction has: the ways, or the values of a regression."""
    classes: int = 0
    """Classes of the training split in all; 0 for regression."""


@final
@dataclasses.dataclass(frozen=True)
class TrainingTasks:
    """What a learner is best trained on, where its user does not say otherwise."""

    ways: int | None = None
    """Classes of a training task; None: as many as in a task that is evaluated."""
    queries: int | None = None
    """Query examples in training: of each class, or, for regression, in all; None: as many as are evaluated."""
    any_ways: bool = False
    """Whether training tasks may have another number of classes than evaluated ones; learners whose last layer has an
    output for each way cannot."""
    by_class: bool = False
    """Not on episodes, but on examples of all training classes under the classes' own numbers (0 … signature.classes
    − 1): in a `Batch` the `query` of a task is `queries` of these examples, its `support` none."""
