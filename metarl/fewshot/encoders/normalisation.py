"""Batch normalisation and ReLU as one function with derivatives of first and second order (Ioffe & Szegedy 2015).

    x̂ = (x − μ) r,   r = (σ² + ε)^−½,   u = γ x̂ + β,   y = max(u, 0)
    backward, G = g [u > 0]:   dβ = Σ G,   dγ = Σ G x̂,   dx = γ r (G − p − x̂ q),   p = mean G, q = mean G x̂

Means and sums are over the examples and pixels of a channel, n of them. The second order is the gradient of
S = Σ h·dx + hγ·dγ + hβ·dβ, with w = mean h x̂ and K = Σ h (G − p − x̂ q):

    dS/dg = [u > 0] (γ r h + B x̂ + hβ − γ r mean h),                  B = hγ − γ r w
    dS/dγ = r K
    dS/dx = r (B G + D h + C + E x̂),   D = −γ r q,   C = −(B p + D mean h),   E = −(B q + D w) − γ r K / n

Written out because elementwise passes over the maps are what a meta-gradient of Conv4 spends its time on: left to
autograd there are three times as many.
"""

from typing import Any, cast, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

EPSILON = 1e-5  # PyTorch's


def normalised_relu(
    x: Float[Tensor, "*task row channel"], scale: Float[Tensor, "*task channel"], shift: Float[Tensor, "*task channel"]
) -> tuple[Float[Tensor, "*task row channel"], Float[Tensor, "*task channel"], Float[Tensor, "*task channel"]]:
    """y, and the mean and variance of x, which are not differentiable here."""
    y, _, mean, deviation = cast(tuple[Tensor, ...], _Forward.apply(x, scale, shift))
    return y, mean, deviation**-2 - EPSILON


def _mean(x: Tensor) -> Tensor:
    """Of each channel. PyTorch's `var_mean` takes ten times as long over an axis that is not the last."""
    return x.sum(-2, keepdim=True).div_(x.shape[-2])


@final
class _Forward(Function):
    """(x, γ, β) -> y, x̂, μ, r."""

    @staticmethod
    def forward(x: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean = _mean(x)
        centred = x - mean
        inverse = _mean(centred * centred).add_(EPSILON).rsqrt_()
        standard = centred.mul_(inverse)
        y = torch.addcmul(shift[..., None, :], standard, scale[..., None, :]).relu_()
        return y, standard, mean.squeeze(-2), inverse.squeeze(-2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:  # noqa: ANN401
        y, standard, mean, inverse = output
        ctx.mark_non_differentiable(standard, mean, inverse)
        ctx.save_for_backward(inputs[0], inputs[1], y, standard, inverse)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN401
        return cast(tuple[Tensor, ...], _Backward.apply(gradients[0], *ctx.saved_tensors))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Tensor) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:  # noqa: ANN401
        return cast(tuple[Tensor, ...], _Forward.apply(*_stacked(info, in_dims, args))), (0,) * 4


@final
class _Backward(Function):
    """(g; x, γ, y, x̂, r) -> dx, dγ, dβ. Of x, which says what x̂, r and y depend on, nothing is read."""

    @staticmethod
    def forward(
        g: Tensor, x: Tensor, scale: Tensor, y: Tensor, standard: Tensor, inverse: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        passed = torch.ops.aten.threshold_backward(g, y, 0)
        by_shift, by_scale = passed.sum(-2), (passed * standard).sum(-2)
        factor = (scale * inverse)[..., None, :]
        share = factor / -x.shape[-2]
        by_x = torch.addcmul(share * by_shift[..., None, :], standard, share * by_scale[..., None, :])
        return by_x.addcmul_(passed, factor), by_scale, by_shift

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:  # noqa: ANN401
        g, _, scale, y, standard, inverse = inputs
        ctx.save_for_backward(g, scale, y, standard, inverse)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        by_g, by_x, by_scale = cast(tuple[Tensor, ...], _Second.apply(*gradients, *ctx.saved_tensors))
        return by_g, by_x, by_scale, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Tensor) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:  # noqa: ANN401
        return cast(tuple[Tensor, ...], _Backward.apply(*_stacked(info, in_dims, args))), (0,) * 3


@final
class _Second(Function):
    """(h, hγ, hβ; g, γ, y, x̂, r) -> dS/dg, dS/dx, dS/dγ."""

    @staticmethod
    def forward(
        h: Tensor,
        h_scale: Tensor,
        h_shift: Tensor,
        g: Tensor,
        scale: Tensor,
        y: Tensor,
        standard: Tensor,
        inverse: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        count = h.shape[-2]
        passed = torch.ops.aten.threshold_backward(g, y, 0)
        p, q = passed.sum(-2) / count, (passed * standard).sum(-2) / count
        mean_h, w = h.sum(-2) / count, (h * standard).sum(-2) / count
        k = (h * passed).sum(-2) - count * (mean_h * p + q * w)
        factor = scale * inverse
        b, d = h_scale - factor * w, -factor * q
        c, e = -(b * p + d * mean_h), -(b * q + d * w) - factor * k / count

        def mixed(*terms: tuple[Tensor, Tensor], constant: Tensor) -> Tensor:
            (first, by), *others = ((x, weight[..., None, :]) for x, weight in terms)
            found = torch.addcmul(constant[..., None, :], first, by)
            for x, weight in others:
                found.addcmul_(x, weight)
            return found

        by_u = mixed((h, factor), (standard, b), constant=h_shift - factor * mean_h)
        by_x = mixed((passed, inverse * b), (h, inverse * d), (standard, inverse * e), constant=inverse * c)
        return torch.ops.aten.threshold_backward(by_u, y, 0), by_x, inverse * k

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:  # noqa: ANN401
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN401
        raise NotImplementedError("normalised_relu has derivatives of the first and second order only")

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Tensor) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:  # noqa: ANN401
        return cast(tuple[Tensor, ...], _Second.apply(*_stacked(info, in_dims, args))), (0,) * 3


def _stacked(info: Any, in_dims: tuple[int | None, ...], args: tuple[Tensor, ...]) -> list[Tensor]:  # noqa: ANN401
    """All arguments with the mapped axis in front, which the formulas take as one more task axis."""
    return [
        arg.expand(info.batch_size, *arg.shape) if dim is None else arg.movedim(dim, 0)
        for arg, dim in zip(args, in_dims, strict=True)
    ]
