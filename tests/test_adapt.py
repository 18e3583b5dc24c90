"""One inner loop for a regressor, a classifier and a policy, equal to loops written out with autograd, in float64."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from metarl.adapt import adapt, adapt_tasks
from metarl.fewshot.encoders import Conv4Config, MlpConfig
from metarl.fewshot.examples import Examples, TaskSignature
from metarl.fewshot.maml import Maml, MamlConfig
from metarl.fewshot.network import HEAD

Loss = Callable[..., Tensor]
TASKS, RATE = 4, 0.3


class Problem(NamedTuple):
    """A loss, parameters, and for each task two supports and a query."""

    loss: Loss
    parameters: dict[str, Tensor]
    supports: list[tuple[Tensor, ...]]
    query: tuple[Tensor, ...]
    head: tuple[str, ...]


def regression(generator: torch.Generator) -> Problem:
    learner = MamlConfig(encoder=MlpConfig((6,))).build(TaskSignature("regression", (1,), 0, 5, 1))

    def examples() -> Examples:
        return Examples(*(torch.randn(TASKS, 5, 1, generator=generator, dtype=torch.float64) for _ in range(2)))

    return Problem(learner.loss, initial(learner), [examples(), examples()], examples(), HEAD)


def classification(generator: torch.Generator) -> Problem:
    """Images, with convolutions and batch norm."""
    signature = TaskSignature("classification", (1, 5, 5), 3, 2, 3)
    learner = MamlConfig(encoder=Conv4Config(filters=2)).build(signature)

    def examples() -> Examples:
        inputs = torch.randn(TASKS, 6, 1, 5, 5, generator=generator, dtype=torch.float64)
        return Examples(inputs, torch.arange(6).remainder(3).expand(TASKS, 6))

    return Problem(learner.loss, initial(learner), [examples(), examples()], examples(), HEAD)


def initial(learner: Maml) -> dict[str, Tensor]:
    return {name: value.double() for name, value in learner.init(0).parameters.items()}


class Steps(NamedTuple):
    """What a policy did, and whether each step was taken or is padding."""

    observations: Tensor
    actions: Tensor
    advantages: Tensor
    mask: Tensor


def surrogate(parameters: Mapping[str, Tensor], steps: Steps) -> Tensor:
    """−mean over the steps taken of log π(a | o) A, π = N(W₂ tanh(W₁ o), diag σ²)."""
    mean = torch.tanh(steps.observations @ parameters["first"]) @ parameters["last"]
    log_std = parameters["log_std"]
    standardised = (steps.actions - mean) * torch.exp(-log_std)
    log_p = -0.5 * (standardised**2 + 2 * log_std + math.log(2 * math.pi)).sum(-1)
    mask = steps.mask.to(log_p.dtype)
    return -(mask * log_p * steps.advantages).sum() / mask.sum()


def policy_gradient(generator: torch.Generator) -> Problem:
    """A Gaussian policy on episodes of different lengths."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def steps() -> Steps:
        mask = torch.rand(TASKS, 7, generator=generator) < 0.8
        return Steps(normal(TASKS, 7, 3), normal(TASKS, 7, 2), normal(TASKS, 7), mask)

    parameters = {
        "first": 0.3 * normal(3, 6),
        "last": 0.3 * normal(6, 2),
        "log_std": torch.full((2,), -0.5, dtype=torch.float64),
    }
    return Problem(surrogate, parameters, [steps(), steps()], steps(), ("last", "log_std"))


@pytest.fixture(params=[regression, classification, policy_gradient])
def problem(request: pytest.FixtureRequest) -> Problem:
    return request.param(torch.Generator().manual_seed(0))


