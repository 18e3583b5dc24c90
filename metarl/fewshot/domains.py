"""Tasks of every source of a data set, of as many classes and examples as Meta-Dataset's rule draws.

A data set whose classes stand in groups has a source for each group of a split: `image-domains` its six sources,
`clinc150` its domains. Every source has as many tasks as every other.
"""

import dataclasses
from typing import final

import numpy as np
import torch
from jaxtyping import Int

from metarl.evaluation.judge import EvaluationSettings, Measured, OnProgress, Points
from metarl.fewshot import embedding, judging
from metarl.fewshot.composition import CompositionRule
from metarl.fewshot.dataset import FewShotDataset
from metarl.fewshot.datasets.image_domains import source_of
from metarl.fewshot.examples import Examples
from metarl.fewshot.learner import FewShotLearner
from metarl.fewshot.sampler import targets
from metarl.learning.protocols import State
from metarl.tasks import Split, Task

TASKS_A_SOURCE = 600


@final
@dataclasses.dataclass(frozen=True, eq=False)
class ComposedTask:
    """One task, by the numbers of its examples."""

    support: Int[np.ndarray, " example"]
    support_targets: Int[np.ndarray, " example"]
    query: Int[np.ndarray, " query"]
    query_targets: Int[np.ndarray, " query"]


@final
@dataclasses.dataclass(frozen=True, eq=False)
class DomainBenchmark:
    """Judges learners by source.

    Raises:
        ValueError: the data set's classes stand in no groups, a test group has one class, or a class one example.
    """

    data: FewShotDataset
    rule: CompositionRule = CompositionRule()

    def __post_init__(self) -> None:
        if not self.data.groups:
            raise ValueError(
                f"{self.data.id} has no groups of classes that could be sources: give --data image-domains"
            )
        for pool in self.data.pools["test"]:
            group = self.data.groups[pool[0]]
            if len(pool) < 2:
                raise ValueError(f"{self.data.id}: the group {group!r} has one class, a task needs two")
            fewest = pool[int(np.argmin(self.data.counts[pool]))]
            if self.data.counts[fewest] < 2:
                raise ValueError(f"{self.data.id}: class {self.data.classes[fewest]!r} has one example, it needs two")

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

    def sources(self, split: Split) -> tuple[str, ...]:
        """The sources of a split, in alphabetical order of their groups."""
        return tuple(source_of(self.data.groups[pool[0]]) for pool in self.data.pools[split])

    def tasks(self, settings: EvaluationSettings) -> tuple[Task, ...]:
        """Tasks of the sources in turn, 600 of each if the settings do not say how many in all."""
        pools, sources = self.data.pools[settings.split], self.sources(settings.split)
        if not pools:
            raise ValueError(f"{self.id} has no {settings.split} classes")
        count = TASKS_A_SOURCE * len(pools) if settings.num_tasks is None else settings.num_tasks
        drawn: list[Task] = []
        for index in range(count):
            pool, rng = pools[index % len(pools)], np.random.default_rng([settings.seed, index + 1])
            classes = rng.choice(pool, self.rule.ways(len(pool), rng), replace=False)
            classes = np.sort(classes) if self.data.ordered else classes
            numbers = " ".join(map(str, classes))  # names of fifty classes are too long for a task's
            drawn.append(Task.of(sources[index % len(pools)], index=index, classes=numbers))
        return tuple(drawn)

    def points(self, learner: FewShotLearner, settings: EvaluationSettings) -> Points:
        """Before and after the support.

        Raises:
            ValueError: the learner has a fixed number of ways.
        """
        if not learner.training.any_ways:
            raise ValueError(
                "sources have tasks of any number of classes, and this learner has an output for each of its ways; "
                "prototypical, matching, siamese and transfer learners take any"
            )
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
        composed = [self.compose(task, settings.seed, trial) for task in tasks]
        needed = np.concatenate([part for task in composed for part in (task.support, task.query)])
        start, look_up, done = embedding.prepared(learner, state, mode, self.data, needed, on_progress)
        scores: list[list[judging.ClassifierScore]] = []
        for number, task in enumerate(composed):
            answers, ways = task.query_targets[None], int(task.query_targets.max()) + 1
            support = Examples(look_up(task.support[None]), targets(self.data, task.support_targets[None]))
            predictor = start(state, 1).with_batch_norm(mode)
            with torch.no_grad():
                by_point = judging.predictions(predictor, support, look_up(task.query[None]), points)
                scores.append(judging.scored(learner, by_point, points, ways, answers))
            on_progress(done + (1 - done) * (number + 1) / len(tasks))
        return judging.gathered(list(zip(*scores, strict=True)))

    def compose(self, task: Task, seed: int, trial: int = 0) -> ComposedTask:
        """The examples of a task: they follow from the task, the seed and the trial alone."""
        classes = np.array([int(number) for number in str(task["classes"]).split()])
        rng = np.random.default_rng([seed, trial + 1, int(task.number("index")) + 1])
        shots, queries = self.rule.compose(self.data.counts[classes], rng)
        support: list[Int[np.ndarray, " shot"]] = []
        query: list[Int[np.ndarray, " shot"]] = []
        for number, count in zip(classes, shots, strict=True):
            start = self.data.starts[number]
            members = rng.permutation(self.data.order[start : start + self.data.counts[number]])
            support.append(members[:count])
            query.append(members[count : count + queries])
        labels = np.arange(len(classes))
        first, last = rng.permutation(int(shots.sum())), rng.permutation(queries * len(classes))
        return ComposedTask(
            np.concatenate(support)[first],
            np.repeat(labels, shots)[first],
            np.concatenate(query)[last],
            np.repeat(labels, queries)[last],
        )
