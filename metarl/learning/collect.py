"""Collecting trials: policies and tasks in, episodes out.

    trial of a task:  act for some episodes, adapt to them, act again, …

This is the one place where policies act in environments: for training, evaluation and videos of any agent. Noise and
resets of a task follow from its seed alone. So a trial's result does not depend on which other tasks ran beside it, in
what order, on how many threads, processes or machines, and any share of a collection can be played again elsewhere.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from numpy import ndarray
from torch import Tensor

from metarl.errors import WorkerLostError, warn
from metarl.learning.episodes import Episodes, Trials
from metarl.learning.protocols import AdaptationProtocol, AdaptedPolicy, Transition
from metarl.learning.random_streams import TaskRandom
from metarl.learning.spaces import BatchedObservations, Spaces
from metarl.tasks import Task


@runtime_checkable
class VectorEnv(Protocol):
    """The part of a `TaskVectorEnv` that a collector needs."""

    @property
    def num_envs(self) -> int: ...

    def start_episodes(
        self, tasks: Sequence[Task], seeds: Sequence[int]
    ) -> tuple[BatchedObservations, Mapping[str, ndarray]]:
        """One episode in each of the first `len(tasks)` sub-environments; the others are frozen."""
        ...

    def step(
        self, actions: ndarray
    ) -> tuple[BatchedObservations, ndarray, ndarray, ndarray, Mapping[str, ndarray]]: ...

    def close(self) -> None: ...


@runtime_checkable
class EnvSource(Protocol):
    """The part of an `EnvDistribution` that a collector needs."""

    @property
    def horizon(self) -> int: ...

    @property
    def spaces(self) -> Spaces: ...

    def vector_env(self, num_envs: int, threads: int = 1) -> VectorEnv: ...


@runtime_checkable
class TrialCollector(Protocol):
    """Plays trials: a `Collector`, or whatever does the same elsewhere."""

    def collect_trials(
        self, adapted: AdaptedPolicy, tasks: Sequence[Task], protocol: AdaptationProtocol, seeds: Sequence[int]
    ) -> Trials:
        """A trial on each task; `adapted` holds a policy, and `seeds` a seed, for each."""
        ...

    def collect_episodes(
        self,
        policy: AdaptedPolicy,
        tasks: Sequence[Task],
        num_episodes: int,
        seeds: Sequence[int],
        *,
        noise: bool = True,
    ) -> Episodes:
        """Exactly `num_episodes` episodes on each task; without noise, of the policy's mean actions."""
        ...


@runtime_checkable
class OpenCollector(TrialCollector, Protocol):
    """A collector that holds something."""

    def close(self) -> None:
        """Gives back what this collector alone needs; it may be used again."""
        ...


@runtime_checkable
class CollectorFactory(Protocol):
    """Opens collectors: in this process (`InProcess`), or on the workers of a cluster (`metarl.cluster`)."""

    def open(self, source: EnvSource, device: torch.device | str = "cpu") -> OpenCollector:
        """A collector on one distribution, whose policies compute on `device`; whoever opens it closes it."""
        ...


def check_request(num_tasks: int, num_episodes: int, seeds: Sequence[int]) -> None:
    """Raises ValueError where a collection was asked for that there cannot be."""
    if num_tasks < 1 or num_episodes < 1:
        raise ValueError(f"need at least one task and one episode, got {num_tasks} tasks and {num_episodes} episodes")
    if len(seeds) != num_tasks:
        raise ValueError(f"need a seed for each of the {num_tasks} tasks, got {len(seeds)}")


def point_seeds(seeds: Sequence[int], point: int) -> tuple[int, ...]:
    """Each task's seed for one point of its trial."""
    return tuple(int(np.random.SeedSequence([seed, point + 1]).generate_state(1, np.uint64)[0]) for seed in seeds)


def _never() -> None:
    """For a collector that nobody interrupts."""


