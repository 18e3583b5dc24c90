"""A few labelled examples and others without a label, as people have them: CSV files of texts or of numbers, folders of
images.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, final

import numpy as np
from jaxtyping import Float

from metarl.fewshot.conversion import Inputs
from metarl.fewshot.datasets.csv_files import CsvFile, Row, read_csv
from metarl.fewshot.datasets.decoding import decode_all
from metarl.fewshot.datasets.options import prefixed
from metarl.fewshot.datasets.sources import default_max_bytes, in_folder, shown

Kind = Literal["texts", "numbers", "images"]
FILE = "file"
"""The column that images are named in."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Unlabelled:
    """Examples to be told apart."""

    inputs: Inputs
    """A list of texts, vectors [example, feature], or images [example, channel, height, width]."""
    header: tuple[str, ...]
    """The columns that they came with."""
    cells: tuple[tuple[str, ...], ...]
    """Theirs, a row for each example."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Labelled:
    """Examples whose classes are told."""

    kind: Kind
    inputs: Inputs
    """As in `Unlabelled`."""
    labels: tuple[str, ...]
    features: tuple[str, ...] = ()
    """Of numbers: the names of the columns."""


def read_labelled(path: Path, text: str, label: str, image_size: int | None) -> Labelled:
    """The examples of a CSV file, or of a folder of folders of images, one folder a class.

    Args:
        text: the column of texts; a file without it is of numbers.
        label: the column of classes.
        image_size: images are scaled to this height and width, px.

    Raises:
        UsageError: it cannot be read.
        ValueError: a label, a text or a number is missing or is none, or there is one class alone.
    """
    if path.is_dir():
        names, inputs = _images(path, image_size)
        for name in names:
            if len(PurePosixPath(name).parts) != 2:
                raise ValueError(f"{path}: {shown(name)} is not where examples should be, {path}/class/*.png")
        found = Labelled("images", inputs, tuple(PurePosixPath(name).parts[0] for name in names))
    else:
        _refuse_image_size(path, image_size)
        file = read_csv(path)
        labels = tuple(_filled(file, row, label) for row in file.rows)
        if text in file.header:
            found = Labelled("texts", _texts(file, text), labels)
        else:
            columns = tuple(name for name in file.header if name != label)
            if not columns:
                raise ValueError(f"{path} has no column beside {label!r}: texts are looked for in a column {text!r}")
            found = Labelled("numbers", _numbers(file, columns, text), labels, columns)
    if len(set(found.labels)) < 2:
        raise ValueError(f"{path} has examples of {found.labels[0]!r} alone: at least two classes can be told apart")
    return found


def need_pairs(path: Path, labels: Sequence[str]) -> None:
    """Raises ValueError for a class with one example: nothing tells how sure one may be of it."""
    for name in dict.fromkeys(labels):
        if labels.count(name) == 1:
            raise ValueError(
                f"{path}: class {name!r} has one example; two are needed to know how sure an answer may be "
                "(a trained learner, --run, takes one)"
            )


def read_unlabelled(path: Path, like: Labelled, text: str, image_size: int | None) -> Unlabelled:
    """Examples of the same kind, and with the same columns of numbers; other columns are passed on.

    Raises:
        UsageError: it cannot be read.
        ValueError: it is of another kind, or a text or a number is missing or is none.
    """
    if path.is_dir() != (like.kind == "images"):
        kinds = "a folder of images" if path.is_dir() else "a file"
        raise ValueError(f"{path} is {kinds}, but the labelled examples are {like.kind}")
    if like.kind == "images":
        names, inputs = _images(path, image_size)
        return Unlabelled(inputs, (FILE,), tuple((name,) for name in names))
    file = read_csv(path)
    inputs = _texts(file, text) if like.kind == "texts" else _numbers(file, like.features, text)
    return Unlabelled(inputs, file.header, tuple(row.cells for row in file.rows))


def _images(path: Path, size: int | None) -> tuple[list[str], np.ndarray]:
    """The names of a folder's images, sorted, and their pixels."""
    limit = default_max_bytes()
    listing = in_folder(path, limit)
    with prefixed(str(path)):
        if listing.faults:
            raise ValueError(listing.faults[0])
        if not listing.files:
            raise ValueError("it holds no images")
        names = sorted(listing.files)
        return names, decode_all(listing.files, names, size, max_bytes=limit).images


def _texts(file: CsvFile, column: str) -> list[str]:
    return [_filled(file, row, column) for row in file.rows]


def _filled(file: CsvFile, row: Row, column: str) -> str:
    """A cell that must not be empty."""
    cell = row.cells[file.column(column)].strip()
    if not cell:
        raise ValueError(f"{file.path}, line {row.line}: column {column!r} is empty")
    return cell


def _numbers(file: CsvFile, columns: tuple[str, ...], text: str) -> Float[np.ndarray, "row column"]:
    """The numbers of these columns, float32."""
    try:
        return file.numbers(columns).astype(np.float32)
    except ValueError as error:
        raise ValueError(f"{error} (texts are read from a column {text!r})") from None


def _refuse_image_size(path: Path, image_size: int | None) -> None:
    if image_size is not None:
        raise ValueError(f"{path} is no folder of images: leave --image-size out")
