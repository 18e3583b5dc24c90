"""Images of several sources in one data set, some of which only the test has (after Triantafillou et al. 2020).

    trained on, held out by class   omniglot: upright characters, Vinyals' split; tiny-imagenet: tieredImageNet's split
    only in the test                blood-cells (12 types), digits (10, by 43 people), x-rays and ultrasound (2 each)

All are brought to 32×32 in colour and standardised as one by the training classes. A task's classes are all of one
source: classes are grouped by source and split.
"""

import dataclasses
import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from metarl.errors import UsageError
from metarl.fewshot.conversion import as_examples
from metarl.fewshot.dataset import FewShotDataset
from metarl.fewshot.datasets import medical, omniglot, tiny_imagenet
from metarl.fewshot.datasets.storage import Arrays, SourceFile, cached
from metarl.tasks import SPLITS, Split

SIZE = 32  # px
NAME = "image-domains"
_SCALED = 1  # raise it when images come out differently

DIGITS = SourceFile(
    "tabular/pmlb/optdigits.tsv.gz", ("sha256:b70b7ac68a54d1ccd41bd24f11324c3af96b67541791fb9d8684cbdf151533c3",)
)
"""UCI's optical recognition of handwritten digits (Alpaydin & Kaynak 1998): 8×8, ink 0 to 16, a row an image."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Images of one origin."""

    images: UInt8[Tensor, "example channel height width"]
    """Of any size, grey or colour."""
    labels: Int[np.ndarray, " example"]
    classes: tuple[str, ...]
    splits: Mapping[Split, tuple[int, ...]]


def load(root: Path) -> FewShotDataset:
    """The six sources.

    Raises:
        UsageError: a file is missing or another one.
    """
    sources = {
        "omniglot": _as_source(omniglot.load(root, rotations=False)),
        "tiny-imagenet": _as_source(tiny_imagenet.load(root, halved=True)),
        "blood-cells": _only_tested(medical.blood_cells(root)),
        "digits": _digits(root),
        "x-rays": _finding("pneumonia", root),
        "ultrasound": _finding("breast", root),
    }
    return joined(NAME, sources, SIZE)


def joined(id: str, sources: Mapping[str, Source], size: int) -> FewShotDataset:
    """One data set of several sources, all images `size` × `size` in colour.

    A class is called `source: class`, its group `source (split)`: tasks are of one source, and of one split of it.

    Raises:
        ValueError: no source has a class to train on, or what they hold contradicts itself.
    """
    images: list[Tensor] = []
    labels: list[Int[np.ndarray, " example"]] = []
    classes: list[str] = []
    groups: list[str] = []
    splits: dict[Split, list[int]] = {split: [] for split in SPLITS}
    for name, source in sources.items():
        homes: dict[int, Split] = {number: split for split in SPLITS for number in source.splits[split]}
        used = sorted(homes)
        kept = np.isin(source.labels, used)
        chosen = source.images[torch.from_numpy(kept)]
        images.append(chosen if chosen.shape[1:] == (3, size, size) else as_examples(chosen, shape=(3, size, size)))
        numbers = np.searchsorted(used, source.labels[kept]) + len(classes)
        labels.append(numbers.astype(np.int64))
        for number in used:
            splits[homes[number]].append(len(classes))
            classes.append(f"{name}: {source.classes[number]}")
            groups.append(f"{name} ({homes[number]})")
    if not splits["train"]:
        raise ValueError(f"{id}: no source has a class to train on")
    data = FewShotDataset(
        id,
        torch.cat(images),
        np.concatenate(labels),
        tuple(classes),
        {split: tuple(numbers) for split, numbers in splits.items()},
        groups=tuple(groups),
    )
    return data.standardised()


def source_of(group: str) -> str:
    """The source of a group of classes: `omniglot` of `omniglot (test)`; of another data set's group, its own name."""
    for split in SPLITS:
        group = group.removesuffix(f" ({split})")
    return group


def _as_source(data: FewShotDataset) -> Source:
    if data.shape == (3, SIZE, SIZE):
        return Source(data.examples, data.labels, data.classes, data.splits)

    def scale() -> Arrays:
        return {"images": as_examples(data.examples, shape=(3, SIZE, SIZE)).numpy()}

    images = cached(f"{data.id}-scaled", {"scaled": _SCALED, "size": SIZE, "data": data.hash}, scale)["images"]
    return Source(torch.from_numpy(images), data.labels, data.classes, data.splits)


def _only_tested(data: FewShotDataset) -> Source:
    source = _as_source(data)
    numbers = tuple(sorted(number for split in SPLITS for number in data.splits[split]))
    return dataclasses.replace(source, splits=_tested(numbers))


def _tested(numbers: tuple[int, ...]) -> Mapping[Split, tuple[int, ...]]:
    return {"train": (), "validation": (), "test": numbers}


def _digits(root: Path) -> Source:
    path = DIGITS.find(root, download=False)
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            rows = np.loadtxt(file, delimiter="\t", skiprows=1)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error})") from error
    pixels = np.rint(rows[:, :64] * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8)
    return Source(torch.from_numpy(pixels), rows[:, 64].astype(np.int64), tuple("0123456789"), _tested((*range(10),)))


def _finding(name: str, root: Path) -> Source:
    screening = medical.screening(name, root)
    classes = (f"no {screening.finding}", screening.finding)
    images = torch.from_numpy(np.ascontiguousarray(screening.images))[:, None]
    return Source(images, screening.positive.astype(np.int64), classes, _tested((0, 1)))
