"""The networks of few-shot learning."""

from typing import Literal

import pytest
import torch

from metarl.fewshot.networks import Conv4


@pytest.mark.parametrize(("downsample", "shape"), [("stride", (1, 28, 28)), ("pool", (3, 33, 32))])
def test_pytorchs_own_operations_give_the_same_values_statistics_and_gradients(
    downsample: Literal["stride", "pool"], shape: tuple[int, int, int]
) -> None:
    general, quick = (Conv4(shape, 8, downsample, outputs=5, adapted=adapted) for adapted in (True, False))
    start = general.init(torch.Generator().manual_seed(0))
    parameters = {name: value.double().requires_grad_() for name, value in start.items()}
    inputs = torch.rand(7, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    one, other = general(parameters, inputs), quick(parameters, inputs)
    torch.testing.assert_close(one.values, other.values)
    assert one.statistics.keys() == other.statistics.keys()
    for block, found in one.statistics.items():
        torch.testing.assert_close(found, other.statistics[block])
    gradients = [torch.autograd.grad((each.values**3).sum(), list(parameters.values())) for each in (one, other)]
    torch.testing.assert_close(*gradients)
