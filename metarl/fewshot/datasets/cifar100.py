"""CIFAR-100 (Krizhevsky 2009), 32×32, 600 images of each class, split in two ways.

    CIFAR-FS (Bertinetto et al. 2019)    64, 16 and 20 classes by chance
    FC100 (Oreshkin et al. 2018)         60, 20 and 20 classes by superclass, so that test classes are far from training

The images are those of the published *binary* archive (the Python one would have to be unpickled), its training and
its test part together; the lists are `class_splits/{cifar_fs,fc100}/{train,val,test}.json`.
"""

import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8

from metarl.errors import UsageError
from metarl.fewshot.dataset import FewShotDataset
from metarl.fewshot.datasets.storage import SourceFile
from metarl.tasks import Split

Which = Literal["cifar-fs", "fc100"]
_RECORD = 2 + 3 * 32 * 32  # bytes: superclass, class, pixels by channel

ARCHIVE = SourceFile(
    "cifar100/cifar-100-binary.tar.gz",
    ("md5:03b5dce01913d631647c71ecec9e9cb8",),
    "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
)
LISTS: Mapping[Which, Mapping[Split, SourceFile]] = {
    "cifar-fs": {
        "train": SourceFile(
            "class_splits/cifar_fs/train.json",
            ("sha256:e0feef3aef13fc7320d5deef5ae77d91edd28041d9a173939ec48cea68135ef0",),
        ),
        "validation": SourceFile(
            "class_splits/cifar_fs/val.json",
            ("sha256:d9d6e267b5dad5c2267ff7dd98ebb18bb016f7929b56839422bb34fb53bcb3ef",),
        ),
        "test": SourceFile(
            "class_splits/cifar_fs/test.json",
            ("sha256:e199c74ef4f014ea3f74da1b6cf74795d32747183426c2a7e6ee4308d3bf47e3",),
        ),
    },
    "fc100": {
        "train": SourceFile(
            "class_splits/fc100/train.json",
            ("sha256:a19e219adef452c071eb09d14758a9c45562643b9aafa38826e679ed285e117b",),
        ),
        "validation": SourceFile(
            "class_splits/fc100/val.json",
            ("sha256:6d228dac7040959f0c2f0385c53c2cd9a5369ba9eefd1b7cdceecb47041598c4",),
        ),
        "test": SourceFile(
            "class_splits/fc100/test.json",
            ("sha256:d2cf86db6ec0250993b18cb78ebde10758f06eaaaff1611390e4442ee7c6fc41",),
        ),
    },
}


class Records(NamedTuple):
    """What the archive holds."""

    images: UInt8[np.ndarray, "example 3 32 32"]
    labels: Int[np.ndarray, " example"]
    """The number of each image's class."""
    classes: list[str]
    superclasses: list[str]
    home: Mapping[int, int]
    """The superclass of each class."""


def load(
    root: Path,
    which: Which,
    *,
    download: bool = False,
    archive: SourceFile = ARCHIVE,
    lists: Mapping[Split, SourceFile] | None = None,
) -> FewShotDataset:
    """All images by class, standardised by the training classes.

    Raises:
        UsageError: a file is missing or another one.
    """
    sources = LISTS[which] if lists is None else lists
    paths: dict[Split, Path] = {split: source.find(root, download=False) for split, source in sources.items()}
    records = read(archive.find(root, download=download))
    splits: dict[Split, tuple[int, ...]] = {
        split: _members(json.loads(path.read_text(encoding="utf-8")), records) for split, path in paths.items()
    }
    images = torch.from_numpy(records.images)
    return FewShotDataset(which, images, records.labels, tuple(records.classes), splits).standardised()


def _members(names: list[str | list[str]], records: Records) -> tuple[int, ...]:
    """The classes that a list names: a name stands for a superclass, a pair for one class of it."""
    found: list[int] = []
    for name in names:
        if isinstance(name, str):
            number = records.superclasses.index(name)
            found += [each for each in sorted(records.home) if records.home[each] == number]
        else:
            found.append(records.classes.index(name[1]))
    return tuple(found)


def read(path: Path) -> Records:
    """All images of the archive, training part first."""
    try:
        with tarfile.open(path) as archive:
            parts = {Path(member.name).name: archive.extractfile(member) for member in archive if member.isfile()}
            content = {name: part.read() for name, part in parts.items() if part is not None}
        raw = content["train.bin"] + content["test.bin"]
        superclasses, classes = (content[f"{kind}_label_names.txt"].decode().split() for kind in ("coarse", "fine"))
    except (OSError, tarfile.TarError, KeyError, EOFError) as error:
        raise UsageError(f"{path} is not CIFAR-100's binary archive ({error})") from error
    records = np.frombuffer(raw, dtype=np.uint8).reshape(-1, _RECORD)
    images = np.ascontiguousarray(records[:, 2:]).reshape(-1, 3, 32, 32)
    home = dict(zip(records[:, 1].tolist(), records[:, 0].tolist(), strict=True))
    return Records(images, records[:, 1].astype(np.int64), classes, superclasses, home)
