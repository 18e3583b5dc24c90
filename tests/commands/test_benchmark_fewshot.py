"""The benchmark's peer computes what ours does; else their times would not compare."""

import numpy as np
import pytest
import torch
from torch import nn

from metarl.commands import benchmark_fewshot
from metarl.commands.benchmark_fewshot import Case
from metarl.fewshot.examples import TaskSignature
from metarl.fewshot.maml import Maml, MamlConfig
from metarl.learning.protocols import State

CASE = Case("small", TaskSignature("regression", (1,), 0, 4, 1), tasks=3, examples=4, rate=0.1)


def test_the_loop_finds_the_meta_gradient_of_ours() -> None:
    learner, batch = Maml(MamlConfig(inner_lr=0.1, inner_steps=1), CASE.signature), CASE.batch()
    state = learner.init(0)
    module = nn.Sequential(nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1))
    names = ("encoder.hidden.0", "encoder.hidden.1", "head")
    for name, layer in zip(names, (layer for layer in module if isinstance(layer, nn.Linear)), strict=True):
        layer.weight.data = state.parameters[f"{name}.weight"].T.clone()
        layer.bias.data = state.parameters[f"{name}.bias"].clone()
    benchmark_fewshot.by_loop(module, nn.functional.mse_loss, batch, 0.1)()
    after: State = learner.meta_step(state, batch, np.random.default_rng(0))[0]
    for name, layer in zip(names, (layer for layer in module if isinstance(layer, nn.Linear)), strict=True):
        assert layer.weight.grad is not None
        torch.testing.assert_close(after.optimizer[f"exp_avg.{name}.weight"].T * 10, layer.weight.grad)


def test_a_report_names_the_peer_and_the_ratio() -> None:
    found = benchmark_fewshot.update_seconds(CASE, rounds=1)
    assert set(found) == {"metarl", benchmark_fewshot.peer_name()}
    line = benchmark_fewshot.report({"metarl": [0.001, 0.002], "task loop": [0.02, 0.03]})
    assert line == "1.5 ms, task loop 25.0 ms: ours is 17.50 (15.00 to 20.00) times as fast"


def test_the_cases_are_the_papers_networks() -> None:
    for case in benchmark_fewshot.CASES:
        batch = case.batch()
        assert batch.support.inputs.shape == (case.tasks, case.examples, *case.signature.shape)
        assert pytest.approx(1.0, abs=0.1) == float(batch.support.inputs.std())
