"""What few-shot learners train on and are judged by: tasks of a data set's classes, or sinusoids."""

import dataclasses
import functools
import math
from typing import NamedTuple, Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl import checks
from metarl.evaluation.judge import EvaluationSettings, Judge, Measured, OnProgress, Points
from metarl.fewshot import embedding, judging, losses
from metarl.fewshot.answers import AnsweredTask
from metarl.fewshot.class_tasks import ClassTasks
from metarl.fewshot.dataset import FewShotDataset
from metarl.fewshot.episode_options import EpisodeOptions, chosen, chosen_range
from metarl.fewshot.examples import Batch, Examples, TaskRecord, TrainingTasks
from metarl.fewshot.learner import FewShotLearner
from metarl.fewshot.sampler import EpisodeSampler, bounds, inputs, targets
from metarl.fewshot.sinusoid import Sinusoids
from metarl.fewshot.sources import ClassSource, EpisodeSource, SinusoidSource
from metarl.learning.protocols import ExperienceSource, Learner, State
from metarl.tasks import Task, content_hash

_QUERIES = 100  # of each sinusoid
_REGRESSION_STEPS = (1, 5, 10)  # gradient steps that a regression is measured after, beside none and the learner's own


class Size(NamedTuple):
    """How large evaluated tasks are."""

    ways: int | None
    """None for a regression, which has no classes."""
    shots: int
    queries: int | None = None
    """Of each class; None: as many as otherwise."""


@runtime_checkable
class Benchmark(Judge[FewShotLearner], Protocol):
    """Tasks to train on, and how well a learner does on those held out."""

    @property
    def record(self) -> TaskRecord:
        """What a run remembers of the tasks; `record.signature` is what a learner is built for."""
        ...

    def source(self, training: TrainingTasks) -> ExperienceSource[Learner[Batch, object], Batch]:
        """Meta-batches of training, for a learner that is best trained on such tasks.

        Raises:
            ValueError: there are too few classes or examples, or options that the learner cannot honour.
        """
        ...

    def resized(self, learner: FewShotLearner, size: Size) -> "Benchmark":
        """The same with evaluated tasks of another size, for a learner of this one's.

        Raises:
            ValueError: the learner cannot be asked for them, or there are too few classes or examples.
        """
        ...


