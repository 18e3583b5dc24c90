"""The step of trust-region policy optimisation (Schulman et al. 2015, appendix C) as pure functions.

    minimise L(θ)   subject to   KL(θ_old ‖ θ) ≤ δ

With the gradient g of L and the Fisher matrix F, both at θ_old, a step s changes L by about gᵀs, and the KL is about
½ sᵀFs. The best step goes along the natural gradient as far as the constraint allows (`natural_gradient_step`). Both
are approximations, so a line search backtracks along s until the loss falls and the constraint holds (`line_search`).
"""

import dataclasses
from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.maths.distributions import Distribution

Product = Callable[[Float[Tensor, " n"]], Float[Tensor, " n"]]
"""v ↦ A v for a symmetric matrix A."""


def conjugate_gradient(
    product: Product, b: Float[Tensor, " n"], iterations: int, tolerance: float = 1e-10
) -> Float[Tensor, " n"]:
    """Solves A x = b for a symmetric positive definite A given by its products (Nocedal & Wright 2006, alg. 5.2).

    Stops early when the squared residual falls below `tolerance` or a direction has no positive curvature, which
    rounding brings about once the solution is as good as the arithmetic allows.
    """
    x = torch.zeros_like(b)
    residual, direction = b.clone(), b.clone()
    squared = residual.dot(residual)
    for _ in range(iterations):
        if squared < tolerance:
            break
        curved = product(direction)
        curvature = direction.dot(curved)
        if not curvature > 0:
            break
        step = squared / curvature
        x = x + step * direction
        residual = residual - step * curved
        squared, previous = residual.dot(residual), squared
        direction = residual + (squared / previous) * direction
    return x


def fisher_vector_product(
    distribution: Distribution, x: Float[Tensor, " n"], weights: Float[Tensor, "*batch"], damping: float
) -> Product:
    """v ↦ (F + ε I) v with the Fisher matrix F = Σᵢ wᵢ Jᵢᵀ Mᵢ Jᵢ: the Hessian of Σᵢ wᵢ KL(πᵢ ‖ π'ᵢ) at π' = π.

    Jᵢ is the Jacobian of distribution i's parameters with respect to x, and Mᵢ its metric (`Distribution.fisher`). All
    products run over graphs that are built once: u ↦ Jᵀu is linear, so its own transpose gives J v.

    Args:
        distribution: the policies' distributions, computed from `x`, which requires a gradient.
        x: all parameters in one vector.
        weights: wᵢ of each distribution of the batch.
        damping: ε.
    """
    cotangents = tuple(torch.zeros_like(part, requires_grad=True) for part in distribution)
    (pulled,) = torch.autograd.grad(tuple(distribution), x, cotangents, create_graph=True)
    metric = type(distribution)(*(part.detach() for part in distribution))

    def product(vector: Tensor) -> Tensor:
        tangent = torch.autograd.grad(pulled, cotangents, vector, retain_graph=True)
        weighted = tuple(part * weights[..., None] for part in metric.fisher(tangent))
        (curved,) = torch.autograd.grad(tuple(distribution), x, weighted, retain_graph=True)
        return curved + damping * vector

    return product


def natural_gradient_step(
    gradient: Float[Tensor, " n"], product: Product, max_kl: float, iterations: int
) -> Float[Tensor, " n"]:
    """s = √(2δ / dᵀFd) d,   d = −F⁻¹g: along the natural gradient to where ½ sᵀFs, the KL's second order, is δ."""
    direction = conjugate_gradient(product, -gradient, iterations)
    return torch.sqrt(2 * max_kl / direction.dot(product(direction)).clamp_min(1e-12)) * direction


@final
@dataclasses.dataclass(frozen=True)
class LineSearch:
    """Where a backtracking line search ended."""

    share: float
    """The accepted share of the step; 0 if none was."""
    loss: float
    """The loss there."""
    constraint: float
    """The constraint's value there."""
    backtracks: int
    """Shares that were tried and refused."""

    @property
    def accepted(self) -> bool:
        """Whether any share was accepted."""
        return self.share > 0


def line_search(
    evaluate: Callable[[float], tuple[Tensor, Tensor]],
    *,
    limit: float,
    start: tuple[float, float],
    shrink: float,
    tries: int,
) -> LineSearch:
    """Tries the shares λ = shrinkᵏ of a step for k = 0, 1, … until the loss falls and the constraint holds.

    Args:
        evaluate: gives (loss, constraint) after a share of the step.
        limit: the largest allowed value of the constraint.
        start: (loss, constraint) without a step.
        shrink: the factor between tries.
        tries: how many shares are tried.
    """
    for k in range(tries):
        reached, constraint = (float(value) for value in evaluate(shrink**k))
        if reached < start[0] and constraint <= limit:
            return LineSearch(shrink**k, reached, constraint, k)
    return LineSearch(0.0, *start, tries)
