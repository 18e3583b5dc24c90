"""Tables shared out among the splits: a table that is tested is never trained on, nor is one of its family."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

import numpy as np

from metarl.errors import UsageError
from metarl.fewshot.tables.table import SUFFIXES, TARGET, Table, read_table
from metarl.tasks import SPLITS, Split, content_hash

FRACTIONS: Mapping[Split, float] = {"train": 0.6, "validation": 0.15, "test": 0.25}
"""Shares of the tables."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class TableCollection:
    """Tables, and the split of each."""

    id: str
    tables: tuple[Table, ...]
    splits: Mapping[Split, tuple[int, ...]]
    """The numbers of the tables of each split."""

    def __post_init__(self) -> None:
        numbers = [number for split in SPLITS for number in self.splits[split]]
        if len(set(numbers)) < len(numbers):
            raise ValueError(f"{self.id}: a table is in two splits")
        for split in SPLITS:
            if not self.splits[split]:
                raise ValueError(f"{self.id}: there is no table for {split}; it has {len(self.tables)} in all")

    @property
    def width(self) -> int:
        """Columns of the widest table."""
        return max(len(table.columns) for table in self.tables)

    @functools.cached_property
    def hash(self) -> str:
        """The content hash of every number, class and split."""
        digests = [
            hashlib.sha256(np.ascontiguousarray(table.values).data).hexdigest()
            + hashlib.sha256(np.ascontiguousarray(table.labels.astype(np.int64)).data).hexdigest()
            for table in self.tables
        ]
        names = [[table.name, *table.columns, *table.classes] for table in self.tables]
        return content_hash({
            "id": self.id,
            "names": [list(each) for each in names],
            "tables": list(digests),
            "splits": {split: list(self.splits[split]) for split in SPLITS},
        })  # fmt: skip

    def names(self, split: Split) -> list[str]:
        """The tables of a split by name."""
        return [self.tables[number].name for number in self.splits[split]]


def split_by_family(families: Sequence[Sequence[int]], seed: int) -> Mapping[Split, tuple[int, ...]]:
    """Families of tables shared out by chance: each goes, in random order, to the split that lacks most of its share.

    Args:
        families: the numbers of the tables of each.
        seed: decides the order.

    Raises:
        ValueError: fewer than three families.
    """
    if len(families) < len(SPLITS):
        raise ValueError(f"three splits need at least 3 families of tables, got {len(families)}")
    total = sum(map(len, families))
    found: dict[Split, list[int]] = {split: [] for split in SPLITS}
    for index in np.random.default_rng(seed).permutation(len(families)):
        lacking = {split: FRACTIONS[split] * total - len(found[split]) for split in SPLITS}
        found[max(SPLITS, key=lambda split: lacking[split])] += families[index]
    return {split: tuple(sorted(numbers)) for split, numbers in found.items()}


def families_of(tables: Sequence[Table], known: Sequence[Sequence[str]] = ()) -> list[list[int]]:
    """Tables that may hold the same data, grouped.

    Two tables are of one family where they are named together in `known`, or where they have as many rows in every
    class, whatever their columns: recoded copies of one table do.
    """
    groups = list(range(len(tables)))

    def merge(one: int, other: int) -> None:
        old, new = groups[other], groups[one]
        groups[:] = [new if group == old else group for group in groups]

    places = {table.name: number for number, table in enumerate(tables)}
    for names in known:
        there = [places[name] for name in names if name in places]
        for other in there[1:]:
            merge(there[0], other)
    by_counts: dict[tuple[int, ...], int] = {}
    for number, table in enumerate(tables):
        merge(by_counts.setdefault(tuple(sorted(table.counts)), number), number)
    return [[n for n, group in enumerate(groups) if group == each] for each in dict.fromkeys(groups)]


def table_files(folder: Path) -> list[Path]:
    """The tables' files in a folder; none where it is no folder."""
    try:
        names = sorted(os.listdir(folder))
    except (OSError, ValueError):
        return []
    return [folder / name for name in names if name.endswith(SUFFIXES) and not name.startswith(".")]


def read_folder(folder: Path, seed: int = 0, target: str = TARGET) -> TableCollection:
    """One's own tables, all files of a folder.

    Raises:
        UsageError: there are none, or one cannot be read.
        ValueError: one cannot be used; see `read_table`.
    """
    files = table_files(folder)
    if not files:
        raise UsageError(f"{folder} holds no tables ({', '.join(SUFFIXES)})")
    tables = tuple(read_table(path, target) for path in files)
    try:
        splits = split_by_family(families_of(tables), seed)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    return TableCollection("tables", tables, splits)
