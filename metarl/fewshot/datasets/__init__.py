"""The data sets by the name that programs know them under, and a user's own."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import final

from metarl.errors import UsageError, did_you_mean
from metarl.fewshot.dataset import FewShotDataset
from metarl.fewshot.datasets import (
    arsc,
    cifar100,
    clinc150,
    csv_texts,
    image_domains,
    images,
    medical,
    mini_imagenet,
    omniglot,
    tiny_imagenet,
)
from metarl.fewshot.datasets.options import ReadOptions, Splitting
from metarl.fewshot.datasets.sources import shown
from metarl.fewshot.datasets.storage import existing_data_root
from metarl.fewshot.texts.dataset import TextDataset
from metarl.fewshot.texts.encoders import AUTO
from metarl.registry import Registry


@final
@dataclasses.dataclass(frozen=True)
class Published:
    """A data set with a name."""

    about: str
    """One line."""
    load: Callable[[Path, bool], FewShotDataset | TextDataset]
    """From the data root; the second argument allows downloads."""


def _check(entry: object) -> Published:
    if not isinstance(entry, Published):
        raise ValueError("it must be a Published(about, load); a function that returns a data set needs no name")
    return entry


DATASETS: Registry[Published] = Registry("data set", "metarl.datasets", _check)
"""The data sets that have a name."""


def register(name: str, about: str, load: Callable[[Path, bool], FewShotDataset | TextDataset]) -> None:
    """Makes a data set known by a name.

    Args:
        name: what it is called by programs.
        about: one line.
        load: from the folder of the published data sets; the second argument allows downloads.

    Raises:
        ValueError: the name is taken.
    """
    DATASETS.register(name, Published(about, load))


register(
    "omniglot",
    "1623 characters and their rotations, 28×28, Vinyals' split; --download fetches it",
    lambda root, download: omniglot.load(root, download=download),
)
register(
    "omniglot-upright",
    "the same without rotations",
    lambda root, download: omniglot.load(root, download=download, rotations=False),
)
register(
    "tiny-imagenet",
    "123 classes of photographs, 64×64, tieredImageNet's split",
    lambda root, _: tiny_imagenet.load(root),
)
register(
    "tiny-imagenet-32",
    "the same, 32×32: a pixel is the mean of four",
    lambda root, _: tiny_imagenet.load(root, halved=True),
)
register(
    "image-domains",
    "six sources of images, 32×32, four of them only in the test; `fewshot domains` evaluates by source",
    lambda root, _: image_domains.load(root),
)
register(
    "mini-imagenet",
    "100 classes of photographs, 84×84, Ravi's split; the images are yours to provide",
    lambda root, _: mini_imagenet.load(root),
)
register(
    "cifar-fs",
    "100 classes, 32×32, Bertinetto's split",
    lambda root, download: cifar100.load(root, "cifar-fs", download=download),
)
register(
    "fc100",
    "100 classes, 32×32, split by superclass",
    lambda root, download: cifar100.load(root, "fc100", download=download),
)
register(
    "blood-cells",
    "12 types of red blood cells, 40×40; --ways 2: three types are tested",
    lambda root, _: medical.blood_cells(root),
)
register(
    "clinc150",
    "150 intents of short questions, split by domain; --download fetches it",
    lambda root, download: clinc150.load(root, download=download),
)
register(
    "arsc",
    "good and bad product reviews, 12 published test tasks; --ways 2",
    lambda root, _: arsc.load(root),
)
register(
    "arsc-signed",
    "the same, with negative 0 and positive 1 in every task",
    lambda root, _: arsc.load(root, signed=True),
)


def load(
    name: str | Path,
    root: Path | None = None,
    *,
    download: bool = False,
    image_size: int | None = None,
    splitting: Splitting | None = None,
    skip_bad: bool = False,
    min_per_class: int = 1,
    max_bytes: int | None = None,
    text_encoder: str | None = None,
) -> FewShotDataset:
    """A data set by its name, or from a folder, a zip, an .npz file, or a .csv file of texts.

    Args:
        root: the folder of the published data sets; METARL_DATA, or `data`, if not given.
        download: whether files that are missing may be fetched.
        image_size: own images are scaled to this height and width, px.
        splitting: how own classes are shared out; three to one to one, seed 0, if not given.
        skip_bad: whether to go on without own files that cannot be read and classes that are too small; `left_out` of
            the data set then has a line for each. Otherwise the first of them is an error.
        min_per_class: examples that an own class must have: the shots and queries of a task.
        max_bytes: the most that a file of one's own, what a zip or an .npz file holds decompressed, and all pixels
            together may take; METARL_MAX_BYTES, or 4 GiB, if not given.
        text_encoder: what makes vectors of texts; the best of what is installed if not given.

    Raises:
        UsageError: there is no such data set, a file is missing, or it is another one.
        RunError: a file could not be fetched.
        ValueError: an option that does not fit, or what the files hold cannot be used or contradicts itself.
    """
    if str(name) in DATASETS:
        if image_size is not None or splitting is not None:
            raise ValueError(f"{name} has its own size and split: leave --image-size and the options of splits out")
        if skip_bad or min_per_class != 1 or max_bytes is not None:
            raise ValueError(f"{name} is complete, as its checksums show: leave --skip-bad and limits out")
        return _with_features(
            DATASETS[str(name)].load(existing_data_root(root, download=download), download), text_encoder
        )
    for option, given in (("--download", download), ("--data-root", root is not None)):
        if given:
            raise ValueError(f"{option} is for published data sets ({', '.join(DATASETS)}), not for {name}")
    path = Path(name)
    if not str(name) or not _is_there(path):
        known = f"there are sinusoid, {', '.join(DATASETS)}"
        hint = did_you_mean(str(name), [*DATASETS, "sinusoid"], known, most=1)
        raise UsageError(f"no data set {shown(str(name))!r}, and no folder or file of that name; {hint}")
    defaults = ReadOptions()
    options = ReadOptions(skip_bad, min_per_class, defaults.max_bytes if max_bytes is None else max_bytes)
    if path.suffix.lower() == ".csv" and path.is_file():
        if image_size is not None:
            raise ValueError(f"{name} holds no images: leave --image-size out")
        texts, left_out = csv_texts.load(path, splitting or Splitting(), options)
        return dataclasses.replace(_with_features(texts, text_encoder), left_out=left_out)
    return _with_features(images.load(path, splitting or Splitting(), image_size, options), text_encoder)


def _with_features(data: FewShotDataset | TextDataset, text_encoder: str | None) -> FewShotDataset:
    """The data set itself, or with the features of its texts."""
    if isinstance(data, TextDataset):
        return data.encoded(text_encoder or AUTO)
    if text_encoder is not None:
        raise ValueError(f"{data.id} holds no texts: leave --text-encoder out")
    return data


def _is_there(path: Path) -> bool:
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a NUL in it
        return False
    except OSError as error:
        raise UsageError(f"{shown(str(path))} cannot be read ({error.strerror})") from error
    return True


__all__ = ["DATASETS", "Published", "Splitting", "load", "register"]
