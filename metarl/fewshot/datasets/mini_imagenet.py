"""miniImageNet with the split of Ravi and Larochelle (2017): 64, 16 and 20 classes, 600 photographs of each.

The lists are `class_splits/miniimagenet_ravi/{train,val,test}.csv`; the images, which are ImageNet's and not handed on
here, are the files that they name, in `mini_imagenet/images/` or `mini_imagenet/images.zip`, of any size: they are
scaled to 84×84 (antialiased bilinear).
"""

import csv
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from metarl.errors import UsageError
from metarl.fewshot.dataset import FewShotDataset
from metarl.fewshot.datasets.decoding import decode_all
from metarl.fewshot.datasets.options import ReadOptions, prefixed
from metarl.fewshot.datasets.sources import Listing, digest, in_folder, in_zip, open_zip
from metarl.fewshot.datasets.storage import ROOT_VARIABLE, SourceFile, cached
from metarl.tasks import Split

SIZE = 84  # px
_DECODER = 2  # raise it when images come out differently
_FOLDER = "class_splits/miniimagenet_ravi"
LISTS: Mapping[Split, SourceFile] = {
    "train": SourceFile(
        f"{_FOLDER}/train.csv", ("sha256:498519cd8e49ce97ed26a4a3638966698ae41ab35e9c68538319fc9b46ba7d2f",)
    ),
    "validation": SourceFile(
        f"{_FOLDER}/val.csv", ("sha256:5658a59921ca027ee76af92949869c5d6f41d77592ff3b18db325a9d10c893b9",)
    ),
    "test": SourceFile(
        f"{_FOLDER}/test.csv", ("sha256:2b7cfa78342995761a572a8158e539bc4e0a80f9bbd7d00c1e17a460fbbb93fa",)
    ),
}


def load(root: Path, *, lists: Mapping[Split, SourceFile] = LISTS) -> FewShotDataset:
    """All images that the lists name, standardised by the training classes.

    Raises:
        UsageError: a list or an image is missing, or a list is another one.
        ValueError: an image cannot be read.
    """
    rows: dict[str, tuple[Split, str]] = {}
    for split, source in lists.items():
        with source.find(root, download=False).open(encoding="utf-8", newline="") as file:
            rows |= {row["filename"]: (split, row["label"]) for row in csv.DictReader(file)}
    folder, archive = root / "mini_imagenet" / "images", root / "mini_imagenet" / "images.zip"
    if folder.is_dir():
        return _assemble(rows, in_folder(folder, ReadOptions().max_bytes), folder)
    try:
        with open_zip(archive) as opened, prefixed(str(archive)):
            return _assemble(rows, in_zip(opened, ReadOptions().max_bytes), archive)
    except FileNotFoundError:
        raise UsageError(
            f"{folder} is missing: put the {len(rows)} images that the lists name there, or into {archive}; "
            f"--data-root or {ROOT_VARIABLE} names the data root"
        ) from None
    except OSError as error:
        raise UsageError(f"{archive} cannot be read ({error.strerror or error})") from error


def _assemble(rows: Mapping[str, tuple[Split, str]], listing: Listing, place: Path) -> FewShotDataset:
    found = {PurePosixPath(name).name: read for name, read in listing.files.items()}
    if missing := [name for name in rows if name not in found]:
        raise UsageError(f"{place} lacks {len(missing)} of the {len(rows)} images in the lists: {missing[0]}, ...")
    names = sorted(rows)
    files = {name: found[name] for name in names}
    key = {"decoder": _DECODER, "size": SIZE, "files": digest(files)}
    images = cached("mini-imagenet", key, lambda: {"images": decode_all(files, names, SIZE).images})["images"]
    classes = tuple(sorted({label for _, label in rows.values()}))
    numbers = {name: number for number, name in enumerate(classes)}
    members: dict[Split, set[int]] = {"train": set(), "validation": set(), "test": set()}
    for split, label in rows.values():
        members[split].add(numbers[label])
    splits: dict[Split, tuple[int, ...]] = {split: tuple(sorted(found)) for split, found in members.items()}
    labels = np.array([numbers[rows[name][1]] for name in names])
    return FewShotDataset("mini-imagenet", torch.from_numpy(images), labels, classes, splits).standardised()
