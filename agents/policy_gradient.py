"""Policy gradients of episodes whose advantages come from a linear baseline: batches and losses.

−E[log π_θ(a | o) Â]   (Williams 1992)        −E[π_new(a | o) / π_old(a | o) · Â]      (Schulman et al. 2015)

Both have the policy gradient at π_θ = π_old. Their second derivatives differ:

    −E[∇² log π Â]                              −E[(∇² log π + ∇ log π ∇ log πᵀ) Â]

The expectation of the second is the return's own, for one decision: episodes of another θ would be others, which the
log-likelihood leaves out. For episodes it is the low-variance curvature estimator of ProMP (Rothfuss et al. 2019, §5),
without the products between different steps that the exact one has.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from metarl.agents import policies
from metarl.agents.policies import MlpPolicy
from metarl.learning.episodes import Episodes
from metarl.learning.protocols import Parameters
from metarl.maths import linear_baseline, returns
from metarl.maths.distributions import Distribution
from metarl.maths.masked import masked_mean, standardise
from metarl.maths.running_mean_std import RunningMeanStd


class PolicyBatch(NamedTuple):
    """What a policy-gradient loss needs of episodes; a leading task axis where it is for a whole meta-batch."""

    observations: Float[Tensor, "*task sample observation"]
    actions: Shaped[Tensor, "..."]
    """[task, sample, action], or [task, sample] where they are discrete."""
    advantages: Float[Tensor, "*task sample"]
    log_probs: Float[Tensor, "*task sample"]
    """Of the actions, under the policy that took them."""
    mask: Bool[Tensor, "*task sample"]

    def standardised(self, statistics: RunningMeanStd | None) -> "PolicyBatch":
        """With observations as the policy is shown them."""
        return self if statistics is None else self._replace(observations=statistics.standardise(self.observations))


class PolicyOutputs(NamedTuple):
    """What policies say of a batch's samples, [task, sample]."""

    distribution: Distribution
    log_probs: Float[Tensor, "task sample"]
    """Of the batch's actions."""


def build_batch(
    episodes: Episodes,
    log_probs: Float[Tensor, "task sample"],
    discount: float,
    gae_lambda: float,
    *,
    ridge: float,
    standardised: bool,
) -> PolicyBatch:
    """Advantages from a baseline fitted to these very episodes; `standardised` within each task, or as they are.

    `log_probs` are those of the actions under the policy that took them.

    The score is the return of the horizon's steps and the baseline sees the time, so the time limit is part of the
    task: the value after the last step is 0 by definition, not by confusing truncation with termination.
    """
    rewards, mask = episodes.rewards, episodes.mask
    discount_tp1 = discount * mask.to(rewards.dtype)
    discounted = returns.discounted_returns(rewards, discount_tp1)
    values = linear_baseline.fit(episodes.observations, discounted, mask, ridge) * mask
    advantages = (returns.gae(rewards, discount_tp1, values, torch.zeros_like(values[..., 0]), gae_lambda)).flatten(1)
    taken = mask.flatten(1)
    return PolicyBatch(
        episodes.observations.flatten(1, 2),
        episodes.actions.flatten(1, 2),
        standardise(advantages, taken, axes=-1) if standardised else advantages * taken,
        log_probs,
        taken,
    )


@runtime_checkable
class InnerLoss(Protocol):
    """What an inner step goes down."""

    def __call__(self, policy: MlpPolicy, parameters: Parameters, batch: PolicyBatch) -> Float[Tensor, ""]: ...


def log_likelihood_loss(policy: MlpPolicy, parameters: Parameters, batch: PolicyBatch) -> Float[Tensor, ""]:
    """L(θ) = −E[log π_θ(a | o) Â], whose gradient is that of the return (Williams 1992), over the steps taken."""
    log_probs = policies.apply(policy, parameters, batch.observations).log_prob(batch.actions)
    return -masked_mean(log_probs * batch.advantages, batch.mask)


def likelihood_ratio_loss(policy: MlpPolicy, parameters: Parameters, batch: PolicyBatch) -> Float[Tensor, ""]:
    """L(θ) = −E[π_θ(a | o) / π_old(a | o) · Â] with π_old that acted, a constant (Rothfuss et al. 2019, eq. 11)."""
    log_probs = policies.apply(policy, parameters, batch.observations).log_prob(batch.actions)
    return -masked_mean(torch.exp(log_probs - batch.log_probs) * batch.advantages, batch.mask)


InnerSurrogate = Literal["likelihood-ratio", "log-likelihood"]
INNER_LOSSES: Mapping[InnerSurrogate, InnerLoss] = MappingProxyType(
    {"likelihood-ratio": likelihood_ratio_loss, "log-likelihood": log_likelihood_loss}
)
"""The losses of inner steps by name."""


def surrogate_sum(new: PolicyOutputs, old: PolicyOutputs, query: PolicyBatch) -> Float[Tensor, ""]:
    """−Σ_𝓣 E[π_new(a | o) / π_old(a | o) · Â]."""
    ratio = torch.exp(new.log_probs - old.log_probs)
    return -masked_mean(ratio * query.advantages, query.mask, axes=-1).sum()


def kl_sum(new: PolicyOutputs, old: PolicyOutputs, query: PolicyBatch) -> Float[Tensor, ""]:
    """Σ_𝓣 E KL(π_old ‖ π_new), in nats."""
    return masked_mean(old.distribution.kl(new.distribution), query.mask, axes=-1).sum()


def mean_kl(new: PolicyOutputs, old: PolicyOutputs, query: PolicyBatch) -> Float[Tensor, ""]:
    """E_𝓣 E KL(π_old ‖ π_new), in nats."""
    return kl_sum(new, old, query) / len(query.mask)
