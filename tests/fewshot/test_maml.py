"""MAML on classifications and regressions, against loops written out with autograd, in float64."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metarl.fewshot.examples import Batch, Examples, TaskSignature
from metarl.fewshot.maml import Maml, MamlConfig, recipe
from metarl.fewshot.networks import HEAD, NetworkConfig
from metarl.learning.protocols import State
from metarl.maths import adam
from tests.fewshot import problem

TINY = NetworkConfig(filters=3, hidden=(5,))
SINUSOIDS = TaskSignature("regression", (1,), 0, 5, 1)
RATE = 0.3


def doubled(state: State) -> State:
    return State(*({k: v.double() for k, v in part.items()} for part in (state.parameters, state.optimizer)))


def problem_of(kind: str) -> tuple[TaskSignature, Batch]:
    rng = np.random.default_rng(0)
    if kind == "regression":
        x = [torch.from_numpy(rng.normal(size=(3, 5, 1))) for _ in range(2)]
        return SINUSOIDS, Batch(*(Examples(part, torch.sin(2 * part)) for part in x))
    batch = problem.tasks(problem.IMAGES, 3, 2, 2, rng)
    return problem.IMAGES, Batch(*(Examples(part.inputs.double(), part.targets) for part in batch))


def by_modules(parameters: dict[str, Tensor], inputs: Tensor) -> Tensor:
    """The same network by PyTorch's own layers."""
    x = inputs
    if "hidden.0.weight" in parameters:
        x = torch.relu(x @ parameters["hidden.0.weight"] + parameters["hidden.0.bias"])
    else:
        for block in range(4):
            weight, scale, shift = (parameters[f"blocks.{block}.{part}"] for part in ("weight", "scale", "shift"))
            x = nn.functional.conv2d(x, weight.permute(3, 2, 0, 1), stride=2, padding=1)
            x = torch.relu(nn.functional.batch_norm(x, None, None, scale, shift, training=True))
        x = x.movedim(1, -1).flatten(1)
    return x @ parameters["head.weight"] + parameters["head.bias"]


def task_loss(parameters: dict[str, Tensor], examples: Examples) -> Tensor:
    predicted = by_modules(parameters, examples.inputs)
    if examples.targets.is_floating_point():
        return nn.functional.mse_loss(predicted, examples.targets)
    return nn.functional.cross_entropy(predicted, examples.targets)


def explicit(state: State, batch: Batch, config: MamlConfig, weights: list[float]) -> dict[str, Tensor]:
    """The meta-gradient by loops and `torch.autograd` alone."""
    leaves = {name: value.clone().requires_grad_() for name, value in state.parameters.items()}
    names = [name for name in leaves if not name.startswith("rates.") and (not config.anil or name in HEAD)]
    total = torch.zeros((), dtype=torch.float64)
    for task in range(3):
        support, query = (Examples(*(part[task] for part in examples)) for examples in batch)
        current = {name: value for name, value in leaves.items() if not name.startswith("rates.")}
        for step, weight in enumerate(weights):
            loss = task_loss(current, support)
            found = torch.autograd.grad(loss, [current[name] for name in names], create_graph=not config.first_order)
            for name, gradient in zip(names, found, strict=True):
                rate = leaves[f"rates.{name}"][step] if config.learned_rates else RATE
                current[name] = current[name] - rate * gradient
            total = total + weight * task_loss(current, query) / 3
    gradients = torch.autograd.grad(total, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, gradients, strict=True))


OPTIONS: dict[str, tuple[dict[str, Any], list[float]]] = {
    "one step": ({}, [1.0]),
    "two steps": ({"inner_steps": 2}, [0.0, 1.0]),
    "first order": ({"inner_steps": 2, "first_order": True}, [0.0, 1.0]),
    "anil": ({"inner_steps": 2, "anil": True}, [0.0, 1.0]),
    "maml++": ({"inner_steps": 2, "learned_rates": True, "multi_step": 10}, [0.5, 0.5]),
    "learned rates, first order": ({"inner_steps": 2, "learned_rates": True, "first_order": True}, [0.0, 1.0]),
}


