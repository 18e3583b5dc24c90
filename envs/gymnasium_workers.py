"""Plain Gymnasium environments in worker processes, and the choice between them and one's own process."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal, final

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box
from gymnasium.vector.utils import create_empty_array
from jaxtyping import UInt8
from numpy import ndarray

from metarl.envs.gymnasium_simulator import EnvRecipe, GymnasiumSimulator, TaskParameters, copy_into, named_terms
from metarl.envs.observations import Observations
from metarl.envs.process_simulator import PATIENCE, WorkerSimulator
from metarl.envs.process_worker import Arrays, Layout
from metarl.envs.simulator import Outcome, Simulator
from metarl.errors import say
from metarl.tasks import Task, TaskSpace

Stepping = Literal["measured", "here", "processes"]
"""Where environments are stepped: as a short measurement says, in this process (MuJoCo's from threads), or in worker
processes. No result depends on it."""
_GAIN = 5e-3  # s a step of all of them that processes must save: to start them takes seconds
_MEASURED = 0.1  # s; how long is measured
_PROBE_STEPS = 50


@final
@dataclasses.dataclass(frozen=True)
class GymnasiumGame:
    """Some parameters of an environment as worker processes play them: a `metarl.envs.process_worker.Game`."""

    recipe: EnvRecipe
    parameters: TaskParameters
    spaces: tuple[gym.Space[Any], gym.Space[Any]]
    horizon: int
    terms: tuple[str, ...]
    mujoco: bool
    spec: EnvSpec | None
    """Of an id of Gymnasium's registry, which workers may not know."""

    @property
    def name(self) -> str:
        return self.recipe.name

    def simulator(self, num_envs: int, threads: int, seen: Observations | None = None) -> GymnasiumSimulator:
        """The same in this process."""
        return GymnasiumSimulator(
            num_envs, threads, self.recipe, self.parameters, self.spaces, self.horizon, self.terms, self.mujoco, seen
        )

    def layout(self, num_envs: int) -> Layout:
        leaves: list[tuple[tuple[int, ...], Any]] = []

        def note(shape: tuple[int, ...], dtype: Any) -> ndarray:  # noqa: ANN401  # whatever NumPy takes for a type
            leaves.append((shape, dtype))
            return np.zeros(0)

        create_empty_array(self.spaces[0], num_envs, note)
        action = self.spaces[1]
        return {
            "actions": ((num_envs, *(action.shape or ())), action.dtype),
            "rewards": ((num_envs,), np.float64),
            "terms": ((len(self.terms), num_envs), np.float64),
            **{f"observation {number}": leaf for number, leaf in enumerate(leaves)},
            "active": ((num_envs,), np.bool_),
            "terminated": ((num_envs,), np.bool_),
            "diverged": ((num_envs,), np.bool_),
        }

    def shard(self, arrays: Arrays, announce: Callable[[int], None]) -> "GymnasiumShard":
        if self.spec is not None:
            gym.registry.setdefault(self.spec.id, self.spec)
        simulator = self.simulator(len(arrays["active"]), 1, self._observations(arrays))
        return GymnasiumShard(simulator, arrays, announce)

    def check(self, task: Task) -> None:
        """`TaskVectorEnv` has checked the families' and the parameters' names."""

    def outcome(self, arrays: Arrays) -> Outcome:
        terms = named_terms(self.terms, arrays["terms"].copy())
        return Outcome(arrays["rewards"].copy(), arrays["terminated"].copy(), arrays["diverged"].copy(), terms)

    def observe(self, arrays: Arrays, out: Observations) -> None:
        copy_into(out, self._observations(arrays))

    def _observations(self, arrays: Arrays) -> Observations:
        """The arrays that hold them, in the structure of their space."""
        leaves: Iterator[ndarray] = (arrays[f"observation {number}"] for number in itertools.count())

        def take(shape: tuple[int, ...], dtype: Any) -> ndarray:  # noqa: ANN401  # whatever NumPy takes for a type
            return next(leaves)

        return create_empty_array(self.spaces[0], len(arrays["active"]), take)


@final
class GymnasiumShard:
    """A worker's share of the environments; those that it was never asked to reset are others'."""

    def __init__(self, simulator: GymnasiumSimulator, arrays: Arrays, announce: Callable[[int], None]) -> None:
        self._simulator = simulator
        self._arrays = arrays
        self._announce = announce
        self._tasks: dict[int, Task] = {}

    def reset(self, index: int, task: Task, seed: int) -> None:
        self._announce(index)
        if self._tasks.get(index) != task:
            self._tasks.pop(index, None)  # until it is there as a whole
            self._simulator.set_task(index, task)
            self._tasks[index] = task
        self._simulator.reset_by_seed(index, seed)

    def step(self, single_precision: bool) -> None:
        arrays = self._arrays
        for index in self._tasks:
            if not arrays["active"][index]:
                continue
            self._announce(index)
            action = arrays["actions"][index].copy()  # an environment may keep it
            reward, terminated, diverged, terms = self._simulator.step_one(index, action)
            arrays["rewards"][index], arrays["terminated"][index] = reward, terminated
            arrays["diverged"][index], arrays["terms"][:, index] = diverged, terms

    def render(self, index: int, width: int, height: int) -> UInt8[ndarray, "height width 3"]:
        return self._simulator.render(index, width, height)


def make_simulator(
    num_envs: int, threads: int, *, game: GymnasiumGame, stepping: Stepping, tasks: TaskSpace
) -> Simulator:
    """The environments as they are to be stepped; one of the training tasks is measured on."""
    workers = min(num_envs, threads)
    if stepping == "measured":
        stepping = _measured(num_envs, workers, game, tasks)
    if stepping == "here" or workers == 1:
        return game.simulator(num_envs, threads)
    return WorkerSimulator(num_envs, workers, game.spaces, game, PATIENCE)


def _measured(num_envs: int, workers: int, game: GymnasiumGame, tasks: TaskSpace) -> Stepping:
    """Whether worker processes would save enough; says so. MuJoCo's environments have threads."""
    if game.mujoco or workers == 1:
        return "here"
    seconds = step_seconds(game, tasks.tasks("train")[0])
    saved = seconds * (num_envs - num_envs / workers)
    chosen: Stepping = "processes" if saved >= _GAIN else "here"
    where = f"in {workers} worker processes" if chosen == "processes" else "in this process"
    say(f"{game.name}: a step takes {1e6 * seconds:,.0f} µs, so {num_envs} environments are stepped {where}")
    return chosen


def step_seconds(game: GymnasiumGame, probe: Task) -> float:
    """The quickest of some random steps, resets aside: what else runs on the machine only makes them longer."""
    simulator = game.simulator(1, 1)
    rng = np.random.default_rng(0)
    simulator.set_task(0, probe)
    simulator.reset(0, rng)
    action_space, taken = game.spaces[1], list[float]()
    try:
        while not taken or (sum(taken) < _MEASURED and len(taken) < min(_PROBE_STEPS, game.horizon)):
            if isinstance(action_space, Box):
                action = rng.uniform(action_space.low, action_space.high).astype(action_space.dtype)
            else:
                assert isinstance(action_space, gym.spaces.Discrete)
                action = action_space.start + rng.integers(action_space.n)
            began = time.perf_counter()
            _, terminated, _, _ = simulator.step_one(0, action)
            taken.append(time.perf_counter() - began)
            if terminated:
                simulator.reset(0, rng)
    finally:
        simulator.close()
    return min(taken)
