"""Conv4: two implementations that agree, and features that begin at a sensible size."""

from typing import Literal

import pytest
import torch

from metarl.fewshot.encoders import STANDARD, Conv4Config, Standardised, for_comparison, for_second_order
from metarl.fewshot.encoders.conv4 import Conv4
from metarl.fewshot.examples import TaskSignature


@pytest.mark.parametrize(("downsample", "shape"), [("stride", (1, 28, 28)), ("pool", (3, 33, 32))])
def test_pytorchs_own_operations_give_the_same_values_statistics_and_gradients(
    downsample: Literal["stride", "pool"], shape: tuple[int, int, int]
) -> None:
    general, quick = (Conv4(shape, 8, downsample, second_order=second) for second in (True, False))
    start = general.init(torch.Generator().manual_seed(0))
    parameters = {name: value.double().requires_grad_() for name, value in start.items()}
    inputs = torch.rand(7, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    one, other = general(parameters, inputs), quick(parameters, inputs)
    torch.testing.assert_close(one.features, other.features)
    assert one.statistics.keys() == other.statistics.keys()
    for block, found in one.statistics.items():
        torch.testing.assert_close(found, other.statistics[block])
    gradients = [torch.autograd.grad((each.features**3).sum(), list(parameters.values())) for each in (one, other)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("downsample", ["stride", "pool"])
def test_so_they_do_for_tasks_and_by_given_statistics(downsample: Literal["stride", "pool"]) -> None:
    general, quick = (Conv4((1, 20, 20), 8, downsample, second_order=second) for second in (True, False))
    parameters = {name: value.double() for name, value in general.init(torch.Generator().manual_seed(0)).items()}
    inputs = torch.rand(3, 7, 1, 20, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    own = general(parameters, inputs)
    for_all = {name: (mean[0], variance[0]) for name, (mean, variance) in own.statistics.items()}
    for given in (None, own.statistics, for_all):
        one, other = general(parameters, inputs, given), quick(parameters, inputs, given)
        torch.testing.assert_close(one.features, other.features)
        for block, found in one.statistics.items():
            torch.testing.assert_close(found, other.statistics[block])
    # its own statistics, given, change nothing
    torch.testing.assert_close(general(parameters, inputs, own.statistics).features, own.features)


def test_so_they_do_for_weights_that_are_each_tasks_own() -> None:
    general, quick = (Conv4((1, 20, 20), 8, "pool", second_order=second) for second in (True, False))
    drawn = [general.init(torch.Generator().manual_seed(seed)) for seed in range(3)]
    parameters = {name: torch.stack([each[name] for each in drawn]).double().requires_grad_() for name in drawn[0]}
    parameters["blocks.1.weight"] = drawn[0]["blocks.1.weight"].double().requires_grad_()  # but for one
    inputs = torch.rand(3, 7, 1, 20, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    one, other = general(parameters, inputs), quick(parameters, inputs)
    torch.testing.assert_close(one.features, other.features)
    for block, found in one.statistics.items():
        torch.testing.assert_close(found, other.statistics[block])
    gradients = [torch.autograd.grad((each.features**3).sum(), list(parameters.values())) for each in (one, other)]
    torch.testing.assert_close(*gradients)
    given = general(parameters, inputs, one.statistics), quick(parameters, inputs, one.statistics)
    torch.testing.assert_close(given[0].features, given[1].features)


def test_standardised_features_have_no_mean_and_variance_one_and_running_ones_are_applied() -> None:
    network = Standardised(Conv4((1, 20, 20), 8, "pool"))
    parameters = network.init(torch.Generator().manual_seed(0))
    inputs = torch.rand(30, 1, 20, 20, generator=torch.Generator().manual_seed(1))
    features, found = network(parameters, inputs)
    torch.testing.assert_close(features.mean(0), torch.zeros(network.num_features), atol=1e-5, rtol=0)
    torch.testing.assert_close(features.var(0, correction=0), torch.ones(network.num_features), atol=1e-3, rtol=0)
    torch.testing.assert_close(network(parameters, inputs[:4], found).features, features[:4], atol=1e-5, rtol=1e-4)
    plain = network.encoder(parameters, inputs).features
    torch.testing.assert_close(found[STANDARD], (plain.mean(0), plain.var(0, correction=0)))


@pytest.mark.parametrize("size", [16, 32, 64])
def test_features_begin_as_far_apart_as_averages_over_positions_would_be(size: int) -> None:
    """Of normalised, rectified and pooled noise: the average over p positions varies a p-th of what each does."""
    network = Conv4((3, size, size), 8, "pool", compared=True)
    parameters = network.init(torch.Generator().manual_seed(0))
    inputs = torch.randn(40, 3, size, size, generator=torch.Generator().manual_seed(1))
    scaled = network(parameters, inputs).features
    positions = (size // 16) ** 2
    average = (scaled * positions).unflatten(1, (positions, 8)).mean(1)
    torch.testing.assert_close(*(torch.pdist(x).square().mean() for x in (scaled, average)), rtol=0.25, atol=0)


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")),
    ],
)
@pytest.mark.parametrize("second_order", [True, False])
def test_short_numbers_change_features_and_gradients_by_their_rounding(second_order: bool, device: str) -> None:
    """A bfloat16 is right to 2⁻⁹: features to a few per cent after four blocks, gradients in their direction."""
    exact, short = (
        Conv4((1, 28, 28), 8, "stride", precision, second_order=second_order) for precision in ("float32", "bfloat16")
    )
    initial = exact.init(torch.Generator().manual_seed(0))
    parameters = {name: value.to(device).requires_grad_() for name, value in initial.items()}
    inputs = torch.rand(10, 1, 28, 28, generator=torch.Generator().manual_seed(1)).to(device)
    one, other = exact(parameters, inputs), short(parameters, inputs)
    assert one.features.dtype == other.features.dtype == torch.float32
    assert 0 < (other.features - one.features).norm() / one.features.norm() < 0.05
    gradients = [torch.autograd.grad(each.features.square().mean(), list(parameters.values())) for each in (one, other)]
    for expected, rounded in zip(*gradients, strict=True):
        assert rounded.dtype == torch.float32
        assert torch.cosine_similarity(expected.flatten(), rounded.flatten(), dim=0) > 0.95
    assert all(value.dtype == torch.float32 for pair in other.statistics.values() for value in pair)


def test_options_follow_the_images() -> None:
    photographs = TaskSignature("classification", (3, 84, 84), 5, 1, 5)
    characters = TaskSignature("classification", (1, 28, 28), 5, 1, 5)
    assert (Conv4Config().build(photographs).downsample, Conv4Config().build(characters).downsample) == (
        "pool",
        "stride",
    )
    assert Conv4Config(filters=32).build(photographs).num_features == 32 * 5 * 5
    with pytest.raises(ValueError, match="images of at least 16 pixels, got 12 × 28"):
        Conv4Config(downsample="pool").build(TaskSignature("classification", (1, 12, 28), 5, 1, 5))
    with pytest.raises(ValueError, match="wants images"):
        Conv4Config().build(TaskSignature("regression", (3,), 0, 4, 1))


def test_what_it_is_used_for_changes_how_it_computes_and_begins_alone() -> None:
    encoder = Conv4((1, 28, 28), 8, "stride")
    assert for_second_order(encoder) == Conv4((1, 28, 28), 8, "stride", second_order=True)
    one, compared = (each.init(torch.Generator().manual_seed(0)) for each in (encoder, for_comparison(encoder)))
    assert [name for name in one if not torch.equal(one[name], compared[name])] == ["blocks.3.scale"]
    torch.testing.assert_close(compared["blocks.3.scale"], torch.full((8,), 1 / 4))


def test_predictions_without_gradients_are_the_same() -> None:
    """They are computed by PyTorch's own layers, also with weights of each task's own."""
    encoder = Conv4((1, 28, 28), 8, "stride", second_order=True)
    shared = encoder.init(torch.Generator().manual_seed(0))
    own = {name: value.expand(3, *value.shape).double() for name, value in shared.items()}
    inputs = torch.rand(3, 7, 1, 28, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with_gradients = encoder(own, inputs)
    with torch.no_grad():
        without = encoder(own, inputs)
    torch.testing.assert_close(without.features, with_gradients.features)
    for block, taken in without.statistics.items():
        torch.testing.assert_close(taken, with_gradients.statistics[block])