def at(task: int, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return type(batch)(*(tensor[task] for tensor in batch))


def explicit_meta_gradient(
    problem: Problem,
    steps: int,
    *,
    first_order: bool,
    only: tuple[str, ...] | None,
    rates: dict[str, Tensor] | None = None,
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """The mean query loss after adaptation and its gradients, by loops and `torch.autograd` alone."""
    leaves = {name: value.clone().requires_grad_() for name, value in problem.parameters.items()}
    alphas = {name: value.clone().requires_grad_() for name, value in (rates or {}).items()}
    names = list(only or leaves)
    total = torch.zeros((), dtype=torch.float64)
    for task in range(TASKS):
        current = dict(leaves)
        for support in problem.supports[:steps]:
            loss = problem.loss(current, at(task, support))
            gradients = torch.autograd.grad(loss, [current[name] for name in names], create_graph=not first_order)
            for name, gradient in zip(names, gradients, strict=True):
                current[name] = current[name] - (alphas[name] if alphas else RATE) * gradient
        total = total + problem.loss(current, at(task, problem.query)) / TASKS
    wanted = [*leaves.values(), *(alphas[name] for name in names if alphas)]
    filled = torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True)
    count = len(leaves)
    gradients = dict(zip(leaves, filled[:count], strict=True))
    return total.detach(), gradients, dict(zip(alphas, filled[count:], strict=True))


@pytest.mark.parametrize("strategy", ["vmap", "loop"])
@pytest.mark.parametrize("anil", [False, True])
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("steps", [1, 2])
def test_meta_gradient_equals_the_explicit_loops(
    problem: Problem, steps: int, first_order: bool, anil: bool, strategy: str
) -> None:
    only = problem.head if anil else None

    def outer(parameters: dict[str, Tensor]) -> Tensor:
        adapted = adapt_tasks(
            problem.loss,
            parameters,
            problem.supports[:steps],
            RATE,
            first_order=first_order,
            only=only,
            strategy="vmap" if strategy == "vmap" else "loop",
        )
        return torch.func.vmap(problem.loss)(adapted, problem.query).mean()

    expected, expected_gradients, _ = explicit_meta_gradient(problem, steps, first_order=first_order, only=only)
    gradients, value = torch.func.grad_and_value(outer)(problem.parameters)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("anil", [False, True])
@pytest.mark.parametrize("first_order", [False, True])
def test_eager_gradients_are_the_same(problem: Problem, first_order: bool, anil: bool) -> None:
    only = problem.head if anil else None
    expected, expected_gradients, _ = explicit_meta_gradient(problem, 2, first_order=first_order, only=only)
    leaves = {name: value.clone().requires_grad_() for name, value in problem.parameters.items()}
    total = torch.zeros((), dtype=torch.float64)
    for task in range(TASKS):
        supports = [at(task, support) for support in problem.supports]
        adapted = adapt(problem.loss, leaves, supports, RATE, first_order=first_order, only=only, eager=True)
        total = total + problem.loss(adapted, at(task, problem.query)) / TASKS
    gradients = torch.autograd.grad(total, list(leaves.values()), allow_unused=True, materialize_grads=True)
    torch.testing.assert_close(total.detach(), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(dict(zip(leaves, gradients, strict=True)), expected_gradients, rtol=1e-9, atol=1e-11)


def test_eager_gradients_keep_no_graph_where_nobody_wants_one(problem: Problem) -> None:
    supports = [at(0, support) for support in problem.supports]
    with torch.no_grad():
        eager = adapt(problem.loss, problem.parameters, supports, RATE, eager=True)
        functional = adapt(problem.loss, problem.parameters, supports, RATE)
    torch.testing.assert_close(eager, functional, rtol=1e-12, atol=1e-12)
    assert not any(value.requires_grad for value in eager.values())


def test_learned_rates_have_the_explicit_loops_gradients(problem: Problem) -> None:
    rates = {name: torch.full_like(value, RATE) for name, value in problem.parameters.items()}

    def outer(parameters: dict[str, Tensor], rates: dict[str, Tensor]) -> Tensor:
        adapted = adapt_tasks(problem.loss, parameters, problem.supports, rates)
        return torch.func.vmap(problem.loss)(adapted, problem.query).mean()

    _, expected, expected_rates = explicit_meta_gradient(problem, 2, first_order=False, only=None, rates=rates)
    gradients, rate_gradients = torch.func.grad(outer, argnums=(0, 1))(problem.parameters, rates)
    torch.testing.assert_close(gradients, expected, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(rate_gradients, expected_rates, rtol=1e-9, atol=1e-11)


def test_second_order_matters_here(problem: Problem) -> None:
    """So that the comparisons above could tell the orders apart."""
    _, second, _ = explicit_meta_gradient(problem, 1, first_order=False, only=None)
    _, first, _ = explicit_meta_gradient(problem, 1, first_order=True, only=None)
    assert max(float((second[name] - first[name]).abs().max()) for name in first) > 1e-3


def test_one_step_by_hand() -> None:
    def loss(parameters: Mapping[str, Tensor], support: Tensor) -> Tensor:
        return (parameters["w"] ** 3 * support).sum()

    w = torch.tensor([1.0, 2.0])
    adapted = adapt(loss, {"w": w}, [torch.tensor(1.0)], 0.1)
    torch.testing.assert_close(adapted["w"], torch.tensor([0.7, 0.8]))  # w − 0.1 · 3w²
    torch.testing.assert_close(w, torch.tensor([1.0, 2.0]))  # nothing was written into


def test_tasks_that_start_apart_stay_apart(problem: Problem) -> None:
    """Adapting twice by one support each is adapting once by two."""
    supports = problem.supports
    both = adapt_tasks(problem.loss, problem.parameters, supports, RATE)
    first = adapt_tasks(problem.loss, problem.parameters, supports[:1], RATE)
    for strategy in ("vmap", "loop"):
        then = adapt_tasks(problem.loss, first, supports[1:], RATE, shared=False, strategy=strategy)
        torch.testing.assert_close(then, both, rtol=1e-12, atol=1e-12)


def test_wrong_names_are_refused(problem: Problem) -> None:
    with pytest.raises(ValueError, match=r"cannot adapt \['nothing'\]"):
        adapt_tasks(problem.loss, problem.parameters, problem.supports, RATE, only=["nothing"])
    with pytest.raises(ValueError, match="no inner rate for"):
        adapt_tasks(problem.loss, problem.parameters, problem.supports, {})
    with pytest.raises(ValueError, match="at least one support"):
        adapt_tasks(problem.loss, problem.parameters, [], RATE)
