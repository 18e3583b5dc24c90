"""MAML on classifications and regressions, against loops written out with autograd, in float64."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metarl.fewshot.encoders import Conv4Config, EncoderConfig, MlpConfig
from metarl.fewshot.examples import Batch, Examples, TaskSignature
from metarl.fewshot.maml import Maml, MamlConfig, MamlPredictor, paper_defaults
from metarl.fewshot.network import HEAD
from metarl.learning.protocols import State
from metarl.maths import adam
from metarl.testing.toy_tasks import IMAGES, ToyTasks
from tests.fewshot.helpers import doubled

SINUSOIDS = TaskSignature("regression", (1,), 0, 5, 1)
TINY: dict[TaskSignature, EncoderConfig] = {SINUSOIDS: MlpConfig((5,)), IMAGES: Conv4Config(filters=3)}
LR = 0.3


def problem_of(kind: str) -> tuple[TaskSignature, Batch]:
    rng = np.random.default_rng(0)
    if kind == "regression":
        x = [torch.from_numpy(rng.normal(size=(3, 5, 1))) for _ in range(2)]
        return SINUSOIDS, Batch(*(Examples(part, torch.sin(2 * part)) for part in x))
    batch = ToyTasks(IMAGES).sample(3, 2, rng, shots=2)
    return IMAGES, Batch(*(Examples(part.inputs.double(), part.targets) for part in batch))


def maml(signature: TaskSignature, **options: Any) -> Maml:
    return MamlConfig(**({"inner_lr": LR, "encoder": TINY[signature]} | options)).build(signature)


def adapted(learner: Maml, state: State, support: Examples, steps: int) -> MamlPredictor:
    predictor = learner.start(state, len(support.inputs))
    for _ in range(steps):
        predictor = predictor.adapt(support)
    return predictor


def errors(learner: Maml, state: State, support: Examples, query: Examples, steps: int) -> Tensor:
    return ((adapted(learner, state, support, steps).predict(query.inputs) - query.targets) ** 2).mean((1, 2))


def by_modules(parameters: dict[str, Tensor], inputs: Tensor) -> Tensor:
    """The same network by PyTorch's own layers."""
    x = inputs
    if "encoder.hidden.0.weight" in parameters:
        x = torch.relu(x @ parameters["encoder.hidden.0.weight"] + parameters["encoder.hidden.0.bias"])
    else:
        for block in range(4):
            weight, scale, shift = (
                parameters[f"encoder.blocks.{block}.{part}"] for part in ("weight", "scale", "shift")
            )
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
    names = [name for name in leaves if not name.startswith("inner_lr.") and (not config.anil or name in HEAD)]
    total = torch.zeros((), dtype=torch.float64)
    for task in range(3):
        support, query = (Examples(*(part[task] for part in examples)) for examples in batch)
        current = {name: value for name, value in leaves.items() if not name.startswith("inner_lr.")}
        for step, weight in enumerate(weights):
            loss = task_loss(current, support)
            found = torch.autograd.grad(loss, [current[name] for name in names], create_graph=not config.first_order)
            for name, gradient in zip(names, found, strict=True):
                rate = leaves[f"inner_lr.{name}"][step] if config.learn_inner_lr else LR
                current[name] = current[name] - rate * gradient
            total = total + weight * task_loss(current, query) / 3
    gradients = torch.autograd.grad(total, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, gradients, strict=True))


OPTIONS: dict[str, tuple[dict[str, Any], list[float]]] = {
    "one step": ({}, [1.0]),
    "two steps": ({"inner_steps": 2}, [0.0, 1.0]),
    "first order": ({"inner_steps": 2, "first_order": True}, [0.0, 1.0]),
    "anil": ({"inner_steps": 2, "anil": True}, [0.0, 1.0]),
    "maml++": ({"inner_steps": 2, "learn_inner_lr": True, "multi_step": 10}, [0.5, 0.5]),
    "learned rates, first order": ({"inner_steps": 2, "learn_inner_lr": True, "first_order": True}, [0.0, 1.0]),
}


