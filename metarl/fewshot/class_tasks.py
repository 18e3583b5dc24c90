"""The tasks of an evaluation on a data set's classes: the same for every learner.

A task is its number and its classes by name. Its classes follow from the evaluation's seed and its number, its examples
from the trial too: from nothing that other tasks could change. Groups with fewer classes than a task has ways are left
out, where others have enough.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import final

import numpy as np
from jaxtyping import Int

from metarl.evaluation.judge import EvaluationSettings
from metarl.fewshot.dataset import FewShotDataset
from metarl.fewshot.sampler import Draw, EpisodeSampler, EpisodeShape, draw_examples
from metarl.tasks import Split, Task

_NUM_TASKS: Mapping[Split, int] = {"train": 1000, "validation": 200, "test": 1000}
_SEPARATOR = " | "  # between the names of a task's classes


@final
@dataclasses.dataclass(frozen=True, eq=False)
class ClassTasks:
    """Tasks of one size.

    Raises:
        ValueError: validation or test classes are too few, or have too few examples.
    """

    data: FewShotDataset
    ways: int
    shots: int
    """Support examples of each class."""
    queries: int
    """Query examples of each class; there may be none."""

    def __post_init__(self) -> None:
        for split in ("validation", "test"):
            if self.data.splits[split]:  # data that are only tested need no classes for validation
                self.check(split)
        if unusable := [name for name in self.data.classes if _SEPARATOR in name]:
            raise ValueError(
                f"{self.data.id}: rename class {unusable[0]!r}; {_SEPARATOR!r} stands between the names of a task"
            )

    def check(self, split: Split) -> None:
        """Raises ValueError where the split has too few classes or a class that tasks may have too few examples."""
        # Only the sum counts here, and a shape has at least one query.
        shape = EpisodeShape(self.ways, self.shots if self.queries else self.shots - 1, self.queries or 1)
        data, pools = self.data, self.pools(split)
        if len(pools) < len(data.pools[split]):
            kept = tuple(int(number) for pool in pools for number in pool)
            data = dataclasses.replace(data, splits={**data.splits, split: kept})
        EpisodeSampler(data, shape).check(split)

    def pools(self, split: Split) -> tuple[Int[np.ndarray, " class"], ...]:
        """The classes that a task may have together: of each group with enough; of the largest, where none has."""
        pools = self.data.pools[split]
        enough = tuple(pool for pool in pools if len(pool) >= self.ways)
        return enough or tuple(sorted(pools, key=len)[-1:])

    def left_out(self, split: Split) -> tuple[str, ...]:
        """The groups of the split that have fewer classes than a task."""
        return tuple(self.data.groups[pool[0]] for pool in self.data.pools[split] if len(pool) < self.ways)

    def tasks(self, settings: EvaluationSettings, family: str) -> tuple[Task, ...]:
        """Tasks of the split: 1000, or 200 for validation, if the settings do not say."""
        if not self.data.splits[settings.split]:
            self.check(settings.split)
        count = _NUM_TASKS[settings.split] if settings.num_tasks is None else settings.num_tasks
        pools, drawn = self.pools(settings.split), list[Task]()
        for index in range(count):
            rng = np.random.default_rng([settings.seed, index + 1])
            pool = pools[int(rng.integers(len(pools))) if len(pools) > 1 else 0]
            classes = rng.choice(pool, self.ways, replace=False)  # in random order: the order is the labels
            classes = np.sort(classes) if self.data.ordered else classes
            names = _SEPARATOR.join(self.data.classes[number] for number in classes)
            drawn.append(Task.of(family, index=index, classes=names))
        return tuple(drawn)

    def draw(self, tasks: tuple[Task, ...], seed: int, trial: int) -> Draw:
        """The examples of every task, by number.

        Raises:
            ValueError: a task names classes that the data set does not have, or other than `ways` of them.
        """
        draws: list[Draw] = []
        for task in tasks:
            rng = np.random.default_rng([seed, trial + 1, int(task.number("index")) + 1])
            draws.append(draw_examples(self.data, self._classes_of(task), self.shots, self.queries, rng))
        return Draw(*(np.concatenate(parts) for parts in zip(*draws, strict=True)))

    def _classes_of(self, task: Task) -> Int[np.ndarray, "1 way"]:
        """The numbers of a task's classes; their places are their labels."""
        names = str(task["classes"]).split(_SEPARATOR)
        if unknown := [name for name in names if name not in self._numbers]:
            raise ValueError(f"{self.data.id} has no class {unknown[0]!r}, which {task} names")
        if len(names) != self.ways:
            raise ValueError(f"{task} has {len(names)} classes; tasks have {self.ways} ways here")
        return np.array([[self._numbers[name] for name in names]])

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        """Of the classes, by name."""
        return {name: number for number, name in enumerate(self.data.classes)}
