"""Reptile against PyTorch's own Adam, task by task, in float64."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metarl.fewshot.encoders import MlpConfig
from metarl.fewshot.examples import Batch, Examples, TaskSignature
from metarl.fewshot.reptile import Reptile, ReptileConfig, minibatches
from metarl.learning.protocols import State
from tests.fewshot.helpers import doubled

SIGNATURE = TaskSignature("regression", (2,), 0, 3, 1)
INNER_LR, EPSILON = 0.02, 0.5


def reptile(**options: int) -> Reptile:
    chosen = {"meta_batch": 1, "inner_steps": 3, "inner_batch": 3, "test_batch": 2} | options
    config = ReptileConfig(inner_lr=INNER_LR, learning_rate=EPSILON, encoder=MlpConfig((4,)), **chosen)
    return config.build(SIGNATURE)


def examples(tasks: int, count: int, seed: int) -> Examples:
    x = np.random.default_rng(seed).normal(size=(tasks, count, 2))
    return Examples(torch.from_numpy(x), torch.from_numpy(np.sin(x.sum(-1, keepdims=True))))


class Explicit:
    """The network and the inner optimiser of one task, kept from task to task as in the paper's program."""

    def __init__(self, state: State) -> None:
        self.network = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1)).double()
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=INNER_LR, betas=(0.0, 0.999), eps=1e-8)
        self.put(state.parameters)

    def put(self, parameters: Mapping[str, Tensor]) -> None:
        for name, value in self.named().items():
            value.data.copy_(parameters[name].mT if value.ndim == 2 else parameters[name])

    def named(self) -> dict[str, Tensor]:
        names = ("encoder.hidden.0.weight", "encoder.hidden.0.bias", "head.weight", "head.bias")
        return dict(zip(names, self.network.parameters(), strict=True))

    def step(self, minibatch: Examples) -> None:
        self.optimizer.zero_grad()
        nn.functional.mse_loss(self.network(minibatch.inputs[0]), minibatch.targets[0]).backward()
        self.optimizer.step()

    def values(self) -> dict[str, Tensor]:
        return {k: v.detach().mT.clone() if v.ndim == 2 else v.detach().clone() for k, v in self.named().items()}


def test_outer_steps_are_those_of_an_adam_that_goes_on_from_task_to_task() -> None:
    """Its second moments and its step count included: each minibatch is the whole task here."""
    learner = reptile(inner_batch=6)
    state = doubled(learner.init(0))
    explicit = Explicit(state)
    for step in range(4):
        support, query = examples(1, 3, 2 * step), examples(1, 3, 2 * step + 1)
        before = explicit.values()
        whole = support.followed_by(query)
        for _ in range(3):
            explicit.step(whole)
        rate = EPSILON * (1 - step / 100_000)
        explicit.put({name: value + rate * (explicit.values()[name] - value) for name, value in before.items()})
        state, _ = learner.meta_step(state, Batch(support, query), np.random.default_rng(step))
        for name, value in explicit.values().items():
            torch.testing.assert_close(state.parameters[name], value, rtol=1e-6, atol=1e-7, msg=name)


def test_an_evaluated_task_goes_on_with_the_optimiser_and_takes_minibatches_in_turn() -> None:
    learner = reptile()
    state = doubled(learner.init(0))
    state, _ = learner.meta_step(state, Batch(examples(1, 3, 0), examples(1, 3, 1)), np.random.default_rng(0))
    explicit = Explicit(state)
    for name, value in explicit.named().items():  # the optimiser as training left it
        second = state.optimizer[f"exp_avg_sq.{name}"]
        explicit.optimizer.state[value] = {
            "step": torch.tensor(3.0),
            "exp_avg": torch.zeros_like(value),
            "exp_avg_sq": second.mT.clone() if second.ndim == 2 else second.clone(),
        }
    support, query = examples(1, 5, 2), examples(1, 4, 3)
    predictor = learner.start(state, 1)
    for numbers in ([0, 1], [2, 3], [4, 0], [1, 2]):
        explicit.step(support.take(torch.tensor([numbers])))
        predictor = predictor.adapt(support)
        expected = explicit.network(query.inputs[0]).detach()
        torch.testing.assert_close(predictor.predict(query.inputs)[0], expected, rtol=1e-6, atol=1e-7)


def test_tasks_side_by_side_move_the_parameters_by_their_mean() -> None:
    learner = reptile(meta_batch=2, inner_batch=6)
    state = doubled(learner.init(0))
    support, query = examples(2, 3, 0), examples(2, 3, 1)
    together, _ = learner.meta_step(state, Batch(support, query), np.random.default_rng(0))
    alone = [
        learner.meta_step(
            state,
            Batch(*(Examples(*(part[task : task + 1] for part in each)) for each in (support, query))),
            np.random.default_rng(0),
        )[0]
        for task in range(2)
    ]
    for part in ("parameters", "optimizer"):
        for name, value in getattr(together, part).items():
            mean = (getattr(alone[0], part)[name] + getattr(alone[1], part)[name]) / 2
            torch.testing.assert_close(value, mean, msg=name)


def test_every_example_is_taken_once_before_any_is_taken_again() -> None:
    parts = minibatches(4, 6, 5, 4, np.random.default_rng(0))
    assert [list(part.shape) for part in parts] == [[4, 4]] * 5
    for order in torch.cat(parts, dim=1):
        for first in (0, 6, 12):
            assert sorted(order[first : first + 6].tolist()) == list(range(6))[: 20 - first]
    assert len({tuple(order.tolist()) for order in torch.cat(parts, dim=1)}) == 4  # each task's is its own


@pytest.mark.parametrize("steps", [0, 50_000, 100_000, 200_000])
def test_the_outer_rate_falls_to_a_tenth(steps: int) -> None:
    learner = reptile()
    state = doubled(learner.init(0))
    state = State(state.parameters, {**state.optimizer, "step": torch.tensor(float(steps))})
    batch = Batch(examples(1, 3, 0), examples(1, 3, 1))
    fresh, _ = learner.meta_step(doubled(learner.init(0)), batch, np.random.default_rng(0))
    later, _ = learner.meta_step(state, batch, np.random.default_rng(0))
    share = max(0.1, 1 - steps / 100_000)
    name = "head.weight"
    moved = (later.parameters[name] - state.parameters[name], fresh.parameters[name] - state.parameters[name])
    torch.testing.assert_close(moved[0], share * moved[1])
