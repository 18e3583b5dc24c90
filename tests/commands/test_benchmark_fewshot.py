"""The benchmark's peer computes what ours does; else their times would not compare."""

import numpy as np
import pytest
import torch
from torch import nn

from metarl.commands import benchmark_fewshot
from metarl.commands.benchmark_fewshot import Case
from metarl.fewshot.encoders import Conv4Config
from metarl.fewshot.examples import TaskSignature
from metarl.fewshot.maml import Maml, MamlConfig
from metarl.fewshot.prototypical import PrototypicalConfig
from metarl.learning.protocols import State
from metarl.testing.toy_tasks import ToyTasks

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
    assert list(found) == ["metarl", benchmark_fewshot.peer_name(), benchmark_fewshot.PLAIN]
    line = benchmark_fewshot.report({"metarl": [0.001, 0.002], "task loop": [0.02, 0.03]})
    assert line == "1.5 ms, task loop 25.0 ms: ours is 17.50 (15.00 to 20.00) times as fast"


def test_the_loop_of_prototypical_networks_finds_our_gradient() -> None:
    """Of one task, whose images are normalised together there as here."""
    signature = TaskSignature("classification", (1, 28, 28), 3, 1, 3)
    tasks = ToyTasks(signature)
    learner = PrototypicalConfig(encoder=Conv4Config(downsample="stride")).build(signature)
    state = learner.init(0)
    batch = tasks.collect(learner, state, 0, 0)
    module = benchmark_fewshot._features(1)  # pyright: ignore[reportPrivateUsage]
    convolutions = [layer for layer in module if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in module if isinstance(layer, nn.BatchNorm2d)]
    for block, (convolution, norm) in enumerate(zip(convolutions, norms, strict=True)):
        name = f"encoder.blocks.{block}"
        convolution.weight.data = state.parameters[f"{name}.weight"].permute(3, 2, 0, 1).clone()
        norm.weight.data = state.parameters[f"{name}.scale"].clone()
    benchmark_fewshot.prototypes_by_loop(module, batch)()
    after, _ = learner.meta_step(state, batch, np.random.default_rng(0))
    for block, convolution in enumerate(convolutions):
        assert convolution.weight.grad is not None
        ours = 10 * after.optimizer[f"exp_avg.encoder.blocks.{block}.weight"]
        torch.testing.assert_close(ours.permute(3, 2, 0, 1), convolution.weight.grad, rtol=2e-3, atol=1e-6)


def test_the_cases_are_the_papers_networks() -> None:
    for case in benchmark_fewshot.CASES:
        batch = case.batch()
        assert batch.support.inputs.shape == (case.tasks, case.examples, *case.signature.shape)
        assert pytest.approx(1.0, abs=0.1) == float(batch.support.inputs.std())
