"""Sinusoids, and that MAML learns to adapt to them."""

import dataclasses

import numpy as np
import pytest
import torch

from metarl.fewshot import regression
from metarl.fewshot.examples import Batch
from metarl.fewshot.maml import Maml, MamlConfig
from metarl.fewshot.sinusoid import Sinusoids
from metarl.statistics import t_interval
from metarl.tasks import Task

DATA = Sinusoids()


def test_examples_lie_on_the_sinusoid() -> None:
    tasks = (Task.of("sinusoid", amplitude=2.0, phase=0.5), Task.of("sinusoid", amplitude=0.1, phase=3.0))
    x, y = DATA.examples(tasks, 50, np.random.default_rng(0))
    assert x.shape == y.shape == (2, 50, 1) and x.dtype == torch.float32
    assert x.min() >= -5 and x.max() <= 5 and x.std() > 2
    torch.testing.assert_close(y[0], 2.0 * torch.sin(x[0] - 0.5), atol=1e-5, rtol=0)
    torch.testing.assert_close(y[1], 0.1 * torch.sin(x[1] - 3.0), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="at least one example"):
        DATA.examples(tasks, 0, np.random.default_rng(0))


def test_the_600_test_tasks_are_never_drawn_in_training() -> None:
    test = set(DATA.tasks("test"))
    assert len(test) == 600 and not test & set(DATA.sample("train", 5000, np.random.default_rng(0)))
    assert not test & set(DATA.tasks("validation"))
    amplitudes = [task["amplitude"] for task in test]
    assert min(amplitudes) >= 0.1 and max(amplitudes) <= 5.0


def test_the_hash_follows_the_spec() -> None:
    assert DATA.hash == Sinusoids().hash
    smaller = dataclasses.replace(DATA, space=dataclasses.replace(DATA.space, listed=(100, 100, 601)))
    assert DATA.hash != smaller.hash


@pytest.mark.parametrize("kind", ["second order", "first order", "anil"])
def test_maml_learns_to_adapt_to_held_out_sinusoids(kind: str) -> None:
    """Better than its own unadapted self, with an interval; better than it was before training, too."""
    config = MamlConfig(outer_rate=5e-3, first_order=kind == "first order", anil=kind == "anil")
    learner = Maml(config, DATA.signature(10))
    state = learner.init(0)
    for step in range(500):
        rng = np.random.default_rng([0, step])
        tasks = DATA.sample("train", learner.meta_batch, rng)
        batch = Batch(DATA.examples(tasks, 10, rng), DATA.examples(tasks, 10, rng))
        state, _ = learner.meta_step(state, batch, rng)
    support, query = regression.draw(DATA, "test", 10)
    errors = regression.errors_by_step(learner, state, support, query, [0, 1])
    gain = t_interval(errors[0] - errors[1])
    assert gain.low > 0.3, gain
    untrained = regression.errors_by_step(learner, learner.init(0), support, query, [1])
    assert errors[1].mean() < 0.85 * untrained[1].mean()
