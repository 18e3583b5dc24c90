"""What users have, images or vectors and labels of any kind, as data sets and learners take it.

    examples   uint8 images [example, channel, height, width], or float32 vectors [example, feature]
    targets    int64, the numbers of the classes

A learner that was trained on files, and is shown the same files as PIL images, arrays or tensors, sees the same pixels.
"""

from collections.abc import Hashable, Sequence
from numbers import Real
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped, UInt8
from PIL import Image
from torch import Tensor

from metarl.fewshot import pixels

Inputs = Shaped[np.ndarray, "..."] | Shaped[Tensor, "..."] | Image.Image | Sequence[object]
"""Images or vectors: one array or tensor of all, one PIL image, or a sequence of one of these for each example."""

GREATEST = 1e9
"""Entries of vectors beyond it are refused: what networks compute of them soon leaves single precision."""
_PLANES = (1, 2, 3, 4)  # as many channels as images usually have


def as_examples(examples: Inputs, *, shape: tuple[int, ...] | None = None) -> Shaped[Tensor, "example ..."]:
    """Images or vectors as a data set holds them, on the CPU.

        NumPy arrays           [example, height, width] or [example, height, width, channel], vectors [example, feature]
        PyTorch tensors        [example, height, width] or [example, channel, height, width], vectors [example, feature]
        PIL images             of every mode that `metarl.fewshot.pixels` knows, which says how each is read
        sequences of these     one image or vector for each example, without the axis `example`; of numbers as an array

    The values of images are uint8; or real numbers in [0, 1], from black to white, which are rounded to 8 bits (a
    learner has been trained on no more); or integers in 0 … 255; or booleans. Those of vectors are real numbers
    within ±1e9.

    Args:
        shape: of one example, as trained: (channels, height, width) or (features,). Images of other sizes are scaled to
            it, height and width each for itself; grey becomes colour, or colour grey, where its channels demand that.

    Raises:
        ValueError: what is given is neither, or cannot be made into that shape; the message names both.
    """
    if shape is not None and len(shape) not in (1, 3):
        raise ValueError(f"a shape is (channels, height, width) or (features,), got {shape}")
    arranged = _arranged(examples)
    if isinstance(arranged, np.ndarray) and arranged.ndim == 2:
        return torch.from_numpy(_vectors(arranged, shape))
    if shape is not None and len(shape) == 1:
        raise ValueError(f"trained on {_described(shape)}, got images")
    if shape is not None and isinstance(examples, (np.ndarray, Tensor)) and examples.ndim == 3:
        _refuse_one_image(tuple(examples.shape), shape, last=isinstance(examples, np.ndarray))
    batch = _batch(arranged, shape).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.array(batch, order="C"))  # always a copy: nobody else writes to it


@final
class Targets(NamedTuple):
    """Labels as a learner takes them, and what they stand for."""

    numbers: Int[np.ndarray, " example"]
    """The place of each example's label in `classes`."""
    classes: tuple[Hashable, ...]
    """The labels that there are, each once."""


def as_targets(labels: Sequence[object] | Shaped[np.ndarray, "..."] | Shaped[Tensor, "..."]) -> Targets:
    """Labels of any hashable kind as numbers 0, 1, ..., and the classes that these stand for.

    The classes are sorted where all are real numbers or all are texts, so that 0 … n − 1 stay what they are; otherwise
    they are in the order of their first appearance. Labels that are equal, such as 1 and 1.0, are one class.

        >>> as_targets(["hen", "cat", "hen"])
        Targets(numbers=array([1, 0, 1]), classes=('cat', 'hen'))

    Raises:
        ValueError: there are no labels, more than one an example, or one that is NaN or cannot be hashed.
    """
    if isinstance(labels, (np.ndarray, Tensor)):
        if labels.ndim != 1:
            raise ValueError(f"labels must be one an example, got shape {list(labels.shape)}")
        labels = labels.tolist()
    if isinstance(labels, (str, bytes)) or len(labels) == 0:
        raise ValueError(f"labels must be a sequence with one for each example, got {labels!r}")
    for place, label in enumerate(labels):
        if not _is_hashable(label) or label != label:
            raise ValueError(f"labels must be hashable and equal to themselves; that of example {place} is {label!r}")
    classes = tuple(dict.fromkeys(labels))
    texts = [label for label in classes if isinstance(label, str)]
    reals = [label for label in classes if isinstance(label, Real)]
    for kind in (texts, reals):
        if len(kind) == len(classes):
            classes = tuple(sorted(kind))
    places = {label: place for place, label in enumerate(classes)}
    return Targets(np.array([places[label] for label in labels], dtype=np.int64), classes)


