"""Accuracy at the first, second, ... example of a class, of learners that learn in sequence (Santoro et al. 2016, table
1): the adaptation curve in the unit "example a class".

A task's examples come one at a time in random order, and each answer is told after it was asked for.
"""

import dataclasses
import functools
import math
from typing import final

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from metarl.evaluation.judge import EvaluationSettings, Measured, OnProgress, Points
from metarl.fewshot import judging
from metarl.fewshot.class_tasks import ClassTasks
from metarl.fewshot.dataset import FewShotDataset
from metarl.fewshot.examples import Examples
from metarl.fewshot.learner import SequenceLearner, need_batch_norm
from metarl.fewshot.sampler import inputs, targets
from metarl.learning.protocols import State
from metarl.tasks import Task


@final
@dataclasses.dataclass(frozen=True)
class InstanceAccuracy:
    """Judges sequences of a data set's classes.

    Raises:
        ValueError: validation or test classes are too few, or have too few examples.
    """

    data: FewShotDataset
    ways: int = 5
    """Classes in a sequence."""
    instances: int = 10
    """Examples of each."""

    def __post_init__(self) -> None:
        if self.instances < 2:
            raise ValueError(f"instances must be at least 2, got {self.instances}: the first one can only be guessed")
        _ = self._tasks  # which checks the data set

    @functools.cached_property
    def _tasks(self) -> ClassTasks:
        return ClassTasks(self.data, self.ways, self.instances, 0)

    @property
    def id(self) -> str:
        return self.data.id

    @property
    def hash(self) -> str:
        return self.data.hash

    @property
    def held_out(self) -> bool:
        return True

    @property
    def score(self) -> str:
        return "accuracy"

    def tasks(self, settings: EvaluationSettings) -> tuple[Task, ...]:
        """Of the same classes as those of the data set's other tasks with so many ways."""
        return self._tasks.tasks(settings, f"{self.ways}-way sequence of {self.instances} a class")

    def points(self, learner: SequenceLearner, settings: EvaluationSettings) -> Points:
        """After no example of a class, after one, …: at the first example of a class, at the second, …"""
        judging.need_no_episodes(settings)
        own = learner.batch_norms[0]
        mode = own if settings.batch_norm is None else need_batch_norm(settings.batch_norm, (own,))
        last = self.instances - 1 if settings.num_adaptations is None else settings.num_adaptations
        if last >= self.instances:
            raise ValueError(f"a sequence has {self.instances} examples a class, so none comes after {last}")
        counts = tuple(range(last + 1))
        return Points(counts, counts, "example a class", batch_norm=None if mode == "none" else mode)

    def measure(
        self,
        learner: SequenceLearner,
        state: State,
        tasks: tuple[Task, ...],
        settings: EvaluationSettings,
        trial: int,
        on_progress: OnProgress,
    ) -> Measured:
        num_points = len(self.points(learner, settings).adaptations)
        size = judging.chunk_size(self.ways * self.instances * math.prod(self.data.shape))
        draw = self._tasks.draw(tasks, settings.seed, trial)
        scores: list[list[judging.ClassifierScore]] = [[] for _ in range(num_points)]
        for number, chunk in enumerate(judging.chunks(len(tasks), size)):
            kept = min(size, len(tasks) - number * size)
            sequence = Examples(inputs(self.data, draw.support[chunk]), targets(self.data, draw.support_targets[chunk]))
            logits = by_instance(learner.predict_in_turn(state, sequence), draw.support_targets[chunk])
            classes = np.broadcast_to(np.arange(self.ways), (kept, self.ways))
            for instance, point in enumerate(scores):
                point.append(judging.score(logits[:kept, :, instance], classes))
            on_progress((number * size + kept) / len(tasks))
        return judging.gathered(scores)


def by_instance(
    logits: Float[Tensor, "task example way"], targets: Int[np.ndarray, "task example"]
) -> Float[Tensor, "task class instance way"]:
    """The logits of each class's first example, second, … of as many examples of each class."""
    tasks, ways = len(targets), int(targets.max()) + 1
    # A stable sort by class keeps the order within one: the examples of a class in turn.
    order = np.argsort(targets, axis=1, kind="stable")
    return logits[np.arange(tasks)[:, None], order].unflatten(1, (ways, -1))
