"""Stable-Baselines3's vector environment on the batched physics of a distribution: `dist.sb3_env(num_envs=64)`."""

import time
from collections.abc import Callable, Sequence
from typing import Any, final

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from jaxtyping import Bool, Float, Shaped, UInt8
from numpy import ndarray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from metarl.envs.observations import Observations
from metarl.envs.vector import Infos, TaskVectorEnv
from metarl.learning.spaces import row
from metarl.tasks import Task

Info = dict[str, object]
DrawTask = Callable[[np.random.Generator], Task]


@final
class Sb3Env(VecEnv):
    """Sub-environments that start anew by themselves, as Stable-Baselines3 expects, each with a task of its own.

    Where an episode ends, `infos[i]` holds `terminal_observation`, `TimeLimit.truncated`, `episode` (its return `r`,
    length `l` and the seconds `t` since the first reset, as `Monitor` writes them) and, where the environment tells
    success, `is_success` (at any step). Every info holds the reward's terms and `diverged`.

    Sub-environment i draws its tasks and its resets from `seed + i` alone: not from the others, nor from when they end.
    `seed(n)` begins the streams anew at the next `reset`, and `set_options({"task": task})` gives the task of the next
    episodes.

    Args:
        venv: the batched physics; this environment closes it.
        draw: a task for every episode of every sub-environment; None to keep the tasks that `venv` has.
        seed: of the streams.
        renders: whether there are pictures.

    Raises:
        ValueError: spaces that Stable-Baselines3 does not take.
    """

    def __init__(self, venv: TaskVectorEnv, draw: DrawTask | None, seed: int, renders: bool) -> None:
        for name, space in (("observation", venv.single_observation_space), ("action", venv.single_action_space)):
            check_sb3_space(name, space)
        self._venv = venv
        self._draw = draw
        self._attributes: dict[str, object] = {
            "render_mode": "rgb_array" if renders else None,
            "metadata": dict(venv.metadata),
        }
        self._actions: ndarray | None = None
        self._began = time.perf_counter()
        self._streams: list[np.random.Generator] = []
        super().__init__(venv.num_envs, venv.single_observation_space, venv.single_action_space)
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, np.int64)
        self._succeeded = np.zeros(self.num_envs, bool)
        self.seed(seed)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The task that each sub-environment plays, or will from its next episode on where one has just been set."""
        return self._venv.tasks

    def reset(self) -> Observations:
        seeds = self._seeds if any(seed is not None for seed in self._seeds) else None
        if seeds is not None:
            assert all(seed is not None for seed in seeds), "all or none"
            # Another stream than that of the resets, which Gymnasium makes of the same number.
            self._streams = [np.random.default_rng([seed, 1]) for seed in seeds if seed is not None]
            self._began = time.perf_counter()
        for index, options in enumerate(self._options):
            self._assign(index, _task_of(options))
        observations = self._start(np.ones(self.num_envs, bool), seeds)
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: Shaped[ndarray, "env *action"]) -> None:
        self._actions = actions

    def step_wait(
        self,
    ) -> tuple[Observations, Float[ndarray, " env"], Bool[ndarray, " env"], list[Info]]:
        assert self._actions is not None, "step_async comes first"
        observations, rewards, terminated, truncated, terms = self._venv.step(self._actions)
        self._returns += rewards
        self._lengths += 1
        if "success" in terms:
            self._succeeded |= terms["success"] > 0
        dones = terminated | truncated
        infos = _by_environment({**terms, "TimeLimit.truncated": truncated & ~terminated})
        if dones.any():
            for index in np.flatnonzero(dones).tolist():
                infos[index] |= self._episode(index, observations, terms)
                self._assign(index, None)
            observations = self._start(dones, None)
        return observations, rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        self._venv.close()

    def get_images(self) -> Sequence[UInt8[ndarray, "height width 3"] | None]:
        return self._venv.render() if self.render_mode == "rgb_array" else [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """`task`, `render_mode` or `metadata` of each.

        Raises:
            AttributeError: another one.
        """
        if attr_name == "task":
            return [self._venv.tasks[index] for index in self._get_indices(indices)]
        if attr_name not in self._attributes:
            known = ", ".join(("task", *self._attributes))
            raise AttributeError(f"there is no attribute {attr_name!r} of each sub-environment; there are {known}")
        return [self._attributes[attr_name] for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: object, indices: VecEnvIndices = None) -> None:
        """Nothing can be set."""
        raise AttributeError(f"{attr_name!r} cannot be set; a task is: env_method('set_task', task)")

    def env_method(
        self, method_name: str, *method_args: object, indices: VecEnvIndices = None, **method_kwargs: object
    ) -> list[Any]:
        """`set_task(task)` only: it is played from the next episode on, and kept where tasks are not drawn.

        Raises:
            AttributeError: another method.
            ValueError: tasks that are drawn for each episode, or none of this distribution's.
        """
        if method_name != "set_task":
            raise AttributeError(f"there is no method {method_name!r} of each sub-environment; there is set_task")
        if len(method_args) != 1 or method_kwargs or not isinstance(method_args[0], Task):
            raise ValueError("set_task takes one argument, a metarl.tasks.Task")
        if self._draw is not None:
            raise ValueError("each episode's task is drawn here; make the environment with fixed tasks to set them")
        for index in self._get_indices(indices):
            self._venv.set_task(index, method_args[0])
        return [None for _ in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """True for `Monitor`: infos hold what it would write there."""
        return [wrapper_class is Monitor for _ in self._get_indices(indices)]

    def _assign(self, index: int, task: Task | None) -> None:
        """Gives a sub-environment the task of its next episode."""
        if task is None and self._draw is not None:
            task = self._draw(self._streams[index])
        if task is not None:
            self._venv.set_task(index, task)

    def _start(self, mask: Bool[ndarray, " env"], seeds: Sequence[int | None] | None) -> Observations:
        observations, _ = self._venv.reset(seed=seeds, options={"reset_mask": mask})
        for array in (self._returns, self._lengths, self._succeeded):
            array[mask] = 0
        return observations

    def _episode(self, index: int, observations: Observations, terms: Infos) -> Info:
        """What is told of an episode that has just ended."""
        told: Info = {
            "terminal_observation": row(observations, index),
            "episode": {
                "r": float(self._returns[index]),
                "l": int(self._lengths[index]),
                "t": round(time.perf_counter() - self._began, 6),
            },
        }
        return told | {"is_success": bool(self._succeeded[index])} if "success" in terms else told


def _by_environment(infos: Infos) -> list[Info]:
    """Arrays over sub-environments as a dict for each of them."""
    columns = [values.tolist() for values in infos.values()]
    return [dict(zip(infos, values, strict=True)) for values in zip(*columns, strict=True)]


def _task_of(options: dict[str, Any]) -> Task | None:
    given = dict(options)
    task = given.pop("task", None)
    if given or not isinstance(task, Task | None):
        raise ValueError(f"reset knows the option task only, a metarl.tasks.Task, got {options}")
    return task


def check_sb3_space(name: str, space: gym.Space[Any]) -> None:
    """Checks that Stable-Baselines3 takes a space; `name` is what it is of, `observation` or `action`.

    Raises:
        ValueError: it does not.
    """
    if isinstance(space, Dict) and name == "observation":
        for part in space.spaces.values():
            if isinstance(part, Dict):
                raise ValueError(f"Stable-Baselines3 takes no Dict within a Dict, got {space}")
            check_sb3_space(name, part)
    elif isinstance(space, Discrete):
        if space.start != 0:
            raise ValueError(f"Stable-Baselines3 takes Discrete {name}s that count from 0, got {space}")
    elif not isinstance(space, Box | MultiDiscrete | MultiBinary):
        raise ValueError(f"Stable-Baselines3 takes no {name}s of {space}")
