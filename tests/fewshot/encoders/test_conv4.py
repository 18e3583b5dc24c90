"""The networks of few-shot learning."""

from typing import Literal

import pytest
import torch

from metarl.fewshot.examples import TaskSignature
from metarl.fewshot.networks import STANDARD, Conv4, Dense, NetworkConfig, Standardised, build


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


@pytest.mark.parametrize("downsample", ["stride", "pool"])
def test_so_they_do_for_tasks_and_by_given_statistics(downsample: Literal["stride", "pool"]) -> None:
    general, quick = (Conv4((1, 20, 20), 8, downsample, outputs=5, adapted=adapted) for adapted in (True, False))
    parameters = {name: value.double() for name, value in general.init(torch.Generator().manual_seed(0)).items()}
    inputs = torch.rand(3, 7, 1, 20, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    own = general(parameters, inputs)
    for_all = {name: (mean[0], variance[0]) for name, (mean, variance) in own.statistics.items()}
    for given in (None, own.statistics, for_all):
        one, other = general(parameters, inputs, given), quick(parameters, inputs, given)
        torch.testing.assert_close(one.values, other.values)
        for block, found in one.statistics.items():
            torch.testing.assert_close(found, other.statistics[block])
    # its own statistics, given, change nothing
    torch.testing.assert_close(general(parameters, inputs, own.statistics).values, own.values)


def test_so_they_do_for_weights_that_are_each_tasks_own() -> None:
    general, quick = (Conv4((1, 20, 20), 8, "pool", outputs=5, adapted=adapted) for adapted in (True, False))
    drawn = [general.init(torch.Generator().manual_seed(seed)) for seed in range(3)]
    parameters = {name: torch.stack([each[name] for each in drawn]).double().requires_grad_() for name in drawn[0]}
    parameters["blocks.1.weight"] = drawn[0]["blocks.1.weight"].double().requires_grad_()  # but for one
    inputs = torch.rand(3, 7, 1, 20, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    one, other = general(parameters, inputs), quick(parameters, inputs)
    torch.testing.assert_close(one.values, other.values)
    for block, found in one.statistics.items():
        torch.testing.assert_close(found, other.statistics[block])
    gradients = [torch.autograd.grad((each.values**3).sum(), list(parameters.values())) for each in (one, other)]
    torch.testing.assert_close(*gradients)
    given = general(parameters, inputs, one.statistics), quick(parameters, inputs, one.statistics)
    torch.testing.assert_close(given[0].values, given[1].values)


def test_standardised_features_have_no_mean_and_variance_one_and_running_ones_are_applied() -> None:
    network = Standardised(Conv4((1, 20, 20), 8, "pool", outputs=0, adapted=False))
    parameters = network.init(torch.Generator().manual_seed(0))
    inputs = torch.rand(30, 1, 20, 20, generator=torch.Generator().manual_seed(1))
    values, found = network(parameters, inputs)
    torch.testing.assert_close(values.mean(0), torch.zeros(network.features), atol=1e-5, rtol=0)
    torch.testing.assert_close(values.var(0, correction=0), torch.ones(network.features), atol=1e-3, rtol=0)
    torch.testing.assert_close(network(parameters, inputs[:4], found).values, values[:4], atol=1e-5, rtol=1e-4)
    plain = network.network(parameters, inputs).values
    torch.testing.assert_close(found[STANDARD], (plain.mean(0), plain.var(0, correction=0)))


@pytest.mark.parametrize("size", [16, 32, 64])
def test_features_begin_as_far_apart_as_averages_over_positions_would_be(size: int) -> None:
    """Of normalised, rectified and pooled noise: the average over p positions varies a p-th of what each does."""
    network = Conv4((3, size, size), 8, "pool", outputs=0, adapted=False)
    parameters = network.init(torch.Generator().manual_seed(0))
    inputs = torch.randn(40, 3, size, size, generator=torch.Generator().manual_seed(1))
    scaled = network(parameters, inputs).values
    positions = (size // 16) ** 2
    average = (scaled * positions).unflatten(1, (positions, 8)).mean(1)
    torch.testing.assert_close(*(torch.pdist(x).square().mean() for x in (scaled, average)), rtol=0.25, atol=0)


@pytest.mark.parametrize("adapted", [True, False])
def test_short_numbers_change_values_and_gradients_by_their_rounding(adapted: bool) -> None:
    """A bfloat16 is right to 2⁻⁹: values to a few per cent after four blocks, gradients in their direction."""
    signature = TaskSignature("classification", (1, 28, 28), 5, 1, 5)
    exact, short = (
        build(NetworkConfig(filters=8, precision=precision), signature, 5, adapted=adapted)
        for precision in ("float32", "bfloat16")
    )
    parameters = {k: v.requires_grad_() for k, v in exact.init(torch.Generator().manual_seed(0)).items()}
    inputs = torch.rand(10, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    one, other = exact(parameters, inputs), short(parameters, inputs)
    assert one.values.dtype == other.values.dtype == torch.float32
    assert 0 < (other.values - one.values).norm() / one.values.norm() < 0.05
    gradients = [torch.autograd.grad(each.values.square().mean(), list(parameters.values())) for each in (one, other)]
    for expected, rounded in zip(*gradients, strict=True):
        assert rounded.dtype == torch.float32
        assert torch.cosine_similarity(expected.flatten(), rounded.flatten(), dim=0) > 0.95
    assert all(value.dtype == torch.float32 for pair in other.statistics.values() for value in pair)


def test_only_convolutions_have_a_precision() -> None:
    signature = TaskSignature("regression", (3,), 0, 4, 1)
    assert isinstance(build(NetworkConfig(), signature, 1), Dense)
    with pytest.raises(ValueError, match="for convolutions"):
        build(NetworkConfig(precision="bfloat16"), signature, 1)
