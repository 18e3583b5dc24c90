"""The protocols that every learner and every agent follow, and the values they pass around.

A learner is a frozen record of options. What it has learned is a value, `State`, that goes in and comes out. So
nothing is overwritten and put back, and a checkpoint is simply the state written down.

    adapt(support) -> adapted learner          act -> actions          meta_step: learn from many tasks
"""

import dataclasses
from collections.abc import Mapping
from typing import Protocol, TypeVar, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.learning.episodes import Episodes
from metarl.tasks import Task

Parameters = Mapping[str, Tensor]
Figures = Mapping[str, float | int]
Memory = tuple[Tensor, ...]

Batch_contra = TypeVar("Batch_contra", contravariant=True)


@final
@dataclasses.dataclass(frozen=True)
class State:
    """What a learner has learned so far."""

    parameters: Parameters
    optimizer: Parameters
    """The optimiser's tensors by name; empty for an optimiser without state."""

    def to(self, device: str) -> "State":
        """The same on another device."""
        parts = (self.parameters, self.optimizer)
        return State(*({name: value.to(device) for name, value in part.items()} for part in parts))


@runtime_checkable
class Learner(Protocol[Batch_contra]):
    """Learns across tasks. All randomness is in what is passed in."""

    @property
    def meta_batch(self) -> int:
        """Tasks an outer step."""
        ...

    @property
    def shown(self) -> tuple[str, ...]:
        """The figures that people watch while it trains."""
        ...

    def init(self, seed: int) -> State:
        """The state before any learning."""
        ...

    def meta_step(self, state: State, batch: Batch_contra, rng: np.random.Generator) -> tuple[State, Figures]:
        """One outer step; the figures go to the metrics. `env_steps`, where given, counts the simulator's steps."""
        ...


@runtime_checkable
class Actor(Protocol):
    """A policy for each task of a batch: plain data and pure functions, so that it can be sent anywhere."""

    def begin(self, episodes: int) -> Memory:
        """The memory at the start of `episodes` episodes a task; each tensor is [task, episode, ...]."""
        ...

    def act(
        self, observations: Float[Tensor, "task episode observation"], memory: Memory, generator: torch.Generator
    ) -> tuple[Float[Tensor, "task episode action"], Memory]:
        """Draws actions in units of the action space: ±1 are its bounds, to which the sampler clips them."""
        ...

    def feedback(
        self,
        memory: Memory,
        actions: Float[Tensor, "task episode action"],
        rewards: Float[Tensor, "task episode"],
        done: Bool[Tensor, "task episode"],
    ) -> Memory:
        """Takes in what the actions led to; they are as executed, within ±1."""
        ...


class Memoryless:
    """What actors have in common whose actions depend on the present observation alone."""

    def begin(self, episodes: int) -> Memory:
        return ()

    def feedback(
        self,
        memory: Memory,
        actions: Float[Tensor, "task episode action"],
        rewards: Float[Tensor, "task episode"],
        done: Bool[Tensor, "task episode"],
    ) -> Memory:
        return memory


@runtime_checkable  # asked by the tests, which check every annotation
class Adapted(Actor, Protocol):
    """A learner that has seen some experience of each task, perhaps none."""

    def adapt(self, support: Episodes) -> "Adapted":
        """The learner after this experience too; `self` stays as it is."""
        ...


@final
@dataclasses.dataclass(frozen=True)
class Schedule:
    """How an agent spends a trial: `rounds` times, act for some episodes, then adapt to them."""

    rounds: int
    """Adaptations in a trial; the adaptation curve has one point more."""
    episodes: int
    """Episodes on each task in a round."""


@runtime_checkable
class Agent(Learner[tuple[Task, ...]], Protocol):
    """A learner that acts."""

    @property
    def schedule(self) -> Schedule:
        """How the agent was trained to adapt; evaluation follows it unless told otherwise."""
        ...

    @property
    def round_name(self) -> str:
        """What one round of adaptation is called in a caption."""
        ...

    def start(self, state: State, num_tasks: int) -> Adapted:
        """The learner that has seen nothing of `num_tasks` tasks yet."""
        ...