def _is_hashable(label: object) -> bool:
    """Whether it really is: a tuple is by its type, but not where it holds a list."""
    try:
        hash(label)
    except TypeError:
        return False
    return True


def _arranged(
    examples: object,
) -> Shaped[np.ndarray, "example feature"] | Shaped[np.ndarray, "example height width channel"] | list[np.ndarray]:
    """Vectors as one array, images [height, width, channel] as one array or as a list; of any kind of number."""
    if isinstance(examples, (np.ndarray, Tensor)):
        return _channels_last(examples, whole=True)
    if isinstance(examples, Image.Image):
        return [_one(0, examples)]
    if isinstance(examples, (str, bytes)) or not isinstance(examples, Sequence):
        raise ValueError(f"examples must be arrays, tensors or PIL images, got {examples!r:.80}")
    if len(examples) == 0:
        raise ValueError("there are no examples")
    if not any(isinstance(each, (np.ndarray, Tensor, Image.Image)) for each in examples):
        return _channels_last(_of_numbers(examples), whole=True)
    found = [_one(place, each) for place, each in enumerate(examples)]
    if not any(each.ndim == 1 for each in found):
        return found
    lengths = [each.shape[0] if each.ndim == 1 else 0 for each in found]
    if len(set(lengths)) > 1:
        other = next(place for place, length in enumerate(lengths) if length != lengths[0])
        first, second = (f"{lengths[place]} features" if lengths[place] else "an image" for place in (0, other))
        raise ValueError(f"examples must be of one kind: number 0 has {first}, number {other} {second}")
    return np.stack(found)


def _one(place: int, example: object) -> Shaped[np.ndarray, "..."]:
    """A vector, or an image with the channels last."""
    try:
        if isinstance(example, Image.Image):
            return np.atleast_3d(pixels.from_pil(example))
        if isinstance(example, (np.ndarray, Tensor)):
            return _channels_last(example, whole=False)
        return _channels_last(_of_numbers(example), whole=False)
    except (ValueError, OSError) as error:  # the latter from an image whose file is read only now
        raise ValueError(f"example {place}: {error}") from error


def _of_numbers(values: object) -> Shaped[np.ndarray, "..."]:
    """Nested sequences of numbers as an array."""
    try:
        array = np.asarray(values)
    except (ValueError, TypeError):
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"examples must be arrays, tensors, PIL images or numbers, got {values!r:.80}")
    return array


def _channels_last(
    array: Shaped[np.ndarray, "..."] | Shaped[Tensor, "..."], *, whole: bool
) -> Shaped[np.ndarray, "..."]:
    """Vectors as they are, images with an axis of channels, the last; with an axis of examples in front if whole."""
    first = isinstance(array, Tensor)
    axes = array.ndim - whole  # of one example
    if axes not in (1, 2, 3):
        front = "example, " if whole else ""
        form = "channel, height, width" if first else "height, width, channel"
        raise ValueError(
            f"images must be [{front}height, width] or [{front}{form}], vectors [{front}feature]; "
            f"got {array.dtype} with shape {list(array.shape)}"
        )
    if axes == 3:
        here, there = (array.shape[-3], array.shape[-1]) if first else (array.shape[-1], array.shape[-3])
        if here not in _PLANES and there in _PLANES:
            raise ValueError(
                f"the channels come last in NumPy arrays and first in PyTorch tensors; this {type(array).__name__} "
                f"of shape {list(array.shape)} would have {here}: transpose it"
            )
    if isinstance(array, Tensor):
        array = array.detach().cpu()
        array = (array.float() if array.dtype == torch.bfloat16 else array).numpy()
    if axes == 1:
        return array
    if axes == 2:
        return array[..., None]
    return np.moveaxis(array, -3, -1) if first else array


