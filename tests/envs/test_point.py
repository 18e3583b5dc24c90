"""The point robot, against the few lines of arithmetic that define it."""

import numpy as np
import pytest
from gymnasium.spaces import Box

from metarl import envs
from metarl.tasks import Task

GOAL = Task.of("goal", goal_x=0.3, goal_y=-0.4)


def test_spec_is_the_papers() -> None:
    dist = envs.make("point-navigation")
    goals = np.array(
        [(task["goal_x"], task["goal_y"]) for task in dist.sample("train", 4000, np.random.default_rng(0))]
    )
    assert dist.horizon == 100
    assert np.abs(goals).max() <= 0.5
    assert np.abs(goals).max() > 0.495
    assert np.abs(goals.mean(0)).max() < 0.02
    assert np.allclose(goals * 1000, np.round(goals * 1000))
    assert isinstance(dist.action_space, Box)
    assert np.allclose([dist.action_space.low, dist.action_space.high], [[-0.1] * 2, [0.1] * 2])
    assert dist.physics["ends_at_goal"] is False


@pytest.mark.parametrize("sparse", [False, True])
def test_moves_by_clipped_actions(sparse: bool) -> None:
    venv = envs.make("point-navigation-sparse" if sparse else "point-navigation").vector_env(1)
    venv.set_tasks([GOAL])
    position = np.zeros(2)
    assert np.array_equal(venv.reset(seed=0)[0][0], position)
    rng, paid = np.random.default_rng(1), 0
    for _ in range(60):
        action = rng.normal(0.2 * (np.array([0.3, -0.4]) - position), 0.1)
        position = position + np.clip(action, -0.1, 0.1)
        distance = np.hypot(*(position - (0.3, -0.4)))
        observations, rewards, terminated, _, infos = venv.step(action[None])
        assert np.allclose(observations[0], position, atol=1e-6)  # the clip is the action space's, in float32
        assert np.isclose(infos["distance"][0], distance, atol=1e-6)
        assert np.isclose(rewards[0], max(0.0, 1 - distance / 0.2) if sparse else -distance, atol=1e-5)
        assert not terminated.any()
        paid += rewards[0] > 0
    assert 0 < paid < 60 if sparse else paid == 0


def test_the_goal_is_hidden() -> None:
    venv = envs.make("point-navigation").vector_env(2)
    venv.set_tasks([GOAL, Task.of("goal", goal_x=-0.2, goal_y=0.1)])
    venv.reset(seed=0)
    for _ in range(10):
        observations, rewards, *_ = venv.step(np.full((2, 2), 0.03))
        assert np.array_equal(observations[0], observations[1])
        assert rewards[0] != rewards[1]


def test_standing_on_the_goal_goes_on() -> None:
    venv = envs.make("point-navigation").vector_env(1)
    venv.set_tasks([Task.of("goal", goal_x=0.1, goal_y=0.1)])
    venv.reset(seed=0)
    venv.step(np.full((1, 2), 0.1))
    for step in range(1, 100):
        _, rewards, terminated, truncated, _ = venv.step(np.zeros((1, 2)))
        assert rewards[0] == pytest.approx(0, abs=1e-6)
        assert not terminated.any()
        assert truncated.all() == (step == 99)
