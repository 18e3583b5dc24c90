"""Attacks on examples that a learner is shown or asked about, within a box of ±ε around each.

    FGSM   x' = Π(x + ε sign ∇L(x))                                      (Goodfellow, Shlens & Szegedy 2015, §4)
    PGD    x⁰ = Π(x + u), u ~ U(−ε, ε);   xᵗ⁺¹ = Π(xᵗ + α sign ∇L(xᵗ)),   α = 2.5 ε / steps
                                                                                        (Madry et al. 2018, §2.1)

Π takes every entry to the nearest one within ±ε of x and within the bounds of what an input may be.
"""

import dataclasses
from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

Loss = Callable[[Float[Tensor, "task example ..."]], Float[Tensor, ""]]
"""What is to become large, a scalar: a sum over tasks, so that a gradient is each task's own."""
_STEP = 2.5


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Box:
    """How far an input may be moved; tensors that broadcast to it."""

    epsilon: Float[Tensor, "..."]
    """ε, in the units of the inputs."""
    low: Float[Tensor, "..."] | None = None
    """The least that an entry may be; unbounded if None."""
    high: Float[Tensor, "..."] | None = None
    """The most."""

    def project(self, moved: Float[Tensor, "*x"], x: Float[Tensor, "*x"]) -> Float[Tensor, "*x"]:
        """Π."""
        moved = torch.minimum(torch.maximum(moved, x - self.epsilon), x + self.epsilon)
        moved = moved if self.low is None else torch.maximum(moved, self.low)
        return moved if self.high is None else torch.minimum(moved, self.high)


def fgsm(loss: Loss, x: Float[Tensor, "*x"], box: Box) -> Float[Tensor, "*x"]:
    """One step to the corner of the box that the gradient points to."""
    return box.project(x + box.epsilon * input_gradient(loss, x).sign(), x)


def pgd(loss: Loss, x: Float[Tensor, "*x"], box: Box, steps: int, start: Float[Tensor, "*x"]) -> Float[Tensor, "*x"]:
    """Steps along the gradient's sign, each back into the box.

    Args:
        loss: of inputs.
        x: the inputs as they are.
        box: how far they may be moved.
        steps: how many.
        start: where in the box to begin: u / ε, within ±1, drawn by the caller.
    """
    moved = box.project(x + box.epsilon * start, x)
    for _ in range(steps):
        moved = box.project(moved + _STEP / steps * box.epsilon * input_gradient(loss, moved).sign(), x)
    return moved


def input_gradient(loss: Loss, x: Float[Tensor, "*x"]) -> Float[Tensor, "*x"]:
    """∇ₓ L(x)."""
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(loss(leaf), [leaf])
    return gradient
