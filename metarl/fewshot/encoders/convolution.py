"""Convolutions as matrix products, fast on CPUs also where every task has weights of its own.

    y = patches(x) W,   patches(x)[n, i, j] = the 3 × 3 × c numbers of x around (s·i, s·j), zeros beyond the edge

`patches` and its transpose `unpatches` are linear and each other's derivative, so gradients of every order exist. What
remains is `matmul`, which under `torch.func.vmap` becomes one batched product, where a convolution would become a
grouped one: several times slower on CPUs. Axes are [example, height, width, channel] throughout.
"""

from typing import Any, cast, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

KERNEL = 3
"""Width and height of every convolution here, in pixels; the edge is padded by one."""


def convolve(
    x: Float[Tensor, "*batch height width channel"], weight: Float[Tensor, "*task 3 3 channel output"], stride: int
) -> Float[Tensor, "*batch below beside output"]:
    """A 3 × 3 convolution, padded by one, without bias.

    A weight with a task axis wants images [task, example, ...]: each task's are convolved with its own.
    """
    columns = patches(x.flatten(0, -4), stride)
    *tasks, _, _, _, width = weight.shape
    rows = columns.reshape(*tasks, -1, columns.shape[-1]) @ weight.flatten(-4, -2)
    return rows.reshape(*x.shape[:-3], *columns.shape[1:-1], width)


def patches(
    x: Float[Tensor, "example height width channel"], stride: int
) -> Float[Tensor, "example below beside patch"]:
    """The 3 × 3 surroundings of every `stride`-th pixel, each as one row of 9 · channel numbers."""
    return cast(Tensor, _Patches.apply(x, stride))


def unpatches(
    columns: Float[Tensor, "example below beside patch"], size: tuple[int, int], stride: int
) -> Float[Tensor, "example height width channel"]:
    """The transpose of `patches`: adds every number of every row to the pixel that it came from."""
    return cast(Tensor, _Unpatches.apply(columns, *size, stride))


def _gather(x: Tensor, stride: int) -> Tensor:
    count, height, width, channels = x.shape
    padded = torch.nn.functional.pad(x, (0, 0, 1, 1, 1, 1))
    below, beside = (height - 1) // stride + 1, (width - 1) // stride + 1
    row = (width + 2) * channels
    shape = (count, below, beside, KERNEL, KERNEL * channels)  # three neighbours in a row lie next to each other
    strides = ((height + 2) * row, stride * row, stride * channels, row, 1)
    return padded.as_strided(shape, strides).reshape(count, below, beside, KERNEL * KERNEL * channels)


def _scatter(columns: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    count, below, beside, patch = columns.shape
    height, width = size
    channels = patch // KERNEL**2
    parts = columns.view(count, below, beside, KERNEL, KERNEL, channels)
    padded = columns.new_zeros(count, height + 2, width + 2, channels)
    for i in range(KERNEL):
        for j in range(KERNEL):
            rows = slice(i, i + stride * (below - 1) + 1, stride)
            across = slice(j, j + stride * (beside - 1) + 1, stride)
            padded[:, rows, across] += parts[:, :, :, i, j]
    return padded[:, 1:-1, 1:-1].contiguous()


# PyTorch calls these by position and with contexts that have no public type.


@final
class _Patches(Function):
    @staticmethod
    def forward(x: Tensor, stride: int) -> Tensor:
        return _gather(x.contiguous(), stride)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:  # noqa: ANN401
        x, ctx.stride = inputs
        ctx.size = tuple(x.shape[-3:-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        return unpatches(gradients[0], ctx.size, ctx.stride), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:  # noqa: ANN401
        x, stride = args
        assert in_dims[0] is not None
        x = x.movedim(in_dims[0], 0)
        return patches(x.flatten(0, 1), stride).unflatten(0, x.shape[:2]), 0


@final
class _Unpatches(Function):
    @staticmethod
    def forward(columns: Tensor, height: int, width: int, stride: int) -> Tensor:
        return _scatter(columns.contiguous(), (height, width), stride)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int, int, int], output: Tensor) -> None:  # noqa: ANN401
        ctx.stride = inputs[3]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
        return patches(gradients[0], ctx.stride), None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:  # noqa: ANN401
        columns, height, width, stride = args
        assert in_dims[0] is not None
        columns = columns.movedim(in_dims[0], 0)
        return unpatches(columns.flatten(0, 1), (height, width), stride).unflatten(0, columns.shape[:2]), 0
