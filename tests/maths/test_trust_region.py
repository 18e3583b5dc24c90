"""Conjugate gradient against SciPy, products with the Fisher matrix against its definition, the line search by hand."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import cg

from metarl.maths.distributions import Categorical, Distribution, Gaussian
from metarl.maths.trust_region import (
    conjugate_gradient,
    fisher_vector_product,
    line_search,
    natural_gradient_step,
)


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


def test_the_step_goes_along_the_natural_gradient_to_where_the_second_order_of_the_kl_is_the_limit() -> None:
    a, gradient = positive_definite(6, 2), torch.linspace(-1, 1, 6, dtype=torch.float64)
    for limit in (0.01, 0.5):
        step = natural_gradient_step(gradient, lambda v: a @ v, limit, iterations=30)
        assert float(0.5 * step @ a @ step) == pytest.approx(limit)
        natural = torch.linalg.solve(a, gradient)
        torch.testing.assert_close(step / step.norm(), -natural / natural.norm())


def test_no_gradient_no_step() -> None:
    assert not natural_gradient_step(torch.zeros(3), lambda v: v, 0.1, iterations=5).any()


def gaussian(x: torch.Tensor) -> Gaussian:
    """A batch of 5 distributions, not linear in their 4 parameters."""
    inputs = torch.linspace(-1, 1, 15, dtype=torch.float64).view(5, 3)
    mean = torch.tanh(inputs * x[:3] + x[3])
    return Gaussian(mean, torch.sin(inputs + x[0]) - 0.5)


def categorical(x: torch.Tensor) -> Categorical:
    return Categorical(3 * gaussian(x).mean)


@pytest.mark.parametrize("policy", [gaussian, categorical])
def test_fisher_vector_products_are_the_hessian_of_the_weighted_kl(policy: Callable[[torch.Tensor], Gaussian]) -> None:
    """The Hessian by `torch.autograd.functional` of `torch.distributions`' own divergence."""
    x = torch.tensor([0.3, -0.7, 0.5, 0.2], dtype=torch.float64)
    weights = torch.tensor([0.1, 0.0, 0.4, 0.2, 0.3], dtype=torch.float64)

    def oracle(distribution: Distribution) -> torch.distributions.Distribution:
        if isinstance(distribution, Gaussian):
            normal = torch.distributions.Normal(distribution.mean, distribution.log_std.exp())
            return torch.distributions.Independent(normal, 1)
        return torch.distributions.Categorical(logits=distribution.logits)

    def kl(moved: torch.Tensor) -> torch.Tensor:
        return torch.distributions.kl_divergence(oracle(policy(x)), oracle(policy(moved))) @ weights

    hessian = torch.autograd.functional.hessian(kl, x)
    assert isinstance(hessian, torch.Tensor)
    leaf = x.clone().requires_grad_()
    product = fisher_vector_product(policy(leaf), leaf, weights, damping=0.01)
    products = torch.stack([product(row) for row in torch.eye(4, dtype=torch.float64)])
    torch.testing.assert_close(products, hessian + 0.01 * torch.eye(4, dtype=torch.float64), rtol=1e-6, atol=1e-9)


def quadratic(start: float, step: float) -> Callable[[float], tuple[torch.Tensor, torch.Tensor]]:
    """The loss (x − 1)² and the constraint x² after a share of the step."""

    def evaluate(share: float) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.tensor(start + share * step)
        return (x - 1.0).square(), x.square()

    return evaluate


def test_line_search_takes_the_longest_step_that_helps_and_is_allowed() -> None:
    found = line_search(quadratic(0.0, 4.0), limit=10.0, start=(1.0, 0.0), shrink=0.5, tries=5)
    assert (found.accepted, found.share, found.backtracks) == (True, 0.25, 2)  # 4 and 2 do not lower the loss
    bound = line_search(quadratic(0.0, 4.0), limit=0.3, start=(1.0, 0.0), shrink=0.5, tries=5)
    assert (bound.accepted, bound.share, bound.loss, bound.constraint) == (True, 0.125, 0.25, 0.25)


def test_line_search_stays_where_nothing_helps() -> None:
    found = line_search(quadratic(1.0, 1.0), limit=10.0, start=(0.0, 1.0), shrink=0.8, tries=3)
    assert (found.accepted, found.share, found.loss, found.constraint) == (False, 0.0, 0.0, 1.0)
    assert found.backtracks == 3


def test_line_search_refuses_nan() -> None:
    nan, zero = torch.tensor(float("nan")), torch.tensor(0.0)
    for broken in ((nan, zero), (zero, nan)):
        assert not line_search(lambda share, it=broken: it, limit=1.0, start=(1.0, 0.0), shrink=0.8, tries=4).accepted
