"""A data set checks itself; its hash and its normalisation follow from what it holds."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from metarl.fewshot.dataset import FewShotDataset, class_numbers, from_arrays, split_by_chance, without_small_classes
from metarl.tasks import SPLITS

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(256, size=(12, 3, 4, 5), dtype=np.uint8))
LABELS = np.array([0, 1, 2, 3] * 3)
DATA = FewShotDataset("tiny", IMAGES, LABELS, ("a", "b", "c", "d"), {"train": (0, 2), "validation": (1,), "test": (3,)})


def test_the_examples_of_a_class_are_found() -> None:
    assert DATA.shape == (3, 4, 5) and DATA.counts.tolist() == [3, 3, 3, 3]
    for number in range(4):
        found = DATA.order[DATA.starts[number] :][: DATA.counts[number]]
        assert sorted(found) == np.flatnonzero(number == LABELS).tolist()
    assert DATA.signature(2, 1).classes == 2 and DATA.signature(2, 1).shape == (3, 4, 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": LABELS.astype(float)}, "labels must be integers, .* they are float64"),
        ({"labels": LABELS[:-1]}, "12 examples but 11 labels"),
        ({"labels": LABELS + 1}, "labels are 1 to 4, but there are 4 classes"),
        ({"labels": LABELS - 1}, "labels are -1 to 2"),
        ({"labels": np.zeros(0, int), "examples": IMAGES[:0]}, "holds no examples"),
        ({"classes": ("a", "b", "a", "d")}, "two classes are called 'a'"),
        ({"splits": {"train": (0, 2), "validation": (1,), "test": (3, 2)}}, "class 'c' is in train and in test"),
        ({"splits": {"train": (0, 2), "validation": (1,), "test": (4,)}}, "test has class 4; there are 4 classes"),
        ({"splits": {"train": (0, 2), "test": (3,)}}, "the splits must be train, validation, test"),
        ({"labels": LABELS % 3}, "class 'd' of test has no examples"),
        ({"examples": IMAGES.float()}, "got torch.float32 with shape"),
        ({"examples": IMAGES[:, 0]}, "got torch.uint8 with shape"),
        ({"mean": (0.5,), "std": (0.5,)}, "must be empty or have 3 numbers"),
        ({"mean": (0.5,) * 3, "std": (0.5, 0.0, 1.0)}, "those of std above 0"),
    ],
)
def test_a_data_set_that_contradicts_itself_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(DATA, **changes)


def test_the_hash_follows_everything_that_decides_an_accuracy() -> None:
    other = IMAGES.clone()
    other[3, 1, 2, 2] ^= 1
    moved = {"train": (0, 1), "validation": (2,), "test": (3,)}
    changes: list[dict[str, Any]] = [
        {"examples": other},
        {"labels": LABELS[::-1].copy()},
        {"splits": moved},
        {"mean": (0.5,) * 3, "std": (1.0,) * 3},
    ]
    hashes = {DATA.hash, *(dataclasses.replace(DATA, **change).hash for change in changes)}
    assert len(hashes) == 5
    assert dataclasses.replace(DATA, examples=IMAGES.clone()).hash == DATA.hash


def test_the_training_classes_alone_decide_the_normalisation() -> None:
    data = DATA.standardised()
    training = IMAGES[torch.from_numpy(np.isin(LABELS, (0, 2)))].double() / 255
    np.testing.assert_allclose(data.mean, training.mean((0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(data.std, training.std((0, 2, 3), correction=0), atol=1e-6)


@pytest.mark.parametrize(("classes", "sizes"), [(3, (1, 1, 1)), (4, (2, 1, 1)), (10, (6, 2, 2)), (100, (60, 20, 20))])
def test_classes_are_shared_out_by_seed(classes: int, sizes: tuple[int, int, int]) -> None:
    splits = split_by_chance(classes, (0.6, 0.2, 0.2), 0)
    assert tuple(len(splits[split]) for split in SPLITS) == sizes
    assert sorted(sum(splits.values(), ())) == list(range(classes))
    assert splits == split_by_chance(classes, (0.6, 0.2, 0.2), 0)
    assert classes < 10 or splits != split_by_chance(classes, (0.6, 0.2, 0.2), 1)


def test_a_share_of_nothing_and_too_few_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 3 classes, got 2"):
        split_by_chance(2, (0.6, 0.2, 0.2), 0)
    for fractions in ((1.0, 0.0, 0.0), (0.6, 0.6, 0.2)):
        with pytest.raises(ValueError, match="add up to 1"):
            split_by_chance(9, fractions, 0)


def test_arrays_of_grey_and_coloured_images_and_of_vectors_become_data_sets() -> None:
    images = np.random.default_rng(0).integers(256, size=(12, 6, 7, 3), dtype=np.uint8)
    assert from_arrays("x", images, LABELS).shape == (3, 6, 7)
    grey = from_arrays("x", images[..., 0], LABELS, classes=["w", "x", "y", "z"])
    assert grey.shape == (1, 6, 7) and grey.classes == ("w", "x", "y", "z")
    torch.testing.assert_close(grey.examples[:, 0], torch.from_numpy(images[..., 0]))
    vectors = from_arrays("x", images[:, 0, :, 0].astype(np.float64), LABELS)
    assert vectors.shape == (7,) and vectors.examples.dtype == torch.float32
    with pytest.raises(ValueError, match="labels must be integers"):
        from_arrays("x", images, LABELS / 2)
    with pytest.raises(ValueError, match="12 examples but 11 labels"):
        from_arrays("x", images, LABELS[:-1])
    assert from_arrays("x", images / 255, LABELS * 1.0).hash == from_arrays("x", images, LABELS).hash
    with pytest.raises(ValueError, match="must lie in .0, 1."):
        from_arrays("x", images * 1.0, LABELS)


def test_classes_are_the_numbers_that_there_are() -> None:
    numbers, names = class_numbers(np.array([5, 10**15, 5, 0], dtype=np.uint64))
    assert numbers.tolist() == [1, 2, 1, 0] and names == ("0", "5", str(10**15))
    numbers, names = class_numbers(np.array([2.0, 0.0]), ["a", "b", "c"])
    assert numbers.tolist() == [2, 0] and names == ("a", "b", "c")
    for labels, classes, message in (
        (np.array([0, -1]), (), "0 or more; they are -1 to 0"),
        (np.array([0, 3]), ("a", "b"), "labels are 0 to 3, but there are 2 names"),
        (np.array([0.5]), (), "they are float64 .0.5"),
        (np.array([np.inf]), (), "they are float64 .inf"),
        (np.zeros((2, 2), int), (), r"they are int64 of shape \[2, 2\]"),
    ):
        with pytest.raises(ValueError, match=message):
            class_numbers(labels, classes)


def test_classes_with_too_few_examples_are_left_out() -> None:
    labels = np.array([3, 0, 1, 3, 1, 1])
    chosen = without_small_classes(labels, ("a", "b", "c", "d"), 2)
    assert chosen.kept.tolist() == [True, False, True, True, True, True]
    assert chosen.classes == ("b", "d") and chosen.labels.tolist() == [1, 0, 1, 0, 0]
    assert chosen.faults == ("class 'a' has 1 example, fewer than 2", "class 'c' has 0 examples, fewer than 2")
    assert without_small_classes(labels, ("a", "b", "c", "d"), 0).labels.tolist() == labels.tolist()


def test_unsigned_labels_are_counted() -> None:
    data = dataclasses.replace(DATA, labels=LABELS.astype(np.uint64))
    assert data.counts.tolist() == [3, 3, 3, 3] and data.hash == DATA.hash


def test_what_was_left_out_stays_known_and_is_no_part_of_the_hash() -> None:
    data = dataclasses.replace(DATA, left_out=("a/1.png is empty",))
    assert data.hash == DATA.hash and data.on("cpu").standardised().left_out == ("a/1.png is empty",)
