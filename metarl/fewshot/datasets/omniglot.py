"""Omniglot (Lake et al. 2015): handwritten characters of 50 alphabets, 20 drawings of each.

The split is that of Vinyals et al. (2016, "Matching networks for one shot learning"): 1028, 172 and 423 characters,
where a character turned by 90°, 180° or 270° is a class of its own. Images are scaled from 105×105 to 28×28 by area: a
pixel is the share of ink in its square, 1 where all of it is ink.
"""

import functools
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image

from metarl.errors import UsageError
from metarl.fewshot.dataset import FewShotDataset
from metarl.fewshot.datasets.storage import Arrays, SourceFile, cached
from metarl.tasks import SPLITS, Split

SIZE = 28  # px
QUARTERS = 4
_DECODER = 1  # raise it when images come out differently
_HOME = "https://github.com/brendenlake/omniglot/raw/master/python"
_LISTS = "https://github.com/jakesnell/prototypical-networks/raw/master/data/omniglot/splits/vinyals"

# The published archive, and another one of the same PNG files.
ARCHIVES = (
    SourceFile(
        "omniglot/images_background.zip",
        ("md5:68d2efa1b9178cc56df9314c21c6e718", "md5:3df48f394a7ffbc7dec57a0847391d7a"),
        f"{_HOME}/images_background.zip",
    ),
    SourceFile(
        "omniglot/images_evaluation.zip",
        ("md5:6b91aef0f799c5bb55b94e3f2daec811", "md5:38b7d089f6fde29684a527400983af18"),
        f"{_HOME}/images_evaluation.zip",
    ),
)


def _list(name: str, checksum: str) -> SourceFile:
    return SourceFile(f"omniglot/splits_vinyals/{name}.txt", (f"sha256:{checksum}",), f"{_LISTS}/{name}.txt")


LISTS: Mapping[Split, SourceFile] = {
    "train": _list("train", "984522c194c30fb678ce53304a160a42faf5403ad4f9a67010f32dd3a35738e0"),
    "validation": _list("val", "11f99e54faee3e26f53d3231c1cceac5bf7b8730e9be31cb6dab256551dc0c1a"),
    "test": _list("test", "845264cc5c156180828ccf17915668b17ee21424d0170df6e7d81676aa5d1204"),
}


def load(root: Path, *, download: bool = False, rotations: bool = True) -> FewShotDataset:
    """Omniglot, from the published archives and Vinyals' lists.

    Args:
        rotations: turned characters as classes of their own, in every split, as the lists have it.

    Raises:
        UsageError: a file is missing or another one.
        RunError: a file could not be fetched.
    """
    archives = [file.find(root, download=download) for file in ARCHIVES]
    lists: dict[Split, Path] = {split: LISTS[split].find(root, download=download) for split in SPLITS}
    key = {"decoder": _DECODER, "size": SIZE, "archives": [list(file.checksums) for file in ARCHIVES]}
    arrays = cached("omniglot", key, lambda: decode(archives))
    names = [str(name) for name in arrays["classes"]]
    images, labels = arrays["images"], arrays["labels"]
    lines: dict[Split, list[str]] = {split: path.read_text(encoding="utf-8").split() for split, path in lists.items()}
    if rotations:
        images, labels = with_rotations(images, labels)
    return assemble("omniglot" if rotations else "omniglot-upright", images, labels, names, lines, rotations=rotations)


def assemble(
    id: str,
    images: UInt8[np.ndarray, "example height width"],
    labels: Int[np.ndarray, " example"],
    characters: list[str],
    lines: Mapping[Split, list[str]],
    *,
    rotations: bool,
) -> FewShotDataset:
    """Images and the classes that the lists name, `alphabet/character/rot090`."""
    turns = range(QUARTERS) if rotations else range(1)
    classes = tuple(f"{name}/rot{90 * turn:03d}" for name in characters for turn in turns)
    numbers = {name: number for number, name in enumerate(classes)}
    splits: dict[Split, tuple[int, ...]] = {}
    for split, names in lines.items():
        wanted = [name for name in names if rotations or name.endswith("rot000")]
        if unknown := [name for name in wanted if name not in numbers]:
            raise UsageError(f"the {split} list names {unknown[0]}, which is not in the archives")
        splits[split] = tuple(numbers[name] for name in wanted)
    return FewShotDataset(id, torch.from_numpy(images[:, None]), labels, classes, splits)


def with_rotations(
    images: UInt8[np.ndarray, "example height width"], labels: Int[np.ndarray, " example"]
) -> tuple[UInt8[np.ndarray, "turned height width"], Int[np.ndarray, " turned"]]:
    """Each image turned by 0°, 90°, 180° and 270°; class c turned q times is class 4c + q."""
    turned = [np.rot90(images, quarter, axes=(1, 2)) for quarter in range(QUARTERS)]
    numbers = [QUARTERS * labels + quarter for quarter in range(QUARTERS)]
    return np.concatenate(turned), np.concatenate(numbers)


def decode(archives: list[Path]) -> Arrays:
    """All drawings as `images` [example, 28, 28], ink = 255; the characters' names as `classes`, and `labels`."""
    images: list[UInt8[np.ndarray, "height width"]] = []
    owners: list[str] = []
    for path in archives:
        try:
            with zipfile.ZipFile(path) as archive:
                for name in sorted(name for name in archive.namelist() if name.endswith(".png")):
                    images.append(shrink(archive.read(name)))
                    owners.append("/".join(Path(name).parts[-3:-1]))
        except (OSError, zipfile.BadZipFile) as error:
            raise UsageError(f"{path} cannot be read ({error})") from error
    classes, labels = np.unique(owners, return_inverse=True)
    return {"images": np.stack(images), "classes": classes, "labels": labels}


def shrink(content: bytes) -> UInt8[np.ndarray, "28 28"]:
    """A drawing, black on white, as the share of ink in each pixel, 255 for all."""
    with Image.open(io.BytesIO(content)) as image:
        ink = 1 - np.asarray(image.convert("1"), dtype=np.float32)
    height, width = ink.shape
    return np.rint(255 * (_overlaps(height) @ ink @ _overlaps(width).T)).astype(np.uint8)


@functools.cache
def _overlaps(length: int) -> Float[np.ndarray, "28 length"]:
    """How much of each of `length` equal parts of a side lies in each of 28, as a share of the latter."""
    ends, scale = np.arange(SIZE + 1) * length / SIZE, SIZE / length
    low, high = ends[:-1, None], ends[1:, None]
    parts = np.arange(length)
    return (scale * np.clip(np.minimum(high, parts + 1) - np.maximum(low, parts), 0, None)).astype(np.float32)
