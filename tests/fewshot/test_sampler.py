"""Tasks of a data set: distinct classes and examples, of the right split, and nothing that gives an answer away."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from metarl.fewshot.dataset import FewShotDataset
from metarl.fewshot.sampler import EpisodeSampler, EpisodeShape, Range, distinct
from metarl.tasks import SPLITS, Split

SIZES = (20, 9, 7, 30, 12, 8, 11, 10, 7, 15, 25, 9)  # examples of each class
SPLITTING: dict[Split, tuple[int, ...]] = {"train": (0, 2, 4, 6, 8, 10), "validation": (1, 5, 9), "test": (3, 7, 11)}


def numbered() -> FewShotDataset:
    """Each image shows its own number, in two bytes; the classes are mixed."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(SIZES)), SIZES))
    numbers = np.arange(len(labels))
    images = np.stack([numbers // 256, numbers % 256], axis=1).astype(np.uint8)
    names = tuple(f"class {number}" for number in range(len(SIZES)))
    return FewShotDataset("numbered", torch.from_numpy(images[:, None, None]), labels, names, SPLITTING)


DATA = numbered()


@pytest.mark.parametrize("split", SPLITS)
def test_a_batch_is_what_was_asked_for_and_of_the_right_split(split: Split) -> None:
    sampler = EpisodeSampler(DATA, EpisodeShape(ways=3, shots=2, queries=5))
    batch = sampler.sample(split, 8, np.random.default_rng(0))
    for part, each in ((batch.support, 2), (batch.query, 5)):
        assert part.inputs.shape == (8, 3 * each, 1, 1, 2) and part.inputs.dtype == torch.float32
        assert part.targets.shape == (8, 3 * each) and part.targets.dtype == torch.int64
        assert all(torch.bincount(labels, minlength=3).tolist() == [each] * 3 for labels in part.targets)
    pixels = torch.cat([batch.support.inputs, batch.query.inputs], 1).mul(255).round().long()[:, :, 0, 0]
    numbers = (256 * pixels[..., 0] + pixels[..., 1]).numpy()
    labels = torch.cat([batch.support.targets, batch.query.targets], 1).numpy()
    assert all(len(set(row)) == len(row) for row in numbers)  # no example twice, none in both parts
    for row, ways in zip(DATA.labels[numbers], labels, strict=True):
        assert set(row) <= set(SPLITTING[split])
        homes = {(int(way), int(number)) for way, number in zip(ways, row, strict=True)}
        assert len(homes) == 3  # one class for each label, one label for each class


def test_test_classes_never_meet_training() -> None:
    sampler, rng = EpisodeSampler(DATA, EpisodeShape(ways=3, shots=2, queries=5)), np.random.default_rng(0)
    seen = {
        split: {int(DATA.labels[number]) for part in (draw.support, draw.query) for number in part.reshape(-1)}
        for split in SPLITS
        for draw in [sampler.draw(split, 200, rng)]
    }
    assert seen == {split: set(classes) for split, classes in SPLITTING.items()}


def test_the_same_seed_draws_the_same_and_another_one_others() -> None:
    sampler = EpisodeSampler(DATA, EpisodeShape(3, 1, 4))
    one, same, other = (sampler.draw("train", 5, np.random.default_rng(seed)) for seed in (7, 7, 8))
    assert all((a == b).all() for a, b in zip(one, same, strict=True))
    assert (one.query != other.query).any()


def test_no_label_leaks() -> None:
    """A class has every label equally often; the place of an example says nothing about its label."""
    sampler = EpisodeSampler(DATA, EpisodeShape(ways=3, shots=2, queries=3))
    draw = sampler.draw("test", 3000, np.random.default_rng(0))
    for numbers, targets in ((draw.support, draw.support_targets), (draw.query, draw.query_targets)):
        classes = DATA.labels[numbers]
        for number, way in itertools.product(SPLITTING["test"], range(3)):
            share = (targets[classes == number] == way).mean()
            assert abs(share - 1 / 3) < 0.03, (number, way, share)  # three standard errors of 3000 draws
        for place, way in itertools.product(range(targets.shape[1]), range(3)):
            assert abs((targets[:, place] == way).mean() - 1 / 3) < 0.03, (place, way)
        together = (targets[:, 0] == targets[:, 1]).mean()
        each = targets.shape[1] // 3
        assert abs(together - (each - 1) / (3 * each - 1)) < 0.03


def test_distinct_numbers_are_uniform_sequences() -> None:
    rng = np.random.default_rng(0)
    sizes = np.tile([4, 5], 12_000)
    found = distinct(sizes, 3, rng)
    for size in (4, 5):
        rows = found[sizes == size]
        sequences, counts = np.unique(rows, axis=0, return_counts=True)
        expected = list(itertools.permutations(range(size), 3))
        assert sorted(map(tuple, sequences.tolist())) == sorted(expected)
        mean = len(rows) / len(expected)
        assert ((counts - mean) ** 2 / mean).sum() < 2 * len(expected)  # χ², whose mean is their number − 1


def test_all_of_a_class_may_be_drawn() -> None:
    assert sorted(distinct(np.array([6]), 6, np.random.default_rng(0))[0]) == list(range(6))


@pytest.mark.parametrize("ways", [2, (2, 5)])
@pytest.mark.parametrize("shots", [1, (1, 3)])
def test_ways_and_shots_vary_within_their_ranges(ways: Range, shots: Range) -> None:
    sampler, rng = EpisodeSampler(DATA, EpisodeShape(ways, shots, queries=2)), np.random.default_rng(0)
    found = set()
    for _ in range(100):
        support, query = sampler.sample("train", 2, rng)
        drawn = int(query.targets.max()) + 1
        assert query.targets.shape[1] == 2 * drawn
        found.add((drawn, support.targets.shape[1] // drawn))
    low_high = [(value, value) if isinstance(value, int) else value for value in (ways, shots)]
    assert found == set(itertools.product(*(range(low, high + 1) for low, high in low_high)))


@pytest.mark.parametrize(
    ("shape", "split", "message"),
    [
        (EpisodeShape(4, 1, 1), "test", "4 ways need 4 classes; numbered has 3 test classes"),
        (EpisodeShape((2, 7), 1, 1), "train", "7 ways need 7 classes; numbered has 6 train classes"),
        (
            EpisodeShape(2, (1, 3), 5),
            "train",
            r"need 8 examples a class \(3 support \+ 5 query\); train class 'class 2' has 7",
        ),
    ],
)
def test_too_few_classes_or_examples_are_refused_with_the_numbers(
    shape: EpisodeShape, split: Split, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        EpisodeSampler(DATA, shape).check(split)
    with pytest.raises(ValueError, match=message):
        EpisodeSampler(DATA, shape).sample(split, 1, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("ways", "shots", "queries", "message"),
    [(1, 1, 1, "ways must be at least 2"), (2, 0, 1, "shots"), (2, 1, 0, "queries"), ((5, 3), 1, 1, "got 5 to 3")],
)
def test_shapes_without_sense_are_refused(ways: Range, shots: Range, queries: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EpisodeShape(ways, shots, queries)


def test_channels_are_normalised() -> None:
    data = dataclasses.replace(DATA, examples=DATA.examples.reshape(-1, 2, 1, 1), mean=(0.25, 0.5), std=(0.5, 2.0))
    batch = EpisodeSampler(data, EpisodeShape(3, 1, 1)).sample("train", 2, np.random.default_rng(0))
    draw = EpisodeSampler(data, EpisodeShape(3, 1, 1)).draw("train", 2, np.random.default_rng(0))
    pixels = data.examples[torch.from_numpy(draw.support)].double() / 255
    expected = (pixels - torch.tensor([0.25, 0.5]).reshape(2, 1, 1)) / torch.tensor([0.5, 2.0]).reshape(2, 1, 1)
    torch.testing.assert_close(batch.support.inputs, expected.float())