# Vectors


def _vectors(
    array: Shaped[np.ndarray, "example feature"], shape: tuple[int, ...] | None
) -> Float[np.ndarray, "example feature"]:
    features = array.shape[1]
    if shape is not None and shape != (features,):
        hint = ": one image needs an axis in front, image[None]" if len(shape) == 3 else ""
        raise ValueError(f"trained on {_described(shape)}, got {_described((features,))}{hint}")
    if array.dtype.kind not in "biuf" or features == 0:
        raise ValueError(
            f"vectors must be real numbers [example, feature], got {array.dtype} with shape {list(array.shape)}"
        )
    with np.errstate(over="ignore"):  # it is infinite then, and refused
        vectors = array.astype(np.float32)
    if not (finite := np.isfinite(vectors)).all():
        place, feature = np.argwhere(~finite)[0]
        raise ValueError(f"vectors must be finite; feature {feature} of example {place} is {array[place, feature]}")
    if len(vectors) and (greatest := float(np.abs(vectors).max())) > GREATEST:
        place, feature = np.argwhere(np.abs(vectors) == greatest)[0]
        raise ValueError(
            f"vectors must lie within ±{GREATEST:g}, for single precision; scale feature {feature}: of example {place} "
            f"it is {array[place, feature]:g}"
        )
    return vectors


# Images


def _batch(
    images: Shaped[np.ndarray, "example height width channel"] | list[np.ndarray], shape: tuple[int, ...] | None
) -> UInt8[np.ndarray, "example new_height new_width new_channel"]:
    """All images of one shape: the one given, or the one that they have."""
    if isinstance(images, np.ndarray):
        whole = pixels.as_bytes(images)
        if shape is None or shape == (whole.shape[3], *whole.shape[1:3]):
            return whole
        images = list(whole)
    if not images:
        assert shape is not None
        return np.empty((0, *shape[1:], shape[0]), dtype=np.uint8)
    channels, height, width = shape or (max(image.shape[2] for image in images), *images[0].shape[:2])
    batch = np.empty((len(images), height, width, channels), dtype=np.uint8)
    for place, image in enumerate(images):
        if shape is None and image.shape[:2] != (height, width):
            raise ValueError(
                f"images of several sizes: number 0 is {width}×{height}, "
                f"number {place} {image.shape[1]}×{image.shape[0]}"
            )
        batch[place] = pixels.resized(_with_channels(pixels.as_bytes(image), channels), height, width)
    return batch


def _with_channels(
    image: UInt8[np.ndarray, "height width channel"], channels: int
) -> UInt8[np.ndarray, "height width channels"]:
    """Grey as colour or colour as grey, where that is asked for."""
    own = image.shape[2]
    if own == channels:
        return image
    if (own, channels) == (3, 1):
        return pixels.luma(image)[..., None]
    if (own, channels) == (1, 3):
        return np.repeat(image, 3, axis=2)
    raise ValueError(
        f"images of {own} channels cannot be made into images of {channels}; 1 and 3 can be into each other"
    )


def _refuse_one_image(given: tuple[int, ...], shape: tuple[int, ...], *, last: bool) -> None:
    """An image without the axis of examples looks like several grey ones."""
    looks_so = given[2] in (3, 4) and given[2] != shape[2] if last else given[0] == shape[0] == 3
    if looks_so:
        raise ValueError(
            f"trained on {_described(shape)}, got an array of shape {list(given)}, which may be one image in colour: "
            "put an axis for the examples in front, image[None]"
        )


def _described(shape: tuple[int, ...]) -> str:
    if len(shape) == 1:
        return f"vectors of {shape[0]} features"
    return f"images of {'×'.join(map(str, shape))} (channels × height × width)"
