"""Draws N-way K-shot tasks, all of a meta-batch in one call, as numbers into the resident examples.

    classes of a task:    ways distinct classes of the split, in random order: the order is the labels
    support, query:       shots + queries distinct examples of each class, each part shuffled

No number says more than it should: a class has another label in every task, and neither a label nor an example's class
can be told from its place.
"""

import dataclasses
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl import checks
from metarl.fewshot.class_choice import listed
from metarl.fewshot.dataset import FewShotDataset, normalised
from metarl.fewshot.examples import Batch, Examples
from metarl.tasks import Split

Range = int | tuple[int, int]
"""A number, or the least and the most of a number that is drawn."""


def bounds(value: Range) -> tuple[int, int]:
    """The least and the most."""
    return (value, value) if isinstance(value, int) else value


def check_range(minimum: int, **options: Range) -> None:
    """Raises ValueError for the first option that is not a range, or begins below the minimum."""
    for name, value in options.items():
        low, high = bounds(value)
        checks.at_least(minimum, **{name: low})
        if low > high:
            raise ValueError(f"the range of {name} must be from the least to the most, got {low} to {high}")
        checks.at_most(checks.MOST, **{name: high})


@final
@dataclasses.dataclass(frozen=True)
class EpisodeShape:
    """How large tasks are. A range is drawn from once a meta-batch, so that the tasks of one are of one size."""

    ways: Range = 5
    """Classes of a task."""
    shots: Range = 1
    """Examples of each class in the support."""
    queries: int = 15
    """Examples of each class in the query."""

    def __post_init__(self) -> None:
        check_range(2, ways=self.ways)
        check_range(1, shots=self.shots)
        checks.count(queries=self.queries)


@final
class Draw(NamedTuple):
    """The examples of several tasks, by number, and their labels within the task."""

    support: Int[np.ndarray, "task example"]
    support_targets: Int[np.ndarray, "task example"]
    query: Int[np.ndarray, "task query"]
    query_targets: Int[np.ndarray, "task query"]


@final
@dataclasses.dataclass(frozen=True, eq=False)
class EpisodeSampler:
    """Tasks of a data set."""

    data: FewShotDataset
    shape: EpisodeShape = EpisodeShape()

    def check(self, split: Split) -> None:
        """Raises ValueError where the split has too few classes or a class of it too few examples."""
        ways, shots, queries = bounds(self.shape.ways)[1], bounds(self.shape.shots)[1], self.shape.queries
        classes = self.data.splits[split]
        pool = min(self.data.pools[split], key=len, default=np.array([], dtype=np.int64))
        if ways > len(pool):
            group = f" in its group {self.data.groups[pool[0]]!r}" if self.data.groups and len(pool) else ""
            names = listed([self.data.classes[number] for number in pool])
            raise ValueError(
                f"{ways} ways need {ways} classes; {self.data.id} has {len(pool)} {split} classes{group} "
                f"({names or 'none'}): ask for fewer ways, or choose more classes for {split}"
            )
        fewest = classes[int(np.argmin(self.data.counts[list(classes)]))]
        if self.data.counts[fewest] < shots + queries:
            raise ValueError(
                f"need {shots + queries} examples a class ({shots} support + {queries} query); "
                f"{split} class {self.data.classes[fewest]!r} has {self.data.counts[fewest]}"
            )

    def draw(self, split: Split, count: int, rng: np.random.Generator) -> Draw:
        """Which examples are in `count` tasks of a split.

        Raises:
            ValueError: no task, or the split is too small for the shape.
        """
        if count < 1:
            raise ValueError(f"need at least one task, got {count}")
        self.check(split)
        ways, shots = pick(self.shape.ways, rng), pick(self.shape.shots, rng)
        classes = draw_classes(self.data, split, count, ways, rng)
        return draw_examples(self.data, classes, shots, self.shape.queries, rng)

    def sample(self, split: Split, count: int, rng: np.random.Generator) -> Batch:
        """`count` tasks of a split: the examples themselves, float32, on the data set's device."""
        draw = self.draw(split, count, rng)
        return Batch(
            Examples(inputs(self.data, draw.support), targets(self.data, draw.support_targets)),
            Examples(inputs(self.data, draw.query), targets(self.data, draw.query_targets)),
        )


