"""A user's own images: `folder/class/*.png`, or a zip of it, or an .npz file with `images` and `labels`.

Where the folder holds `train`, `validation` (or `val`, `valid`) and `test`, these are the splits; otherwise the classes
are shared out by chance, by seed and fractions.
"""

import dataclasses
import os
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from metarl import checks
from metarl.errors import UsageError, warn
from metarl.fewshot.dataset import FewShotDataset, split_by_chance, without_small_classes
from metarl.fewshot.datasets import arrays
from metarl.fewshot.datasets.decoding import check_bytes, decode_all
from metarl.fewshot.datasets.options import ReadOptions, Splitting, prefixed, refuse
from metarl.fewshot.datasets.sources import (
    SUFFIXES,
    Files,
    Listing,
    UnreadableError,
    digest,
    file_kind,
    in_folder,
    in_zip,
    open_zip,
    shown,
)
from metarl.fewshot.datasets.storage import Arrays, cached
from metarl.tasks import SPLITS, Split

_SPLIT_NAMES: Mapping[str, Split] = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}
MOST_PIXELS = 16_384
"""The largest `image_size`, px."""
_DECODER = 2  # raise it when images come out differently


def load(
    path: Path, splitting: Splitting, image_size: int | None = None, options: ReadOptions | None = None
) -> FewShotDataset:
    """The images of a folder, a zip or an .npz file; a warning says which files are no images.

    Args:
        image_size: images are scaled to this height and width (antialiased bilinear), px; without it they must all
            be of one size.

    Raises:
        UsageError: it cannot be read.
        ValueError: it holds no images, one that cannot be read, images of several sizes, a class in two splits, ...
    """
    options = options or ReadOptions()
    if image_size is not None:
        checks.at_least(1, image_size=image_size)
        checks.at_most(MOST_PIXELS, image_size=image_size)
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})") from error
    if stat.S_ISDIR(mode):
        return _from_listing(str(path), in_folder(path, options.max_bytes), splitting, image_size, options)
    if not stat.S_ISREG(mode):
        raise UsageError(f"{path} is {file_kind(mode)}: data are a folder, a zip or an .npz file")
    if path.suffix.lower() == ".npz":
        if image_size is not None:
            raise ValueError(f"{path}: images in an .npz file are taken as they are: leave --image-size out")
        return arrays.load(path, splitting, options)
    with open_zip(path) as archive:
        with prefixed(str(path)):
            listing = in_zip(archive, options.max_bytes)
        return _from_listing(str(path), listing, splitting, image_size, options)


def _from_listing(
    source: str, listing: Listing, splitting: Splitting, image_size: int | None, options: ReadOptions
) -> FewShotDataset:
    if ignored := listing.ignored_line():
        warn(f"{source}: {ignored}")
    refuse(source, listing.faults, options)
    names = sorted(listing.files)
    homes = _homes(source, listing)
    decoded = _decoded(source, listing.files, names, image_size, options)
    unreadable = [str(line) for line in decoded["faults"]]  # none but where a call, this or an earlier one, went on
    refuse(source, unreadable, options)
    folders = tuple(sorted({name for _, name in homes.values()}))
    numbers = {name: number for number, name in enumerate(folders)}
    places = [homes[names[place]] for place in decoded["kept"]]
    chosen = without_small_classes(np.array([numbers[name] for _, name in places]), folders, options.min_per_class)
    refuse(source, chosen.faults, options)
    splits = _splits(source, {place for place in places if place[1] in chosen.classes}, chosen.classes, splitting)
    images = decoded["images"] if chosen.kept.all() else decoded["images"][chosen.kept]
    # The folder's own name is not what decides an accuracy: it may be moved.
    data = FewShotDataset("images", torch.from_numpy(images), chosen.labels, chosen.classes, splits).standardised()
    return dataclasses.replace(data, left_out=(*listing.faults, *unreadable, *chosen.faults))


def _decoded(source: str, files: Files, names: list[str], size: int | None, options: ReadOptions) -> Arrays:
    """`images` [example, channel, height, width], `kept` (their places in the names), and lines for `faults`."""

    def decode() -> Arrays:
        try:
            found = decode_all(files, names, size, skip_bad=options.skip_bad, max_bytes=options.max_bytes)
        except UnreadableError as error:
            refuse(source, [str(error)], options)
            raise
        return {"images": found.images, "kept": found.kept, "faults": np.array(found.faults, dtype=np.str_)}

    decoded = cached("images", {"decoder": _DECODER, "size": size, "files": digest(files)}, decode)
    check_bytes(decoded["images"].nbytes, len(names), options.max_bytes)  # an earlier call's limit may have been higher
    return decoded


def _homes(source: str, listing: Listing) -> dict[str, tuple[str, str]]:
    """The split (empty where there is none) and the class of each file, by its folders."""
    parts = {name: PurePosixPath(name).parts for name in listing.files}
    if not parts:
        holds = f"holds no images that can be read: {listing.faults[0]}" if listing.faults else "holds no images"
        raise ValueError(f"{source} {holds} ({', '.join(SUFFIXES)}); expected {source}/class/*.png")
    tops = {each[0] for each in parts.values()}
    if len(tops) == 1 and min(map(len, parts.values())) > 2:  # a zip of the folder itself
        parts = {name: each[1:] for name, each in parts.items()}
        tops = {each[0] for each in parts.values()}
    depth = 3 if tops <= set(_SPLIT_NAMES) else 2
    for name, each in parts.items():
        if len(each) != depth:
            expected = f"{source}/{'split/' if depth == 3 else ''}class/*.png"
            raise ValueError(f"{source}: {shown(name)} is not where images should be, {expected}")
        if any(0xD800 <= ord(letter) < 0xE000 for letter in each[-2]):  # how Python has bytes that are no UTF-8
            raise ValueError(f"{source}: the folder {each[-2]!a} has a name that is not UTF-8; rename it")
    return {name: (_SPLIT_NAMES[each[0]] if depth == 3 else "", each[-2]) for name, each in parts.items()}


def _splits(
    source: str, kept: set[tuple[str, str]], classes: tuple[str, ...], splitting: Splitting
) -> Mapping[Split, tuple[int, ...]]:
    """The classes of each split, from the splits and classes that there are examples of."""
    named = {split for split, _ in kept}
    if named == {""}:
        with prefixed(source):
            return split_by_chance(len(classes), splitting.fractions, splitting.seed)
    if missing := [split for split in SPLITS if split not in named]:
        raise ValueError(f"{source} has folders for {', '.join(sorted(named))} but none for {', '.join(missing)}")
    return {split: tuple(number for number, name in enumerate(classes) if (split, name) in kept) for split in SPLITS}
