"""Where a task's parameters are drawn from."""

import dataclasses
import math
from typing import final

import numpy as np

from metarl.tasks.task import Task


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

    values: tuple[float, ...]
    unit: str

    def draw(self, rng: np.random.Generator) -> float:
        return self.values[int(rng.integers(len(self.values)))]


@final
@dataclasses.dataclass(frozen=True)
class Apart:
    """Two points of a task that are at least some distance apart; tasks where they are not are drawn again."""

    one: tuple[str, ...]
    """The parameters that are the one point's coordinates."""
    other: tuple[str | float, ...]
    """The other point's: parameters, or numbers."""
    distance: float
    unit: str

    def holds(self, task: Task) -> bool:
        one = [task[name] for name in self.one]
        other = [task[x] if isinstance(x, str) else x for x in self.other]
        return math.dist(one, other) >= self.distance
