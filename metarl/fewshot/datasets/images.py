"""A user's own images: `folder/class/*.png`, or a zip of it, or an .npz file with `images` and `labels`.

Where the folder holds `train`, `validation` (or `val`, `valid`) and `test`, these are the splits; otherwise the classes
are shared out by chance, by seed and fractions.
"""

import dataclasses
import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import final

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from metarl import checks
from metarl.errors import UsageError
from metarl.fewshot.dataset import FewShotDataset, from_arrays, split_by_chance
from metarl.fewshot.datasets.storage import Arrays, cached, read_arrays
from metarl.tasks import SPLITS, Split

SUFFIXES = (".png", ".jpg", ".jpeg")
_SPLIT_NAMES: Mapping[str, Split] = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}
_GREY = ("1", "L")
_DECODER = 1  # raise it when images come out differently


@final
@dataclasses.dataclass(frozen=True)
class Splitting:
    """How classes are shared out where the data do not say it."""

    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2)
    """Shares of train, validation and test."""
    seed: int = 0


Files = Mapping[str, Callable[[], bytes]]
"""Images by their path, with `/`, and what reads them."""


def load(path: Path, splitting: Splitting, image_size: int | None = None) -> FewShotDataset:
    """The images of a folder, a zip or an .npz file.

    Args:
        image_size: images are scaled to this height and width (antialiased bilinear), px; without it they must all
            be of one size.

    Raises:
        UsageError: it cannot be read.
        ValueError: it holds no images, images of several sizes, a class in two splits, ...
    """
    if image_size is not None:
        checks.at_least(1, image_size=image_size)
    if path.suffix == ".npz":
        if image_size is not None:
            raise ValueError(f"{path}: images in an .npz file are taken as they are: leave --image-size out")
        return _from_npz(path, splitting)
    if path.is_dir():
        return from_files(str(path), _in_folder(path), splitting, image_size)
    try:
        with zipfile.ZipFile(path) as archive:
            return from_files(str(path), in_zip(archive), splitting, image_size)
    except (OSError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is neither a folder nor a zip that can be read ({error})") from error


def from_files(source: str, files: Files, splitting: Splitting, image_size: int | None) -> FewShotDataset:
    """A data set of images by the folders that they lie in."""
    homes = _homes(source, files)
    names = sorted({name for _, name in homes.values()})
    numbers = {name: number for number, name in enumerate(names)}
    splits = _splits(source, homes, numbers, splitting)
    key = {"decoder": _DECODER, "size": image_size, "files": digest(files)}
    images = cached("images", key, lambda: {"images": decode_all(files, sorted(files), image_size)})["images"]
    labels = np.array([numbers[homes[name][1]] for name in sorted(files)])
    # The folder's own name is not what decides an accuracy: it may be moved.
    return FewShotDataset("images", torch.from_numpy(images), labels, tuple(names), splits).standardised()


def _homes(source: str, files: Files) -> dict[str, tuple[str, str]]:
    """The split (empty where there is none) and the class of each file, by its folders."""
    parts = {name: PurePosixPath(name).parts for name in files}
    if not parts:
        raise ValueError(f"{source} holds no images ({', '.join(SUFFIXES)}); expected {source}/class/*.png")
    tops = {each[0] for each in parts.values()}
    if len(tops) == 1 and min(map(len, parts.values())) > 2:  # a zip of the folder itself
        parts = {name: each[1:] for name, each in parts.items()}
        tops = {each[0] for each in parts.values()}
    depth = 3 if tops <= set(_SPLIT_NAMES) else 2
    for name, each in parts.items():
        if len(each) != depth:
            shown = f"{source}/{'split/' if depth == 3 else ''}class/*.png"
            raise ValueError(f"{source}: {name} is not where images should be, {shown}")
    return {name: (_SPLIT_NAMES[each[0]] if depth == 3 else "", each[-2]) for name, each in parts.items()}


def _splits(
    source: str, homes: Mapping[str, tuple[str, str]], numbers: Mapping[str, int], splitting: Splitting
) -> Mapping[Split, tuple[int, ...]]:
    there = {split for split, _ in homes.values()}
    if there == {""}:
        return split_by_chance(len(numbers), splitting.fractions, splitting.seed)
    if missing := [split for split in SPLITS if split not in there]:
        raise ValueError(f"{source} has folders for {', '.join(sorted(there))} but none for {', '.join(missing)}")
    found = set(homes.values())
    return {split: tuple(numbers[name] for name in sorted(numbers) if (split, name) in found) for split in SPLITS}


def decode_all(
    files: Files, names: Iterable[str], size: int | None
) -> UInt8[np.ndarray, "example channel height width"]:
    """All images as one array: one channel where all are grey, else three.

    Raises:
        ValueError: one cannot be read, or they are of several sizes and no size was given.
    """
    decoded: dict[str, UInt8[np.ndarray, "..."]] = {}
    for name in names:
        image = decode(name, files[name]())
        if size is not None and image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BILINEAR)
        decoded[name] = np.asarray(image)
    sizes = {name: pixels.shape[:2] for name, pixels in decoded.items()}
    first = next(iter(sizes))
    for name, (height, width) in sizes.items():
        if (height, width) != sizes[first]:
            raise ValueError(
                f"images of several sizes: {first} is {sizes[first][1]}×{sizes[first][0]}, {name} {width}×{height}; "
                f"make them one size, or add --image-size {min(sizes[first])}"
            )
    grey = all(pixels.ndim == 2 for pixels in decoded.values())
    result = np.empty((len(decoded), 1 if grey else 3, *sizes[first]), dtype=np.uint8)
    for row, pixels in zip(result, decoded.values(), strict=True):
        row[:] = pixels if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return result