@pytest.mark.parametrize("strategy", ["stacked", "vmap", "loop"])
@pytest.mark.parametrize("kind", ["regression", "classification"])
@pytest.mark.parametrize("case", OPTIONS)
def test_the_meta_gradient_is_that_of_explicit_loops(case: str, kind: str, strategy: Any) -> None:
    """Batch norm included. Adam's first moment after the first step is a tenth of the gradient."""
    chosen, weights = OPTIONS[case]
    options: dict[str, Any] = {"inner_steps": 1, **chosen}
    signature, batch = problem_of(kind)
    learner = maml(signature, strategy=strategy, **options)
    state = doubled(learner.init(0))
    after, _ = learner.meta_step(state, batch, np.random.default_rng(0))
    for name, gradient in explicit(state, batch, learner.config, weights).items():
        torch.testing.assert_close(after.optimizer[f"exp_avg.{name}"] * 10, gradient, rtol=1e-7, atol=1e-9, msg=name)


@pytest.mark.parametrize("strategy", ["stacked", "vmap", "loop"])
@pytest.mark.parametrize("batch_norm", ["transductive", "support"])
def test_every_strategy_predicts_the_same(strategy: Any, batch_norm: Any) -> None:
    signature, batch = problem_of("classification")
    for steps in (0, 1, 3):
        predictions = []
        for options in ({}, {"strategy": strategy}):
            learner = maml(signature, **options)
            predictor = adapted(learner, doubled(learner.init(0)), batch.support, steps).with_batch_norm(batch_norm)
            predictions.append(predictor.predict(batch.query.inputs))
        torch.testing.assert_close(*predictions, rtol=1e-9, atol=1e-9)


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
        learner = maml(signature, first_order=first_order, strategy=strategy)
        leaves = {k: v.requires_grad_() for k, v in doubled(learner.init(0)).parameters.items()}
        after = learner.inner_step(learner.unadapted(leaves), leaves, batch.support, 0)
        counts[first_order] = len(set().union(*(nodes(value) for value in after.values())))
    few = 5 * len(leaves) * (3 if strategy == "loop" else 1)
    assert counts[True] <= few < counts[False], counts


def test_anil_adapts_the_head_alone() -> None:
    signature, batch = problem_of("classification")
    learner = maml(signature, anil=True)
    state = doubled(learner.init(0))
    parameters = adapted(learner, state, batch.support, 3).parameters
    for name, value in state.parameters.items():
        own = value.expand(3, *value.shape)
        assert torch.equal(parameters[name].expand_as(own), own) == (name not in HEAD)


def test_a_linear_models_step_is_known_in_closed_form() -> None:
    """One step from zero on the mean cross-entropy moves the bias of way k by α (share of k − 1/ways)."""
    signature, batch = problem_of("classification")
    learner = maml(signature, anil=True)
    state = doubled(learner.init(0))
    zeros = {name: torch.zeros_like(state.parameters[name]) for name in HEAD}
    unequal = Examples(batch.support.inputs[:, :4], torch.tensor([[0, 0, 1, 2]]).expand(3, 4))
    parameters = adapted(learner, State({**state.parameters, **zeros}, {}), unequal, 1).parameters
    expected = LR * (torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64) - 1 / 3)
    torch.testing.assert_close(parameters["head.bias"], expected.expand(3, 3))


def test_the_points_of_a_regressions_curve_come_out_of_the_same_calls() -> None:
    """Without a step nothing changes; the steps on a task's own query lower its error."""
    signature, batch = problem_of("regression")
    learner = maml(signature, inner_lr=0.05)
    state = doubled(learner.init(0))
    plain = by_modules(dict(state.parameters), batch.query.inputs)
    torch.testing.assert_close(adapted(learner, state, batch.support, 0).predict(batch.query.inputs), plain)
    curve = [errors(learner, state, batch.query, batch.query, steps) for steps in (0, 1, 5)]
    torch.testing.assert_close(curve[0], ((plain - batch.query.targets) ** 2).mean((1, 2)))
    assert (curve[1] < curve[0]).all() and (curve[2] < curve[1]).all()