@final
class Collector:
    """Plays trials on the tasks of one distribution, in one pool of simulators that is kept from call to call.

    Args:
        source: where the environments come from.
        threads: threads or processes that step the simulators; no result depends on it.
        device: where the policies compute and the episodes are put.
        interruption_point: called before every environment step; what it raises ends the collection.
    """

    def __init__(
        self,
        source: EnvSource,
        threads: int = 1,
        device: torch.device | str = "cpu",
        interruption_point: Callable[[], None] = _never,
    ) -> None:
        self._source = source
        self._threads = threads
        self._device = torch.device(device)
        self._interruption_point = interruption_point
        self._venv: VectorEnv | None = None

    def collect_trials(
        self, adapted: AdaptedPolicy, tasks: Sequence[Task], protocol: AdaptationProtocol, seeds: Sequence[int]
    ) -> Trials:
        """A trial on each task: its result depends on the policy, the task and its seed alone.

        Args:
            adapted: a policy for each task, as it is before the trial.
            tasks: the tasks, any number of them, also the same one again.
            protocol: adaptations in the trial, and episodes before each and after the last.
            seeds: one for each task, see `task_seeds`.

        Raises:
            ValueError: no tasks, or another number of seeds.
            WorkerLostError: a worker process was lost a second time.
        """
        points: list[Episodes] = []
        for point in range(protocol.num_adaptations + 1):
            if points:
                adapted = adapted.adapt(points[-1])
            count = protocol.episodes_per_adaptation
            points.append(self.collect_episodes(adapted, tasks, count, point_seeds(seeds, point)))
        return Trials(tuple(tasks), tuple(points))

    def collect_episodes(
        self,
        policy: AdaptedPolicy,
        tasks: Sequence[Task],
        num_episodes: int,
        seeds: Sequence[int],
        *,
        noise: bool = True,
    ) -> Episodes:
        """Exactly `num_episodes` episodes on each task, all side by side.

        They depend on the policy, the tasks and their seeds alone. So where a worker process is lost on the way, they
        are played again, by new ones, and come out as they would have.

        Args:
            policy: a policy for each task.
            tasks: the tasks.
            num_episodes: episodes on each.
            seeds: one for each task.
            noise: whether actions are drawn; otherwise they are the policy's mean or most probable ones.

        Raises:
            ValueError: no tasks, fewer than one episode, or another number of seeds.
            WorkerLostError: a worker process was lost a second time.
        """
        check_request(len(tasks), num_episodes, seeds)
        try:
            return self._collect(policy, tasks, num_episodes, seeds, noise)
        except WorkerLostError as error:
            warn(f"{error}; starting new workers and playing these episodes again")
            self.close()
            return self._collect(policy, tasks, num_episodes, seeds, noise)

    def _collect(
        self, policy: AdaptedPolicy, tasks: Sequence[Task], num_episodes: int, seeds: Sequence[int], noise: bool
    ) -> Episodes:
        shape, count = (len(tasks), num_episodes), len(tasks) * num_episodes
        venv, space = self._vector_env(count), self._source.spaces
        # Two streams of each task that share nothing: its world's and its policy's.
        streams = [np.random.SeedSequence(seed).spawn(2) for seed in seeds]
        resets = [int(word) for world, _ in streams for word in world.generate_state(num_episodes)]
        noises = [int(own.generate_state(1, np.uint64)[0]) for _, own in streams]
        random = TaskRandom(noises, num_episodes, self._device) if noise else None
        record = _Record(shape, self._source.horizon, space)

        def tensor(rows: ndarray) -> Tensor:
            return torch.from_numpy(rows).to(self._device).view(*shape, *rows.shape[1:])

        batched, _ = venv.start_episodes([task for task in tasks for _ in range(num_episodes)], resets)
        observations = space.flatten(batched)[:count]
        inputs = tensor(observations)
        with torch.no_grad():
            carry = policy.initial_carry(num_episodes, random)
            while not record.done.all():
                self._interruption_point()
                drawn, carry = policy.act(inputs, carry, random)
                actions = drawn.to("cpu").flatten(0, 1).numpy()
                executed = space.clip(actions)
                outcome = venv.step(_for_all(space.to_action_space(executed), venv.num_envs))
                following = space.flatten(outcome[0])[:count]
                rewards, terminated, truncated = (part[:count] for part in outcome[1:4])
                record.add(observations, actions, rewards, terminated, truncated, outcome[4], following)
                observations, inputs = following, tensor(following)
                rewards = rewards.astype(np.float32)
                carry = policy.observe(
                    carry, Transition(tensor(executed), tensor(rewards), tensor(record.done), inputs)
                )
        return record.episodes().to(self._device)

    def _vector_env(self, count: int) -> VectorEnv:
        """The one vector environment, made anew where more sub-environments are wanted than it has."""
        if self._venv is None or self._venv.num_envs < count:
            self.close()
            self._venv = self._source.vector_env(count, threads=self._threads)
        return self._venv

    def close(self) -> None:
        """Ends the simulators with their threads and processes; the next collection makes new ones."""
        if self._venv is not None:
            self._venv.close()
            self._venv = None


