"""Small distributions in NumPy: a task hides a number, and what the policy does is worth more or less by it."""

import dataclasses
from collections.abc import Mapping, Sequence

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy import ndarray

from metarl.learning.spaces import Spaces
from metarl.tasks import Split, Task


@dataclasses.dataclass(frozen=True)
class Toy:
    """Observations are noise, which says nothing of the task; one reward gives it away.

    Box: a task is a sign, and the reward is the sign times the mean of the executed action. Discrete: a task is one of
    the actions, and the reward is 1 for it.
    """

    action: gym.Space[object]
    horizon: int = 6
    ragged: bool = False
    """Episodes of 1 to `horizon` steps, half of them terminated, instead of `horizon` steps, truncated."""
    observation_size: int = 3
    noise: float = 1.0
    """Standard deviation of the observations."""
    scale: float = 1.0
    """Factor of the rewards."""

    @property
    def spaces(self) -> Spaces:
        return Spaces(spaces.Box(-np.inf, np.inf, (self.observation_size,), np.float64), self.action)

    def tasks(self, split: Split = "test") -> tuple[Task, ...]:
        if isinstance(self.action, spaces.Discrete):
            return tuple(Task.of("choice", choice=float(choice)) for choice in range(int(self.action.n)))
        return tuple(Task.of("sign", sign=sign) for sign in (1.0, -1.0))

    def sample(self, split: Split, count: int, rng: np.random.Generator) -> tuple[Task, ...]:
        tasks = self.tasks()
        return tuple(tasks[int(index)] for index in rng.integers(len(tasks), size=count))

    def vector_env(self, num_envs: int, threads: int = 1) -> "ToyVectorEnv":
        return ToyVectorEnv(self, num_envs)


def box(size: int) -> gym.Space[object]:
    return spaces.Box(-2.0, 2.0, (size,), np.float32)


def discrete(count: int) -> gym.Space[object]:
    return spaces.Discrete(count)


class ToyVectorEnv:
    """`Toy`'s environments, side by side."""

    def __init__(self, toy: Toy, num_envs: int) -> None:
        self.toy, self.num_envs = toy, num_envs
        self.lengths = np.zeros(num_envs, dtype=np.int64)
        self.ends = np.zeros(num_envs, dtype=bool)
        self.answers = np.zeros(num_envs)
        self.observations = np.zeros((num_envs, toy.horizon + 1, toy.observation_size))
        self.steps = 0

    def start_episodes(self, tasks: Sequence[Task], seeds: Sequence[int]) -> tuple[ndarray, Mapping[str, ndarray]]:
        self.lengths[:], self.steps = 0, 0
        for index, (task, seed) in enumerate(zip(tasks, seeds, strict=True)):
            rng = np.random.default_rng(seed)
            self.lengths[index] = rng.integers(1, self.toy.horizon + 1) if self.toy.ragged else self.toy.horizon
            self.ends[index] = self.toy.ragged and rng.uniform() < 0.5
            self.answers[index] = task["choice"] if task.family == "choice" else task["sign"]
            self.observations[index] = self.toy.noise * rng.standard_normal(self.observations.shape[1:])
        return self.observations[:, 0], {"diverged": np.zeros(self.num_envs, dtype=bool)}

    def step(self, actions: ndarray) -> tuple[ndarray, ndarray, ndarray, ndarray, Mapping[str, ndarray]]:
        right = actions == self.answers if actions.ndim == 1 else self.answers * actions.mean(-1) / 2
        rewards = np.where(self.steps < self.lengths, self.toy.scale * right, 0.0)
        self.steps += 1
        over = self.steps >= self.lengths
        seen = self.observations[np.arange(self.num_envs), np.minimum(self.steps, self.lengths)]
        infos = {"diverged": np.zeros(self.num_envs, dtype=bool)}
        return seen, rewards, over & self.ends, over & ~self.ends, infos

    def close(self) -> None:
        pass
