"""Small distributions in NumPy: a task hides an answer, and what the policy does is worth more or less by it."""

import dataclasses
from collections.abc import Mapping, Sequence

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy import ndarray

from metarl.learning.spaces import Spaces
from metarl.tasks import Split, Task

_HELD_OUT = (0.55, 0.85, 1.15, 1.45)


@dataclasses.dataclass(frozen=True)
class Toy:
    """Observations are noise, which says nothing of the task; one reward gives it away.

    Box: the answer is 1 or −1, and the reward is the answer times the mean of the executed action. Discrete: the answer
    is one of the actions, and the reward is 1 for it. Both are times the task's strength, some of which are held out.
    """

    action: gym.Space[object]
    horizon: int = 6
    ragged: bool = False
    """Episodes of 1 to `horizon` steps, half of them terminated, instead of `horizon` steps, truncated."""
    observation_size: int = 3
    noise: float = 1.0
    """Standard deviation of the observations."""
    offset: float = 0.0
    """Their mean."""
    hint: bool = False
    """Whether the first number of an observation is the answer."""
    scale: float = 1.0
    """Factor of the rewards."""

    @property
    def spaces(self) -> Spaces:
        return Spaces(spaces.Box(-np.inf, np.inf, (self.observation_size,), np.float64), self.action)

    @property
    def answers(self) -> tuple[float, ...]:
        return tuple(map(float, range(int(self.action.n)))) if isinstance(self.action, spaces.Discrete) else (1.0, -1.0)

    def tasks(self, split: Split) -> tuple[Task, ...]:
        """The held-out ones, whatever the split."""
        return tuple(
            Task.of("answer", answer=answer, strength=strength) for strength in _HELD_OUT for answer in self.answers
        )

    def sample(self, split: Split, count: int, rng: np.random.Generator) -> tuple[Task, ...]:
        """Training tasks."""
        strengths = [round(float(x), 1) for x in rng.uniform(0.5, 1.5, count)]  # none of those held out
        answers = rng.choice(self.answers, count)
        return tuple(
            Task.of("answer", answer=float(answer), strength=strength)
            for answer, strength in zip(answers, strengths, strict=True)
        )

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
        self.answers, self.strengths = np.zeros(num_envs), np.zeros(num_envs)
        self.observations = np.zeros((num_envs, toy.horizon + 1, toy.observation_size))
        self.steps = 0

    def start_episodes(self, tasks: Sequence[Task], seeds: Sequence[int]) -> tuple[ndarray, Mapping[str, ndarray]]:
        toy = self.toy
        self.lengths[:], self.steps = 0, 0
        for index, (task, seed) in enumerate(zip(tasks, seeds, strict=True)):
            rng = np.random.default_rng(seed)
            self.lengths[index] = rng.integers(1, toy.horizon + 1) if toy.ragged else toy.horizon
            self.ends[index] = toy.ragged and rng.uniform() < 0.5
            self.answers[index], self.strengths[index] = task["answer"], task["strength"]
            self.observations[index] = toy.offset + toy.noise * rng.standard_normal(self.observations.shape[1:])
            if toy.hint:
                self.observations[index, :, 0] = task["answer"]
        return self.observations[:, 0], {"diverged": np.zeros(self.num_envs, dtype=bool)}

    def step(self, actions: ndarray) -> tuple[ndarray, ndarray, ndarray, ndarray, Mapping[str, ndarray]]:
        right = actions == self.answers if actions.ndim == 1 else self.answers * actions.mean(-1) / 2
        rewards = np.where(self.steps < self.lengths, self.toy.scale * self.strengths * right, 0.0)
        self.steps += 1
        over = self.steps >= self.lengths
        seen = self.observations[np.arange(self.num_envs), np.minimum(self.steps, self.lengths)]
        infos = {"diverged": np.zeros(self.num_envs, dtype=bool)}
        return seen, rewards, over & self.ends, over & ~self.ends, infos

    def close(self) -> None:
        pass
