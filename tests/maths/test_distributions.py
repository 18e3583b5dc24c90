"""Distributions against torch.distributions, and their metric against the Hessian of the divergence by autograd."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Independent, Normal, kl_divergence

from metarl.learning.random_streams import TaskRandom
from metarl.maths.distributions import Categorical, Distribution, Gaussian


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussian(seed: int, *batch: int) -> Gaussian:
    return Gaussian(normal(*batch, 3, seed=seed), 0.5 * normal(*batch, 3, seed=seed + 100))


def categorical(seed: int, *batch: int) -> Categorical:
    return Categorical(2 * normal(*batch, 4, seed=seed))


def oracle(distribution: Distribution) -> torch.distributions.Distribution:
    if isinstance(distribution, Gaussian):
        return Independent(Normal(distribution.mean, distribution.log_std.exp()), 1)
    return TorchCategorical(logits=distribution.logits)


Make = Callable[..., Distribution]
both = pytest.mark.parametrize("make", [gaussian, categorical])


@both
def test_log_probabilities_entropies_and_divergences_are_torchs(make: Make) -> None:
    p, q = make(0, 5, 2), make(1, 5, 2)
    actions = oracle(p).sample()
    torch.testing.assert_close(p.log_prob(actions), oracle(p).log_prob(actions))
    torch.testing.assert_close(p.entropy(), oracle(p).entropy())
    torch.testing.assert_close(p.kl(q), kl_divergence(oracle(p), oracle(q)))
    torch.testing.assert_close(p.kl(p), torch.zeros(5, 2, dtype=torch.float64))


@both
def test_the_metric_is_the_hessian_of_the_divergence(make: Make) -> None:
    p, tangent = make(0), make(7)
    flat = torch.cat([part.flatten() for part in p])
    sizes = [part.numel() for part in p]

    def divergence(x: Tensor) -> Tensor:
        return kl_divergence(oracle(p), oracle(type(p)(*x.split(sizes))))

    hessian = torch.autograd.functional.hessian(divergence, flat)
    assert isinstance(hessian, Tensor)
    expected = hessian @ torch.cat([part.flatten() for part in tangent])
    torch.testing.assert_close(torch.cat([part.flatten() for part in p.fisher(tangent)]), expected)


@both
def test_they_pass_through_the_transforms_of_torch_func(make: Make) -> None:
    p, q = make(0, 4), make(1, 4)
    torch.testing.assert_close(torch.func.vmap(lambda one, other: one.kl(other))(p, q), p.kl(q))
    gradient = torch.func.grad(lambda one: one.entropy().sum())(p)
    assert type(gradient) is type(p)


def test_samples_have_the_distributions_moments() -> None:
    random = TaskRandom([1, 2], num_episodes=20_000)
    drawn = Gaussian(torch.full((2, 20_000, 1), 3.0), torch.full((2, 20_000, 1), -1.0)).sample(random)
    torch.testing.assert_close(drawn.mean((1, 2)), torch.full((2,), 3.0), atol=0.01, rtol=0)
    torch.testing.assert_close(drawn.std((1, 2)), torch.full((2,), -1.0).exp(), atol=0.01, rtol=0)
    probabilities = torch.tensor([0.5, 0.0, 0.2, 0.3])
    choices = Categorical(probabilities.log().expand(2, 20_000, 4)).sample(random)
    frequencies = torch.nn.functional.one_hot(choices, 4).double().mean(1)
    torch.testing.assert_close(frequencies, probabilities.double().expand(2, 4), atol=0.015, rtol=0)
    assert not frequencies[:, 1].any()


class Constant:
    """Noise that is one number."""

    def __init__(self, value: float) -> None:
        self.value = value

    def normal(self, size: int) -> Tensor:
        return torch.full((1, 1, size), self.value)

    def uniform(self, size: int) -> Tensor:
        return torch.full((1, 1, size), self.value)


def test_a_choice_is_the_inverse_of_the_cumulative_distribution() -> None:
    p = Categorical(torch.tensor([0.25, 0.5, 0.25]).log().expand(1, 1, 3))
    largest = float(torch.nextafter(torch.tensor(1.0), torch.tensor(0.0)))
    for u, choice in ((0.0, 0), (0.2, 0), (0.3, 1), (0.7, 1), (0.8, 2), (largest, 2)):
        assert p.sample(Constant(u)).item() == choice
    many = Categorical(torch.zeros(1, 1, 1000))
    assert many.sample(Constant(largest)).item() == 999  # though the probabilities do not add up to 1


@both
def test_without_noise_they_give_the_mode(make: Make) -> None:
    p = make(0, 2, 3)
    expected = p.mean if isinstance(p, Gaussian) else p.logits.argmax(-1)
    assert torch.equal(p.sample(None), expected) and torch.equal(p.mode(), expected)
