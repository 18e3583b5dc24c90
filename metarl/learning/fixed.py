"""Policies that learn nothing and act on observations alone, as agents: floors, ceilings, scripts."""

import dataclasses
from collections.abc import Callable
from typing import final

import numpy as np
from jaxtyping import Float, Shaped
from torch import Tensor

from metarl.learning.episodes import Episodes, Trials
from metarl.learning.protocols import AdaptationProtocol, Carry, Memoryless, Metrics, State
from metarl.learning.random_streams import TaskRandom

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

    def shard(self, tasks: slice) -> "FixedPolicy":
        """The same: all tasks have one policy."""
        return self
