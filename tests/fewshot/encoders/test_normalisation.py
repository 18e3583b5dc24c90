"""Batch norm and ReLU in one: PyTorch's own layers and numerical differences are the oracles."""

import pytest
import torch
from torch import Tensor, nn

from metarl.fewshot.encoders.normalisation import normalised_relu


def values(*shape: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    *task, _, channels = shape
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * 2 + 1
    scale, shift = torch.randn(2, *task, channels, generator=generator, dtype=torch.float64)
    return [value.requires_grad_() for value in (x, scale, shift)]


def by_layers(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return torch.relu(nn.functional.batch_norm(x, None, None, scale, shift, training=True))


def test_it_is_pytorchs_batch_norm_and_relu() -> None:
    x, scale, shift = values(7, 3)
    y, mean, variance = normalised_relu(x, scale, shift)
    torch.testing.assert_close(y, by_layers(x, scale, shift))
    torch.testing.assert_close(mean, x.mean(0))
    torch.testing.assert_close(variance, x.var(0, correction=0))


@pytest.mark.parametrize("shape", [(7, 3), (2, 5, 3)])
def test_first_and_second_derivatives_are_those_of_numerical_differences(shape: tuple[int, ...]) -> None:
    inputs = values(*shape)
    assert torch.autograd.gradcheck(lambda x, scale, shift: normalised_relu(x, scale, shift)[0], inputs)
    assert torch.autograd.gradgradcheck(lambda x, scale, shift: normalised_relu(x, scale, shift)[0], inputs)


def test_a_task_axis_and_vmap_are_loops_over_tasks() -> None:
    inputs = values(2, 5, 3)
    stacked = normalised_relu(*inputs)[0]
    by_task = [by_layers(*(value[task] for value in inputs)) for task in range(2)]
    torch.testing.assert_close(stacked, torch.stack(by_task))
    torch.testing.assert_close(torch.func.vmap(normalised_relu)(*inputs)[0], stacked)


def test_third_derivatives_are_refused() -> None:
    x, scale, shift = values(7, 3)
    (first,) = torch.autograd.grad(normalised_relu(x, scale, shift)[0].square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="second order only"):
        second.sum().backward()
