"""Trials on worlds of other spaces than a robot's: what is kept of them, and that any share comes out the same."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, flatten
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from metarl import envs
from metarl.envs import EnvDistribution, Outcome
from metarl.learning.collect import Collector
from metarl.learning.episodes import Trials
from metarl.learning.protocols import AdaptationProtocol, Carry, Transition
from metarl.learning.random_streams import TaskRandom, task_seeds
from metarl.tasks import Choice, Family, Task, TaskSpace

GRID = envs.make(f"{Path(__file__).parent.parent / 'external' / 'hidden_corner.py'}:hidden_corner")
TASKS = GRID.tasks("train")[:5]


@dataclasses.dataclass(frozen=True)
class Wanderer:
    """Goes anywhere, more to one side with every adaptation; carries the number of steps taken."""

    num_tasks: int
    adaptations: int = 0

    def initial_carry(self, num_episodes: int, random: TaskRandom | None) -> Carry:
        return (torch.zeros(self.num_tasks, num_episodes),)

    def act(self, observations: Tensor, carry: Carry, random: TaskRandom | None) -> tuple[Tensor, Carry]:
        assert random is not None
        biased = random.uniform(1)[..., 0] ** (1 + self.adaptations)
        return (biased * GRID.spaces.action_size).long(), carry

    def observe(self, carry: Carry, transition: Transition) -> Carry:
        return (carry[0] + 1,)

    def adapt(self, support: object) -> "Wanderer":
        return dataclasses.replace(self, adaptations=self.adaptations + 1)


def collected(tasks: tuple[Task, ...], seeds: tuple[int, ...], threads: int = 1) -> Trials:
    collector = Collector(GRID, threads)
    try:
        return collector.collect_trials(Wanderer(len(tasks)), tasks, AdaptationProtocol(2, 3), seeds)
    finally:
        collector.close()


def test_any_share_of_a_collection_is_the_same_bit_for_bit() -> None:
    seeds = task_seeds(3, num_tasks=len(TASKS))
    whole = collected(TASKS, seeds)
    shares = ((0, 2), (2, 3), (3, 5))
    shards = Trials.concatenate([collected(TASKS[a:b], seeds[a:b], threads=2) for a, b in shares])
    backwards = collected(TASKS[::-1], seeds[::-1])
    assert whole.tasks == shards.tasks == backwards.tasks[::-1]
    for one, other, turned in zip(whole.episodes, shards.episodes, backwards.episodes, strict=True):
        for name, tensor in one.tensors().items():
            assert torch.equal(tensor, other.tensors()[name]), name
            assert torch.equal(tensor, turned.tensors()[name].flip(0)), name
    assert not torch.equal(whole.query.actions, whole.supports[0].actions)


def test_dicts_and_discrete_actions_are_kept_as_the_plain_environment_gives_them() -> None:
    """Replays the recorded actions in `dist.env(task)`."""
    seeds = task_seeds(4, num_tasks=len(TASKS))
    episodes = collected(TASKS, seeds).episodes[0]
    assert episodes.actions.dtype == torch.int64
    assert set(episodes.actions[episodes.mask].tolist()) == {0, 1, 2, 3}
    assert episodes.terminated.any() and not episodes.terminated.all()
    for index, task in enumerate(TASKS):
        env = GRID.env(task)
        world, _ = np.random.SeedSequence(_point_seed(seeds[index], 0)).spawn(2)
        for episode, reset in enumerate(world.generate_state(3)):
            observation, _ = env.reset(seed=int(reset))
            length = int(episodes.lengths[index, episode])
            terminated = truncated = False
            for step in range(length):
                assert not (terminated or truncated)
                row = np.asarray(flatten(env.observation_space, observation), np.float32)
                assert np.array_equal(episodes.observations[index, episode, step], row)
                action = int(episodes.actions[index, episode, step]) + 1  # the space starts at 1
                observation, reward, terminated, truncated, _ = env.step(action)
                assert episodes.rewards[index, episode, step] == reward
            assert terminated == bool(episodes.terminated[index, episode])
            assert truncated == (length == GRID.horizon and not terminated)
            last = np.asarray(flatten(env.observation_space, observation), np.float32)
            assert np.array_equal(episodes.final_observations[index, episode], last)
            assert not episodes.rewards[index, episode, length:].any()
            assert not episodes.observations[index, episode, length:].any()


def _point_seed(seed: int, point: int) -> int:
    return int(np.random.SeedSequence([seed, point + 1]).generate_state(1, np.uint64)[0])


class Flicker:
    """Solved at the one step that the task names, for an episode of as many steps as it says."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float64)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, num_envs: int, threads: int) -> None:
        self.num_envs = num_envs
        self.steps = np.zeros(num_envs, np.int64)
        self.solved = np.zeros(num_envs)
        self.length = np.zeros(num_envs)

    def set_task(self, index: int, task: Task) -> None:
        self.solved[index], self.length[index] = float(task["solved"]), float(task["length"])

    def reset(self, index: int, rng: np.random.Generator) -> None:
        self.steps[index] = 0

    def step(self, actions: Float[ndarray, "env action"], active: Bool[ndarray, " env"]) -> Outcome:
        self.steps[active] += 1
        never = np.zeros(self.num_envs, bool)
        success = (self.steps == self.solved).astype(np.float64)
        return Outcome(np.ones(self.num_envs), self.steps >= self.length, never, {"success": success})

    def observe(self, out: Float[ndarray, "env observation"]) -> None:
        out[:, 0] = self.steps

    def render(self, index: int, width: int, height: int) -> ndarray:
        return np.zeros((height, width, 3), np.uint8)

    def close(self) -> None:
        """Holds nothing."""


@dataclasses.dataclass(frozen=True)
class Idle(Wanderer):
    def act(self, observations: Tensor, carry: Carry, random: TaskRandom | None) -> tuple[Tensor, Carry]:
        return torch.zeros(*observations.shape[:2], 1), carry


@pytest.mark.parametrize("horizon", [9, 4])
def test_a_task_solved_at_any_step_is_told_from_one_solved_at_the_last(horizon: int) -> None:
    """Of episodes that end at different steps, side by side."""
    steps = Choice(tuple(map(float, range(1, 8))), "step")
    families = (Family("flicker", {"solved": steps, "length": steps}),)
    dist = EnvDistribution(
        TaskSpace("flicker", families, families, families, False),
        horizon,
        Flicker,
        {"body": "lamp"},
        Flicker.observation_space,
        Flicker.action_space,
        "success",
    )
    pairs = [(solved, length) for solved in range(1, 8) for length in (3, 5)]
    tasks = tuple(Task.of("flicker", solved=float(solved), length=float(length)) for solved, length in pairs)
    collector = Collector(dist)
    episodes = collector.collect_episodes(Idle(len(tasks)), tasks, 2, tuple(range(len(tasks))))
    collector.close()
    ends = [min(length, horizon) for _, length in pairs]
    assert episodes.lengths.tolist() == [[end] * 2 for end in ends]
    assert episodes.success is not None and episodes.success_at_end is not None
    solved_at = [solved for solved, _ in pairs]
    assert episodes.success.tolist() == [[step <= end] * 2 for step, end in zip(solved_at, ends, strict=True)]
    assert episodes.success_at_end.tolist() == [[step == end] * 2 for step, end in zip(solved_at, ends, strict=True)]
    assert torch.equal(episodes.scores("success"), episodes.success.float())
