"""Policies that learn nothing."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.agents.fixed import NOTHING, FixedPolicy, random_policy
from metarl.learning.protocols import AdaptationProtocol, Agent
from metarl.learning.random_streams import TaskRandom
from tests.agents.toys import Toy, box, discrete
from tests.agents.worlds import collect

OBSERVATIONS = torch.zeros(2, 4000, 3)


def test_random_actions_are_uniform_over_a_box() -> None:
    policy = random_policy(Toy(box(2)).spaces)
    actions, _ = policy.act(OBSERVATIONS, (), TaskRandom([1, 2], 4000))
    assert actions.shape == (2, 4000, 2) and actions.dtype == torch.float32
    assert float(actions.min()) < -0.99 and float(actions.max()) > 0.99
    torch.testing.assert_close(actions.mean((0, 1)), torch.zeros(2), atol=0.03, rtol=0)
    torch.testing.assert_close(actions.var((0, 1)), torch.full((2,), 1 / 3), atol=0.02, rtol=0)
    mean, _ = policy.act(OBSERVATIONS, (), None)
    assert mean.shape == actions.shape and not mean.any()


def test_random_actions_are_uniform_over_discrete_ones() -> None:
    policy = random_policy(Toy(discrete(5)).spaces)
    actions, _ = policy.act(OBSERVATIONS, (), TaskRandom([1, 2], 4000))
    assert actions.shape == (2, 4000) and actions.dtype == torch.int64
    np.testing.assert_allclose(np.bincount(actions.flatten(), minlength=5) / 8000, 0.2, atol=0.02)
    assert not policy.act(OBSERVATIONS, (), None)[0].any()


@dataclasses.dataclass(frozen=True)
class First:
    """The first number of the observation, for every action."""

    gain: float

    def __call__(self, observations: Tensor, random: TaskRandom | None) -> Tensor:
        return self.gain * observations[..., :1].expand(*observations.shape[:2], 2)


def test_a_function_of_observations_is_an_agent_that_plays_trials_and_pickles() -> None:
    policy = pickle.loads(pickle.dumps(FixedPolicy(First(0.5), episodes=2)))
    assert isinstance(policy, Agent)
    trials = collect(policy, NOTHING, Toy(box(2), hint=True), protocol=AdaptationProtocol(1, 2))
    for episodes in trials.episodes:
        torch.testing.assert_close(episodes.actions[..., 0], 0.5 * episodes.observations[..., 0])
    assert policy.protocol == AdaptationProtocol(0, 2) and policy.init(0) is policy.init(1)
    with pytest.raises(ValueError, match="cannot be trained"):
        policy.meta_step(NOTHING, trials, np.random.default_rng(0))
