"""Policies that learn nothing, as floors and ceilings: random actions, and whatever else acts on observations alone."""

import dataclasses
from collections.abc import Callable
from typing import TypeVar, final

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from metarl.learning.collect import EnvSource
from metarl.learning.episodes import Episodes, Trials
from metarl.learning.protocols import AdaptationProtocol, Carry, Memoryless, Metrics, State
from metarl.learning.random_streams import TaskRandom
from metarl.learning.spaces import Spaces
from metarl.tasks import Split

Source = TypeVar("Source", bound=EnvSource)
ActionFunction = Callable[
    [Float[Tensor, "task episode observation"], TaskRandom | None], Shaped[Tensor, "task episode *action"]
]
"""Observations and noise ↦ actions in units of the action space: ±1 are a Box's bounds; Discrete counts from 0."""

NOTHING = State({}, {})
"""What such a policy has learned."""


@final
@dataclasses.dataclass(frozen=True)
class FixedPolicy(Memoryless):
    """An agent, and its own adapted policy, that acts and never adapts.

    It pickles where its function does: one defined in a module, or a record with `__call__`, but no lambda.
    """

    action: ActionFunction
    episodes: int = 1
    """Episodes on each task that an evaluation takes."""

    meta_batch = 1
    progress_keys = ()
    adaptation_name = "episode"

    @property
    def protocol(self) -> AdaptationProtocol:
        return AdaptationProtocol(num_adaptations=0, episodes_per_adaptation=self.episodes)

    def init(self, seed: int) -> State:
        return NOTHING

    def meta_step(self, state: State, experience: Trials, rng: np.random.Generator) -> tuple[State, Metrics]:
        raise ValueError("a fixed policy cannot be trained")

    def start(self, state: State, num_tasks: int) -> "FixedPolicy":
        return self

    def act(
        self, observations: Float[Tensor, "task episode observation"], carry: Carry, random: TaskRandom | None
    ) -> tuple[Shaped[Tensor, "task episode *action"], Carry]:
        return self.action(observations, random), carry

    def adapt(self, support: Episodes) -> "FixedPolicy":
        return self


@final
@dataclasses.dataclass(frozen=True)
class UniformActions:
    """a ~ U[−1, 1]ⁿ, or any of n discrete actions; without noise the mean, or the first of the most probable ones."""

    size: int
    """n."""
    discrete: bool

    def __call__(
        self, observations: Float[Tensor, "task episode observation"], random: TaskRandom | None
    ) -> Shaped[Tensor, "task episode *action"]:
        count = 1 if self.discrete else self.size
        if random is None:
            uniform = torch.full((*observations.shape[:2], count), 0.0 if self.discrete else 0.5)
        else:
            uniform = random.uniform(count)
        uniform = uniform.to(observations.device)
        return (uniform[..., 0] * self.size).long() if self.discrete else 2 * uniform - 1


def random_policy(spaces: Spaces, episodes: int = 1) -> FixedPolicy:
    """Uniform over the action space."""
    return FixedPolicy(UniformActions(spaces.action_size, spaces.discrete), episodes)


def random_reference(dist: Source, split: Split, num_tasks: int | None) -> tuple[Source, FixedPolicy]:
    """The reference policy `random`: see `metarl.evaluation.references`."""
    return dist, random_policy(dist.spaces)