def decode(name: str, content: bytes) -> Image.Image:
    """A grey or an RGB image."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.convert("L" if image.mode in _GREY else "RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{name} is not an image that can be read ({error})") from error


def _in_folder(path: Path) -> Files:
    found: dict[str, Callable[[], bytes]] = {}
    for folder, _, names in os.walk(path):
        for name in names:
            each = Path(folder) / name
            inside = each.relative_to(path)
            if _is_image(inside.as_posix()):
                found[inside.as_posix()] = each.read_bytes
    return found


def in_zip(archive: zipfile.ZipFile) -> Files:
    """The images of a zip, to be read while it is open."""
    return {name: _member(archive, name) for name in archive.namelist() if _is_image(name)}


def _member(archive: zipfile.ZipFile, name: str) -> Callable[[], bytes]:
    return lambda: archive.read(name)


def _is_image(name: str) -> bool:
    """By its suffix; neither hidden nor what macOS adds to zips."""
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def digest(files: Files) -> str:
    """A checksum of names and contents."""
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(f"{name}\0".encode(errors="surrogateescape"))
        total.update(hashlib.sha256(files[name]()).digest())
    return total.hexdigest()


def _from_npz(path: Path, splitting: Splitting) -> FewShotDataset:
    arrays = _read_npz(path)
    if missing := [name for name in ("images", "labels") if name not in arrays]:
        raise ValueError(f"{path} needs the arrays images and labels; {', '.join(missing)} is missing")
    labels = arrays["labels"]
    if labels.ndim == 2 and labels.shape[1] == 1:  # a column
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ValueError(f"{path}: labels must be one number an image, got shape {list(labels.shape)}")
    names = tuple(map(str, arrays["class_names"])) if "class_names" in arrays else ()
    return from_arrays(
        "arrays", arrays["images"], labels, classes=names, fractions=splitting.fractions, seed=splitting.seed
    )


def _read_npz(path: Path) -> Arrays:
    try:
        return read_arrays(path)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is not an .npz file that can be read without pickle ({error})") from error
