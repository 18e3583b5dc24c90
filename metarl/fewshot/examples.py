"""What a few-shot learner is given: examples of several tasks, as plain tensors."""

import dataclasses
import math
from typing import Literal, NamedTuple, final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from metarl import checks
from metarl.learning.protocols import Metrics

MOST_NUMBERS = 1 << 28
"""The most numbers of one input."""
_SMALL = 32  # pixels


class Examples(NamedTuple):
    """Inputs and what they should be mapped to; a leading task axis where it is for a whole meta-batch."""

    inputs: Float[Tensor, "..."]
    """[task, example, feature, ...], float32."""
    targets: Shaped[Tensor, "..."]
    """[task, example, ...]. For classification int64, the numbers of the ways (0 … ways − 1) and no further axis; for
    regression the float32 values."""

    def to(self, device: torch.device | str) -> "Examples":
        """The same on another device."""
        return Examples(self.inputs.to(device), self.targets.to(device))

    def followed_by(self, others: "Examples") -> "Examples":
        """Each task's examples, then its others."""
        inputs, targets = (torch.cat(pair, dim=1) for pair in zip(self, others, strict=True))
        return Examples(inputs, targets)

    def take(self, numbers: Shaped[Tensor, "task number"]) -> "Examples":
        """Of each task the examples with these numbers, in this order."""
        numbers = numbers.to(self.inputs.device)
        tasks = torch.arange(len(numbers), device=numbers.device)[:, None]
        return Examples(self.inputs[tasks, numbers], self.targets[tasks, numbers])


class Batch(NamedTuple):
    """The tasks of a meta-batch: what each is adapted to, and what it is judged on."""

    support: Examples
    query: Examples

    def metrics(self) -> Metrics:
        """`examples`: how many the learner is shown, supports and queries."""
        return {"examples": sum(part.targets.shape[0] * part.targets.shape[1] for part in (self.support, self.query))}


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

    def __post_init__(self) -> None:
        counts = {"ways": self.ways, "shots": self.shots, "classes": self.classes}
        checks.at_least(0, **counts)
        checks.at_most(checks.MOST, **counts)
        checks.count(outputs=self.outputs)
        if not self.shape or min(self.shape) < 1 or math.prod(self.shape) > MOST_NUMBERS:
            raise ValueError(f"an input has 1 to {MOST_NUMBERS} numbers, got the shape {list(self.shape)}")

    @property
    def classifies(self) -> bool:
        """Whether targets are the numbers of ways."""
        return self.kind == "classification"

    @property
    def images(self) -> bool:
        """Whether inputs are images."""
        return len(self.shape) == 3

    @property
    def small_images(self) -> bool:
        """Whether inputs are images of at most 32 pixels: characters, not photographs."""
        return self.images and max(self.shape[1:]) <= _SMALL


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


@final
@dataclasses.dataclass(frozen=True)
class TaskRecord:
    """What a run remembers of the tasks it was trained for, so that no data are needed to use the learner."""

    signature: TaskSignature
    mean: tuple[float, ...] = ()
    """Subtracted from each channel of an image in [0, 1], or each feature; nothing where empty."""
    std: tuple[float, ...] = ()
    """What a channel or feature is then divided by."""

    def __post_init__(self) -> None:
        if not len(self.mean) == len(self.std) in (0, self.signature.shape[0]) or min(self.std, default=1.0) <= 0:
            raise ValueError(
                f"mean and std must be empty or have {self.signature.shape[0]} numbers, those of std above 0; "
                f"got {self.mean} and {self.std}"
            )
