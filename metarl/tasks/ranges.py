"""Where a task's parameters are drawn from."""

import dataclasses
import math
from typing import Any, ClassVar, Protocol, final, runtime_checkable

import numpy as np

from metarl.tasks.task import Scalar, Task


@final
@dataclasses.dataclass(frozen=True)
class Uniform:
    """U[low, high], rounded to a grid of `resolution`.

    The grid makes tasks readable and makes "the splits are disjoint" a claim that can be checked: two draws can
    meet, so held-out values have to be kept out of training rather than missed by luck.
    """

    low: float
    high: float
    resolution: float
    unit: str

    def __post_init__(self) -> None:
        if not self.low < self.high or not 0 < self.resolution <= self.high - self.low:
            raise ValueError(f"need low < high and 0 < resolution <= high - low, got {self}")

    def draw(self, rng: np.random.Generator) -> float:
        steps = rng.uniform(self.low, self.high) / self.resolution
        decimals = max(0, int(np.ceil(-np.log10(self.resolution))) + 1)
        return float(np.clip(round(round(steps) * self.resolution, decimals), self.low, self.high))


@final
@dataclasses.dataclass(frozen=True)
class Choice:
    """One of a few values, each as likely."""

    values: tuple[Scalar, ...]
    unit: str

    def draw(self, rng: np.random.Generator) -> Scalar:
        return self.values[int(rng.integers(len(self.values)))]


@final
@dataclasses.dataclass(frozen=True)
class MinDistance:
    """‖x − y‖ ≥ d: two points of a task are at least some distance apart."""

    one: tuple[str, ...]
    """The parameters that are the coordinates of x."""
    other: tuple[str | float, ...]
    """Those of y: parameters, or numbers."""
    distance: float
    """d."""
    unit: str

    def holds(self, task: Task) -> bool:
        return _distance(task, self.one, self.other) >= self.distance


@final
@dataclasses.dataclass(frozen=True)
class MaxDistance:
    """‖x − y‖ ≤ d: two points of a task are at most some distance apart."""

    one: tuple[str, ...]
    """The parameters that are the coordinates of x."""
    other: tuple[str | float, ...]
    """Those of y: parameters, or numbers."""
    distance: float
    """d."""
    unit: str

    def holds(self, task: Task) -> bool:
        return _distance(task, self.one, self.other) <= self.distance


def _distance(task: Task, one: tuple[str, ...], other: tuple[str | float, ...]) -> float:
    x = [task.number(name) for name in one]
    y = [task.number(value) if isinstance(value, str) else value for value in other]
    return math.dist(x, y)


@final
@dataclasses.dataclass(frozen=True)
class LinearInequality:
    """Σᵢ wᵢ pᵢ ≥ b over some of a task's parameters p."""

    weights: tuple[tuple[str, float], ...]
    """(parameter, wᵢ) pairs."""
    minimum: float
    """b."""
    unit: str
    """Of the sum."""

    def holds(self, task: Task) -> bool:
        return sum(weight * task.number(name) for name, weight in self.weights) >= self.minimum


Range = Uniform | Choice
"""Where one parameter is drawn from."""


@runtime_checkable
class Constraint(Protocol):
    """What a task's parameters must fulfil together; tasks that do not are drawn again.

    A frozen dataclass whose fields, scalars and tuples of JSON, say what is asked for: they are part of the spec.
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    def holds(self, task: Task) -> bool:
        """Whether the task fulfils it."""
        ...
