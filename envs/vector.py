"""The one vector environment: any simulator, with tasks, a horizon and faults that stay where they happen."""

from collections.abc import Iterable, Mapping, Sequence
from typing import final

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from metarl.envs.simulator import Simulator
from metarl.tasks import Task

Infos = dict[str, ndarray]
Seeds = int | Sequence[int | None] | None


@final
class TaskVectorEnv(VectorEnv[ndarray, ndarray, ndarray]):
    """`num_envs` sub-environments, each with its own task.

    There is no automatic reset. A sub-environment that has ended is frozen: it is not simulated, its reward is 0, its
    observation and its flags stay. One that is given a NaN, or whose simulation blows up, ends with `terminated` and
    `diverged` set, reward 0 and its last good observation; the others never notice.

    `infos` holds arrays over sub-environments: `diverged` and the simulator's reward terms (0 where frozen).
    """

    def __init__(
        self, simulator: Simulator, horizon: int, families: Mapping[str, frozenset[str]], tasks: Sequence[Task]
    ) -> None:
        """`horizon` in environment steps; `families` that `set_tasks` takes, each with its parameters' names."""
        self._simulator = simulator
        self._horizon = horizon
        self._families = families
        self.num_envs = simulator.num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED, "render_modes": ["rgb_array"]}
        self.single_observation_space = simulator.observation_space
        self.single_action_space = simulator.action_space
        self.observation_space = batch_space(simulator.observation_space, self.num_envs)
        self.action_space = batch_space(simulator.action_space, self.num_envs)
        self._generators: list[np.random.Generator | None] = [None] * self.num_envs
        self._current: list[Task | None] = [None] * self.num_envs
        self._started = np.zeros(self.num_envs, bool)
        self._steps = np.zeros(self.num_envs, np.int64)
        self._terminated = np.zeros(self.num_envs, bool)
        self._truncated = np.zeros(self.num_envs, bool)
        self._diverged = np.zeros(self.num_envs, bool)
        self._observations = np.zeros((self.num_envs, *simulator.observation_space.shape))
        self.set_tasks(tasks)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The task that each sub-environment has from its next reset on."""
        return self._tasks

    @property
    def horizon(self) -> int:
        """Environment steps after which an episode is truncated."""
        return self._horizon

    def set_tasks(self, tasks: Sequence[Task]) -> None:
        """Assigns one task to each sub-environment; each takes it up at its next reset."""
        if len(tasks) != self.num_envs:
            raise ValueError(f"set_tasks needs {self.num_envs} tasks, one for each sub-environment, got {len(tasks)}")
        foreign = sorted({task.family for task in tasks} - self._families.keys())
        if foreign:
            known = ", ".join(sorted(self._families))
            raise ValueError(f"tasks of unknown families {', '.join(foreign)}; this distribution has {known}")
        for task in tasks:
            given, wanted = [name for name, _ in task.parameters], sorted(self._families[task.family])
            if given != wanted:
                raise ValueError(f"a task of family {task.family!r} has the parameters {wanted}, got {given}")
        self._tasks = tuple(tasks)

    def reset(
        self, *, seed: Seeds = None, options: Mapping[str, ndarray] | None = None
    ) -> tuple[Float[ndarray, "env observation"], Infos]:
        """Starts new episodes, in all sub-environments or in those of `options["reset_mask"]`.

        Sub-environment `i` gets the generator that Gymnasium makes of `seed + i` (or of `seed[i]`); without a seed its
        stream of random numbers goes on.
        """
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
        self._observe(mask)
        return self._observations.copy(), {"diverged": self._diverged.copy()}

    def start_episodes(
        self, tasks: Sequence[Task], seeds: Sequence[int]
    ) -> tuple[Float[ndarray, "env observation"], Infos]:
        """Starts one episode in each of the first `len(tasks)` sub-environments and freezes the others.

        Raises:
            ValueError: more tasks than sub-environments, or another number of seeds.
        """
        count, rest = len(tasks), self.num_envs - len(tasks)
        if rest < 0 or len(seeds) != count:
            raise ValueError(f"need at most {self.num_envs} tasks and a seed for each, got {count} and {len(seeds)}")
        self.set_tasks((*tasks, *self._tasks[count:]))
        mask = np.arange(self.num_envs) < count
        self._started[:] = True
        self._truncated[~mask] = True
        return self.reset(seed=[*seeds, *[None] * rest], options={"reset_mask": mask})

    def step(
        self, actions: Float[ndarray, "env action"]
    ) -> tuple[
        Float[ndarray, "env observation"], Float[ndarray, "env"], Bool[ndarray, "env"], Bool[ndarray, "env"], Infos
    ]:
        actions = self._checked(actions)
        active = ~(self._terminated | self._truncated)
        finite = np.isfinite(actions).all(-1)
        healthy = active & finite
        outcome = self._simulator.step(actions, healthy)
        self._steps += active
        moved = healthy & ~outcome.diverged & np.isfinite(outcome.rewards)
        moved = self._observe(moved)
        self._diverged |= active & ~moved
        self._terminated |= (active & ~moved) | (outcome.terminated & moved)
        self._truncated |= moved & ~self._terminated & (self._steps >= self._horizon)
        rewards = np.where(moved, outcome.rewards, 0.0)
        infos: Infos = {name: np.where(moved, term, 0.0) for name, term in outcome.terms.items()}
        infos["diverged"] = self._diverged.copy()
        return self._observations.copy(), rewards, self._terminated.copy(), self._truncated.copy(), infos

    def render(self) -> tuple[UInt8[ndarray, "height width 3"], ...]:
        """A picture of every sub-environment."""
        return tuple(self.picture(index, 480, 360) for index in range(self.num_envs))

    def picture(self, index: int, width: int, height: int) -> UInt8[ndarray, "height width 3"]:
        """A picture of one sub-environment; sizes in pixels."""
        return self._simulator.render(index, width, height)

    def close_extras(self, **_: object) -> None:
        self._simulator.close()

    def _reset_one(self, index: int) -> None:
        task, generator = self._tasks[index], self._generators[index]
        assert generator is not None
        if self._current[index] != task:
            self._simulator.set_task(index, task)
            self._current[index] = task
        self._simulator.reset(index, generator)

    def _observe(self, mask: Bool[ndarray, "env"]) -> Bool[ndarray, "env"]:
        """Takes over the observations of `mask` where they are finite, and says where that was."""
        fresh = np.empty_like(self._observations)
        self._simulator.observe(fresh)
        mask = mask & np.isfinite(fresh).all(-1)
        np.copyto(self._observations, fresh, where=mask[:, None])
        return mask

    def _checked(self, actions: ndarray) -> ndarray:
        if not self._started.all():
            raise ResetNeeded(f"call reset first: {(~self._started).sum()} sub-environments never were reset")
        # The precision stays the caller's: Gymnasium's control cost is computed in it.
        actions = np.asarray(actions)
        wanted = self.action_space.shape
        if actions.shape != wanted:
            raise ValueError(f"actions must have the shape {wanted} [env, action], got {actions.shape}")
        return actions

    def _seeds(self, seed: Seeds) -> Iterable[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int | np.integer):
            return [int(seed) + index for index in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"need one seed for each of the {self.num_envs} sub-environments, got {len(seed)}")
        return seed

    def _reset_mask(self, options: Mapping[str, ndarray] | None) -> Bool[ndarray, "env"]:
        if not options:
            return np.ones(self.num_envs, bool)
        if set(options) != {"reset_mask"}:
            raise ValueError(f"reset knows the option reset_mask only, got {sorted(options)}")
        mask = np.asarray(options["reset_mask"])
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_:
            raise ValueError(f"reset_mask must be bool of shape ({self.num_envs},), got {mask.dtype} of {mask.shape}")
        return mask
