"""The contract between the environments and the simulators behind them.

A simulator is a batch of sub-simulations without time limit and without automatic reset. `TaskVectorEnv` adds both
the horizon and the bookkeeping, once, for every simulator.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, final, runtime_checkable

import gymnasium as gym
import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8
from numpy import ndarray

from metarl.errors import RunError
from metarl.tasks import Task


class SimulatorError(RunError):
    """A simulator broke its contract; the message names it and says what it must do."""


@final
@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one step led to. Entries of sub-simulations that were not active mean nothing."""

    rewards: Shaped[ndarray, " env"]
    """The task's reward; floating point."""
    terminated: Bool[ndarray, " env"]
    """The task itself ended the episode."""
    diverged: Bool[ndarray, " env"]
    """The simulation blew up in this step; its other entries are not to be used."""
    terms: Mapping[str, Shaped[ndarray, " env"]]
    """What the reward is made of, and what helps to read it; the same names at every step. `success` (0 or 1) says
    whether the task is solved now, where that can be said."""


@runtime_checkable  # for the tests, which check every annotation
class Simulator(Protocol):
    """A batch of sub-simulations of one body, each with its own task.

    All chance comes from the generators that `reset` is given. What happens in a sub-simulation depends on its task,
    its generator and its actions alone: not on the others, nor on how many there are, nor on threads.
    """

    @property
    def num_envs(self) -> int: ...

    @property
    def observation_space(self) -> gym.Space[Any]:
        """Of one sub-simulation: Box, Discrete, MultiDiscrete, MultiBinary, or Dict and Tuple of them."""
        ...

    @property
    def action_space(self) -> gym.Space[Any]:
        """Of one sub-simulation: Box or Discrete."""
        ...

    def set_task(self, index: int, task: Task) -> None:
        """Gives a sub-simulation its task; it must be reset before it is stepped again."""
        ...

    def reset(self, index: int, rng: np.random.Generator) -> None:
        """Puts one sub-simulation at the start of an episode; all chance of the episode comes from `rng`."""
        ...

    def step(self, actions: Shaped[ndarray, "env *action"], active: Bool[ndarray, " env"]) -> Outcome:
        """Advances the active sub-simulations by one action each; theirs are finite, or within Discrete's range."""
        ...

    def observe(self, out: Any) -> None:  # noqa: ANN401  # a type that follows from a value, the space
        """Writes every sub-simulation's observation into `out`, and changes nothing.

        `out` is what `gymnasium.vector.utils.create_empty_array(observation_space, num_envs)` makes: an array with a
        row for each sub-simulation, or a dict or tuple of them. Every entry of every row must be written (rows of
        those that were never reset may hold anything): `out[:] = …`, `out["position"][:] = …`.
        """
        ...

    def render(self, index: int, width: int, height: int) -> UInt8[ndarray, "height width 3"]:
        """A picture of one sub-simulation; sizes in pixels. Not called where the distribution says `renders=False`."""
        ...

    def close(self) -> None:
        """Gives back threads and rendering contexts. A second call does nothing."""
        ...


@runtime_checkable
class GhostSimulator(Simulator, Protocol):
    """A simulator that can also draw where the body of another policy is, on the same task: for pictures only."""

    def pose(self, index: int) -> Float[ndarray, " coordinate"]:
        """Where a sub-simulation's body is, as `show_ghost` takes it."""
        ...

    def show_ghost(self, pose: Float[ndarray, " coordinate"] | None) -> None:
        """Draws a translucent body there in the pictures that follow; None for none."""
        ...


def check_outcome(simulator: Simulator, outcome: Outcome) -> None:
    """Checks the arrays' shapes and types.

    Raises:
        SimulatorError: one is wrong; the message names the simulator's class and the array.
    """
    shape = (simulator.num_envs,)
    _check_array(simulator, "rewards", outcome.rewards, shape, "f")
    _check_array(simulator, "terminated", outcome.terminated, shape, "b")
    _check_array(simulator, "diverged", outcome.diverged, shape, "b")
    for name, term in outcome.terms.items():
        _check_array(simulator, name, term, shape, "fbiu")
    if "diverged" in outcome.terms:
        raise SimulatorError(f"{type(simulator).__name__}.step: a term must not be called 'diverged'")


_KINDS = {"f": "floats", "b": "bool", "fbiu": "numbers"}


def _check_array(simulator: Simulator, name: str, array: object, shape: tuple[int, ...], kinds: str) -> None:
    if isinstance(array, ndarray) and array.shape == shape and array.dtype.kind in kinds:
        return
    got = f"{array.dtype} of shape {array.shape}" if isinstance(array, ndarray) else type(array).__name__
    raise SimulatorError(
        f"{type(simulator).__name__}.step: {name} must be an array of {_KINDS[kinds]} of shape {shape}, one for each "
        f"sub-simulation; got {got}"
    )
