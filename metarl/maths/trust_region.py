"""The natural-gradient step of TRPO as pure functions: conjugate gradient and backtracking line search."""

import dataclasses
from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor


def conjugate_gradient(
    product: Callable[[Tensor], Tensor],
    b: Float[Tensor, " n"],
    iterations: int,
    tolerance: float = 1e-10,
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


@final
@dataclasses.dataclass(frozen=True)
class LineSearch:
    """Where a backtracking line search ended."""

    x: Tensor
    """The accepted point; the starting point itself if none was accepted."""
    accepted: bool
    """Whether any step was accepted."""
    loss: float
    """The loss at `x`."""
    constraint: float
    """The constraint's value at `x`."""
    backtracks: int
    """Steps that were tried and refused."""


def line_search(
    evaluate: Callable[[Tensor], tuple[Tensor, Tensor]],
    x: Float[Tensor, " n"],
    step: Float[Tensor, " n"],
    limit: float,
    *,
    loss: float,
    shrink: float = 0.8,
    tries: int = 15,
) -> LineSearch:
    """Tries x + shrinkᵏ step for k = 0, 1, ... until the loss falls and the constraint holds (Schulman 2015, app. C).

    Args:
        evaluate: gives (loss, constraint) at a point.
        x: the starting point.
        step: the longest step.
        limit: the largest allowed value of the constraint, which is 0 at the starting point.
        loss: the loss at the starting point.
        shrink: the factor between tries.
        tries: how many steps are tried.
    """
    for k in range(tries):
        candidate = x + shrink**k * step
        reached, constraint = (float(value) for value in evaluate(candidate))
        if reached < loss and constraint <= limit:
            return LineSearch(candidate, True, reached, constraint, k)
    return LineSearch(x, False, loss, 0.0, tries)