@final
@dataclasses.dataclass(frozen=True)
class ClassificationBenchmark:
    """N-way K-shot tasks of a data set's classes.

    Raises:
        ValueError: validation or test classes are too few, or have too few examples.
    """

    data: FewShotDataset
    options: EpisodeOptions = EpisodeOptions()

    def __post_init__(self) -> None:
        _ = self._tasks  # which checks the data set

    @property
    def id(self) -> str:
        return self.data.id

    @property
    def hash(self) -> str:
        """Of the data set; how large tasks are is told by each task."""
        return self.data.hash

    @property
    def held_out(self) -> bool:
        return True

    @property
    def score(self) -> str:
        return "accuracy"

    @property
    def ways(self) -> int:
        """Classes of an evaluated task."""
        return bounds(self.options.evaluated.ways)[1]

    @property
    def shots(self) -> int:
        """Examples of each class in its support."""
        return bounds(self.options.evaluated.shots)[1]

    @property
    def record(self) -> TaskRecord:
        return TaskRecord(self.data.signature(self.ways, self.shots), self.data.mean, self.data.std)

    @property
    def left_out(self) -> tuple[str, ...]:
        """The groups that no task of validation or test is of: they have fewer classes than it."""
        return (*self._tasks.left_out("validation"), *self._tasks.left_out("test"))

    def source(self, training: TrainingTasks) -> EpisodeSource | ClassSource:
        given = self.options
        for split in ("validation", "test"):
            self._tasks.check(split)
        if training.by_class:
            if given.train_ways or given.train_shots or given.train_queries is not None:
                raise ValueError("this learner is trained on examples, not on tasks: leave --train-... out")
            return ClassSource(self.data, training.queries or given.evaluated.queries)
        if self.data.groups and training.ways is not None:  # as many as a group has, where the learner would like more
            training = dataclasses.replace(training, ways=min(training.ways, *map(len, self.data.pools["train"])))
        shape = given.trained(training)
        EpisodeSampler(self.data, shape).check("train")
        return EpisodeSource(self.data, shape)

    def resized(self, learner: FewShotLearner, size: Size) -> "ClassificationBenchmark":
        ways = self.ways if size.ways is None else size.ways
        if ways != self.ways and not learner.training.any_ways:
            raise ValueError(
                f"this learner has an output for each of its {self.ways} ways, and cannot tell {ways} apart"
            )
        queries = self.options.queries if size.queries is None else size.queries
        options = dataclasses.replace(self.options, ways=ways, shots=size.shots, queries=queries)
        return dataclasses.replace(self, options=options)

    def tasks(self, settings: EvaluationSettings) -> tuple[Task, ...]:
        """So many tasks of the split's classes; 1000, or 200 for validation, if the settings do not say."""
        return self._tasks.tasks(settings, f"{self.ways}-way {self.shots}-shot")

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
        draw = self._tasks.draw(tasks, settings.seed, trial)
        needed = np.concatenate([draw.support.reshape(-1), draw.query.reshape(-1)])
        start, look_up, done = embedding.prepared(learner, state, mode, self.data, needed, on_progress)
        size = self._tasks_at_once(look_up(draw.support[:1]))
        scores: list[list[judging.ClassifierScore]] = []
        for number, chunk in enumerate(judging.chunks(len(tasks), size)):
            kept = min(size, len(tasks) - number * size)
            support = Examples(look_up(draw.support[chunk]), targets(self.data, draw.support_targets[chunk]))
            predictor = start(state, size).with_batch_norm(mode)
            by_point = judging.predictions(predictor, support, look_up(draw.query[chunk]), points)
            scores.append(judging.scored(learner, by_point, points, self.ways, draw.query_targets[chunk[:kept]]))
            on_progress(done + (1 - done) * (number * size + kept) / len(tasks))
        return judging.gathered(list(zip(*scores, strict=True)))

    def examples(self, task: Task, seed: int, trial: int = 0) -> Batch:
        """The examples of a task, as an evaluation with this seed has them."""
        draw, data = self._tasks.draw((task,), seed, trial), self.data
        support = Examples(inputs(data, draw.support), targets(data, draw.support_targets))
        return Batch(support, Examples(inputs(data, draw.query), targets(data, draw.query_targets)))

    def answered(
        self, learner: FewShotLearner, state: State, settings: EvaluationSettings, queries: int = 10
    ) -> tuple[AnsweredTask, ...]:
        """An evaluation's first tasks of images with the learner's answers to some queries, to be looked at."""
        tasks, mode = self.tasks(settings), judging.batch_norm_of(learner, settings)
        draw = self._tasks.draw(tasks, settings.seed, trial=0)
        support = Examples(inputs(self.data, draw.support), targets(self.data, draw.support_targets))
        chosen = np.linspace(0, draw.query.shape[1] - 1, min(queries, draw.query.shape[1])).round().astype(int)
        predictor = learner.start(state, len(tasks)).with_batch_norm(mode)
        *_, logits = judging.predictions(
            predictor, support, inputs(self.data, draw.query[:, chosen]), self.points(learner, settings)
        )
        probabilities = torch.softmax(logits.detach().double(), -1).cpu().numpy()
        pixels = self.data.examples.cpu().numpy()
        return tuple(
            AnsweredTask(
                title=f"{settings.split} task {int(task.number('index'))}",
                support=pixels[draw.support[number]],
                support_targets=draw.support_targets[number],
                queries=pixels[draw.query[number, chosen]],
                query_targets=draw.query_targets[number, chosen],
                probabilities=probabilities[number],
            )
            for number, task in enumerate(tasks)
        )

    @functools.cached_property
    def _tasks(self) -> ClassTasks:
        return ClassTasks(self.data, self.ways, self.shots, self.options.evaluated.queries)

    def _tasks_at_once(self, support: Tensor) -> int:
        """By what is looked up of the support of one task."""
        examples = self.ways * (self.shots + self.options.evaluated.queries)
        return judging.chunk_size(examples * math.prod(support.shape[2:]))


