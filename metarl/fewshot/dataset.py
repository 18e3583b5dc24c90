"""Examples of classes, and splits of the classes that share none: what a few-shot classifier's tasks are drawn from."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from metarl.fewshot.examples import TaskSignature
from metarl.tasks import SPLITS, Json, Split, content_hash


@final
@dataclasses.dataclass(frozen=True, eq=False)
class FewShotDataset:
    """All examples in one tensor, the class of each, and the split of each class.

    Raises:
        ValueError: it contradicts itself: a class in two splits, labels that are not integers, ...
    """

    id: str
    examples: Shaped[Tensor, "example ..."]
    """uint8 images [example, channel, height, width], or float32 vectors [example, feature]. It stays where it is, on
    the CPU or a GPU; episodes are drawn as numbers into it."""
    labels: Shaped[np.ndarray, " label"]
    """The number of each example's class, an integer."""
    classes: tuple[str, ...]
    """The names of the classes by number."""
    splits: Mapping[Split, tuple[int, ...]]
    """The classes of each split."""
    mean: tuple[float, ...] = ()
    """Subtracted from a channel (of images in [0, 1]) or a feature; nothing where empty."""
    std: tuple[float, ...] = ()
    """What a channel or a feature is then divided by."""

    def __post_init__(self) -> None:
        _check_examples(self)
        _check_labels(self)
        _check_splits(self)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one input: (channels, height, width) or (features,)."""
        return tuple(self.examples.shape[1:])

    @functools.cached_property
    def order(self) -> Int[np.ndarray, " example"]:
        """The numbers of the examples, class by class."""
        return np.argsort(self.labels, kind="stable")

    @functools.cached_property
    def counts(self) -> Int[np.ndarray, " class"]:
        """Examples of each class."""
        return np.bincount(self.labels, minlength=len(self.classes))

    @functools.cached_property
    def starts(self) -> Int[np.ndarray, " class"]:
        """Where each class begins in `order`."""
        return np.cumsum(self.counts) - self.counts

    @functools.cached_property
    def hash(self) -> str:
        """The content hash of everything that decides what an accuracy means: every example, class and split."""
        spec: dict[str, Json] = {
            "id": self.id,
            "shape": list(self.shape),
            "examples": _digest(self.examples.cpu().numpy()),
            "labels": _digest(self.labels.astype(np.int64)),
            "classes": list(self.classes),
            "splits": {split: list(self.splits[split]) for split in SPLITS},
            "normalisation": [list(self.mean), list(self.std)],
        }
        return content_hash(spec)

    def signature(self, ways: int, shots: int) -> TaskSignature:
        """What a learner must know of tasks with so many classes and examples of each."""
        return TaskSignature("classification", self.shape, ways, shots, ways, len(self.splits["train"]))

    def on(self, device: str) -> "FewShotDataset":
        """The same, with the examples on this device."""
        return dataclasses.replace(self, examples=self.examples.to(device))

    def standardised(self) -> "FewShotDataset":
        """The same, each channel of the training classes' images with mean 0 and variance 1."""
        if self.examples.dtype != torch.uint8:
            raise ValueError("only images are standardised; these examples are vectors")
        training = self.examples[torch.from_numpy(np.isin(self.labels, self.splits["train"]))]
        levels = torch.arange(256, dtype=torch.float64) / 255
        means, stds = [], []
        for channel in training.unbind(1):  # by histogram: exact, whatever the order of summation
            share = torch.bincount(channel.reshape(-1).cpu(), minlength=256).double() / channel.numel()
            mean = float(share @ levels)
            std = float(share @ (levels - mean) ** 2) ** 0.5
            means.append(round(mean, 6))  # the hash has them, and the last bit is the machine's
            stds.append(round(max(std, 1 / 255), 6))
        return dataclasses.replace(self, mean=tuple(means), std=tuple(stds))

    def describe(self) -> str:
        """One line: what there is."""
        kind = "×".join(map(str, self.shape))
        parts = ", ".join(f"{len(self.splits[split])} {split}" for split in SPLITS)
        return f"{self.id} ({self.hash}): {len(self.labels)} examples of {kind}; classes: {parts}"


def split_by_chance(classes: int, fractions: tuple[float, float, float], seed: int) -> Mapping[Split, tuple[int, ...]]:
    """Classes shared out among the splits by chance: near the fractions, and at least one each.

    Raises:
        ValueError: fewer than three classes, or fractions that are not positive or do not add up to 1.
    """
    if min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"the shares of train, validation and test must be positive and add up to 1, got {fractions}")
    if classes < len(SPLITS):
        raise ValueError(f"three splits need at least 3 classes, got {classes}")
    held_out = [max(1, round(fraction * classes)) for fraction in fractions[1:]]
    while sum(held_out) >= classes:  # of three or four classes each split has one or two
        held_out[int(np.argmax(held_out))] -= 1
    order = [int(number) for number in np.random.default_rng(seed).permutation(classes)]
    first = classes - sum(held_out)
    cuts = (order[:first], order[first : first + held_out[0]], order[first + held_out[0] :])
    return {split: tuple(sorted(cut)) for split, cut in zip(SPLITS, cuts, strict=True)}