@pytest.mark.parametrize("strategy", ["stacked", "vmap", "loop"])
@pytest.mark.parametrize("kind", ["regression", "classification"])
@pytest.mark.parametrize("case", OPTIONS)
def test_the_meta_gradient_is_that_of_explicit_loops(case: str, kind: str, strategy: Any) -> None:
    """Batch norm included. Adam's first moment after the first step is a tenth of the gradient."""
    chosen, weights = OPTIONS[case]
    options: dict[str, Any] = {"inner_steps": 1, **chosen}
    config = MamlConfig(inner_rate=RATE, strategy=strategy, network=TINY, **options)
    signature, batch = problem_of(kind)
    learner = Maml(config, signature)
    state = doubled(learner.init(0))
    after, _ = learner.meta_step(state, batch, np.random.default_rng(0))
    for name, gradient in explicit(state, batch, config, weights).items():
        torch.testing.assert_close(after.optimizer[f"exp_avg.{name}"] * 10, gradient, rtol=1e-7, atol=1e-9, msg=name)


@pytest.mark.parametrize("strategy", ["stacked", "vmap", "loop"])
@pytest.mark.parametrize("batch_norm", ["transductive", "support"])
def test_every_strategy_predicts_the_same(strategy: Any, batch_norm: Any) -> None:
    signature, batch = problem_of("classification")
    config = MamlConfig(inner_rate=RATE, test_steps=3, network=TINY)
    found = []
    for each in (config, dataclasses.replace(config, strategy=strategy)):
        learner = Maml(each, signature)
        found.append(learner.adapt(doubled(learner.init(0)), batch.support, batch_norm).predict(batch.query.inputs))
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-9)


def nodes(value: Tensor) -> set[object]:
    """Everything that autograd has recorded for a value."""
    found: set[object] = set()
    waiting = [value.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found.add(node)
            waiting += [following for following, _ in node.next_functions]
    return found


@pytest.mark.parametrize("strategy", ["stacked", "vmap", "loop"])
def test_first_order_records_nothing_of_the_inner_steps(strategy: Any) -> None:
    """The recorded graph of the adapted parameters is a few subtractions, however deep the network."""
    signature, batch = problem_of("classification")
    counts = {}
    for first_order in (False, True):
        config = MamlConfig(inner_rate=RATE, first_order=first_order, strategy=strategy, network=TINY)
        learner = Maml(config, signature)
        leaves = {k: v.requires_grad_() for k, v in doubled(learner.init(0)).parameters.items()}
        adapted = learner.inner_step(learner.unadapted(leaves), leaves, batch.support, 0)
        counts[first_order] = len(set().union(*(nodes(value) for value in adapted.parameters.values())))
    few = 5 * len(leaves) * (3 if strategy == "loop" else 1)
    assert counts[True] <= few < counts[False], counts


def test_anil_adapts_the_head_alone() -> None:
    signature, batch = problem_of("classification")
    learner = Maml(MamlConfig(inner_rate=RATE, anil=True, network=TINY), signature)
    state = doubled(learner.init(0))
    adapted = learner.adapt(state, batch.support, "transductive").parameters
    for name, value in state.parameters.items():
        assert torch.equal(adapted[name].expand(3, *value.shape), value.expand(3, *value.shape)) == (name not in HEAD)


def test_a_linear_models_step_is_known_in_closed_form() -> None:
    """One step from zero on the mean cross-entropy moves the bias of way k by α (share of k − 1/ways)."""
    signature, batch = problem_of("classification")
    learner = Maml(MamlConfig(inner_rate=RATE, anil=True, test_steps=1, network=TINY), signature)
    state = doubled(learner.init(0))
    zeros = {name: torch.zeros_like(state.parameters[name]) for name in HEAD}
    unequal = Examples(batch.support.inputs[:, :4], torch.tensor([[0, 0, 1, 2]]).expand(3, 4))
    adapted = learner.adapt(State({**state.parameters, **zeros}, {}), unequal, "transductive").parameters
    expected = RATE * (torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64) - 1 / 3)
    torch.testing.assert_close(adapted["head.bias"], expected.expand(3, 3))


