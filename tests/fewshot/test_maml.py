"""Sinusoids, and supervised MAML on them."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from metarl.fewshot import evaluation
from metarl.fewshot.maml import Maml, MamlConfig
from metarl.fewshot.sinusoid import Sinusoids
from metarl.learner import State
from metarl.tasks import Task

DATA = Sinusoids()


def trained(config: MamlConfig, steps: int) -> tuple[Maml, State]:
    learner = Maml(config, DATA)
    state = learner.init(0)
    for step in range(steps):
        rng = np.random.default_rng([0, step])
        state, _ = learner.meta_step(state, DATA.sample("train", learner.meta_batch, rng), rng)
    return learner, state


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


def test_a_meta_step_follows_from_its_arguments_and_leaves_them_alone() -> None:
    learner = Maml(MamlConfig(), DATA)
    state, tasks = learner.init(0), DATA.sample("train", 25, np.random.default_rng(0))
    before = {name: value.clone() for name, value in state.parameters.items()}
    one, _ = learner.meta_step(state, tasks, np.random.default_rng(1))
    other, _ = Maml(MamlConfig(), DATA).meta_step(state, tasks, np.random.default_rng(1))
    for name, value in before.items():
        assert torch.equal(state.parameters[name], value)
        assert torch.equal(one.parameters[name], other.parameters[name])
        assert not torch.equal(one.parameters[name], value)


@pytest.mark.parametrize("options", [{}, {"first_order": True}, {"anil": True}])
def test_it_learns_to_adapt_to_held_out_sinusoids(options: dict[str, Any]) -> None:
    """Better than its own unadapted self, with an interval; better than it was before training, too."""
    learner, state = trained(MamlConfig(outer_rate=5e-3, **options), 600)
    errors = evaluation.errors_by_step(learner, DATA, state, "test", 10, [0, 1])
    gain = evaluation.t_interval(errors[0] - errors[1])
    assert gain.low > 0.3, gain
    untrained = evaluation.errors_by_step(learner, DATA, learner.init(0), "test", 10, [1])
    assert errors[1].mean() < 0.85 * untrained[1].mean()


def test_first_order_builds_no_second_order_graph() -> None:
    """The inner gradient is a constant there: another meta-gradient, at the same losses."""
    tasks = DATA.sample("train", 25, np.random.default_rng(0))
    results = []
    for first_order in (False, True):
        learner = Maml(MamlConfig(first_order=first_order), DATA)
        results.append(learner.meta_step(learner.init(0), tasks, np.random.default_rng(1)))
    assert results[0][1] == results[1][1]
    assert any(not torch.equal(results[0][0].optimizer[k], results[1][0].optimizer[k]) for k in results[0][0].optimizer)


def test_the_table_and_the_json_say_how_many_tasks() -> None:
    found = {5: {0: np.array([3.0, 5.0]), 1: np.array([1.0, 1.5])}}
    assert "2 held-out tasks" in evaluation.table(found) and "4.000" in evaluation.table(found)
    written = evaluation.to_json(found, step=7)
    assert written["step"] == 7
    shots = written["shots"]
    assert isinstance(shots, dict) and isinstance(shots["5"], dict)
    row = shots["5"]["1"]
    assert isinstance(row, dict) and row["tasks"] == 2 and row["errors"] == [1.0, 1.5]


@pytest.mark.parametrize("wrong", [{"shots": 0}, {"meta_batch": -1}, {"inner_rate": 0.0}, {"hidden": (0,)}])
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MamlConfig(**wrong)
