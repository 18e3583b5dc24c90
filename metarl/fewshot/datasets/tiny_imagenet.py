"""Photographs of 64×64: the 123 classes of Tiny ImageNet that tieredImageNet's split (Ren et al. 2018) names, too.

That split is by category (snakes, aquatic birds, ...), so the 45 test classes are far from the 61 of training. Halved,
a pixel is the mean of 2 × 2.
"""

import csv
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from jaxtyping import UInt8

from metarl.fewshot.dataset import FewShotDataset
from metarl.fewshot.datasets.decoding import decode_all
from metarl.fewshot.datasets.options import ReadOptions
from metarl.fewshot.datasets.sources import in_zip, open_zip
from metarl.fewshot.datasets.storage import Arrays, SourceFile, cached
from metarl.tasks import Split

_DECODER = 1  # raise it when images come out differently

ARCHIVE = SourceFile(
    "tiny_imagenet/tiny-imagenet-123x200.zip",
    ("sha256:923c1d751a2f869fd42bbf555661656f3cd525a8559a2b76f9f8de2b645e0b0b",),
)
CLASSES = SourceFile(
    "tiny_imagenet/classes.csv", ("sha256:a879ef974e3bd177eedee4d4f0de6bf62c426c6b7e10e00b0ab24b6e47beba85",)
)
"""Columns label, wnid, name, split, category_wnid, category_name."""
SPLIT_NAMES: dict[str, Split] = {"train": "train", "val": "validation", "test": "test"}


def load(
    root: Path, *, archive: SourceFile = ARCHIVE, classes: SourceFile = CLASSES, halved: bool = False
) -> FewShotDataset:
    """All images, standardised by the training classes; with half the height and width where `halved`.

    Raises:
        UsageError: a file is missing or another one.
        ValueError: the archive does not hold the classes of the list.
    """
    zip_path, list_path = archive.find(root, download=False), classes.find(root, download=False)
    key = {"decoder": _DECODER, "archive": list(archive.checksums)}
    with open_zip(zip_path) as opened:
        files = in_zip(opened, ReadOptions().max_bytes).files
        names = sorted(files)

        def whole() -> Arrays:
            return cached("tiny-imagenet", key, lambda: {"images": decode_all(files, names, None).images})

        def half() -> Arrays:
            return {"images": quartered(whole()["images"])}

        images = (cached("tiny-imagenet-32", key, half) if halved else whole())["images"]
    with list_path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = {row["wnid"]: number for number, row in enumerate(rows)}
    labels = np.array([numbers[PurePosixPath(name).name.partition("_")[0]] for name in names])
    splits: dict[Split, tuple[int, ...]] = {
        split: tuple(numbers[row["wnid"]] for row in rows if row["split"] == name)
        for name, split in SPLIT_NAMES.items()
    }
    titles = tuple(f"{row['wnid']} {row['name']}" for row in rows)
    id = "tiny-imagenet-32" if halved else "tiny-imagenet"
    return FewShotDataset(id, torch.from_numpy(images), labels, titles, splits).standardised()


def quartered(
    images: UInt8[np.ndarray, "example channel height width"],
) -> UInt8[np.ndarray, "example channel half_height half_width"]:
    """The mean of every 2 × 2 pixels, rounded half up."""
    wide = images.astype(np.uint16)
    sums = wide[..., ::2, ::2] + wide[..., 1::2, ::2] + wide[..., ::2, 1::2] + wide[..., 1::2, 1::2]
    return np.asarray((sums + 2) // 4, dtype=np.uint8)
