"""Policy gradients of episodes whose advantages come from a linear baseline: batches and losses.

−E[log π_θ(a | o) Â]   (Williams 1992)        −E[π_new(a | o) / π_old(a | o) · Â]      (Schulman et al. 2015)
"""

from typing import NamedTuple

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
    mask: Bool[Tensor, "*task sample"]

    def standardised(self, statistics: RunningMeanStd | None) -> "PolicyBatch":
        """With observations as the policy is shown them."""
        return self if statistics is None else self._replace(observations=statistics.standardise(self.observations))


class PolicyOutputs(NamedTuple):
    """What policies say of a batch's samples, [task, sample]."""

    distribution: Distribution
    log_probs: Float[Tensor, "task sample"]
    """Of the batch's actions."""


def build_batch(episodes: Episodes, discount: float, gae_lambda: float) -> PolicyBatch:
    """Advantages from a baseline fitted to these very episodes, standardised within each task.

    The score is the return of the horizon's steps and the baseline sees the time, so the time limit is part of the
    task: the value after the last step is 0 by definition, not by confusing truncation with termination.
    """
    rewards, mask = episodes.rewards, episodes.mask
    discount_tp1 = discount * mask.to(rewards.dtype)
    discounted = returns.discounted_returns(rewards, discount_tp1)
    values = linear_baseline.fit(episodes.observations, discounted, mask) * mask
    advantages = returns.gae(rewards, discount_tp1, values, torch.zeros_like(values[..., 0]), gae_lambda)
    return PolicyBatch(
        episodes.observations.flatten(1, 2),
        episodes.actions.flatten(1, 2),
        standardise(advantages.flatten(1), mask.flatten(1), axes=-1),
        mask.flatten(1),
    )


def policy_gradient_loss(policy: MlpPolicy, parameters: Parameters, batch: PolicyBatch) -> Float[Tensor, ""]:
    """L(θ) = −E[log π_θ(a | o) Â], whose gradient is that of the return (Williams 1992), over the steps taken."""
    log_probs = policies.apply(policy, parameters, batch.observations).log_prob(batch.actions)
    return -masked_mean(log_probs * batch.advantages, batch.mask)


def surrogate_loss(new: PolicyOutputs, old: PolicyOutputs, query: PolicyBatch) -> Float[Tensor, ""]:
    """−E_𝓣 E[π_new(a | o) / π_old(a | o) · Â]."""
    ratio = torch.exp(new.log_probs - old.log_probs)
    return -masked_mean(ratio * query.advantages, query.mask, axes=-1).mean()


def mean_kl(new: PolicyOutputs, old: PolicyOutputs, query: PolicyBatch) -> Float[Tensor, ""]:
    """E_𝓣 E KL(π_old ‖ π_new), in nats."""
    return masked_mean(old.distribution.kl(new.distribution), query.mask, axes=-1).mean()
