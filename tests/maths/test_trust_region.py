"""Conjugate gradient against SciPy, the line search by hand, Adam against PyTorch's module."""

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import cg

from metarl.maths import adam
from metarl.maths.trust_region import conjugate_gradient, line_search


def positive_definite(size: int, seed: int) -> torch.Tensor:
    root = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.T + 0.1 * torch.eye(size, dtype=torch.float64)


def test_conjugate_gradient_solves_in_as_many_steps_as_dimensions() -> None:
    a, b = positive_definite(8, 0), torch.arange(1.0, 9.0, dtype=torch.float64)
    torch.testing.assert_close(conjugate_gradient(lambda v: a @ v, b, 30), torch.linalg.solve(a, b))


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_conjugate_gradient_equals_scipys_after_every_iteration(iterations: int) -> None:
    a, b = positive_definite(12, 1), torch.ones(12, dtype=torch.float64)
    expected, _ = cg(a.numpy(), b.numpy(), maxiter=iterations, rtol=0, atol=0)
    np.testing.assert_allclose(conjugate_gradient(lambda v: a @ v, b, iterations), expected, rtol=1e-9)


def test_conjugate_gradient_stops_where_there_is_no_curvature() -> None:
    a = torch.diag(torch.tensor([1.0, 0.0]))
    solution = conjugate_gradient(lambda v: a @ v, torch.tensor([1.0, 0.0]), 10)
    torch.testing.assert_close(solution, torch.tensor([1.0, 0.0]))
    assert conjugate_gradient(lambda v: -v, torch.ones(2), 10).abs().max() == 0
    assert conjugate_gradient(lambda v: v, torch.zeros(2), 10).isfinite().all()


def quadratic(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return (x - 1.0).square().sum(), x.square().sum()


def test_line_search_takes_the_longest_step_that_helps_and_is_allowed() -> None:
    x, step = torch.zeros(1), torch.tensor([4.0])
    found = line_search(quadratic, x, step, limit=10.0, loss=1.0, shrink=0.5, tries=5)
    assert (found.accepted, float(found.x), found.backtracks) == (True, 1.0, 2)  # 4 and 2 do not lower the loss
    bound = line_search(quadratic, x, step, limit=0.3, loss=1.0, shrink=0.5, tries=5)
    assert (bound.accepted, float(bound.x), bound.constraint) == (True, 0.5, 0.25)


def test_line_search_stays_where_nothing_helps() -> None:
    x = torch.ones(1)
    found = line_search(quadratic, x, torch.tensor([1.0]), limit=10.0, loss=0.0, tries=3)
    assert not found.accepted and found.backtracks == 3
    torch.testing.assert_close(found.x, x)


def test_line_search_refuses_nan() -> None:
    def broken(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.where(x == 0, 1.0, float("nan")).sum(), x.sum()

    assert not line_search(broken, torch.zeros(1), torch.ones(1), limit=1.0, loss=1.0, tries=4).accepted


def test_adam_equals_pytorchs_over_many_steps_and_through_a_pause() -> None:
    generator = torch.Generator().manual_seed(0)
    start = {"w": torch.randn(3, 2, generator=generator), "b": torch.randn(2, generator=generator)}
    leaves = {name: value.clone().requires_grad_() for name, value in start.items()}
    optimizer = torch.optim.Adam(leaves.values(), lr=0.01)
    parameters, moments = dict(start), adam.start(start)
    for _ in range(20):
        gradients = {name: torch.randn(value.shape, generator=generator) for name, value in start.items()}
        for name, leaf in leaves.items():
            leaf.grad = gradients[name].clone()
        optimizer.step()
        before = {name: value.clone() for name, value in parameters.items()}
        old = parameters
        parameters, moments = adam.step(parameters, gradients, moments, rate=0.01)
        assert all(torch.equal(old[name], before[name]) for name in old)  # new values out, nothing written into
    for name, leaf in leaves.items():
        torch.testing.assert_close(parameters[name], leaf.detach(), rtol=0, atol=0)
