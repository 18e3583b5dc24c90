"""Experience sources: what an outer step learns from follows from the seed and the step alone."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from metarl.fewshot.examples import Batch
from metarl.fewshot.maml import Maml, MamlConfig
from metarl.fewshot.sampler import EpisodeShape
from metarl.fewshot.sinusoid import Sinusoids
from metarl.fewshot.sources import ClassSource, EpisodeSource, SinusoidSource
from metarl.learning.protocols import Experience, ExperienceSource, State
from metarl.testing.toy_tasks import VECTORS
from tests.fewshot.helpers import blobs

DATA = blobs()
LEARNER: Maml = MamlConfig(meta_batch=4).build(VECTORS)
STATE = State({}, {})
SOURCES = {
    "episodes": EpisodeSource(DATA, EpisodeShape(3, 2, 4)),
    "classes": ClassSource(DATA, 50),
    "sinusoids": SinusoidSource(shots=(3, 5), queries=4),
}


def collect(source: Any, seed: int, step: int) -> Batch:
    return source.collect(LEARNER, STATE, seed, step)


@pytest.mark.parametrize("name", SOURCES)
def test_experience_follows_from_seed_and_step(name: str) -> None:
    source = SOURCES[name]
    assert isinstance(source, ExperienceSource)
    first, again = collect(source, 3, 7), collect(source, 3, 7)
    assert isinstance(first, Experience)
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.inputs, other.inputs) and torch.equal(one.targets, other.targets)
    for seed, step in ((3, 8), (4, 7), (7, 3)):
        assert not torch.equal(collect(source, seed, step).query.inputs[:, :2], first.query.inputs[:, :2])


def test_it_draws_other_numbers_than_the_learner_itself_in_that_step() -> None:
    """A learner's generator is default_rng([seed, step])."""
    source = SOURCES["episodes"]
    for seed, step in ((0, 0), (3, 1), (5, 0)):
        ours = np.random.default_rng([seed, step, 1]).integers(2**32, size=4)
        assert (ours != np.random.default_rng([seed, step]).integers(2**32, size=4)).any()
    assert collect(source, 0, 0).support.inputs.shape == (4, 6, 4)


def test_tasks_are_of_training_classes_and_of_the_size_asked_for() -> None:
    training = {tuple(row) for row in DATA.examples.numpy()[np.isin(DATA.labels, DATA.splits["train"])].tolist()}
    for batch in (collect(SOURCES["episodes"], 0, step) for step in range(10)):
        assert batch.support.inputs.shape == (4, 6, 4) and batch.query.targets.shape == (4, 12)
        assert {tuple(row) for row in batch.query.inputs.flatten(0, 1).tolist()} <= training
        assert batch.metrics() == {"examples": 4 * 18}


def test_pretraining_has_all_training_classes_by_their_own_numbers() -> None:
    batch = collect(ClassSource(DATA, 500), 0, 0)
    assert batch.support.targets.shape == (4, 0) and batch.support.inputs.shape == (4, 0, 4)
    home = {tuple(row): label for row, label in zip(DATA.examples.tolist(), DATA.labels.tolist(), strict=True)}
    classes = [home[tuple(row)] for row in batch.query.inputs.flatten(0, 1).tolist()]
    assert (np.array(DATA.splits["train"])[batch.query.targets.flatten().numpy()] == classes).all()
    assert set(batch.query.targets.flatten().tolist()) == set(range(len(DATA.splits["train"])))
    with pytest.raises(ValueError, match="size must be at least 1"):
        ClassSource(DATA, 0)


def test_sinusoids_are_of_the_training_split_and_of_varying_shots() -> None:
    source = SinusoidSource(Sinusoids(), shots=(3, 5), queries=4)
    batches = [collect(source, 0, step) for step in range(20)]
    assert {batch.support.inputs.shape for batch in batches} == {(4, shots, 1) for shots in (3, 4, 5)}
    assert {batch.query.targets.shape for batch in batches} == {(4, 4, 1)}
    for wrong in ({"shots": 0}, {"shots": (5, 3)}, {"queries": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            dataclasses.replace(source, **wrong)
