"""CSV files that people bring: strictly UTF-8, a header, every row as long as it; faults are named by their line.

Where the name ends in `.tsv` tabs separate the cells; with `.gz` behind it the file is compressed.
"""

import csv
import gzip
import io
import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Float

from metarl.errors import UsageError, one_line
from metarl.fewshot.conversion import GREATEST
from metarl.fewshot.datasets.sources import default_max_bytes, in_units, more_than, open_regular, shown

_BYTE_ORDER_MARKS = ((b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))
_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
_LONGEST_CELL = 1 << 20  # letters
_MISSING = frozenset({"", "?", "na", "n/a", "nan", "null", "none"})


@final
class Row(NamedTuple):
    """One row of a file."""

    line: int
    """Where it begins, from 1; the header's is 1."""
    cells: tuple[str, ...]


@final
class CsvFile(NamedTuple):
    """A file, as texts."""

    path: Path
    header: tuple[str, ...]
    rows: tuple[Row, ...]

    def column(self, name: str) -> int:
        """The place of a column.

        Raises:
            ValueError: there is none of this name.
        """
        if name not in self.header:
            has = ", ".join(shown(each) for each in self.header)
            raise ValueError(f"{self.path} has no column {name!r}; its header has {has}")
        return self.header.index(name)

    def number(self, row: Row, column: str) -> float:
        """A cell as a number.

        Raises:
            ValueError: there is no such column, the cell has no value, or one that is no number within ±`GREATEST`.
        """
        cell = row.cells[self.column(column)].strip()
        where = f"{self.path}, line {row.line}: column {column!r}"
        if is_missing(cell):
            raise ValueError(f"{where} has no value: fill it in, or leave the row out")
        try:
            value = float(cell)
        except ValueError:
            raise ValueError(
                f"{where} holds {shown(cell[:40])!r}, which is no number; give categories numbers, and leave texts out"
            ) from None
        if not math.isfinite(value) or abs(value) > GREATEST:
            raise ValueError(f"{where} holds {cell[:40]}: numbers must be finite and lie within ±{GREATEST:g}")
        return value

    def numbers(self, columns: Sequence[str]) -> Float[np.ndarray, "row column"]:
        """The cells of some columns as numbers: all at once, or, where one is none, one by one until it is found.

        Raises:
            ValueError: as `number`.
        """
        places = [self.column(name) for name in columns]
        try:
            texts = np.array([[row.cells[place] for place in places] for row in self.rows], dtype=np.str_)
            values = texts.astype(np.float64)
            if (np.abs(values) <= GREATEST).all():  # which NaN is not
                return values
        except ValueError:
            pass
        return np.array([[self.number(row, name) for name in columns] for row in self.rows])


def is_missing(cell: str) -> bool:
    """Whether a cell says that there is no value, as `NA` does."""
    return cell.strip().lower() in _MISSING


def read_csv(path: Path, max_bytes: int | None = None) -> CsvFile:
    """The header and the rows of a file; empty lines are passed over.

    Args:
        max_bytes: the most that it may have, decompressed; METARL_MAX_BYTES, or 4 GiB, if not given.

    Raises:
        UsageError: it cannot be read.
        ValueError: it is no UTF-8, has no header or rows, a column twice, or a row of another length than the header.
    """
    limit = default_max_bytes() if max_bytes is None else max_bytes
    try:
        with open_regular(path) as file:
            content = (gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file).read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(str(error))
        raise UsageError(f"{path} cannot be read ({reason})") from error
    if len(content) > limit:
        raise ValueError(f"{path} has more than {in_units(limit)}; {more_than(limit)}")
    separator = "\t" if path.name.removesuffix(".gz").endswith(".tsv") else ","
    rows = list(_rows(path, _decoded(path, content), separator))
    if not rows:
        raise ValueError(f"{path} is empty: its first line must name the columns")
    header = tuple(name.strip() for name in rows[0].cells)
    _check_header(path, header, separator)
    for row in rows[1:]:
        if len(row.cells) != len(header):
            raise ValueError(
                f"{path}, line {row.line}: {len(row.cells)} cells, where the header has {len(header)}; put a cell that "
                "holds commas between quotation marks"
            )
    if len(rows) == 1:
        raise ValueError(f"{path} has a header but no rows")
    return CsvFile(path, header, tuple(rows[1:]))


def _decoded(path: Path, content: bytes) -> str:
    for mark, name in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            raise ValueError(f"{path} is {name}; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from None
    if "\0" in text:
        raise ValueError(
            f"{path}, line {text.count(chr(10), 0, text.index(chr(0))) + 1}: a NUL byte: it is no text file"
        )
    return text


def _rows(path: Path, text: str, separator: str) -> Iterator[Row]:
    before = csv.field_size_limit(_LONGEST_CELL)
    reader, line = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True), 1
    try:
        for cells in reader:
            if cells:
                yield Row(line, tuple(cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}, line {line}: {error}") from error
    finally:
        csv.field_size_limit(before)


def _check_header(path: Path, header: tuple[str, ...], separator: str) -> None:
    if len(header) == 1:
        for other, name in _SEPARATORS.items():
            if other in header[0]:
                raise ValueError(f"{path} is separated by {name}; save it separated by {_SEPARATORS[separator]}")
    for place, name in enumerate(header):
        if not name:
            raise ValueError(f"{path}: column {place + 1} has no name in the first line")
        if name in header[:place]:
            raise ValueError(f"{path}: two columns are called {name!r}")
