"""Collecting episodes: tasks and an actor in, episodes out.

The boundary is plain data and keeps nothing from call to call but the simulators themselves, which hold no state that
a result depends on. So the same call could run on another machine.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Protocol, final, runtime_checkable

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box

from metarl.envs.vector import TaskVectorEnv
from metarl.errors import WorkerLostError, warn
from metarl.learning.episodes import Episodes
from metarl.learning.protocols import Actor
from metarl.tasks import Task


@runtime_checkable
class EnvSource(Protocol):
    """The part of an `EnvDistribution` that a sampler needs."""

    @property
    def horizon(self) -> int: ...

    def vector_env(self, num_envs: int, threads: int = 1) -> TaskVectorEnv: ...


@runtime_checkable
class Collector(Protocol):
    """Runs episodes: a `Sampler`, or whatever stands in for it."""

    def collect(self, actor: Actor, tasks: Sequence[Task], episodes: int, seed: int) -> Episodes:
        """Exactly `episodes` episodes on each task."""
        ...


def box(space: gym.Space[object]) -> Box:
    """The space as a `Box`, which is what agents work with so far.

    Raises:
        ValueError: it is another kind of space.
    """
    if not isinstance(space, Box):
        raise ValueError(f"agents need Box spaces, got {space}")
    return space


def to_action_space(space: Box, actions: np.ndarray) -> np.ndarray:
    """Maps actions from the agents' [−1, 1] to the environment's range, after clipping; ±1 are the bounds.

    Agents work in units of the range, so that one noise level means the same in every environment.
    """
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    return low + (np.clip(actions, -1.0, 1.0) + 1.0) * (0.5 * (high - low))


@final
class Sampler:
    """Runs actors on the tasks of one distribution.

    Args:
        source: where the environments come from.
        threads: threads or processes that step the physics; no result depends on it.
        device: where the actor computes and the episodes are put.
    """

    def __init__(self, source: EnvSource, threads: int = 1, device: torch.device | str = "cpu") -> None:
        self._source = source
        self._threads = threads
        self._device = torch.device(device)
        self._venv = functools.lru_cache(maxsize=4)(self._make)

    def _make(self, num_envs: int) -> TaskVectorEnv:
        return self._source.vector_env(num_envs, threads=self._threads)

    def collect(self, actor: Actor, tasks: Sequence[Task], episodes: int, seed: int) -> Episodes:
        """Runs exactly `episodes` episodes on each task, all side by side.

        The episodes depend on the actor, the tasks and the seed alone. So where a worker process is lost on the way,
        they are run again, by new ones, and come out as they would have.

        Raises:
            ValueError: no tasks, or fewer than one episode.
            WorkerLostError: a worker process was lost a second time.
        """
        if not tasks or episodes < 1:
            raise ValueError(f"need at least one task and one episode, got {len(tasks)} tasks and {episodes} episodes")
        try:
            return self._collect(actor, tasks, episodes, seed)
        except WorkerLostError as error:
            warn(f"{error}; starting new workers and running these episodes again")
            self.close()
            return self._collect(actor, tasks, episodes, seed)

    def _collect(self, actor: Actor, tasks: Sequence[Task], episodes: int, seed: int) -> Episodes:
        shape = (len(tasks), episodes)
        venv = self._venv(len(tasks) * episodes)
        venv.set_tasks([task for task in tasks for _ in range(episodes)])
        # Two streams that share nothing: the worlds' and the policy's noise.
        world_seed, noise_seed = (int(word) for word in np.random.SeedSequence(seed).generate_state(2))
        generator = torch.Generator(self._device).manual_seed(noise_seed)
        space = box(venv.single_action_space)
        record = _Record(shape, self._source.horizon, box(venv.single_observation_space), space)
        memory = actor.begin(episodes)
        observations, _ = venv.reset(seed=world_seed % 2**31)
        while not record.done.all():
            inputs = torch.from_numpy(observations.astype(np.float32)).to(self._device).view(*shape, -1)
            with torch.no_grad():
                actions, memory = actor.act(inputs, memory, generator)
            drawn = actions.to("cpu").numpy().reshape(venv.num_envs, -1)
            executed = np.clip(drawn, -1.0, 1.0)
            following, rewards, terminated, truncated, infos = venv.step(to_action_space(space, executed))
            record.add(observations, drawn, rewards, terminated, truncated, infos, following)
            observations = following
            memory = actor.feedback(
                memory,
                torch.from_numpy(executed).to(self._device).view(*shape, -1),
                torch.from_numpy(rewards.astype(np.float32)).to(self._device).view(shape),
                torch.from_numpy(record.done).to(self._device).view(shape),
            )
        return record.episodes().to(self._device)

    def close(self) -> None:
        """Forgets the environments; their threads and processes end with them."""
        self._venv.cache_clear()


class _Record:
    """The episodes being written, one column a step."""

    def __init__(self, shape: tuple[int, int], horizon: int, space_in: Box, space_out: Box) -> None:
        self._shape, count = shape, shape[0] * shape[1]
        self._step = 0
        self._observations = np.zeros((count, horizon, *space_in.shape), dtype=np.float32)
        self._final = np.zeros((count, *space_in.shape), dtype=np.float32)
        self._actions = np.zeros((count, horizon, *space_out.shape), dtype=np.float32)
        self._rewards = np.zeros((count, horizon), dtype=np.float32)
        self._terminated = np.zeros(count, dtype=bool)
        self._diverged = np.zeros(count, dtype=bool)
        self._lengths = np.zeros(count, dtype=np.int64)
        self._success: np.ndarray | None = None
        self.done = np.zeros(count, dtype=bool)

    def add(
        self,
        observations: np.ndarray,
        actions: np.ndarray,
        rewards: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        infos: Mapping[str, np.ndarray],
        following: np.ndarray,
    ) -> None:
        running = ~self.done
        self._observations[running, self._step] = observations[running]
        self._actions[running, self._step] = actions[running]
        self._rewards[running, self._step] = rewards[running]
        self._lengths[running] += 1
        ended = running & (terminated | truncated)
        self._final[ended] = following[ended]
        self._terminated[ended] = terminated[ended]
        self._diverged[ended] = infos["diverged"][ended]
        if "success" in infos:
            if self._success is None:
                self._success = np.zeros(len(running), dtype=bool)
            self._success |= running & (infos["success"] > 0)
        self.done = self.done | ended
        self._step += 1

    def episodes(self) -> Episodes:
        def shaped(array: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(array.reshape(*self._shape, *array.shape[1:]))

        return Episodes(
            observations=shaped(self._observations),
            final_observations=shaped(self._final),
            actions=shaped(np.nan_to_num(self._actions)),
            rewards=shaped(self._rewards),
            terminated=shaped(self._terminated),
            diverged=shaped(self._diverged),
            lengths=shaped(self._lengths),
            success=None if self._success is None else shaped(self._success),
        )
