"""The contract between the environments and the simulators behind them.

A simulator is a batch of sub-simulations without time limit and without automatic reset. `TaskVectorEnv` adds both
the horizon and the bookkeeping, once, for every simulator.
"""

import dataclasses
from collections.abc import Mapping
from typing import Protocol, final, runtime_checkable

import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from metarl.tasks import Task


@final
@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one step led to. Entries of sub-simulations that were not active mean nothing."""

    rewards: Float[ndarray, "env"]
    """The task's reward."""
    terminated: Bool[ndarray, "env"]
    """The task itself ended the episode."""
    diverged: Bool[ndarray, "env"]
    """The simulation blew up in this step; its other entries are not to be used."""
    terms: Mapping[str, Float[ndarray, "env"]]
    """What the reward is made of, and what helps to read it; the same names at every step."""


@runtime_checkable  # for the tests, which check every annotation
class Simulator(Protocol):
    """A batch of sub-simulations of one body, each with its own task."""

    @property
    def num_envs(self) -> int: ...

    @property
    def observation_space(self) -> Box:
        """Of one sub-simulation; float64."""
        ...

    @property
    def action_space(self) -> Box:
        """Of one sub-simulation."""
        ...

    def set_task(self, index: int, task: Task) -> None:
        """Gives a sub-simulation its task; it must be reset before it is stepped again."""
        ...

    def reset(self, index: int, rng: np.random.Generator) -> None:
        """Puts one sub-simulation at the start of an episode; all chance comes from `rng`."""
        ...

    def step(self, actions: Float[ndarray, "env action"], active: Bool[ndarray, "env"]) -> Outcome:
        """Advances the active sub-simulations by one action each; their actions are finite."""
        ...

    def observe(self, out: Float[ndarray, "env observation"]) -> None:
        """Writes every sub-simulation's observation."""
        ...

    def render(self, index: int, width: int, height: int) -> UInt8[ndarray, "height width 3"]:
        """A picture of one sub-simulation; sizes in pixels."""
        ...

    def close(self) -> None:
        """Gives back threads and rendering contexts."""
        ...