def test_no_steps_change_nothing_and_errors_follow_the_steps() -> None:
    signature, batch = problem_of("regression")
    learner = Maml(MamlConfig(inner_rate=0.05, network=TINY), signature)
    state = doubled(learner.init(0))
    plain = by_modules(dict(state.parameters), batch.query.inputs)
    torch.testing.assert_close(learner.adapt(state, batch.support, "none", 0).predict(batch.query.inputs), plain)
    before, after = (learner.errors(state, batch.query, batch.query, steps) for steps in (0, 5))
    torch.testing.assert_close(before, ((plain - batch.query.targets) ** 2).mean((1, 2)))
    assert (after < before).all()


def test_steps_beyond_the_learned_rates_take_the_last() -> None:
    signature, batch = problem_of("regression")
    learner = Maml(MamlConfig(inner_rate=0.1, inner_steps=2, learned_rates=True, network=TINY), signature)
    state = doubled(learner.init(0))
    rates = {name: value * 0 for name, value in state.parameters.items() if name.startswith("rates.")}
    for value in rates.values():
        value[1] = 0.1
    state = State({**state.parameters, **rates}, state.optimizer)
    plain = Maml(MamlConfig(inner_rate=0.1, network=TINY), signature)
    bare = State({k: v for k, v in state.parameters.items() if k not in rates}, {})
    for steps, same_as in ((1, 0), (2, 1), (4, 3)):
        found = learner.errors(state, batch.support, batch.query, steps)
        torch.testing.assert_close(found, plain.errors(bare, batch.support, batch.query, same_as))


def test_adams_moments_are_of_the_learned_parameters() -> None:
    learner = Maml(MamlConfig(learned_rates=True, network=TINY), problem.IMAGES)
    state = learner.init(0)
    assert set(state.optimizer) == set(adam.start(state.parameters))
    assert all(value.shape == (1,) for name, value in state.parameters.items() if name.startswith("rates."))


def test_the_rate_is_halved() -> None:
    signature, batch = problem_of("regression")
    steps = {}
    for halve_every in (0, 1):
        learner = Maml(MamlConfig(halve_every=halve_every, network=TINY), signature)
        before = doubled(learner.init(0))
        one, _ = learner.meta_step(before, batch, np.random.default_rng(0))
        two, _ = learner.meta_step(one, batch, np.random.default_rng(0))
        steps[halve_every] = [
            (late.parameters["head.bias"] - early.parameters["head.bias"]).abs()
            for early, late in ((before, one), (one, two))
        ]
    torch.testing.assert_close(steps[0][0], steps[1][0])
    torch.testing.assert_close(steps[0][1], 2 * steps[1][1])


def test_rates_are_those_of_a_sum_over_examples() -> None:
    omniglot = TaskSignature("classification", (1, 28, 28), 5, 1, 5)
    for ways in (5, 20):
        characters = dataclasses.replace(omniglot, ways=ways)
        assert recipe(characters).inner_rate / ways == pytest.approx(0.02)
    assert recipe(dataclasses.replace(omniglot, shape=(3, 84, 84))).inner_rate == pytest.approx(0.01 * 5)  # the paper's
    assert recipe(dataclasses.replace(omniglot, shots=5)).queries == 5
    assert Maml(MamlConfig(meta_batch=3, inner_rate=0.7), omniglot).recipe[::4] == (3, 0.7)


@pytest.mark.parametrize("wrong", [{"inner_steps": 0}, {"meta_batch": -1}, {"inner_rate": 0.0}, {"multi_step": -1}])
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MamlConfig(**wrong)
