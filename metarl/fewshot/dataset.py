"""Examples of classes, and splits of the classes that share none: what a few-shot classifier's tasks are drawn from."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from metarl.fewshot.conversion import GREATEST, as_examples, as_targets
from metarl.fewshot.examples import TaskSignature
from metarl.fewshot.given import GivenTask
from metarl.tasks import SPLITS, Json, Split, content_hash

__all__ = [
    "FewShotDataset",
    "Selection",
    "as_examples",
    "as_targets",
    "class_numbers",
    "from_arrays",
    "normalised",
    "split_by_chance",
    "without_small_classes",
]


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
    left_out: tuple[str, ...] = ()
    """One line for each file and class that is not here because it could not be used, and the user went on without
    it. The hash follows what is here."""
    groups: tuple[str, ...] = ()
    """The group of each class, where a task's classes are all of one group (a domain's intents, a product's good and
    bad reviews); where empty, a task has any classes of its split."""
    ordered: bool = False
    """Whether the classes of a group correspond to those of others, in their order (bad and good reviews of a product):
    a class's label is then its place among the task's, and nothing that is drawn."""
    given: tuple[GivenTask, ...] = ()
    """Test tasks whose supports and queries are published."""
    text_encoder: str = ""
    """What made these features of texts (`metarl.fewshot.texts`); empty where examples are no texts."""
    source_hash: str = ""
    """The content hash of what features were computed from, texts and encoder; it stands for the examples in `hash`,
    because the last bits of features are the machine's."""

    def __post_init__(self) -> None:
        _check_examples(self)
        _check_labels(self)
        _check_splits(self)
        _check_groups(self)
        _check_given(self)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one input: (channels, height, width) or (features,)."""
        return tuple(self.examples.shape[1:])

    @property
    def images(self) -> bool:
        """Whether examples are images, not vectors."""
        return self.examples.dtype == torch.uint8

    @functools.cached_property
    def order(self) -> Int[np.ndarray, " example"]:
        """The numbers of the examples, class by class."""
        return np.argsort(self.labels, kind="stable")

    @functools.cached_property
    def counts(self) -> Int[np.ndarray, " class"]:
        """Examples of each class."""
        return np.bincount(self.labels.astype(np.int64), minlength=len(self.classes))

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
            "examples": self.source_hash or _digest(self.examples.cpu().numpy()),
            "labels": _digest(self.labels.astype(np.int64)),
            "classes": list(self.classes),
            "splits": {split: list(self.splits[split]) for split in SPLITS},
            "normalisation": [list(self.mean), list(self.std)],
        }
        if self.groups:
            spec["groups"] = list(self.groups)
        if self.ordered:
            spec["ordered"] = True
        if self.given:
            spec["given"] = [task.to_json() for task in self.given]
        return content_hash(spec)

    @functools.cached_property
    def pools(self) -> Mapping[Split, tuple[Int[np.ndarray, " class"], ...]]:
        """The classes that a task of each split may have together: one pool a group, or one of the whole split."""
        found: dict[Split, tuple[Int[np.ndarray, " class"], ...]] = {}
        for split in SPLITS:
            by_group: dict[str, list[int]] = {}
            for number in self.splits[split]:
                by_group.setdefault(self.groups[number] if self.groups else "", []).append(number)
            found[split] = tuple(np.array(by_group[group]) for group in sorted(by_group))
        return found

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
    examples: Shaped[np.ndarray, "..."],
    labels: Shaped[np.ndarray, "..."],
    *,
    classes: Sequence[str] = (),
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2),
    seed: int = 0,
) -> FewShotDataset:
    """A data set from arrays, its classes shared out among the splits by chance.

    Args:
        examples: images [example, height, width] or [example, height, width, channel], uint8 or real numbers in
            [0, 1], or vectors of real numbers [example, feature]; see `as_examples`.
        labels: the number of each example's class: integers from 0 on, or real numbers that are such integers.
        classes: the names of the classes by number; if not given, the numbers that there are.

    Raises:
        ValueError: the arrays do not fit each other, or are of another kind.
    """
    numbers, names = class_numbers(labels, classes)
    if examples.ndim == 0 or len(examples) != len(labels):
        raise ValueError(f"{len(examples) if examples.ndim else 'no'} examples but {len(labels)} labels")
    splits = split_by_chance(len(names), fractions, seed)
    data = FewShotDataset(id, as_examples(examples), numbers, names, splits)
    return data.standardised() if data.examples.dtype == torch.uint8 else data


def class_numbers(
    labels: Shaped[np.ndarray, "..."], classes: Sequence[str] = ()
) -> tuple[Int[np.ndarray, " example"], tuple[str, ...]]:
    """Labels as numbers of classes, and the classes' names.

    Without names, the classes are the numbers that there are, in their order: a gap or a huge number costs nothing.

    Raises:
        ValueError: labels that are no integers, negative ones, or ones beyond the names.
    """
    real = np.issubdtype(labels.dtype, np.floating) and bool(np.isfinite(labels).all())
    if labels.ndim != 1 or not (
        np.issubdtype(labels.dtype, np.integer) or (real and (labels == np.rint(labels)).all())
    ):
        raise ValueError(_not_integers(labels))
    low, high = (int(labels.min()), int(labels.max())) if len(labels) else (0, 0)
    if low < 0 or high >= 2**63:
        raise ValueError(f"labels must be the numbers of classes, 0 or more; they are {low} to {high}")
    numbers = labels.astype(np.int64)
    if not classes:
        values, numbers = np.unique(numbers, return_inverse=True)
        return numbers, tuple(map(str, values.tolist()))
    if high >= len(classes):
        raise ValueError(f"labels are {low} to {high}, but there are {len(classes)} names of classes")
    return numbers, tuple(classes)


class Selection(NamedTuple):
    """The classes that have enough examples, numbered anew."""

    kept: Bool[np.ndarray, " example"]
    """Whether an example is one of theirs."""
    labels: Int[np.ndarray, " kept"]
    """Of those that are."""
    classes: tuple[str, ...]
    faults: tuple[str, ...]
    """One line for each class with too few."""


def without_small_classes(labels: Int[np.ndarray, " example"], classes: Sequence[str], minimum: int) -> Selection:
    """Leaves out the classes with fewer than `minimum` examples."""
    counts = np.bincount(labels, minlength=len(classes))
    enough = counts >= minimum
    faults = tuple(
        f"class {name!r} has {count} example{'' if count == 1 else 's'}, fewer than {minimum}"
        for name, count in zip(classes, counts.tolist(), strict=True)
        if count < minimum
    )
    numbers, kept = np.cumsum(enough) - 1, enough[labels]
    names = tuple(name for name, is_kept in zip(classes, enough, strict=True) if is_kept)
    return Selection(kept, numbers[labels[kept]], names, faults)


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
    if data.examples.dtype == torch.float32 and not bool((data.examples.abs() <= GREATEST).all()):
        raise ValueError(f"{data.id}: vectors must be finite and lie within ±{GREATEST:g}, for single precision")
    if not len(data.mean) == len(data.std) in (0, data.examples.shape[1]) or min(data.std, default=1.0) <= 0:
        raise ValueError(
            f"{data.id}: mean and std must be empty or have {data.examples.shape[1]} numbers, those of std above 0; "
            f"got {data.mean} and {data.std}"
        )


def _check_labels(data: FewShotDataset) -> None:
    if data.labels.ndim != 1 or not np.issubdtype(data.labels.dtype, np.integer):
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


def _not_integers(labels: Shaped[np.ndarray, "..."]) -> str:
    shown = ", ".join(map(str, labels.reshape(-1)[:3].tolist()))
    shape = f" of shape {list(labels.shape)}" if labels.ndim != 1 else ""
    return f"labels must be integers, the numbers of the classes; they are {labels.dtype}{shape} ({shown}, ...)"


def _check_splits(data: FewShotDataset) -> None:
    if set(data.splits) != set(SPLITS):
        raise ValueError(f"{data.id}: the splits must be {', '.join(SPLITS)}, got {', '.join(data.splits)}")
    home: dict[int, Split] = {}
    counts = data.counts
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


def _check_groups(data: FewShotDataset) -> None:
    if data.groups and len(data.groups) != len(data.classes):
        raise ValueError(f"{data.id}: {len(data.classes)} classes but {len(data.groups)} groups")
    home: dict[str, Split] = {}
    for split in SPLITS:
        for number in data.splits[split] if data.groups else ():
            group = data.groups[number]
            if home.setdefault(group, split) != split:
                raise ValueError(f"{data.id}: group {group!r} is in {home[group]} and in {split}")


def _check_given(data: FewShotDataset) -> None:
    for task in data.given:
        numbers = (*task.support, *task.query)
        if max(numbers) >= len(data.labels):
            raise ValueError(f"{data.id}: the given task {task.name!r} has examples beyond the {len(data.labels)}")
        for number in numbers:
            if (label := int(data.labels[number])) not in task.classes:
                raise ValueError(
                    f"{data.id}: example {number} of the given task {task.name!r} is of {data.classes[label]!r}, "
                    "no class of it"
                )
        if without := set(task.classes) - {int(data.labels[number]) for number in task.support}:
            raise ValueError(
                f"{data.id}: the given task {task.name!r} has no support of {data.classes[min(without)]!r}"
            )
