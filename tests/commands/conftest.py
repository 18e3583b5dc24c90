"""Runs that tests of the programs begin with."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.commands.test_programs import AGENTS
from tests.programs import call

FEWSHOT = ("prototypical", "conv4", "--filters", "4", "--ways", "2", "--shots", "1", "--queries", "2", "--train-ways",
           "2", "--train-queries", "2", "--tasks", "2", "--validation-tasks", "2", "--threads", "1")  # fmt: skip
"""A few-shot run of a moment; `--data`, `--steps` and `--run` are to be added."""


@pytest.fixture(scope="package")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with an agent's run, a few-shot learner's, one outer step each, and its data. Copy what is changed."""
    folder = tmp_path_factory.mktemp("runs")
    assert call("train", *AGENTS["maml"], "--run", folder / "agent", "--steps", "1") == 0
    images = np.random.default_rng(0).integers(256, size=(60, 6, 6), dtype=np.uint8)
    np.savez(folder / "photos.npz", images=images, labels=np.arange(60) % 10)
    data = ("--data", folder / "photos.npz", "--steps", "1")
    assert call("fewshot", *FEWSHOT, *data, "--run", folder / "fewshot") == 0
    there = sorted(folder.rglob("*"))
    yield folder
    assert sorted(folder.rglob("*")) == there, "a test wrote into what all tests of this folder begin with"
