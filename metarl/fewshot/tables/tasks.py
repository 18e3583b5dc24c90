"""Few-shot tasks of tables: some rows of some of a table's classes, its columns in the units of the support.

    z = (x − mean of the support) / standard deviation of the support,   within ±10

for every column; one that is the same in the whole support says nothing, and is 0. Rows are filled up with columns of
zeros to one width, so that tasks of different tables make one batch: whoever reads a column sees that it says nothing.
"""

import dataclasses
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float, Int

from metarl import checks
from metarl.fewshot.examples import Batch, Examples
from metarl.fewshot.sampler import Range, bounds, check_range, pick
from metarl.fewshot.tables.collection import TableCollection
from metarl.fewshot.tables.table import Table
from metarl.learning.protocols import Learner, State

_LARGEST = 10.0  # standard deviations
MOST_WAYS = 10
"""Classes of a task; of tables with more, some are drawn."""


class RowDraw(NamedTuple):
    """The rows of a task, by number, and their labels within the task."""

    support: Int[np.ndarray, " example"]
    support_targets: Int[np.ndarray, " example"]
    query: Int[np.ndarray, " query"]
    query_targets: Int[np.ndarray, " query"]


def usable_classes(table: Table, examples: int) -> Int[np.ndarray, " class"]:
    """The classes that have so many rows."""
    return np.flatnonzero(np.array(table.counts) >= examples)


def draw_rows(
    table: Table, classes: Int[np.ndarray, " way"], shots: int, queries: int, rng: np.random.Generator
) -> RowDraw:
    """Rows of each class, none twice, in random order; a class's label is its place."""
    parts: list[list[Int[np.ndarray, " row"]]] = [[], []]
    for number in classes:
        members = rng.permutation(np.flatnonzero(table.labels == number))[: shots + queries]
        assert len(members) == shots + queries, "the caller knows how many there are"
        parts[0].append(members[:shots])
        parts[1].append(members[shots:])
    found: list[Int[np.ndarray, " example"]] = []
    for rows in parts:
        numbers, labels = np.concatenate(rows), np.repeat(np.arange(len(classes)), [len(each) for each in rows])
        order = rng.permutation(len(numbers))
        found += [numbers[order], labels[order]]
    return RowDraw(*found)


def standardised(
    support: Float[np.ndarray, "example column"], rows: Float[np.ndarray, "row column"], width: int
) -> Float[np.ndarray, "row {width}"]:
    """Rows in the units of the support, filled up with zeros.

    Raises:
        ValueError: there are more columns than the width.
    """
    columns = support.shape[1]
    if columns > width:
        raise ValueError(f"tables here have at most {width} columns, got {columns}")
    mean, std = support.mean(0), support.std(0)
    said = std > 1e-9 * np.maximum(1.0, np.abs(mean))  # rounding alone makes no difference
    z = np.where(said, (rows - mean) / np.where(said, std, 1.0), 0.0)
    return np.pad(np.clip(z, -_LARGEST, _LARGEST), ((0, 0), (0, width - columns))).astype(np.float32)


def examples_of(table: Table, draw: RowDraw, width: int) -> Batch:
    """A task's rows as a learner takes them, with an axis of one task."""
    support = table.values[draw.support]
    parts = [standardised(support, table.values[numbers], width)[None] for numbers in (draw.support, draw.query)]
    targets = (draw.support_targets[None], draw.query_targets[None])
    shown, asked = (Examples(torch.from_numpy(x), torch.from_numpy(y)) for x, y in zip(parts, targets, strict=True))
    return Batch(shown, asked)


def stacked(batches: list[Batch]) -> Batch:
    """Tasks of one size as one batch."""
    support, query = (
        Examples(*(torch.cat(tensors) for tensors in zip(*parts, strict=True))) for parts in zip(*batches, strict=True)
    )
    return Batch(support, query)


@final
@dataclasses.dataclass(frozen=True, eq=False)
class TableSource:
    """Tasks of the training tables: each of a table drawn by chance, all of a meta-batch of one number of ways."""

    collection: TableCollection
    ways: Range = (2, MOST_WAYS)
    shots: Range = (1, 10)
    queries: int = 5
    """Query rows of each class."""
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        check_range(2, ways=self.ways)
        check_range(1, shots=self.shots)
        checks.count(queries=self.queries)
        for ways in range(bounds(self.ways)[0], bounds(self.ways)[1] + 1):
            if not self._tables(ways, bounds(self.shots)[1]):
                raise ValueError(
                    f"no training table of {self.collection.id} has {ways} classes of "
                    f"{bounds(self.shots)[1] + self.queries} rows: lower --train-ways, --train-shots or --train-queries"
                )

    def collect(self, learner: Learner[Batch, object], state: State, seed: int, step: int) -> Batch:
        """`meta_batch` tasks."""
        rng = np.random.default_rng([seed, step, 1])
        ways, shots = pick(self.ways, rng), pick(self.shots, rng)
        tables, batches = self._tables(ways, shots), list[Batch]()
        for _ in range(learner.meta_batch):
            table = self.collection.tables[tables[int(rng.integers(len(tables)))]]
            classes = rng.permutation(usable_classes(table, shots + self.queries))[:ways]
            draw = draw_rows(table, classes, shots, self.queries, rng)
            batches.append(examples_of(table, draw, self.collection.width))
        support, query = stacked(batches)
        return Batch(support.to(self.device), query.to(self.device))

    def _tables(self, ways: int, shots: int) -> list[int]:
        """The training tables that have so many classes of enough rows."""
        tables, needed = self.collection.tables, shots + self.queries
        return [n for n in self.collection.splits["train"] if len(usable_classes(tables[n], needed)) >= ways]
