"""What a few-shot program trains on and how it judges: episodes of a data set, or sinusoids."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, final, runtime_checkable

import numpy as np
from jaxtyping import Float

from metarl import checks
from metarl.fewshot import evaluation, regression
from metarl.fewshot.dataset import FewShotDataset
from metarl.fewshot.episodes import Episodes, chosen, chosen_range
from metarl.fewshot.evaluation import Scores, Turns
from metarl.fewshot.examples import Batch, Examples, TaskSignature, TrainingTasks
from metarl.fewshot.learner import FewShotLearner
from metarl.fewshot.regression import Regressor
from metarl.fewshot.sampler import ClassSampler, EpisodeSampler, EpisodeShape, bounds
from metarl.fewshot.sinusoid import Sinusoids, SinusoidSource
from metarl.learning.protocols import Figures, State
from metarl.learning.training import BatchSource
from metarl.tasks import Json, Split

TURNS = 10
"""Examples of each class in the sequences that a `SequenceLearner` is judged on (Santoro et al. 2016, table 1)."""
OnProgress = Callable[[float], object]
"""Told which share of the work is done."""
_SINUSOID_SHOTS, _INNER_STEPS = (5, 10), (0, 1, 5, 10)


def ignore(share: float) -> None:
    """For who does not want to be told."""


class Size(NamedTuple):
    """How large evaluated tasks are."""

    ways: int
    shots: int
    queries: int | None = None
    """Of each class; None: as many as otherwise."""


@runtime_checkable
class Report(Protocol):
    """What an evaluation found."""

    def table(self) -> str:
        """For people."""
        ...

    def to_json(self) -> dict[str, Json]:
        """The figures and the raw values behind them."""
        ...


@runtime_checkable
class Problem(Protocol):
    """Tasks to train on, and how well a learner does on those held out."""

    @property
    def id(self) -> str: ...

    @property
    def hash(self) -> str:
        """The content hash of everything that decides what a figure means."""
        ...

    @property
    def signature(self) -> TaskSignature: ...

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation by which inputs are normalised; empty where they are not."""
        ...

    def source(self, training: TrainingTasks) -> BatchSource[Batch]:
        """Meta-batches of training, for a learner that is best trained on such tasks.

        Raises:
            ValueError: there are too few classes or examples, or options that the learner cannot honour.
        """
        ...

    def validate(self, learner: FewShotLearner, state: State) -> Figures:
        """Figures on validation tasks; `validation` is the score, higher is better."""
        ...

    def evaluate(
        self, learner: FewShotLearner, state: State, split: Split, on_progress: OnProgress = ignore
    ) -> Report: ...

    def resized(self, learner: FewShotLearner, size: Size) -> "Problem":
        """The same with evaluated tasks of another size, for a learner of this one's.

        Raises:
            ValueError: the learner cannot be asked for them, or there are too few classes or examples.
        """
        ...


@final
@dataclasses.dataclass(frozen=True)
class Classification:
    """Episodes of a data set."""

    data: FewShotDataset
    episodes: Episodes
    validation_tasks: int = 200
    """Tasks that a validation draws."""
    tasks: int = evaluation.TASKS
    """Tasks that an evaluation draws."""

    def __post_init__(self) -> None:
        checks.at_least(2, validation_tasks=self.validation_tasks, tasks=self.tasks)
        self.held_out.check("validation")
        self.held_out.check("test")

    @property
    def id(self) -> str:
        return self.data.id

    @property
    def hash(self) -> str:
        return self.data.hash

    @property
    def signature(self) -> TaskSignature:
        shape = self.episodes.evaluated
        return self.data.signature(bounds(shape.ways)[1], bounds(shape.shots)[1])

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return self.data.mean, self.data.std

    def source(self, training: TrainingTasks) -> EpisodeSampler | ClassSampler:
        given = self.episodes
        if training.by_class:
            if given.train_ways or given.train_shots or given.train_queries is not None:
                raise ValueError("this learner is trained on examples, not on tasks: leave --train-... out")
            return ClassSampler(self.data, training.queries or self.episodes.evaluated.queries)
        sampler = EpisodeSampler(self.data, given.trained(training))
        sampler.check("train")
        return sampler

    @property
    def held_out(self) -> EpisodeSampler:
        """Draws the tasks of validation and test."""
        return EpisodeSampler(self.data, self.episodes.evaluated)

    def validate(self, learner: FewShotLearner, state: State) -> Figures:
        found = evaluation.evaluate(learner, state, self.held_out, "validation", tasks=self.validation_tasks)
        return {"validation": found.accuracy.value, "validation_loss": found.loss.value}

    def evaluate(self, learner: FewShotLearner, state: State, split: Split, on_progress: OnProgress = ignore) -> Report:
        sampler, found = self.held_out, list[Scores]()
        total = self.tasks * len(learner.batch_norms)
        for before, kind in enumerate(learner.batch_norms):
            scores = evaluation.evaluate(
                learner,
                state,
                sampler,
                split,
                tasks=self.tasks,
                batch_norm=kind,
                on_progress=lambda done, before=before: on_progress((before * self.tasks + done) / total),
            )
            found.append(scores)
        turns = None
        if isinstance(learner, evaluation.SequenceLearner):
            fewest = int(self.data.counts[list(self.data.splits[split])].min())
            longer = EpisodeSampler(self.data, EpisodeShape(sampler.shape.ways, min(TURNS, fewest - 1), 1))
            turns = evaluation.evaluate_in_turn(learner, state, longer, split, tasks=self.tasks)
        return Accuracies(self.data.describe(), split, sampler.shape, tuple(found), turns)

    def resized(self, learner: FewShotLearner, size: Size) -> "Classification":
        trained, ways = self.signature.ways, size.ways
        if ways != trained and not learner.training.any_ways:
            raise ValueError(f"this learner has an output for each of its {trained} ways, and cannot tell {ways} apart")
        queries = self.episodes.queries if size.queries is None else size.queries
        return dataclasses.replace(
            self, episodes=dataclasses.replace(self.episodes, ways=ways, shots=size.shots, queries=queries)
        )