def draw_classes(
    data: FewShotDataset, split: Split, count: int, ways: int, rng: np.random.Generator
) -> Int[np.ndarray, "{count} {ways}"]:
    """The classes of each task, distinct and in random order (or their own); of one group each, all as likely."""
    pools = data.pools[split]
    sizes = np.array([len(pool) for pool in pools])
    # Without groups nothing is drawn for the only pool: tasks are the same as before there were groups.
    group = rng.integers(len(pools), size=count) if len(pools) > 1 else np.zeros(count, dtype=np.int64)
    places = distinct(sizes[group], ways, rng)
    if data.ordered:
        places = np.sort(places, axis=1)
    starts = np.cumsum(sizes) - sizes
    return np.concatenate(pools)[starts[group][:, None] + places]


def draw_examples(
    data: FewShotDataset, classes: Int[np.ndarray, "task way"], shots: int, queries: int, rng: np.random.Generator
) -> Draw:
    """Examples of the classes of each task, a class's label being its place."""
    tasks, ways = classes.shape
    within = distinct(data.counts[classes].reshape(-1), shots + queries, rng).reshape(tasks, ways, -1)
    numbers = data.order[data.starts[classes][..., None] + within]  # [task, way, example]
    support, support_targets = _shuffled(numbers[..., :shots], rng)
    query, query_targets = _shuffled(numbers[..., shots:], rng)
    return Draw(support, support_targets, query, query_targets)


def inputs(data: FewShotDataset, numbers: Int[np.ndarray, "task example"]) -> Float[Tensor, "task example ..."]:
    """The examples of these numbers, normalised."""
    index = torch.from_numpy(numbers.reshape(-1)).to(data.examples.device)
    examples = normalised(data.examples.index_select(0, index), data.mean, data.std)
    return examples.reshape(*numbers.shape, *data.shape)


def targets(data: FewShotDataset, labels: Int[np.ndarray, "task example"]) -> Int[Tensor, "task example"]:
    """Labels, where the examples are."""
    return torch.from_numpy(labels).to(data.examples.device)


def distinct(sizes: Int[np.ndarray, " row"], count: int, rng: np.random.Generator) -> Int[np.ndarray, "row {count}"]:
    """In each row `count` distinct numbers below the row's size, every sequence of them as likely.

    Floyd's algorithm (Bentley and Floyd 1987, "A sample of brilliance", CACM 30(9)): for j = n − count, …, n − 1 take
    t ~ U{0, …, j}, or j itself where t is taken already. Its sets are uniform, its order is not; hence the shuffle.
    """
    assert count <= sizes.min(initial=count)
    chosen = np.empty((len(sizes), count), dtype=np.int64)
    for place in range(count):
        last = sizes - count + place
        drawn = rng.integers(last + 1)
        taken = (chosen[:, :place] == drawn[:, None]).any(axis=1)
        chosen[:, place] = np.where(taken, last, drawn)
    return rng.permuted(chosen, axis=1)


def pick(value: Range, rng: np.random.Generator) -> int:
    """The number, or one of the range by chance."""
    low, high = bounds(value)
    return low if low == high else int(rng.integers(low, high, endpoint=True))


def _shuffled(
    numbers: Int[np.ndarray, "task way shot"], rng: np.random.Generator
) -> tuple[Int[np.ndarray, "task example"], Int[np.ndarray, "task example"]]:
    """All examples of each task in random order, and their labels, which are the places of their classes."""
    tasks, ways, shots = numbers.shape
    order = rng.permuted(np.tile(np.arange(ways * shots), (tasks, 1)), axis=1)
    return np.take_along_axis(numbers.reshape(tasks, -1), order, axis=1), order // shots
