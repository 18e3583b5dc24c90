"""What a few-shot program trains on and how it judges: episodes of a data set, or sinusoids."""

import dataclasses
from collections.abc import Mapping
from typing import Protocol, final, runtime_checkable

import numpy as np
from jaxtyping import Float

from metarl import checks
from metarl.fewshot import evaluation, regression
from metarl.fewshot.dataset import FewShotDataset
from metarl.fewshot.evaluation import Scores, Turns
from metarl.fewshot.examples import Batch, TaskSignature, TrainingTasks
from metarl.fewshot.learner import FewShotLearner
from metarl.fewshot.regression import Regressor
from metarl.fewshot.sampler import ClassSampler, EpisodeSampler, EpisodeShape, Range, bounds
from metarl.fewshot.sinusoid import Sinusoids, SinusoidSource
from metarl.learner import Figures, State
from metarl.tasks import Json, Split
from metarl.training import BatchSource

TURNS = 10
"""Examples of each class in the sequences of `SequenceLearner`s (Santoro et al. 2016, table 1)."""
_SINUSOID_SHOTS, _INNER_STEPS = (5, 10), (0, 1, 5, 10)


@final
@dataclasses.dataclass(frozen=True)
class Episodes:
    """How large tasks are. A learner is evaluated on tasks of one size and may be trained on others."""

    ways: int | None = None
    """Classes of a task; 5 if not given. A regression has none."""
    shots: int | None = None
    """Support examples: of each class, 1 if not given; of a regression, 10 if not given."""
    queries: int | None = None
    """Query examples: of each class, 15 if not given; of a regression in training, 10 if not given."""
    train_ways: tuple[int, ...] = ()
    """Classes of a training task: a number, or the least and the most of one drawn for every meta-batch; as --ways
    if not given."""
    train_shots: tuple[int, ...] = ()
    """Support examples in training: a number, or the least and the most; as --shots if not given."""
    train_queries: int | None = None
    """Query examples in training; as --queries if not given."""

    def __post_init__(self) -> None:
        for name, numbers in (("--train-ways", self.train_ways), ("--train-shots", self.train_shots)):
            if len(numbers) > 2:
                raise ValueError(f"{name} takes one number or two, got {' '.join(map(str, numbers))}")

    @property
    def evaluated(self) -> EpisodeShape:
        """Of the tasks of validation and test."""
        return EpisodeShape(_or(self.ways, 5), _or(self.shots, 1), _or(self.queries, 15))

    def trained(self, training: TrainingTasks) -> EpisodeShape:
        """Of the tasks of training: as asked for, or as is best for the learner.

        Raises:
            ValueError: the learner cannot be trained on tasks of other ways than it is evaluated on.
        """
        shape = self.evaluated
        ways = _range(self.train_ways, shape.ways if training.ways is None else training.ways)
        if bounds(ways) != bounds(shape.ways) and not training.any_ways:
            raise ValueError(
                f"this learner has an output for each of its {shape.ways} ways, so --train-ways must be the same, "
                f"got {' to '.join(map(str, self.train_ways))}"
            )
        queries = shape.queries if training.queries is None else training.queries
        return EpisodeShape(ways, _range(self.train_shots, shape.shots), _or(self.train_queries, queries))


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

    def validate(self, learner: FewShotLearner, state: State, tasks: int) -> Figures:
        """Figures on validation tasks; `validation` is the score, higher is better."""
        ...

    def evaluate(self, learner: FewShotLearner, state: State, split: Split, tasks: int) -> Report: ...


@final
@dataclasses.dataclass(frozen=True)
class Classification:
    """Episodes of a data set."""

    data: FewShotDataset
    episodes: Episodes

    def __post_init__(self) -> None:
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

    def validate(self, learner: FewShotLearner, state: State, tasks: int) -> Figures:
        found = evaluation.evaluate(learner, state, self.held_out, "validation", tasks=tasks)
        return {"validation": found.accuracy.value, "validation_loss": found.loss.value}

    def evaluate(self, learner: FewShotLearner, state: State, split: Split, tasks: int) -> Report:
        sampler = self.held_out
        found = tuple(
            evaluation.evaluate(learner, state, sampler, split, tasks=tasks, batch_norm=kind)
            for kind in learner.batch_norms
        )
        turns = None
        if isinstance(learner, evaluation.SequenceLearner):
            longer = EpisodeSampler(self.data, EpisodeShape(sampler.shape.ways, TURNS, 1))
            turns = evaluation.evaluate_in_turn(learner, state, longer, split, tasks=tasks)
        return Accuracies(self.data.describe(), split, sampler.shape, found, turns)


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
    data: Sinusoids = dataclasses.field(default_factory=Sinusoids)

    def __post_init__(self) -> None:
        if self.episodes.ways is not None or self.episodes.train_ways:
            raise ValueError(f"{self.id} has no classes: leave --ways and --train-ways out")
        source = self.source(TrainingTasks())
        checks.at_least(1, shots=min(self.shots, bounds(source.shots)[0]), queries=source.queries)

    @property
    def id(self) -> str:
        return self.data.id

    @property
    def hash(self) -> str:
        return self.data.hash

    @property
    def shots(self) -> int:
        return _or(self.episodes.shots, 10)

    @property
    def signature(self) -> TaskSignature:
        return self.data.signature(self.shots)

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return (), ()

    def source(self, training: TrainingTasks) -> SinusoidSource:
        queries = _or(self.episodes.train_queries, _or(self.episodes.queries, _or(training.queries, 10)))
        return SinusoidSource(self.data, _range(self.episodes.train_shots, self.shots), queries, self.device)

    def validate(self, learner: FewShotLearner, state: State, tasks: int) -> Figures:
        errors = regression.errors_adapted(learner, self.data, state, "validation", self.shots)
        return {"validation": -float(errors.mean())}

    def evaluate(self, learner: FewShotLearner, state: State, split: Split, tasks: int) -> Report:
        shots = sorted({*_SINUSOID_SHOTS, self.shots})
        return Errors({count: self._errors(learner, state, split, count) for count in shots})

    def _errors(
        self, learner: FewShotLearner, state: State, split: Split, shots: int
    ) -> Mapping[str, Float[np.ndarray, " task"]]:
        if not isinstance(learner, Regressor):
            return {"adapted": regression.errors_adapted(learner, self.data, state, split, shots)}
        found = regression.errors_by_step(learner, self.data, state, split, shots, _INNER_STEPS)
        return {str(steps): errors for steps, errors in found.items()}


@final
@dataclasses.dataclass(frozen=True)
class Errors:
    """Mean squared errors of a regression."""

    found: regression.Found

    def table(self) -> str:
        return regression.table(self.found)

    def to_json(self) -> dict[str, Json]:
        return regression.to_json(self.found)


def _or(value: int | None, otherwise: int) -> int:
    return otherwise if value is None else value


def _range(numbers: tuple[int, ...], otherwise: Range) -> Range:
    if not numbers:
        return otherwise
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])