@final
@dataclasses.dataclass(frozen=True)
class Accuracies:
    """How often a classifier is right, by the kind of batch normalisation."""

    data: str
    """The data set in words."""
    split: Split
    shape: EpisodeShape
    scores: tuple[Scores, ...]
    turns: Turns | None
    """By the turn of an example, of learners that learn in sequence."""

    def table(self) -> str:
        shape = self.shape
        lines = [
            self.data,
            f"{self.split}: {shape.ways}-way {shape.shots}-shot, {shape.queries} queries a class",
            evaluation.table(self.scores),
        ]
        return "\n".join([*lines, "", evaluation.turns_table(self.turns)] if self.turns else lines)

    def to_json(self) -> dict[str, Json]:
        shape = self.shape
        written: dict[str, Json] = {
            "figure": "accuracy",
            "data": self.data,
            "split": self.split,
            "ways": bounds(shape.ways)[1],
            "shots": bounds(shape.shots)[1],
            "queries": shape.queries,
            "tasks": len(self.scores[0].accuracies),
            "seed": evaluation.SEED,
            "batch_norms": {each.batch_norm: each.to_json() for each in self.scores},
        }
        if self.turns:
            written["by_turn"] = self.turns.to_json()
        return written


@final
@dataclasses.dataclass(frozen=True)
class SinusoidRegression:
    """Sinusoids."""

    episodes: Episodes
    device: str = "cpu"
    validation_tasks: int | None = None
    """The first tasks of the validation list; all if not given."""
    tasks: int | None = None
    """The first tasks of an evaluation's list; all if not given."""
    data: Sinusoids = dataclasses.field(default_factory=Sinusoids)

    def __post_init__(self) -> None:
        if self.episodes.ways is not None or self.episodes.train_ways:
            raise ValueError(f"{self.id} has no classes: leave --ways and --train-ways out")
        checks.at_least(1, shots=self.shots)
        self.source(TrainingTasks())
        given: dict[Split, int | None] = {"validation": self.validation_tasks, "test": self.tasks}
        for split, count in given.items():
            there = len(self.data.tasks(split))
            if count is not None and not 2 <= count <= there:
                raise ValueError(f"{self.id} has {there} {split} tasks; {count} were asked for, and 2 are needed")

    @property
    def id(self) -> str:
        return self.data.id

    @property
    def hash(self) -> str:
        return self.data.hash

    @property
    def shots(self) -> int:
        return chosen(self.episodes.shots, 10)

    @property
    def signature(self) -> TaskSignature:
        return self.data.signature(self.shots)

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return (), ()

    def source(self, training: TrainingTasks) -> SinusoidSource:
        queries = chosen(self.episodes.train_queries, chosen(self.episodes.queries, chosen(training.queries, 10)))
        return SinusoidSource(self.data, chosen_range(self.episodes.train_shots, self.shots), queries, self.device)

    def validate(self, learner: FewShotLearner, state: State) -> Figures:
        support, query = self._draw("validation", self.shots, self.validation_tasks)
        return {"validation": -float(regression.errors_adapted(learner, state, support, query).mean())}

    def evaluate(self, learner: FewShotLearner, state: State, split: Split, on_progress: OnProgress = ignore) -> Report:
        found: dict[int, Mapping[str, Float[np.ndarray, " task"]]] = {}
        for shots in sorted({*_SINUSOID_SHOTS, self.shots}):
            support, query = self._draw(split, shots, self.tasks)
            if isinstance(learner, Regressor):
                errors = regression.errors_by_step(learner, state, support, query, _INNER_STEPS)
                found[shots] = {str(steps): values for steps, values in errors.items()}
            else:
                found[shots] = {"adapted": regression.errors_adapted(learner, state, support, query)}
        on_progress(1.0)
        return Errors(found)

    def resized(self, learner: FewShotLearner, size: Size) -> "SinusoidRegression":
        raise ValueError(f"{self.id} has no classes, so no other size is asked for by ways and shots: leave --also out")

    def _draw(self, split: Split, shots: int, tasks: int | None) -> tuple[Examples, Examples]:
        return regression.draw(self.data, split, shots, tasks, self.device)


@final
@dataclasses.dataclass(frozen=True)
class Errors:
    """Mean squared errors of a regression."""

    found: regression.Found

    def table(self) -> str:
        return regression.table(self.found)

    def to_json(self) -> dict[str, Json]:
        return regression.to_json(self.found)