@final
@dataclasses.dataclass(frozen=True)
class InProcess:
    """Collectors in this process: a `CollectorFactory`."""

    threads: int = 1
    """Threads or processes that step the simulators of each; no result depends on them."""
    interruption_point: Callable[[], None] = _never
    """Called before every environment step; what it raises ends the collection."""

    def open(self, source: EnvSource, device: torch.device | str = "cpu") -> Collector:
        return Collector(source, self.threads, device, self.interruption_point)


def _for_all(actions: Shaped[ndarray, "some *action"], num_envs: int) -> Shaped[ndarray, "all *action"]:
    """Actions for all sub-environments: zeros for those that are frozen."""
    missing = num_envs - len(actions)
    if not missing:
        return actions
    return np.concatenate([actions, np.zeros((missing, *actions.shape[1:]), actions.dtype)])


class _Record:
    """The episodes being written, one column a step."""

    def __init__(self, shape: tuple[int, int], horizon: int, space: Spaces) -> None:
        self._shape, count = shape, shape[0] * shape[1]
        self._step = 0
        action_shape, action_type = ((), np.int64) if space.discrete else ((space.action_size,), np.float32)
        self._observations = np.zeros((count, horizon, space.observation_size), dtype=np.float32)
        self._final = np.zeros((count, space.observation_size), dtype=np.float32)
        self._actions = np.zeros((count, horizon, *action_shape), dtype=action_type)
        self._rewards = np.zeros((count, horizon), dtype=np.float32)
        self._terminated = np.zeros(count, dtype=bool)
        self._diverged = np.zeros(count, dtype=bool)
        self._lengths = np.zeros(count, dtype=np.int64)
        self._success: tuple[Bool[ndarray, " env"], Bool[ndarray, " env"]] | None = None  # at any step, at the last
        self.done: Bool[ndarray, " env"] = np.zeros(count, dtype=bool)

    def add(
        self,
        observations: Float[ndarray, "env feature"],
        actions: Shaped[ndarray, "env *action"],
        rewards: Float[ndarray, " env"],
        terminated: Bool[ndarray, " env"],
        truncated: Bool[ndarray, " env"],
        infos: Mapping[str, ndarray],
        following: Float[ndarray, "env feature"],
    ) -> None:
        running, count = ~self.done, len(rewards)
        self._observations[running, self._step] = observations[running]
        self._actions[running, self._step] = actions[running]
        self._rewards[running, self._step] = rewards[running]
        self._lengths[running] += 1
        ended = running & (terminated | truncated)
        self._final[ended] = following[ended]
        self._terminated[ended] = terminated[ended]
        self._diverged[ended] = infos["diverged"][:count][ended]
        if "success" in infos:
            now = infos["success"][:count] > 0
            ever, last = self._success or (np.zeros(count, dtype=bool), np.zeros(count, dtype=bool))
            self._success = ever | (running & now), np.where(running, now, last)
        self.done = self.done | ended
        self._step += 1

    def episodes(self) -> Episodes:
        def shaped(array: ndarray) -> Tensor:
            return torch.from_numpy(array.reshape(*self._shape, *array.shape[1:]))

        ever, last = self._success or (None, None)
        return Episodes(
            observations=shaped(self._observations),
            final_observations=shaped(self._final),
            actions=shaped(np.nan_to_num(self._actions)),
            rewards=shaped(self._rewards),
            terminated=shaped(self._terminated),
            diverged=shaped(self._diverged),
            lengths=shaped(self._lengths),
            success=None if ever is None else shaped(ever),
            success_at_end=None if last is None else shaped(last),
        )
