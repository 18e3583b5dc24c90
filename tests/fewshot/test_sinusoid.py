"""Sinusoids, and that MAML learns to adapt to them."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from metarl.fewshot import regression
from metarl.fewshot.maml import Maml, MamlConfig
from metarl.fewshot.sinusoid import Sinusoids, SinusoidSource
from metarl.learning.training import BatchSource
from metarl.maths.statistics import t_interval
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
    amplitudes = [task.number("amplitude") for task in test]
    assert min(amplitudes) >= 0.1 and max(amplitudes) <= 5.0


def test_the_hash_follows_the_spec() -> None:
    assert DATA.hash == Sinusoids().hash
    smaller = dataclasses.replace(DATA, space=dataclasses.replace(DATA.space, split_sizes=(100, 100, 601)))
    assert DATA.hash != smaller.hash


def test_meta_batches_hold_supports_and_queries_of_training_tasks() -> None:
    source = SinusoidSource(DATA, shots=(3, 5), queries=4)
    assert isinstance(source, BatchSource)
    found = [source.sample("train", 2, np.random.default_rng(seed)) for seed in range(20)]
    assert {batch.support.inputs.shape for batch in found} == {(2, shots, 1) for shots in (3, 4, 5)}
    assert {batch.query.targets.shape for batch in found} == {(2, 4, 1)}
    again = source.sample("train", 2, np.random.default_rng(7))
    assert torch.equal(again.support.inputs, found[7].support.inputs)
    for wrong in ({"shots": 0}, {"shots": (5, 3)}, {"queries": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            dataclasses.replace(source, **wrong)


def test_everybody_is_judged_on_the_same_supports_and_queries() -> None:
    support, query = regression.draw(DATA, "test", 5)
    assert support.inputs.shape == (600, 5, 1) and query.inputs.shape == (600, regression.QUERIES, 1)
    first, again = regression.draw(DATA, "test", 5, tasks=3)
    assert first.inputs.shape == (3, 5, 1) and again.inputs.shape == (3, regression.QUERIES, 1)
    assert torch.equal(regression.draw(DATA, "test", 5)[1].targets, query.targets)


def test_the_table_and_the_json_say_how_many_tasks() -> None:
    found = {5: {"0": np.array([3.0, 5.0]), "1": np.array([1.0, 1.5])}}
    shown = regression.table(found)
    assert "2 held-out tasks" in shown and "n = 1" in shown and "4.000" in shown
    assert "adapted" in regression.table({5: {"adapted": np.array([3.0, 5.0])}})
    written = json.loads(json.dumps(regression.to_json(found), allow_nan=False))
    row = written["shots"]["5"]["1"]
    assert row["tasks"] == 2 and row["errors"] == [1.0, 1.5] and row["mean"] == 1.25


@pytest.mark.parametrize("kind", ["second order", "first order", "anil"])
def test_maml_learns_to_adapt_to_held_out_sinusoids(kind: str) -> None:
    """Better than its own unadapted self, with an interval; better than it was before training, too."""
    config = MamlConfig(outer_rate=5e-3, first_order=kind == "first order", anil=kind == "anil")
    learner = Maml(config, DATA.signature(10))
    source, state = SinusoidSource(DATA), learner.init(0)
    for step in range(600):
        rng = np.random.default_rng([0, step])
        state, _ = learner.meta_step(state, source.sample("train", learner.meta_batch, rng), rng)
    support, query = regression.draw(DATA, "test", 10)
    errors = regression.errors_by_step(learner, state, support, query, [0, 1])
    gain = t_interval(errors[0] - errors[1])
    assert gain.low > 0.3, gain
    untrained = regression.errors_by_step(learner, learner.init(0), support, query, [1])
    assert errors[1].mean() < 0.85 * untrained[1].mean()
