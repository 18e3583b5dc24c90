"""A user's own .npz file: `images` and `labels`, and perhaps `class_names`."""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from metarl.errors import UsageError
from metarl.fewshot.dataset import FewShotDataset, class_numbers, from_arrays, without_small_classes
from metarl.fewshot.datasets.npz import Arrays, read_arrays
from metarl.fewshot.datasets.options import ReadOptions, Splitting, prefixed, refuse
from metarl.fewshot.datasets.sources import UnreadableError

_NAMES = ("images", "labels", "class_names")


def load(path: Path, splitting: Splitting, options: ReadOptions) -> FewShotDataset:
    """A data set of the arrays `images` (or vectors), `labels` and, where it is there, `class_names`.

    Raises:
        UsageError: it cannot be read, or not without pickle, or takes more bytes than allowed.
        ValueError: an array is missing, or they are of other kinds or do not fit each other.
    """
    try:
        stored = read_arrays(path, options.max_bytes, _NAMES)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or error})") from error
    except UnreadableError as error:
        raise UsageError(str(error)) from error
    if missing := [name for name in _NAMES[:2] if name not in stored]:
        are = "is" if len(missing) == 1 else "are"
        raise ValueError(f"{path} needs the arrays images and labels; {' and '.join(missing)} {are} missing")
    images, labels = stored["images"], _flat(stored["labels"])
    with prefixed(str(path)):
        if images.ndim == 0 or labels.ndim != 1:
            raise ValueError(
                f"labels must be one number an image; images have shape {list(images.shape)}, "
                f"labels {list(labels.shape)}"
            )
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images but {len(labels)} labels")
        numbers, classes = class_numbers(labels, _class_names(stored))
    chosen = without_small_classes(numbers, classes, options.min_per_class)
    refuse(str(path), chosen.faults, options)
    with prefixed(str(path)):
        data = from_arrays(
            "arrays",
            images if chosen.kept.all() else images[chosen.kept],
            chosen.labels,
            classes=chosen.classes,
            fractions=splitting.fractions,
            seed=splitting.seed,
        )
    return dataclasses.replace(data, left_out=chosen.faults)


def _flat(labels: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """A column as one axis, which is how some files have it."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _class_names(stored: Arrays) -> tuple[str, ...]:
    """The names of the classes by number; none where there are none."""
    if "class_names" not in stored:
        return ()
    names = stored["class_names"]
    if names.ndim != 1 or names.dtype.kind not in "USiu":
        raise ValueError(f"class_names must be one text a class, got {names.dtype} with shape {list(names.shape)}")
    return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names.tolist())
