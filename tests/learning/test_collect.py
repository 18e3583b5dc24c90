"""Collecting episodes: what is recorded is what the plain environment gives, and every draw is its own."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl import envs
from metarl.learning.collect import Collector, point_seeds
from metarl.learning.episodes import Episodes
from metarl.learning.protocols import AdaptationProtocol, Carry, Memoryless
from metarl.learning.random_streams import TaskRandom, task_seeds
from metarl.learning.spaces import Spaces
from metarl.tasks import Task


@dataclasses.dataclass(frozen=True)
class Fixed(Memoryless):
    """Always the same action for each task, with or without noise."""

    actions: Tensor  # [task, action]
    noise: float = 0.0

    def act(self, observations: Tensor, carry: Carry, random: TaskRandom | None) -> tuple[Tensor, Carry]:
        actions = self.actions[:, None].expand(-1, observations.shape[1], -1)
        size = self.actions.shape[-1]
        return actions.clone() if random is None else actions + self.noise * random.normal(size), carry

    def adapt(self, support: Episodes) -> "Fixed":
        return self


def collected(dist: envs.EnvDistribution, policy: Fixed, tasks: tuple[Task, ...], seed: int, episodes: int) -> Episodes:
    collector = Collector(dist)
    played = collector.collect_episodes(policy, tasks, episodes, task_seeds(seed, num_tasks=len(tasks)))
    collector.close()
    return played


def test_episodes_equal_the_plain_environments() -> None:
    """Task by task and step by step what `dist.env(task)` gives for the same seeds and actions."""
    dist = dataclasses.replace(envs.make("cheetah-velocity"), horizon=30)
    tasks = dist.tasks("test")[:2]
    actions = torch.tensor([[0.5] * 6, [-2.0, 0.1, 0.2, 0.3, 0.4, 3.0]])  # the second is clipped
    episodes = collected(dist, Fixed(actions), tasks, 3, 2)
    assert episodes.observations.shape == (2, 2, 30, 17)
    assert (episodes.lengths == 30).all() and not episodes.terminated.any()
    for task, seed in enumerate(task_seeds(3, num_tasks=2)):
        world, _ = np.random.SeedSequence(seed).spawn(2)
        for episode, reset in enumerate(world.generate_state(2)):
            env = dist.env(tasks[task])
            observation, _ = env.reset(seed=int(reset))
            rewards = []
            executed = dist.spaces.to_action_space(actions[task : task + 1].numpy().clip(-1, 1))[0]
            for step in range(dist.horizon):
                np.testing.assert_allclose(episodes.observations[task, episode, step], observation, rtol=1e-6)
                observation, reward, _, _, _ = env.step(executed)
                rewards.append(reward)
            np.testing.assert_allclose(episodes.rewards[task, episode], rewards, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(episodes.final_observations[task, episode], observation, rtol=1e-6)
            np.testing.assert_allclose(episodes.returns[task, episode], np.sum(rewards), rtol=1e-4)
            env.close()
    torch.testing.assert_close(episodes.actions[1, 0, 0], actions[1])  # as drawn, not as clipped


def test_every_collection_task_and_episode_has_noise_of_its_own() -> None:
    dist = envs.make("cheetah-direction")
    dist, policy = dataclasses.replace(dist, horizon=3), Fixed(torch.zeros(2, 6), noise=1.0)
    first = collected(dist, policy, dist.tasks("train"), 1, 2)
    again = collected(dist, policy, dist.tasks("train"), 1, 2)
    other = collected(dist, policy, dist.tasks("train"), 2, 2)
    for name, tensor in first.tensors().items():
        assert torch.equal(tensor, again.tensors()[name]), name
    starts = torch.cat([each.observations[:, :, 0].flatten(0, 1) for each in (first, other)])
    noises = torch.cat([each.actions.flatten(0, 2) for each in (first, other)])
    assert len(starts.unique(dim=0)) == len(starts)
    assert len(noises.unique(dim=0)) == len(noises) == 2 * 2 * 2 * 3
    assert len({*point_seeds((7, 8), 0), *point_seeds((7, 8), 1), *point_seeds((7, 8), 2)}) == 6


def test_each_adaptation_of_a_trial_is_to_episodes_of_the_policy_adapted_so_far() -> None:
    """A policy that moves one step further with each adaptation is handed what it did itself, once each."""

    @dataclasses.dataclass(frozen=True)
    class Counting(Fixed):
        supports: tuple[Episodes, ...] = ()

        def adapt(self, support: Episodes) -> "Counting":
            assert torch.equal(support.actions, self.actions[:, None, None].expand_as(support.actions))
            return Counting(self.actions + 0.1, 0.0, (*self.supports, support))

    dist = dataclasses.replace(envs.make("point-navigation"), horizon=3)
    tasks, seeds = dist.tasks("train")[:2], task_seeds(0, num_tasks=2)
    trials = Collector(dist).collect_trials(Counting(torch.zeros(2, 2)), tasks, AdaptationProtocol(3, 2), seeds)
    assert len(trials.supports) == 3
    for point, episodes in enumerate(trials.episodes):
        torch.testing.assert_close(episodes.actions, torch.full_like(episodes.actions, 0.1 * point))


def test_a_nan_action_ends_its_own_episode_only() -> None:
    dist = envs.make("cheetah-direction")
    actions = torch.zeros(2, 6)
    actions[0, 3] = float("nan")
    episodes = collected(dist, Fixed(actions), dist.tasks("train"), 0, 2)
    assert episodes.diverged.tolist() == [[True, True], [False, False]]
    assert episodes.terminated.tolist() == [[True, True], [False, False]]
    assert episodes.lengths.tolist() == [[1, 1], [100, 100]]
    for name, tensor in episodes.tensors().items():
        assert bool(tensor.isfinite().all()), name
    assert episodes.mask.sum() == episodes.num_steps == 202
    assert episodes.rewards[0].abs().sum() == 0


def test_wrong_counts_are_refused() -> None:
    dist = envs.make("point-navigation")
    collector, tasks = Collector(dist), dist.tasks("test")[:2]
    with pytest.raises(ValueError, match="0 tasks and 1 episodes"):
        collector.collect_episodes(Fixed(torch.zeros(0, 2)), (), 1, ())
    with pytest.raises(ValueError, match="2 tasks and 0 episodes"):
        collector.collect_episodes(Fixed(torch.zeros(2, 2)), tasks, 0, (1, 2))
    with pytest.raises(ValueError, match="a seed for each of the 2 tasks, got 1"):
        collector.collect_episodes(Fixed(torch.zeros(2, 2)), tasks, 1, (1,))


def test_the_flat_rows_of_any_spaces_are_gymnasiums() -> None:
    from gymnasium import spaces as gs
    from gymnasium.vector.utils import batch_space, concatenate, create_empty_array

    space = gs.Dict({
        "place": gs.Box(-1.0, 1.0, (2, 3)),
        "kind": gs.Tuple((gs.Discrete(4, start=2), gs.MultiBinary(3))),
        "counts": gs.MultiDiscrete([3, 2]),
    })  # fmt: skip
    space.seed(0)
    rows = [space.sample() for _ in range(5)]
    batch = concatenate(space, rows, create_empty_array(space, 5))
    assert batch in batch_space(space, 5)
    ours = Spaces(space, gs.Discrete(3, start=1))
    expected = np.stack([np.asarray(gs.flatten(space, row)) for row in rows])
    np.testing.assert_allclose(ours.flatten(batch), expected, rtol=1e-6)
    assert ours.observation_size == gs.flatdim(space)
    assert ours.to_action_space(np.array([0, 2])).tolist() == [1, 3]


def test_actions_go_to_the_range_of_the_space_and_others_than_boxes_and_discrete_are_refused() -> None:
    from gymnasium import spaces as gs

    low, high = np.array([-0.1, 2.0], dtype=np.float32), np.array([0.1, 6.0], dtype=np.float32)
    space = Spaces(gs.Box(-1.0, 1.0, (1,)), gs.Box(low, high))
    executed = space.clip(np.array([[-1.0, 0.0], [1.0, 0.5], [-9.0, 9.0]]))
    np.testing.assert_allclose(space.to_action_space(executed), [[-0.1, 4.0], [0.1, 5.0], [-0.1, 6.0]], rtol=1e-6)
    for action in (gs.MultiBinary(2), gs.Box(-1.0, 1.0, (2, 2)), gs.Box(-np.inf, np.inf, (2,))):
        with pytest.raises(ValueError, match="agents"):
            Spaces(gs.Box(-1.0, 1.0, (1,)), action)
