"""Agents deprived of something, to see what their score rests on."""

import dataclasses
from typing import final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from metarl.evaluation.judge import Ablation
from metarl.learning.episodes import Episodes
from metarl.learning.protocols import AdaptedPolicy, Carry, Transition
from metarl.learning.random_streams import TaskRandom
from metarl.learning.sharding import need_shardable


def ablated(policy: AdaptedPolicy, ablation: Ablation) -> AdaptedPolicy:
    """The policy without what the ablation takes from it; itself for `none`."""
    if ablation == "none":
        return policy
    return AblatedPolicy(policy, ablation)


@final
@dataclasses.dataclass(frozen=True)
class AblatedPolicy:
    """A policy that is told of no reward, or whose memory is wiped whenever it should adapt."""

    policy: AdaptedPolicy
    ablation: Ablation

    def initial_carry(self, num_episodes: int, random: TaskRandom | None) -> Carry:
        return self.policy.initial_carry(num_episodes, random)

    def act(
        self, observations: Float[Tensor, "task episode observation"], carry: Carry, random: TaskRandom | None
    ) -> tuple[Shaped[Tensor, "task episode *action"], Carry]:
        return self.policy.act(observations, carry, random)

    def observe(self, carry: Carry, transition: Transition) -> Carry:
        if self.ablation == "hide-reward":
            transition = transition._replace(rewards=torch.zeros_like(transition.rewards))
        return self.policy.observe(carry, transition)

    def adapt(self, support: Episodes) -> "AblatedPolicy":
        if self.ablation == "wipe-memory":
            return self
        unrewarded = dataclasses.replace(support, rewards=torch.zeros_like(support.rewards))
        return AblatedPolicy(self.policy.adapt(unrewarded), self.ablation)

    def shard(self, tasks: slice) -> "AblatedPolicy":
        """The policies of some of the tasks.

        Raises:
            UsageError: the policy cannot be divided.
        """
        return AblatedPolicy(need_shardable(self.policy).shard(tasks), self.ablation)
