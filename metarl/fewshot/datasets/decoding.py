"""Files of images as one array of pixels."""

import io
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image, UnidentifiedImageError

from metarl.fewshot import pixels
from metarl.fewshot.datasets.sources import Files, UnreadableError, in_units, more_than, one_line, shown

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
"""What files may be, whatever their suffix. Pillow knows more, some of which starts other programs (EPS)."""
_PNG = b"\x89PNG"


class Decoded(NamedTuple):
    """The images that could be read."""

    images: UInt8[np.ndarray, "example channel height width"]
    """One channel where all are grey, else three."""
    kept: Int[np.ndarray, " example"]
    """The place of each in the names that were asked for."""
    faults: tuple[str, ...]
    """One line for each that could not be read."""


def decode_all(
    files: Files, names: Sequence[str], size: int | None, *, skip_bad: bool = False, max_bytes: int = 4 * 2**30
) -> Decoded:
    """All images as one array.

    Args:
        size: they are scaled to this height and width, px.
        skip_bad: whether to go on without those that cannot be read.
        max_bytes: most bytes of all pixels.

    Raises:
        UnreadableError: one cannot be read, and it was not asked to go on without it.
        ValueError: none could be read; they are of several sizes and no size was given; or they are too many.
    """
    decoded: dict[int, UInt8[np.ndarray, "..."]] = {}
    faults: list[str] = []
    total = 0
    for place, name in enumerate(names):
        try:
            image = decode(name, files[name]())
        except UnreadableError as error:
            if not skip_bad:
                raise
            faults.append(str(error))
            continue
        decoded[place] = image if size is None else pixels.resized(image, size, size)
        total += decoded[place].nbytes
        check_bytes(total, len(decoded), max_bytes)
    if not decoded:
        raise ValueError(f"none of the {len(names)} images can be read: {faults[0]}")
    _check_sizes({names[place]: image for place, image in decoded.items()})
    grey = all(image.ndim == 2 for image in decoded.values())
    height, width = next(iter(decoded.values())).shape[:2]
    result = np.empty((len(decoded), 1 if grey else 3, height, width), dtype=np.uint8)
    kept = np.fromiter(decoded, dtype=np.int64)
    for row, place in zip(result, kept.tolist(), strict=True):
        image = decoded.pop(place)  # so that they are in memory twice for no longer than needed
        row[:] = image if image.ndim == 2 else image.transpose(2, 0, 1)
    return Decoded(result, kept, tuple(faults))


def _check_sizes(images: dict[str, UInt8[np.ndarray, "..."]]) -> None:
    first, *others = images
    height, width = images[first].shape[:2]
    for name in others:
        if images[name].shape[:2] != (height, width):
            other_height, other_width = images[name].shape[:2]
            raise ValueError(
                f"images of several sizes: {shown(first)} is {width}×{height}, "
                f"{shown(name)} {other_width}×{other_height}; "
                f"make them one size, or add --image-size {min(height, width)}"
            )


def decode(name: str, content: bytes) -> UInt8[np.ndarray, "height width *rgb"]:
    """A grey image [height, width] or an RGB image [height, width, 3].

    Raises:
        UnreadableError: it is damaged, no image of these formats, or of pixels that cannot be read faithfully.
    """
    if not content:
        raise UnreadableError(f"{shown(name)} is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata, and about sizes below Pillow's limit
            if content.startswith(_PNG):  # its checksums, which Pillow decodes without looking at
                Image.open(io.BytesIO(content), formats=("PNG",)).verify()
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                return pixels.from_pil(image)
    except UnidentifiedImageError as error:
        raise UnreadableError(
            f"{shown(name)} is no image of the kinds {', '.join(FORMATS)}: it begins with {content[:8]!r}"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes Pillow's decoders raise nearly anything
        raise UnreadableError(f"{shown(name)} cannot be read as an image ({one_line(error)})") from error


def check_bytes(size: int, count: int, max_bytes: int) -> None:
    """Raises ValueError where the pixels of so many images take more bytes than allowed."""
    if size > max_bytes:
        raise ValueError(
            f"the pixels of {count} images take {in_units(size)}; scale them (--image-size), or {more_than(max_bytes)}"
        )