@final
@dataclasses.dataclass(frozen=True)
class RegressionBenchmark:
    """Sinusoids: the frozen list of a split, with examples that follow from the evaluation's seed, trial and task."""

    options: EpisodeOptions = EpisodeOptions()
    device: torch.device | str = "cpu"
    data: Sinusoids = dataclasses.field(default_factory=Sinusoids)

    def __post_init__(self) -> None:
        if self.options.ways is not None or self.options.train_ways:
            raise ValueError(f"{self.id} has no classes: leave --ways and --train-ways out")
        checks.count(shots=self.shots)
        self.source(TrainingTasks())

    @property
    def id(self) -> str:
        return self.data.id

    @property
    def hash(self) -> str:
        return self.data.hash

    @property
    def held_out(self) -> bool:
        return self.data.held_out

    @property
    def score(self) -> str:
        return "error"

    @property
    def shots(self) -> int:
        """Examples of a support."""
        return chosen(self.options.shots, 10)

    @property
    def record(self) -> TaskRecord:
        return TaskRecord(self.data.signature(self.shots))

    def source(self, training: TrainingTasks) -> SinusoidSource:
        queries = chosen(self.options.train_queries, chosen(self.options.queries, chosen(training.queries, 10)))
        return SinusoidSource(self.data, chosen_range(self.options.train_shots, self.shots), queries, self.device)

    def resized(self, learner: FewShotLearner, size: Size) -> "RegressionBenchmark":
        if size.ways is not None or size.queries is not None:
            raise ValueError(f"{self.id} has no classes: another size is another number of shots alone")
        return dataclasses.replace(self, options=dataclasses.replace(self.options, shots=size.shots))

    def tasks(self, settings: EvaluationSettings) -> tuple[Task, ...]:
        listed = self.data.tasks(settings.split)
        if settings.num_tasks is not None and settings.num_tasks > len(listed):
            raise ValueError(f"{self.id} has {len(listed)} {settings.split} tasks; {settings.num_tasks} were asked for")
        return listed[: settings.num_tasks]

    def points(self, learner: FewShotLearner, settings: EvaluationSettings) -> Points:
        return judging.points(learner, settings, _REGRESSION_STEPS)

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
        size = judging.chunk_size(self.shots + _QUERIES)
        errors: list[Float[np.ndarray, "point task"]] = []
        for number, chunk in enumerate(judging.chunks(len(tasks), size)):
            kept = min(size, len(tasks) - number * size)
            support, query = self._draw([tasks[i] for i in chunk], settings.seed, trial)
            predictor = learner.start(state, size).with_batch_norm(mode)
            by_point = judging.predictions(predictor, support, query.inputs, points)
            errors.append(np.stack([_errors(values, query)[:kept] for values in by_point]))
            on_progress((number * size + kept) / len(tasks))
        return Measured({"error": np.concatenate(errors, axis=1)})

    def _draw(self, tasks: list[Task], seed: int, trial: int) -> Batch:
        """Supports and queries, each task's by its own generator."""
        parts: list[Batch] = []
        for task in tasks:
            rng = np.random.default_rng([seed, trial + 1, int(content_hash(task.to_json()), 16)])
            parts.append(Batch(*(self.data.examples((task,), count, rng) for count in (self.shots, _QUERIES))))
        support, query = (
            Examples(*(torch.cat(tensors) for tensors in zip(*examples, strict=True)))
            for examples in zip(*parts, strict=True)
        )
        return Batch(support.to(self.device), query.to(self.device))


def _errors(predicted: Float[Tensor, "task query output"], query: Examples) -> Float[np.ndarray, " task"]:
    """Each task's mean squared error."""
    return losses.per_task_loss(predicted.detach(), query).cpu().numpy().astype(np.float64)
