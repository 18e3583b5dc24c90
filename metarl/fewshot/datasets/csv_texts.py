"""A user's own texts: a CSV file with the columns `text` and `label`."""

from pathlib import Path

import numpy as np

from metarl.fewshot.dataset import split_by_chance, without_small_classes
from metarl.fewshot.datasets.csv_files import CsvFile, read_csv
from metarl.fewshot.datasets.options import ReadOptions, Splitting, prefixed, refuse
from metarl.fewshot.texts.dataset import TextDataset

TEXT, LABEL = "text", "label"


def load(path: Path, splitting: Splitting, options: ReadOptions) -> tuple[TextDataset, tuple[str, ...]]:
    """The texts of a file, its classes shared out among the splits by chance; and a line for whatever was left out.

    Raises:
        UsageError: it cannot be read.
        ValueError: it is no such CSV file, a text or a label is missing, or there are fewer than three classes.
    """
    file = read_csv(path, options.max_bytes)
    pairs, faults = texts_and_labels(file)
    refuse(str(path), faults, options)
    names = tuple(sorted({label for _, label in pairs}))
    numbers = {name: number for number, name in enumerate(names)}
    labels = np.array([numbers[label] for _, label in pairs], dtype=np.int64)
    selection = without_small_classes(labels, names, options.min_per_class)
    refuse(str(path), selection.faults, options)
    with prefixed(str(path)):
        splits = split_by_chance(len(selection.classes), splitting.fractions, splitting.seed)
    texts = tuple(text for (text, _), kept in zip(pairs, selection.kept, strict=True) if kept)
    return TextDataset("texts", texts, selection.labels, selection.classes, splits), (*faults, *selection.faults)


def texts_and_labels(file: CsvFile) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """The texts with their labels, and a line for each row that lacks one of them."""
    text, label = file.column(TEXT), file.column(LABEL)
    pairs, faults = list[tuple[str, str]](), list[str]()
    for row in file.rows:
        pair = row.cells[text].strip(), row.cells[label].strip()
        if all(pair):
            pairs.append(pair)
        else:
            faults.append(f"line {row.line}: the {LABEL if pair[0] else TEXT} is empty")
    return pairs, tuple(faults)
