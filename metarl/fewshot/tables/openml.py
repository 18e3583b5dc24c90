"""Tables of OpenML (Vanschoren et al. 2013) as files that `--data folder` reads: for those who are online.

Categories become the numbers of their order; rows with a missing value are left out, and so are classes with one row.
"""

import gzip
import importlib
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from metarl.errors import RunError, UsageError
from metarl.fewshot.tables.table import TARGET
from metarl.runs.files import write_atomically


def fetch(numbers: Sequence[int], folder: Path) -> list[Path]:
    """Writes each data set of OpenML, by its number, as `NAME-NUMBER.tsv.gz` into the folder.

    Raises:
        UsageError: `openml` is not installed, or a data set has no classes.
        RunError: a data set could not be fetched, or a file not written.
    """
    try:
        openml = importlib.import_module("openml")
    except ImportError as error:
        raise UsageError("OpenML's tables need the package openml: pip install openml") from error
    written: list[Path] = []
    for number in numbers:
        try:
            data = openml.datasets.get_dataset(number)
            target = data.default_target_attribute
            if not target or "," in target:
                raise UsageError(f"OpenML's data set {number} has no single column of classes")
            frame, classes, _, _ = data.get_data(target=target, dataset_format="dataframe")
        except UsageError:
            raise
        except Exception as error:  # openml has errors of its own, and those of its network and parsers
            raise RunError(f"OpenML's data set {number} could not be fetched: {error}") from error
        columns = []
        for name in frame.columns:
            column = frame[name]
            if column.dtype.kind not in "biuf":  # of a category it is O
                codes = column.astype("category").cat.codes.to_numpy().astype(np.float64)
                columns.append(np.where(codes < 0, np.nan, codes))
            else:
                columns.append(column.to_numpy(dtype=np.float64, na_value=np.nan))
        values, known = np.stack(columns, axis=1), ~classes.isna().to_numpy()
        labels = classes.astype(str).to_numpy()
        kept = known & np.isfinite(values).all(axis=1)
        names, counts = np.unique(labels[kept], return_counts=True)
        kept &= np.isin(labels, names[counts > 1])
        if len(np.unique(labels[kept])) < 2:
            raise UsageError(f"OpenML's data set {number} has no two classes with two rows without a missing value")
        path = folder / f"{re.sub(r'[^A-Za-z0-9._-]', '-', str(data.name))}-{number}.tsv.gz"
        write_atomically(path, _packed(list(frame.columns), values[kept], labels[kept]))
        written.append(path)
    return written


def _packed(columns: Sequence[str], values: np.ndarray, labels: np.ndarray) -> bytes:
    """A table's file."""
    clean = [re.sub(r"[\t\r\n\"]", " ", str(text)) for text in (*columns, TARGET)]
    lines = ["\t".join(clean)]
    for row, label in zip(values.tolist(), labels.tolist(), strict=True):
        lines.append("\t".join([*(repr(number) for number in row), re.sub(r"[\t\r\n\"]", " ", label)]))
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as file:
        file.write(("\n".join(lines) + "\n").encode())
    return packed.getvalue()
