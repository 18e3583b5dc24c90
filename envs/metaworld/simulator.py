"""Sub-environments of Meta-World in this process."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import final

import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from metarl.envs.metaworld.class_simulator import (
    ClassSimulator,
    SimulationOptions,
    Snapshot,
    class_simulator,
    commands,
)
from metarl.envs.metaworld.goals import check_task
from metarl.envs.metaworld.metaworld_api import TERMS
from metarl.envs.simulator import Outcome
from metarl.tasks import Task


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """What goes in and out of every step: memory of a process, or shared by several."""

    actions: Float[ndarray, "env action"]
    active: Bool[ndarray, "env"]
    observations: Float[ndarray, "env observation"]
    rewards: Float[ndarray, "env"]
    diverged: Bool[ndarray, "env"]
    terms: Float[ndarray, "env term"]
    """In the order of `metaworld_api.TERMS`."""


def layout(num_envs: int) -> dict[str, tuple[tuple[int, ...], type]]:
    """Shape and type of each of the `Arrays`, those with the largest numbers first."""
    return {
        "actions": ((num_envs, 4), np.float64),
        "observations": ((num_envs, 39), np.float64),
        "rewards": ((num_envs,), np.float64),
        "terms": ((num_envs, len(TERMS)), np.float64),
        "active": ((num_envs,), np.bool_),
        "diverged": ((num_envs,), np.bool_),
    }


@final
class EnvShard:
    """Some of the sub-environments, played one after the other.

    Whatever is about to be played is announced first, so that somebody else can tell where it got stuck.
    """

    def __init__(
        self, arrays: Arrays, options: SimulationOptions, announce: Callable[[int], None] = lambda index: None
    ) -> None:
        self._arrays = arrays
        self._options = options
        self._announce = announce
        self._simulators: dict[int, ClassSimulator] = {}
        self._snapshots: dict[int, Snapshot] = {}
        self._families: dict[int, str] = {}
        self._scales = np.zeros(len(arrays.active))
        self._in_order: list[int] = []
        """By class: a model and its data then stay in the processor's cache for all sub-environments that play it."""

    def reset(self, index: int, task: Task, seed: int) -> None:
        """There is no chance in it: the task holds the random vector."""
        self._announce(index)
        self._simulators[index] = class_simulator(task.family, self._options)
        self._scales[index] = self._simulators[index].action_scale
        snapshot = self._simulators[index].reset(rand_vec(task))
        self._snapshots[index] = snapshot
        if self._families.get(index) != task.family:
            self._families[index] = task.family
            self._in_order = sorted(self._families, key=lambda other: (self._families[other], other))
        self._arrays.observations[index] = snapshot.initial.observation

    def step(self, single_precision: bool) -> None:
        """Steps those of them that are active."""
        arrays = self._arrays
        # Metaworld computes in the precision of its actions.
        actions = arrays.actions.astype(np.float32) if single_precision else arrays.actions
        told, active = commands(actions, self._scales).tolist(), arrays.active.tolist()
        for index in self._in_order:
            if not active[index]:
                continue
            self._announce(index)
            result = self._simulators[index].obey(self._snapshots[index], actions[index], told[index])
            arrays.observations[index], arrays.rewards[index], arrays.terms[index], arrays.diverged[index] = result

    def render(self, index: int, width: int, height: int) -> UInt8[ndarray, "height width 3"]:
        return self._simulators[index].render(self._snapshots[index], width, height)


def rand_vec(task: Task) -> tuple[float, ...]:
    """The random vector of metaworld's reset."""
    return tuple(task.number(f"rand_{index}") for index in range(len(task.parameters)))


def outcome(arrays: Arrays) -> Outcome:
    """What the arrays say of the last step."""
    terms = {name: arrays.terms[:, index].copy() for index, name in enumerate(TERMS)}
    never = np.zeros(len(arrays.rewards), bool)
    return Outcome(arrays.rewards.copy(), never, arrays.diverged.copy(), terms)


@final
@dataclasses.dataclass(frozen=True)
class MetaworldGame:
    """Meta-World as worker processes play it: a `metarl.envs.process_worker.Game`."""

    options: SimulationOptions

    name = "Meta-World"

    def layout(self, num_envs: int) -> dict[str, tuple[tuple[int, ...], type]]:
        return layout(num_envs)

    def shard(self, arrays: Mapping[str, ndarray], announce: Callable[[int], None]) -> EnvShard:
        return EnvShard(Arrays(**arrays), self.options, announce)

    def check(self, task: Task) -> None:
        check_task(task)

    def outcome(self, arrays: Mapping[str, ndarray]) -> Outcome:
        return outcome(Arrays(**arrays))

    def observe(self, arrays: Mapping[str, ndarray], out: Float[ndarray, "env observation"]) -> None:
        out[:] = arrays["observations"]


@final
class LocalSimulator:
    """A batch of Meta-World simulations, one after the other."""

    def __init__(self, num_envs: int, observation_space: Box, action_space: Box, options: SimulationOptions) -> None:
        self.num_envs = num_envs
        self.observation_space = observation_space
        self.action_space = action_space
        self._arrays = Arrays(**{name: np.zeros(shape, kind) for name, (shape, kind) in layout(num_envs).items()})
        self._shard = EnvShard(self._arrays, options)
        self._tasks: dict[int, Task] = {}

    def set_task(self, index: int, task: Task) -> None:
        check_task(task)
        self._tasks[index] = task

    def reset(self, index: int, rng: np.random.Generator) -> None:
        self._shard.reset(index, self._tasks[index], 0)

    def step(self, actions: Float[ndarray, "env action"], active: Bool[ndarray, "env"]) -> Outcome:
        self._arrays.actions[:], self._arrays.active[:] = actions, active
        self._arrays.diverged[:] = False
        self._shard.step(actions.dtype == np.float32)
        return outcome(self._arrays)

    def observe(self, out: Float[ndarray, "env observation"]) -> None:
        out[:] = self._arrays.observations

    def render(self, index: int, width: int, height: int) -> UInt8[ndarray, "height width 3"]:
        return self._shard.render(index, width, height)

    def close(self) -> None:
        """Its class simulators belong to the process."""
