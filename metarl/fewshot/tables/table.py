"""A table of numbers with a class for every row, from a CSV or TSV file; a fault is named by its file and row."""

import contextlib
import csv
import dataclasses
import gzip
import io
import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Float, Int

from metarl.errors import UsageError, one_line
from metarl.fewshot.conversion import GREATEST
from metarl.fewshot.datasets.sources import open_regular

TARGET = "target"
"""The column with the class, unless its name is given."""
SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
MOST_BYTES = 1 << 30
"""Of a file, decompressed."""
_MISSING = frozenset({"", "?", "na", "n/a", "nan", "null", "none"})


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
        ValueError: it is no such table. The message has the file and, where there is one, the row, counted from 1
            without the header.
    """
    name = path.name.removesuffix(".gz")
    if not name.endswith((".csv", ".tsv")):
        raise ValueError(f"{path}: a table's file ends in {', '.join(SUFFIXES)}")
    try:
        with _opened(path) as file:
            rows = csv.reader(_limited(path, file), delimiter="\t" if name.endswith(".tsv") else ",", strict=True)
            return _parsed(path, name[:-4], rows, target)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: it is not UTF-8 text ({error.reason} at byte {error.start})") from error
    except csv.Error as error:
        raise ValueError(f"{path}: it cannot be read as a table ({one_line(str(error))})") from error
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(str(error))
        raise UsageError(f"{path} cannot be read ({reason})") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[io.TextIOWrapper]:
    with open_regular(path) as file:
        plain = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
        with io.TextIOWrapper(plain, encoding="utf-8-sig", newline="") as lines:
            yield lines


def _limited(path: Path, lines: io.TextIOWrapper) -> Iterator[str]:
    """The lines, as long as they are no more than may be read."""
    total = 0
    while line := lines.readline(MOST_BYTES - total + 1):
        total += len(line)
        if total > MOST_BYTES:
            raise ValueError(f"{path}: it holds more than {MOST_BYTES} bytes, the most of a table")
        yield line


def _parsed(path: Path, name: str, rows: Iterator[list[str]], target: str) -> Table:
    header = [cell.strip() for cell in next(rows, [])]
    if target not in header:
        shown = ", ".join(header[:8]) or "nothing"
        raise ValueError(f"{path}: it has no column {target!r} with the classes; its first line has {shown}")
    if len(set(header)) < len(header):
        twice = next(cell for cell in header if header.count(cell) > 1)
        raise ValueError(f"{path}: two columns are called {twice!r}")
    place = header.index(target)
    columns = [column for column in header if column != target]
    texts, classes, numbers = list[list[str]](), list[str](), list[int]()
    for number, row in enumerate(rows, 1):
        if not row:
            continue
        if len(row) != len(header):
            raise ValueError(f"{path}: row {number} has {len(row)} cells, the header {len(header)}")
        if row[place].strip().lower() in _MISSING:
            raise ValueError(f"{path}: row {number} has no class (column {target!r} is {row[place]!r})")
        classes.append(row[place].strip())
        texts.append(row[:place] + row[place + 1 :])
        numbers.append(number)
    return from_rows(str(path), name, columns, _values(path, columns, texts, numbers), classes)


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


def _values(
    path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int]
) -> Float[np.ndarray, "row column"]:
    """The cells as numbers: all at once, or, where one is none, one by one until it is found."""
    if not rows:
        return np.empty((0, len(columns)))
    try:
        values = np.array(rows, dtype=np.str_).astype(np.float64)
        if (np.abs(values) <= GREATEST).all():  # which NaN is not
            return values
    except ValueError:
        pass
    cells = (
        [_number(path, number, *pair) for pair in zip(columns, row, strict=True)]
        for number, row in zip(numbers, rows, strict=True)
    )
    return np.array(list(cells))


def _number(path: Path, row: int, column: str, cell: str) -> float:
    text = cell.strip()
    if text.lower() in _MISSING:
        raise ValueError(f"{path}: row {row} has no value in column {column!r}: fill it in, or leave the row out")
    try:
        value = float(text)
    except ValueError:
        raise ValueError(
            f"{path}: row {row}, column {column!r}: {text[:40]!r} is no number; give categories numbers, "
            "and leave texts out"
        ) from None
    if not math.isfinite(value) or abs(value) > GREATEST:
        raise ValueError(f"{path}: row {row}, column {column!r}: {text[:40]} is not a number within ±{GREATEST:g}")
    return value


def _order(name: str) -> tuple[float, str]:
    """Numbers by their value, then texts."""
    try:
        return (float(name), name)
    except ValueError:
        return (math.inf, name)