def from_arrays(
    id: str,
    examples: Shaped[np.ndarray, "example ..."],
    labels: Shaped[np.ndarray, " label"],
    *,
    classes: Sequence[str] = (),
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2),
    seed: int = 0,
) -> FewShotDataset:
    """A data set from arrays, its classes shared out among the splits by chance.

    Args:
        examples: uint8 images [example, height, width] or [example, height, width, channel], or vectors of real
            numbers [example, feature].
        labels: the number of each example's class, 0, 1, ...
        classes: the names of the classes; their numbers if not given.

    Raises:
        ValueError: the arrays do not fit each other, or are of another kind.
    """
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(_not_integers(labels))
    names = tuple(classes) or tuple(str(number) for number in range(int(labels.max(initial=-1)) + 1))
    splits = split_by_chance(len(names), fractions, seed)
    data = FewShotDataset(id, as_examples(examples), labels, names, splits)
    return data.standardised() if data.examples.dtype == torch.uint8 else data


def as_examples(array: Shaped[np.ndarray, "example ..."]) -> Shaped[Tensor, "example ..."]:
    """Images [example, height, width] or [example, height, width, channel], or vectors, as a data set holds them.

    Raises:
        ValueError: the array is neither.
    """
    if array.ndim == 2 and (np.issubdtype(array.dtype, np.number) or array.dtype == np.bool_):
        return torch.from_numpy(array.astype(np.float32))
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        raise ValueError(
            "images must be uint8 [example, height, width(, channel)], vectors [example, feature]; "
            f"got {array.dtype} with shape {list(array.shape)}"
        )
    channels = array[..., None] if array.ndim == 3 else array
    return torch.from_numpy(np.ascontiguousarray(channels.transpose(0, 3, 1, 2)))


def normalised(
    examples: Shaped[Tensor, "example ..."], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Tensor, "example ..."]:
    """What a learner is given: bytes as numbers in [0, 1], less the mean, over the standard deviation."""
    found = examples.float().mul_(1 / 255) if examples.dtype == torch.uint8 else examples.clone()
    if mean:
        ones = (1,) * (found.ndim - 2)
        shift, scale = (torch.tensor(each, device=found.device).reshape(-1, *ones) for each in (mean, std))
        found = found.sub_(shift).div_(scale)
    return found


def _digest(array: Shaped[np.ndarray, "..."]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def _check_examples(data: FewShotDataset) -> None:
    kinds = {torch.uint8: 4, torch.float32: 2}
    if data.examples.ndim != kinds.get(data.examples.dtype):
        raise ValueError(
            f"{data.id}: examples must be uint8 images [example, channel, height, width] or float32 vectors "
            f"[example, feature], got {data.examples.dtype} with shape {list(data.examples.shape)}"
        )
    if not len(data.mean) == len(data.std) in (0, data.examples.shape[1]) or min(data.std, default=1.0) <= 0:
        raise ValueError(
            f"{data.id}: mean and std must be empty or have {data.examples.shape[1]} numbers, those of std above 0; "
            f"got {data.mean} and {data.std}"
        )


def _check_labels(data: FewShotDataset) -> None:
    if not np.issubdtype(data.labels.dtype, np.integer):
        raise ValueError(f"{data.id}: {_not_integers(data.labels)}")
    if len(data.labels) != len(data.examples):
        raise ValueError(f"{data.id}: {len(data.examples)} examples but {len(data.labels)} labels")
    if len(data.labels) == 0:
        raise ValueError(f"{data.id} holds no examples")
    low, high = int(data.labels.min()), int(data.labels.max())
    if low < 0 or high >= len(data.classes):
        raise ValueError(f"{data.id}: labels are {low} to {high}, but there are {len(data.classes)} classes")
    if len(set(data.classes)) < len(data.classes):
        twice = next(name for name in data.classes if data.classes.count(name) > 1)
        raise ValueError(f"{data.id}: two classes are called {twice!r}")


def _not_integers(labels: Shaped[np.ndarray, " label"]) -> str:
    shown = ", ".join(map(str, labels[:3].tolist()))
    return f"labels must be integers, the numbers of the classes; they are {labels.dtype} ({shown}, ...)"


def _check_splits(data: FewShotDataset) -> None:
    if set(data.splits) != set(SPLITS):
        raise ValueError(f"{data.id}: the splits must be {', '.join(SPLITS)}, got {', '.join(data.splits)}")
    home: dict[int, Split] = {}
    counts = np.bincount(data.labels, minlength=len(data.classes))
    for split in SPLITS:
        for number in data.splits[split]:
            if not 0 <= number < len(data.classes):
                raise ValueError(f"{data.id}: {split} has class {number}; there are {len(data.classes)} classes")
            if number in home:
                raise ValueError(
                    f"{data.id}: class {data.classes[number]!r} is in {home[number]} and in {split}; "
                    "a class that is tested must never be met in training"
                )
            if counts[number] == 0:
                raise ValueError(f"{data.id}: class {data.classes[number]!r} of {split} has no examples")
            home[number] = split
