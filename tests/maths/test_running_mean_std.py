"""Running statistics against those of everything at once."""

import pytest
import torch

from metarl.maths.running_mean_std import CLIP, RunningMeanStd


def parts() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [3 + 2 * torch.randn(size, 4, generator=generator) for size in (5, 1, 70)]


def test_they_are_those_of_everything_seen() -> None:
    statistics = RunningMeanStd.initial(4)
    untouched = torch.tensor([[0.5, -2.0, 11.0, -30.0]])
    torch.testing.assert_close(statistics.standardise(untouched), untouched.clamp(-CLIP, CLIP), rtol=1e-5, atol=0)
    for part in parts():
        statistics = statistics.merge(part)
    together = torch.cat(parts()).double()
    torch.testing.assert_close(statistics.mean, together.mean(0))
    torch.testing.assert_close(statistics.variance, together.var(0, correction=0))
    assert float(statistics.total) == 76
    standard = statistics.standardise(together)
    torch.testing.assert_close(standard.mean(0), torch.zeros(4, dtype=torch.float64), atol=1e-5, rtol=0)
    torch.testing.assert_close(standard.std(0, correction=0), torch.ones(4, dtype=torch.float64), atol=1e-5, rtol=0)


def test_they_are_named_among_an_agents_parameters() -> None:
    statistics = RunningMeanStd.initial(4).merge(parts()[0])
    parameters = {"w": torch.zeros(3), **statistics.named()}
    again = RunningMeanStd.among(parameters)
    assert all(torch.equal(one, other) for one, other in zip(statistics, again, strict=True))


def test_a_share_of_the_way_is_between_and_its_ends_are_exact() -> None:
    one, other = (RunningMeanStd.initial(4).merge(part) for part in (parts()[0], parts()[2]))
    for share, end in ((0.0, one), (1.0, other)):
        assert all(torch.equal(x, y) for x, y in zip(one.toward(other, share), end, strict=True))
    torch.testing.assert_close(one.toward(other, 0.25).variance, 0.75 * one.variance + 0.25 * other.variance)


def test_a_part_of_the_way_from_none_counts_for_nothing_later() -> None:
    one, other = parts()[0], parts()[2]
    none = RunningMeanStd.initial(4)
    started = none.toward(none.merge(one), 0.5)
    torch.testing.assert_close(started.mean, 0.5 * one.double().mean(0))
    torch.testing.assert_close(started.merge(other).variance, other.double().var(0, correction=0))
    assert float(none.toward(none.merge(one), 1.0).total) == 5


@pytest.mark.parametrize("constant", [False, True])
def test_a_folded_layer_makes_of_new_inputs_what_it_made_of_old_ones(constant: bool) -> None:
    """Also where a feature has not varied so far."""
    one, other = (RunningMeanStd.initial(4).merge(part) for part in (parts()[0], parts()[2]))
    if constant:
        one = RunningMeanStd(one.mean, one.variance.clone().index_fill(0, torch.tensor([1]), 0.0), one.total)
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    bias = torch.randn(3, generator=generator, dtype=torch.float64)
    x = 3 + 2 * torch.randn(9, 4, generator=generator, dtype=torch.float64)
    x[:, 1] = one.mean[1] if constant else x[:, 1]
    new_weight, new_bias = one.fold(other, weight, bias)
    expected = one.standardise(x) @ weight.T + bias
    torch.testing.assert_close(other.standardise(x) @ new_weight.T + new_bias, expected, rtol=1e-6, atol=1e-6)
    same_weight, same_bias = one.fold(one, weight, bias)
    assert torch.equal(same_weight, weight) and torch.equal(same_bias, bias)
