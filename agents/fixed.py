"""Policies that learn nothing, as floors and ceilings: random actions, and whatever else acts on observations alone."""

import dataclasses
from collections.abc import Callable
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.learning.episodes import Episodes
from metarl.learning.protocols import Figures, Memory, Memoryless, Schedule, State
from metarl.tasks import Task

Act = Callable[[Float[Tensor, "task episode observation"], torch.Generator], Float[Tensor, "task episode action"]]
"""Actions in units of the action space, ±1 being its bounds."""

NOTHING = State({}, {})
"""What such a policy has learned."""


@final
@dataclasses.dataclass(frozen=True)
class FixedPolicy(Memoryless):
    """An agent, and each of its actors, that acts and never adapts."""

    chosen: Act
    episodes: int = 1
    """Episodes on each task that an evaluation takes."""
    meta_batch: int = 1
    shown: tuple[str, ...] = ()
    round_name: str = "episode"

    @property
    def schedule(self) -> Schedule:
        return Schedule(rounds=0, episodes=self.episodes)

    def init(self, seed: int) -> State:
        return NOTHING

    def meta_step(self, state: State, batch: tuple[Task, ...], rng: np.random.Generator) -> tuple[State, Figures]:
        raise NotImplementedError("a fixed policy cannot be trained")

    def start(self, state: State, num_tasks: int) -> "FixedPolicy":
        return self

    def act(
        self, observations: Float[Tensor, "task episode observation"], memory: Memory, generator: torch.Generator
    ) -> tuple[Float[Tensor, "task episode action"], Memory]:
        return self.chosen(observations, generator), memory

    def adapt(self, support: Episodes) -> "FixedPolicy":
        return self


def random_policy(action_size: int, episodes: int = 1) -> FixedPolicy:
    """Uniform over the action space."""

    def act(observations: Tensor, generator: torch.Generator) -> Tensor:
        shape = (*observations.shape[:-1], action_size)
        return 2 * torch.rand(shape, generator=generator, device=observations.device) - 1

    return FixedPolicy(act, episodes)
