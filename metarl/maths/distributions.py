"""Distributions of actions, as named tuples of tensors: pytrees for `torch.func`, values for everybody else.

Each knows the metric that the Kullback–Leibler divergence has at the distribution itself, in its parameters η:

    KL(η ‖ η + ε) = ½ εᵀ M(η) ε + O(ε³)

A policy's Fisher matrix is F = Jᵀ M J, with the Jacobian J of η with respect to the policy's parameters (Schulman et
al. 2015, "Trust Region Policy Optimization", appendix C).
"""

import math
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

_LOG_TWO_PI = math.log(2 * math.pi)


@runtime_checkable
class Noise(Protocol):
    """Random numbers for a batch of distributions, such as `metarl.learning.random_streams.TaskRandom`."""

    def normal(self, size: int) -> Float[Tensor, "*batch {size}"]:
        """Independent numbers of N(0, 1)."""
        ...

    def uniform(self, size: int) -> Float[Tensor, "*batch {size}"]:
        """Independent numbers of U[0, 1)."""
        ...


class Gaussian(NamedTuple):
    """N(μ, diag σ²), a distribution of vectors."""

    mean: Float[Tensor, "*batch action"]
    """μ."""
    log_std: Float[Tensor, "*batch action"]
    """log σ, of the mean's shape."""

    def log_prob(self, actions: Float[Tensor, "*batch action"]) -> Float[Tensor, "*batch"]:
        """log N(a; μ, diag σ²) = −½ Σ [((a − μ)/σ)² + 2 log σ + log 2π]."""
        standardised = (actions - self.mean) * torch.exp(-self.log_std)
        return -0.5 * (standardised**2 + 2 * self.log_std + _LOG_TWO_PI).sum(-1)

    def entropy(self) -> Float[Tensor, "*batch"]:
        """H = Σ [log σ + ½ log 2πe], in nats."""
        return (self.log_std + 0.5 * (_LOG_TWO_PI + 1)).sum(-1)

    def kl(self, other: tuple[Tensor, ...]) -> Float[Tensor, "*batch"]:
        """KL(p ‖ q) = Σ [log σ_q/σ_p + (σ_p² + (μ_p − μ_q)²) / 2σ_q² − ½]: p is this one, q the `other` Gaussian."""
        mean_q, log_std_q = other
        variance_ratio = torch.exp(2 * (self.log_std - log_std_q))
        distance = ((self.mean - mean_q) * torch.exp(-log_std_q)) ** 2
        return (log_std_q - self.log_std + 0.5 * (variance_ratio + distance) - 0.5).sum(-1)

    def fisher(self, tangent: tuple[Tensor, ...]) -> "Gaussian":
        """M(η) η̇ = (μ̇ / σ², 2 (log σ)˙) for a tangent η̇ = (μ̇, (log σ)˙)."""
        mean_dot, log_std_dot = tangent
        return Gaussian(mean_dot * torch.exp(-2 * self.log_std), 2 * log_std_dot)

    def mode(self) -> Float[Tensor, "*batch action"]:
        """The most probable action, μ."""
        return self.mean

    def sample(self, random: Noise | None) -> Float[Tensor, "*batch action"]:
        """a = μ + σ ε with ε ~ N(0, I); the mode where there is no noise."""
        if random is None:
            return self.mode()
        return self.mean + self.log_std.exp() * random.normal(self.mean.shape[-1])


class Categorical(NamedTuple):
    """p = softmax(z), a distribution of the numbers 0, 1, …."""

    logits: Float[Tensor, "*batch choice"]
    """z; adding one number to all of them changes nothing."""

    def log_prob(self, actions: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """log p_a."""
        return self.logits.log_softmax(-1).gather(-1, actions[..., None]).squeeze(-1)

    def entropy(self) -> Float[Tensor, "*batch"]:
        """H = −Σ p log p, in nats."""
        log_p = self.logits.log_softmax(-1)
        return -(log_p.exp() * log_p).sum(-1)

    def kl(self, other: tuple[Tensor, ...]) -> Float[Tensor, "*batch"]:
        """KL(p ‖ q) = Σ p (log p − log q): p is this one, q the `other` categorical distribution."""
        (logits_q,) = other
        log_p, log_q = self.logits.log_softmax(-1), logits_q.log_softmax(-1)
        return (log_p.exp() * (log_p - log_q)).sum(-1)

    def fisher(self, tangent: tuple[Tensor, ...]) -> "Categorical":
        """M(η) η̇ = p (ż − pᵀż) for a tangent η̇ = ż, as M = diag p − p pᵀ."""
        (logits_dot,) = tangent
        p = self.logits.softmax(-1)
        return Categorical(p * (logits_dot - (p * logits_dot).sum(-1, keepdim=True)))

    def mode(self) -> Int[Tensor, "*batch"]:
        """The most probable action; the first of several."""
        return self.logits.argmax(-1)

    def sample(self, random: Noise | None) -> Int[Tensor, "*batch"]:
        """The first a whose cumulative probability exceeds u ~ U[0, 1); the mode where there is no noise."""
        if random is None:
            return self.mode()
        cumulative = self.logits.softmax(-1).cumsum(-1)
        # Rounding leaves the last near 1; divided by itself it is 1, which no u reaches.
        return (cumulative / cumulative[..., -1:] <= random.uniform(1)).sum(-1)


Distribution = Gaussian | Categorical
