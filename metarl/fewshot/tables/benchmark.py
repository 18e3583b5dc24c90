"""What learners of tables train on and are judged by: tasks of every held-out table, of as many classes as it has."""

import dataclasses
from typing import final

import numpy as np
import torch
from jaxtyping import Int

from metarl.evaluation.judge import EvaluationSettings, Measured, OnProgress, Points
from metarl.fewshot import judging
from metarl.fewshot.benchmarks import Size
from metarl.fewshot.episode_options import EpisodeOptions, chosen, chosen_range
from metarl.fewshot.examples import Batch, TaskRecord, TaskSignature, TrainingTasks
from metarl.fewshot.learner import FewShotLearner
from metarl.fewshot.sampler import bounds
from metarl.fewshot.tables.collection import TableCollection
from metarl.fewshot.tables.table import Table
from metarl.fewshot.tables.tasks import MOST_WAYS, TableSource, draw_rows, examples_of, stacked, usable_classes
from metarl.learning.protocols import State
from metarl.tasks import SPLITS, Split, Task

_FEWEST_QUERIES = 5  # of each class; a class with fewer left is in no task
_TASKS_A_TABLE: dict[Split, int] = {"train": 30, "validation": 20, "test": 30}
_SEPARATOR = " | "


@final
@dataclasses.dataclass(frozen=True, eq=False)
class TableBenchmark:
    """Tasks of a collection's tables.

    A task has as many classes as its table has with enough rows, at most `ways`, and as many query rows of each class
    as the table allows, at most `queries`: accuracies weigh all classes alike.

    Raises:
        ValueError: a split has no table with two classes of enough rows.
    """

    collection: TableCollection
    options: EpisodeOptions = EpisodeOptions()
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        for split in SPLITS:
            if not self.tables(split):
                raise ValueError(
                    f"{self.id}: no {split} table has two classes of {self.shots + _FEWEST_QUERIES} rows "
                    f"({self.shots} support + {_FEWEST_QUERIES} query): lower --shots"
                )

    @property
    def id(self) -> str:
        return self.collection.id

    @property
    def hash(self) -> str:
        return self.collection.hash

    @property
    def held_out(self) -> bool:
        return True

    @property
    def score(self) -> str:
        return "accuracy"

    @property
    def ways(self) -> int:
        """The most classes of a task."""
        return chosen(self.options.ways, MOST_WAYS)

    @property
    def shots(self) -> int:
        """Support rows of each class."""
        return chosen(self.options.shots, 5)

    @property
    def record(self) -> TaskRecord:
        classes = max(len(self.collection.tables[number].classes) for number in self.collection.splits["train"])
        shape = (self.collection.width,)
        return TaskRecord(TaskSignature("classification", shape, self.ways, self.shots, self.ways, classes))

    def tables(self, split: Split) -> list[Table]:
        """Those of a split that have two classes of enough rows."""
        tables = [self.collection.tables[number] for number in self.collection.splits[split]]
        return [table for table in tables if len(self._usable(table)) >= 2]

    def source(self, training: TrainingTasks) -> TableSource:
        if not training.any_ways:
            raise ValueError(f"{self.id} has tasks of 2 to {self.ways} classes; this learner has a fixed number")
        if training.by_class:
            raise ValueError(f"{self.id} has no classes in common that this learner could be trained on")
        shots = chosen_range(self.options.train_shots, (1, max(10, self.shots)))
        queries = chosen(self.options.train_queries, _FEWEST_QUERIES)
        tables = [self.collection.tables[number] for number in self.collection.splits["train"]]
        most = max(len(usable_classes(table, bounds(shots)[1] + queries)) for table in tables)
        ways = chosen_range(self.options.train_ways, (2, max(2, min(self.ways, most))))
        return TableSource(self.collection, ways, shots, queries, self.device)

    def resized(self, learner: FewShotLearner, size: Size) -> "TableBenchmark":
        queries = self.options.queries if size.queries is None else size.queries
        options = dataclasses.replace(self.options, ways=size.ways, shots=size.shots, queries=queries)
        return dataclasses.replace(self, options=options)

    def tasks(self, settings: EvaluationSettings) -> tuple[Task, ...]:
        """Tasks of the tables in turn: 30 of each, or 20 for validation, if the settings do not say how many in all."""
        tables = self.tables(settings.split)
        count = len(tables) * _TASKS_A_TABLE[settings.split] if settings.num_tasks is None else settings.num_tasks
        found: list[Task] = []
        for index in range(count):
            table, rng = tables[index % len(tables)], np.random.default_rng([settings.seed, index + 1])
            classes = rng.permutation(self._usable(table))[: self.ways]
            names = _SEPARATOR.join(table.classes[number] for number in classes)
            found.append(Task.of(table.name, index=index, classes=names, columns=len(table.columns)))
        return tuple(found)

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
        scores: list[list[judging.ClassifierScore]] = []
        for number, task in enumerate(tasks):
            batch = self.examples(task, settings.seed, trial)
            predictor = learner.start(state, 1).with_batch_norm(mode)
            answers = batch.query.targets.cpu().numpy()
            ways = int(answers.max()) + 1
            by_point = judging.predictions(predictor, batch.support, batch.query.inputs, points)
            scores.append(judging.scored(learner, by_point, points, ways, answers))
            on_progress((number + 1) / len(tasks))
        return judging.gathered(list(zip(*scores, strict=True)))

    def examples(self, task: Task, seed: int, trial: int = 0) -> Batch:
        """The rows of a task.

        Raises:
            ValueError: the task is of a table that is not here.
        """
        tables = {table.name: table for table in self.collection.tables}
        if task.family not in tables:
            raise ValueError(f"{self.id} has no table {task.family!r}, which {task} names")
        table = tables[task.family]
        numbers = {name: number for number, name in enumerate(table.classes)}
        classes = np.array([numbers[name] for name in str(task["classes"]).split(_SEPARATOR)])
        rng = np.random.default_rng([seed, trial + 1, int(task.number("index")) + 1])
        draw = draw_rows(table, classes, self.shots, self._queries(table, classes), rng)
        support, query = stacked([examples_of(table, draw, self.collection.width)])
        return Batch(support.to(self.device), query.to(self.device))

    def _usable(self, table: Table) -> Int[np.ndarray, " class"]:
        return usable_classes(table, self.shots + min(_FEWEST_QUERIES, self._asked))

    @property
    def _asked(self) -> int:
        return bounds(chosen(self.options.queries, 15))[1]

    def _queries(self, table: Table, classes: Int[np.ndarray, " way"]) -> int:
        return min(self._asked, min(table.counts[number] for number in classes) - self.shots)
