"""A table of numbers with a class for every row, from a CSV or TSV file; a fault is named by its file and row."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Float, Int

from metarl.fewshot.datasets.csv_files import is_missing, read_csv

TARGET = "target"
"""The column with the class, unless its name is given."""
SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """Rows of numbers and their classes."""

    name: str
    columns: tuple[str, ...]
    """Names of the columns that vary."""
    values: Float[np.ndarray, "row column"]
    labels: Int[np.ndarray, " row"]
    """The place of each row's class in `classes`."""
    classes: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    """One line for each column that is not here, because it is the same in every row."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Rows of each class."""
        return tuple(np.bincount(self.labels, minlength=len(self.classes)).tolist())


def read_table(path: Path, target: str = TARGET) -> Table:
    """The table in a file `.csv` or `.tsv`, or one of these as `.gz`: a header, then a row a line.

    Columns that are the same in every row are left out. Every other cell must be a number, but the classes may be any
    text.

    Raises:
        UsageError: it cannot be read.
        ValueError: it is no such table. The message has the file and, where there is one, the line.
    """
    name = path.name.removesuffix(".gz")
    if not name.endswith((".csv", ".tsv")):
        raise ValueError(f"{path}: a table's file ends in {', '.join(SUFFIXES)}")
    file = read_csv(path)
    place = file.column(target)
    for row in file.rows:
        if is_missing(row.cells[place]):
            raise ValueError(f"{path}, line {row.line}: no class (column {target!r} is {row.cells[place]!r})")
    columns = [column for column in file.header if column != target]
    classes = [row.cells[place].strip() for row in file.rows]
    return from_rows(str(path), name[:-4], columns, file.numbers(columns), classes)


def from_rows(
    source: str,
    name: str,
    columns: Sequence[str],
    values: Sequence[Sequence[float]] | Float[np.ndarray, "row column"],
    classes: Sequence[str],
) -> Table:
    """A table of these rows.

    Raises:
        ValueError: no rows, fewer than two classes, a class with one row, or no column that varies.
    """
    if len(values) == 0:
        raise ValueError(f"{source}: it has no rows")
    names = tuple(sorted(set(classes), key=_order))
    numbers = {each: number for number, each in enumerate(names)}
    labels = np.array([numbers[each] for each in classes])
    if len(names) < 2:
        raise ValueError(f"{source}: all rows are of class {classes[0]!r}; a task needs two classes")
    counts = np.bincount(labels)
    if (counts < 2).any():
        alone = int(np.argmin(counts))
        row = classes.index(names[alone]) + 1
        raise ValueError(
            f"{source}: class {names[alone]!r} has one example (row {row}); a class needs two, one to learn from and "
            "one to be asked about: leave the row out"
        )
    array = np.array(values, dtype=np.float64).reshape(len(values), len(columns))
    varies = (array != array[:1]).any(axis=0)
    if not varies.any():
        raise ValueError(f"{source}: no column varies: every row is like the first")
    left_out = tuple(
        f"{source}: column {column!r} is the same in every row"
        for column, is_varying in zip(columns, varies, strict=True)
        if not is_varying
    )
    kept = tuple(column for column, is_varying in zip(columns, varies, strict=True) if is_varying)
    return Table(name, kept, array[:, varies], labels, names, left_out)


def _order(name: str) -> tuple[float, str]:
    """Numbers by their value, then texts."""
    try:
        return (float(name), name)
    except ValueError:
        return (math.inf, name)
