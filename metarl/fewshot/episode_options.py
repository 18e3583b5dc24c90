"""The options of a few-shot task's size, in training and in evaluation."""

import dataclasses
from typing import final

from metarl.fewshot.examples import TrainingTasks
from metarl.fewshot.sampler import EpisodeShape, Range, bounds


@final
@dataclasses.dataclass(frozen=True)
class EpisodeOptions:
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
        return EpisodeShape(chosen(self.ways, 5), chosen(self.shots, 1), chosen(self.queries, 15))

    def trained(self, training: TrainingTasks) -> EpisodeShape:
        """Of the tasks of training: as asked for, or as is best for the learner.

        Raises:
            ValueError: the learner cannot be trained on tasks of other ways than it is evaluated on.
        """
        shape = self.evaluated
        ways = chosen_range(self.train_ways, shape.ways if training.ways is None else training.ways)
        if bounds(ways) != bounds(shape.ways) and not training.any_ways:
            raise ValueError(
                f"this learner has an output for each of its {shape.ways} ways, so --train-ways must be the same, "
                f"got {' to '.join(map(str, self.train_ways))}"
            )
        queries = shape.queries if training.queries is None else training.queries
        return EpisodeShape(ways, chosen_range(self.train_shots, shape.shots), chosen(self.train_queries, queries))


def chosen(value: int | None, otherwise: int) -> int:
    """What was given, or else the other."""
    return otherwise if value is None else value


def chosen_range(numbers: tuple[int, ...], otherwise: Range) -> Range:
    """The number or range that was given, or else the other."""
    if not numbers:
        return otherwise
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])