def test_the_support_normalises_the_queries_where_it_is_said_so() -> None:
    """As PyTorch's batch norm over the support alone, then applied to the queries; not a single one is dropped."""
    signature, batch = problem_of("classification")
    learner = maml(signature)
    state = doubled(learner.init(0))
    predictor = adapted(learner, state, batch.support, 1)
    transductive, by_support = (
        predictor.with_batch_norm(mode).predict(batch.query.inputs) for mode in ("transductive", "support")
    )
    assert not torch.allclose(transductive, by_support, atol=1e-3)
    for task in range(3):
        own = {name: value[task] for name, value in predictor.parameters.items()}
        expected = by_modules(own, batch.query.inputs[task])
        torch.testing.assert_close(transductive[task], expected)
        x, reference = batch.query.inputs[task], batch.support.inputs[task]
        for block in range(4):
            weight, scale, shift = (own[f"encoder.blocks.{block}.{part}"] for part in ("weight", "scale", "shift"))
            x, reference = (
                nn.functional.conv2d(each, weight.permute(3, 2, 0, 1), stride=2, padding=1) for each in (x, reference)
            )
            mean, variance = reference.mean((0, 2, 3)), reference.var((0, 2, 3), correction=0)
            x, reference = (
                torch.relu(nn.functional.batch_norm(each, mean, variance, scale, shift)) for each in (x, reference)
            )
        expected = x.movedim(1, -1).flatten(1) @ own["head.weight"] + own["head.bias"]
        torch.testing.assert_close(by_support[task], expected)


def test_steps_beyond_the_learned_rates_take_the_last() -> None:
    signature, batch = problem_of("regression")
    learner = maml(signature, inner_lr=0.1, inner_steps=2, learn_inner_lr=True)
    state = doubled(learner.init(0))
    rates = {name: value * 0 for name, value in state.parameters.items() if name.startswith("inner_lr.")}
    for value in rates.values():
        value[1] = 0.1
    state = State({**state.parameters, **rates}, state.optimizer)
    plain = maml(signature, inner_lr=0.1)
    bare = State({k: v for k, v in state.parameters.items() if k not in rates}, {})
    for steps, same_as in ((1, 0), (2, 1), (4, 3)):
        expected = errors(plain, bare, batch.support, batch.query, same_as)
        torch.testing.assert_close(errors(learner, state, batch.support, batch.query, steps), expected)


def test_adams_moments_are_of_the_learned_parameters() -> None:
    learner = maml(IMAGES, learn_inner_lr=True)
    state = learner.init(0)
    assert set(state.optimizer) == set(adam.start(state.parameters))
    assert all(value.shape == (1,) for name, value in state.parameters.items() if name.startswith("inner_lr."))


def test_the_learning_rate_is_halved() -> None:
    signature, batch = problem_of("regression")
    steps = {}
    for half_life in (0, 1):
        learner = maml(signature, learning_rate_half_life=half_life)
        before = doubled(learner.init(0))
        one, _ = learner.meta_step(before, batch, np.random.default_rng(0))
        two, _ = learner.meta_step(one, batch, np.random.default_rng(0))
        steps[half_life] = [
            (late.parameters["head.bias"] - early.parameters["head.bias"]).abs()
            for early, late in ((before, one), (one, two))
        ]
    torch.testing.assert_close(steps[0][0], steps[1][0])
    torch.testing.assert_close(steps[0][1], 2 * steps[1][1])


def test_inner_rates_are_those_of_a_sum_over_examples() -> None:
    omniglot = TaskSignature("classification", (1, 28, 28), 5, 1, 5)
    for ways in (5, 20):
        characters = dataclasses.replace(omniglot, ways=ways)
        assert paper_defaults(characters).inner_lr / ways == pytest.approx(0.02)
    photographs = dataclasses.replace(omniglot, shape=(3, 84, 84))
    assert paper_defaults(photographs).inner_lr == pytest.approx(0.01 * 5)  # the paper's
    assert paper_defaults(dataclasses.replace(omniglot, shots=5)).queries == 5
    given = MamlConfig(meta_batch=3, inner_lr=0.7, test_steps=7).build(omniglot)
    assert (given.meta_batch, given.num_adaptations, given.options.inner_lr) == (3, 7, 0.7)


@pytest.mark.parametrize("wrong", [{"inner_steps": 0}, {"meta_batch": -1}, {"inner_lr": 0.0}, {"multi_step": -1}])
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MamlConfig(**wrong)
