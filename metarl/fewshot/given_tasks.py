"""Accuracy on tasks whose supports and queries are published, each task once and whole.

Queries need not be balanced, so that an accuracy says little by itself: the mean of the classes' own accuracies stands
beside it (`balanced_accuracy`), for which answering always the same is worth 1 / ways.
"""

import dataclasses
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.evaluation.judge import EvaluationSettings, Measured, OnProgress, Points
from metarl.fewshot import judging
from metarl.fewshot.dataset import FewShotDataset
from metarl.fewshot.examples import Examples
from metarl.fewshot.given import GivenTask
from metarl.fewshot.learner import FewShotLearner
from metarl.fewshot.sampler import inputs, targets
from metarl.learning.protocols import State
from metarl.tasks import Task

BALANCED = "balanced_accuracy"


@final
@dataclasses.dataclass(frozen=True)
class GivenTasks:
    """Judges the published test tasks of a data set.

    Raises:
        ValueError: it has none.
    """

    data: FewShotDataset

    def __post_init__(self) -> None:
        if not self.data.given:
            raise ValueError(f"{self.data.id} has no published tasks")

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
        """All of them: test tasks only."""
        if settings.split != "test" or settings.num_tasks is not None:
            raise ValueError(f"{self.data.id} publishes {len(self.data.given)} test tasks, and they are taken whole")
        return tuple(Task.of("published", name=task.name) for task in self.data.given)

    def points(self, learner: FewShotLearner, settings: EvaluationSettings) -> Points:
        return judging.points(learner, settings)

    def measure(
        self,
        learner: FewShotLearner,
        state: State,
        tasks: tuple[Task, ...],
        settings: EvaluationSettings,
        trial: int,
        on_progress: OnProgress,
    ) -> Measured:
        points, mode = self.points(learner, settings), judging.batch_norm_of(learner, settings)
        by_name = {task.name: task for task in self.data.given}
        scores: list[list[judging.ClassifierScore]] = [[] for _ in points.adaptations]
        balanced: list[list[float]] = [[] for _ in points.adaptations]
        for number, task in enumerate(tasks):
            given = by_name[str(task["name"])]
            ways = len(given.classes)
            support = Examples(*self._examples(given, given.support))
            query, labels = self._examples(given, given.query)
            right = labels.cpu().numpy()
            predictor = learner.start(state, 1).with_batch_norm(mode)
            for place, logits in enumerate(judging.predictions(predictor, support, query, points)):
                logits = judging.of_all_ways(learner, logits, ways, points.adaptations[place])
                scores[place].append(judging.score(logits, right))
                balanced[place].append(balanced_accuracy(logits[0], right[0]))
            on_progress((number + 1) / len(tasks))
        found = judging.gathered(scores)
        return dataclasses.replace(found, metrics={**found.metrics, BALANCED: np.array(balanced)})

    def _examples(self, task: GivenTask, numbers: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """The examples of these numbers and their labels, as those of one task."""
        chosen = np.array([numbers])
        places = {number: place for place, number in enumerate(task.classes)}
        labels = np.array([[places[int(self.data.labels[number])] for number in numbers]])
        return inputs(self.data, chosen), targets(self.data, labels)


def balanced_accuracy(logits: Float[Tensor, "query way"], labels: Int[np.ndarray, " query"]) -> float:
    """The mean over the classes that there are queries of of the share of a class's queries that are right."""
    right = logits.argmax(-1).cpu() == torch.from_numpy(labels)
    return float(np.mean([right[torch.from_numpy(labels == way)].float().mean() for way in np.unique(labels)]))
