"""Collecting episodes: what an actor meets, in the order task, episode, step."""

import dataclasses

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from metarl import envs
from metarl.learning.collect import Sampler, box, to_action_space
from metarl.learning.protocols import Memory


@dataclasses.dataclass(frozen=True)
class Fixed:
    """Always the same action for each task; counts its steps in the memory, and keeps the last reward and done."""

    actions: Tensor  # [task, action]

    def begin(self, episodes: int) -> Memory:
        blank = torch.zeros(len(self.actions), episodes)
        return blank, blank, blank

    def act(self, observations: Tensor, memory: Memory, generator: torch.Generator) -> tuple[Tensor, Memory]:
        count, reward, done = memory
        actions = self.actions[:, None].expand(-1, observations.shape[1], -1)
        return actions.clone(), (count + 1, reward, done)

    def feedback(self, memory: Memory, actions: Tensor, rewards: Tensor, done: Tensor) -> Memory:
        assert actions.abs().max() <= 1
        return memory[0], rewards, done.float()


@dataclasses.dataclass(frozen=True)
class Noisy(Fixed):
    """Draws normal actions from the generator it is given."""

    def act(self, observations: Tensor, memory: Memory, generator: torch.Generator) -> tuple[Tensor, Memory]:
        return torch.randn(*observations.shape[:2], self.actions.shape[-1], generator=generator), memory


def test_actions_go_to_the_range_of_the_space() -> None:
    space = Box(np.array([-0.1, 2.0], dtype=np.float32), np.array([0.1, 6.0], dtype=np.float32))
    mapped = to_action_space(space, np.array([[-1.0, 0.0], [1.0, 0.5], [-9.0, 9.0]]))
    np.testing.assert_allclose(mapped, [[-0.1, 4.0], [0.1, 5.0], [-0.1, 6.0]], rtol=1e-6)


def test_only_boxes_are_taken() -> None:
    with pytest.raises(ValueError, match="Box spaces"):
        box(Discrete(3))


def test_episodes_equal_the_plain_environments() -> None:
    """Task by task and step by step what `dist.env(task)` gives for the same seeds and actions."""
    dist = envs.make("cheetah-velocity")
    tasks = dist.tasks("test")[:2]
    actions = torch.tensor([[0.5] * 6, [-2.0, 0.1, 0.2, 0.3, 0.4, 3.0]])  # the second is clipped
    episodes = Sampler(dist).collect(Fixed(actions), tasks, 2, seed=3)
    assert episodes.observations.shape == (2, 2, dist.horizon, 17)
    assert (episodes.lengths == dist.horizon).all() and not episodes.terminated.any()
    world_seed = int(np.random.SeedSequence(3).generate_state(2)[0]) % 2**31
    for task in range(2):
        for episode in range(2):
            env = dist.env(tasks[task])
            observation, _ = env.reset(seed=world_seed + 2 * task + episode)
            rewards = []
            for step in range(dist.horizon):
                np.testing.assert_allclose(episodes.observations[task, episode, step], observation, rtol=1e-6)
                observation, reward, _, _, _ = env.step(to_action_space(box(dist.action_space), actions[task].numpy()))
                rewards.append(reward)
            np.testing.assert_allclose(episodes.rewards[task, episode], rewards, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(episodes.final_observations[task, episode], observation, rtol=1e-6)
            np.testing.assert_allclose(episodes.scores[task, episode], np.sum(rewards), rtol=1e-4)
            env.close()
    torch.testing.assert_close(episodes.actions[1, 0, 0], actions[1])  # as drawn, not as clipped


def test_the_same_seed_gives_the_same_episodes_whatever_the_threads_and_whatever_came_before() -> None:
    dist = envs.make("cheetah-direction")
    tasks, actor = dist.tasks("train"), Noisy(torch.zeros(2, 6))
    one, two = Sampler(dist, threads=1), Sampler(dist, threads=2)
    first = one.collect(actor, tasks, 3, seed=1)
    one.collect(actor, tasks, 3, seed=2)
    for other in (one.collect(actor, tasks, 3, seed=1), two.collect(actor, tasks, 3, seed=1)):
        for name, tensor in first.tensors().items():
            assert torch.equal(tensor, other.tensors()[name]), name
    assert not torch.equal(first.rewards, two.collect(actor, tasks, 3, seed=2).rewards)
    assert not torch.equal(first.observations[0, 0, 0], first.observations[0, 1, 0])  # each episode its own start


def test_a_nan_action_ends_its_own_episode_only() -> None:
    dist = envs.make("cheetah-direction")
    actions = torch.zeros(2, 6)
    actions[0, 3] = float("nan")
    with pytest.raises(AssertionError):  # the actor of this file insists on finite actions
        Sampler(dist).collect(Fixed(actions), dist.tasks("train"), 2, seed=0)

    class Careless(Fixed):
        def feedback(self, memory: Memory, actions: Tensor, rewards: Tensor, done: Tensor) -> Memory:
            return memory

    episodes = Sampler(dist).collect(Careless(actions), dist.tasks("train"), 2, seed=0)
    assert episodes.diverged.tolist() == [[True, True], [False, False]]
    assert episodes.terminated.tolist() == [[True, True], [False, False]]
    assert episodes.lengths.tolist() == [[1, 1], [100, 100]]
    for name, tensor in episodes.tensors().items():
        assert bool(tensor.isfinite().all()), name
    assert episodes.mask.sum() == episodes.num_steps == 202
    assert episodes.rewards[0].abs().sum() == 0


def test_wrong_counts_are_refused() -> None:
    dist = envs.make("point-navigation")
    with pytest.raises(ValueError, match="0 tasks and 1 episodes"):
        Sampler(dist).collect(Fixed(torch.zeros(0, 2)), (), 1, seed=0)
    with pytest.raises(ValueError, match="1 tasks and 0 episodes"):
        Sampler(dist).collect(Fixed(torch.zeros(1, 2)), dist.tasks("test")[:1], 0, seed=0)
