"""A data set checks itself; its hash and its normalisation follow from what it holds."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from metarl.fewshot.dataset import FewShotDataset, from_arrays, split_by_chance
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
    with pytest.raises(ValueError, match="images must be uint8"):
        from_arrays("x", images / 255, LABELS)
