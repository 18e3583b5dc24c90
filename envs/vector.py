"""The one vector environment: any simulator, with tasks, a horizon and faults that stay where they happen."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import final

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box, Discrete
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Float, Shaped, UInt8
from numpy import ndarray

from metarl.envs.observations import ObservationBuffer, Observations
from metarl.envs.simulator import GhostSimulator, Simulator, SimulatorError, check_outcome
from metarl.tasks import Task

Infos = dict[str, ndarray]
Seeds = int | Sequence[int | None] | None
CONTROL_PERIOD = 0.05  # s; what worlds without a clock of their own are shown at: 20 steps a second


@final
class TaskVectorEnv(VectorEnv[Observations, ndarray, ndarray]):
    """`num_envs` sub-environments, each with its own task.

    There is no automatic reset. A sub-environment that has ended is frozen: it is not simulated, its reward is 0, its
    observation and its flags stay. One that is given a NaN, or whose simulation blows up, ends with `terminated` and
    `diverged` set, reward 0 and its last good observation; the others never notice.

    Actions are an array [env, action] for a Box, integers [env] for Discrete. `infos` holds arrays over
    sub-environments: `diverged` and the simulator's reward terms (0 where frozen).

    Args:
        simulator: what moves.
        horizon: environment steps after which an episode is truncated; None for never.
        families: those that `set_tasks` takes, each with its parameters' names.
        tasks: one for each sub-environment.
        control_period: s of simulated time in a step; pictures of every step are shown at this pace.

    Raises:
        ValueError: spaces of other kinds, or tasks that are none of this distribution's.
    """

    def __init__(
        self,
        simulator: Simulator,
        horizon: int | None,
        families: Mapping[str, frozenset[str]],
        tasks: Sequence[Task],
        control_period: float = CONTROL_PERIOD,
    ) -> None:
        action_space = simulator.action_space
        if not isinstance(action_space, Box | Discrete):
            raise ValueError(f"actions can be Box or Discrete, got {action_space}")
        self._simulator = simulator
        self._process = os.getpid()
        self._horizon = horizon
        self._families = families
        self.num_envs = simulator.num_envs
        self.render_mode = "rgb_array"
        self.metadata = {
            "autoreset_mode": AutoresetMode.DISABLED,
            "render_modes": ["rgb_array"],
            "render_fps": 1.0 / control_period,
        }
        self.single_observation_space = simulator.observation_space
        self.single_action_space = action_space
        self._buffer = ObservationBuffer(simulator.observation_space, self.num_envs)
        self.observation_space = batch_space(simulator.observation_space, self.num_envs)
        self.action_space = batch_space(action_space, self.num_envs)
        self._discrete = action_space if isinstance(action_space, Discrete) else None
        self._generators: list[np.random.Generator | None] = [None] * self.num_envs
        self._current: list[Task | None] = [None] * self.num_envs
        self._started = np.zeros(self.num_envs, bool)
        self._steps = np.zeros(self.num_envs, np.int64)
        self._terminated = np.zeros(self.num_envs, bool)
        self._truncated = np.zeros(self.num_envs, bool)
        self._diverged = np.zeros(self.num_envs, bool)
        self.set_tasks(tasks)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The task that each sub-environment has from its next reset on."""
        return tuple(self._tasks)

    @property
    def horizon(self) -> int | None:
        """Environment steps after which an episode is truncated; None for never."""
        return self._horizon

    def set_tasks(self, tasks: Sequence[Task]) -> None:
        """Assigns one task to each sub-environment; each takes it up at its next reset."""
        if len(tasks) != self.num_envs:
            raise ValueError(f"set_tasks needs {self.num_envs} tasks, one for each sub-environment, got {len(tasks)}")
        for task in set(tasks):
            self._check_task(task)
        self._tasks = list(tasks)

    def set_task(self, index: int, task: Task) -> None:
        """Assigns a task to one sub-environment, which takes it up at its next reset."""
        self._check_task(task)
        self._tasks[index] = task

    def reset(self, *, seed: Seeds = None, options: Mapping[str, ndarray] | None = None) -> tuple[Observations, Infos]:
        """Starts new episodes, in all sub-environments or in those of `options["reset_mask"]`.

        Sub-environment `i` gets the generator that Gymnasium makes of `seed + i` (or of `seed[i]`); without a seed its
        stream of random numbers goes on.
        """
        self._check_process()
        mask = self._reset_mask(options)
        for index, number in enumerate(self._seeds(seed)):
            if not mask[index]:
                continue
            if number is not None or self._generators[index] is None:
                self._generators[index] = seeding.np_random(number)[0]
            self._reset_one(index)
        self._steps[mask] = 0
        for flags in (self._terminated, self._truncated, self._diverged):
            flags[mask] = False
        self._started |= mask
        bad = mask & ~self._buffer.take(self._simulator, mask)
        if bad.any():
            index = int(np.flatnonzero(bad)[0])
            name, task = type(self._simulator).__name__, self._tasks[index]
            raise SimulatorError(f"{name}: the first observation of sub-environment {index} on {task} is not finite")
        return self._buffer.copy(), {"diverged": self._diverged.copy()}

    def start_episodes(self, tasks: Sequence[Task], seeds: Sequence[int]) -> tuple[Observations, Infos]:
        """Starts one episode in each of the first `len(tasks)` sub-environments and freezes the others.

        The others are neither reset nor given tasks. Each episode follows from its task and its seed alone.

        Raises:
            ValueError: more tasks than sub-environments, or another number of seeds.
        """
        count, rest = len(tasks), self.num_envs - len(tasks)
        if rest < 0 or len(seeds) != count:
            raise ValueError(f"need at most {self.num_envs} tasks and a seed for each, got {count} and {len(seeds)}")
        self.set_tasks((*tasks, *self._tasks[count:]))
        mask = np.arange(self.num_envs) < count
        started = self.reset(seed=[*seeds, *[None] * rest], options={"reset_mask": mask})
        self._started[:] = True
        self._truncated[~mask] = True
        return started

    def step(
        self, actions: Shaped[ndarray, "env *action"]
    ) -> tuple[Observations, Float[ndarray, " env"], Bool[ndarray, " env"], Bool[ndarray, " env"], Infos]:
        self._check_process()
        if not self._started.all():
            raise ResetNeeded(f"call reset first: {(~self._started).sum()} sub-environments never were reset")
        active = ~(self._terminated | self._truncated)
        actions, healthy = self._checked(np.asarray(actions), active)
        outcome = self._simulator.step(actions, healthy)
        check_outcome(self._simulator, outcome)
        self._steps += active
        moved = healthy & ~outcome.diverged & np.isfinite(outcome.rewards)
        moved = self._buffer.take(self._simulator, moved)
        self._diverged |= active & ~moved
        self._terminated |= (active & ~moved) | (outcome.terminated & moved)
        if self._horizon is not None:
            self._truncated |= moved & ~self._terminated & (self._steps >= self._horizon)
        rewards = np.where(moved, outcome.rewards, 0.0).astype(np.float64, copy=False)
        infos: Infos = {name: np.where(moved, term, 0.0) for name, term in outcome.terms.items()}
        infos["diverged"] = self._diverged.copy()
        return self._buffer.copy(), rewards, self._terminated.copy(), self._truncated.copy(), infos

    def render(self) -> tuple[UInt8[ndarray, "height width 3"], ...]:
        """A picture of every sub-environment."""
        return tuple(self.picture(index, 480, 360) for index in range(self.num_envs))

    def picture(self, index: int, width: int, height: int) -> UInt8[ndarray, "height width 3"]:
        """A picture of one sub-environment; sizes in pixels."""
        self._check_process()
        return self._simulator.render(index, width, height)

    def pose(self, index: int) -> Float[ndarray, " coordinate"] | None:
        """Where a sub-environment's body is; None where nothing could draw it as a ghost."""
        return self._simulator.pose(index) if isinstance(self._simulator, GhostSimulator) else None

    def show_ghost(self, pose: Float[ndarray, " coordinate"] | None) -> None:
        """Draws a translucent body in the pictures that follow, at a `pose` of another environment of the same task."""
        if isinstance(self._simulator, GhostSimulator):
            self._simulator.show_ghost(pose)

    def close_extras(self, **_: object) -> None:
        self._simulator.close()

    def _check_task(self, task: Task) -> None:
        """Raises ValueError for a task that is none of this distribution's."""
        if task.family not in self._families:
            known = ", ".join(sorted(self._families))
            raise ValueError(f"tasks of unknown families {task.family}; this distribution has {known}")
        given, wanted = [name for name, _ in task.parameters], sorted(self._families[task.family])
        if given != wanted:
            raise ValueError(f"a task of family {task.family!r} has the parameters {wanted}, got {given}")

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError(
                f"this vector environment was made in process {self._process}, and its threads, workers and pictures "
                f"did not come along into process {os.getpid()}: make it anew there, after the fork"
            )

    def _reset_one(self, index: int) -> None:
        task, generator = self._tasks[index], self._generators[index]
        assert generator is not None
        if self._current[index] != task:
            self._current[index] = None  # until it is there as a whole
            self._simulator.set_task(index, task)
            self._current[index] = task
        self._simulator.reset(index, generator)

    def _checked(
        self, actions: Shaped[ndarray, "..."], active: Bool[ndarray, " env"]
    ) -> tuple[Shaped[ndarray, "env *action"], Bool[ndarray, " env"]]:
        """The actions, and where they are to be taken: at active sub-environments with finite ones."""
        wanted = self.action_space.shape
        if actions.shape != wanted:
            axes = "env" if self._discrete else "env, action"
            raise ValueError(f"actions must have the shape {wanted} [{axes}], got {actions.shape}")
        if self._discrete is not None:
            return self._checked_discrete(actions, active), active
        if actions.dtype.kind not in "fiu":
            raise ValueError(f"actions of a Box must be real numbers, got {actions.dtype}")
        # The precision stays the caller's: Gymnasium's control cost is computed in it.
        finite = np.isfinite(actions)
        if finite.all():  # quicker than row by row
            return actions, active
        rows = np.asarray(finite.reshape(self.num_envs, -1).all(-1))
        return np.where(rows.reshape(-1, *[1] * (actions.ndim - 1)), actions, 0), active & rows

    def _checked_discrete(
        self, actions: Shaped[ndarray, " env"], active: Bool[ndarray, " env"]
    ) -> Shaped[ndarray, " env"]:
        assert self._discrete is not None
        low, high = int(self._discrete.start), int(self._discrete.start + self._discrete.n) - 1
        if actions.dtype.kind not in "iu":
            raise ValueError(f"actions of a Discrete space must be integers from {low} to {high}, got {actions.dtype}")
        outside = (actions < low) | (actions > high)
        wrong = np.flatnonzero(outside & active)
        if wrong.size:
            index = int(wrong[0])
            raise ValueError(f"action {actions[index]} of sub-environment {index} is outside of {low} to {high}")
        return np.where(outside, low, actions) if outside.any() else actions

    def _seeds(self, seed: Seeds) -> Iterable[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int | np.integer):
            return [int(seed) + index for index in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"need one seed for each of the {self.num_envs} sub-environments, got {len(seed)}")
        return seed

    def _reset_mask(self, options: Mapping[str, ndarray] | None) -> Bool[ndarray, " env"]:
        if not options:
            return np.ones(self.num_envs, bool)
        if set(options) != {"reset_mask"}:
            raise ValueError(f"reset knows the option reset_mask only, got {sorted(options)}")
        mask = np.asarray(options["reset_mask"])
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_:
            raise ValueError(f"reset_mask must be bool of shape ({self.num_envs},), got {mask.dtype} of {mask.shape}")
        return mask
