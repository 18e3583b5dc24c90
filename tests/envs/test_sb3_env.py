"""Stable-Baselines3's vector environment on the batched physics, against its own on single environments."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from gymnasium.spaces import Discrete, Tuple
from numpy import ndarray
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from metarl import envs
from metarl.envs import EnvDistribution
from metarl.envs.sb3_env import check_sb3_space
from metarl.tasks import Task

HOPPER = dataclasses.replace(envs.make("hopper-dynamics"), horizon=15)  # some fall before, some do not
POINT = envs.make("point-navigation")


def random_actions(dist: EnvDistribution, steps: int, num_envs: int) -> ndarray:
    size = dist.spaces.action_size
    return np.random.default_rng(1).uniform(-1, 1, (steps, num_envs, size)).astype(np.float32)


def array(value: object) -> ndarray:
    assert isinstance(value, ndarray)
    return value


def monitored(task: Task) -> Callable[[], Monitor]:
    return lambda: Monitor(HOPPER.env(task))


def test_it_is_stable_baselines_own_environment_step_by_step() -> None:
    tasks = HOPPER.tasks("train")[:3]
    ours = HOPPER.sb3_env(tasks, num_envs=3, seed=5)
    theirs = DummyVecEnv([monitored(task) for task in tasks])
    theirs.seed(5)
    assert np.array_equal(array(ours.reset()), array(theirs.reset()))
    ends: list[bool] = []
    for actions in random_actions(HOPPER, 60, 3):
        got, wanted = ours.step(actions), theirs.step(actions)
        assert all(np.array_equal(array(one), array(other)) for one, other in zip(got[:3], wanted[:3], strict=True))
        assert [array(part).dtype for part in got[:3]] == [np.float64, np.float32, bool]
        for info, other in zip(got[3], wanted[3], strict=True):
            assert info["TimeLimit.truncated"] == other["TimeLimit.truncated"]
            assert info["x_velocity"] == other["x_velocity"]
            assert ("terminal_observation" in info) == ("terminal_observation" in other)
            if "terminal_observation" in info:
                ends.append(info["TimeLimit.truncated"])
                assert np.array_equal(info["terminal_observation"], other["terminal_observation"])
                assert info["episode"]["l"] == other["episode"]["l"]
                assert info["episode"]["r"] == pytest.approx(other["episode"]["r"], abs=1e-6)
    assert set(ends) == {True, False}


def played(venv: VecEnv, steps: int, index: int) -> tuple[list[Task], ndarray]:
    """The tasks and observations of one sub-environment; every one gets the same actions."""
    venv.reset()
    tasks, seen = [venv.get_attr("task", index)[0]], list[ndarray]()
    for action in random_actions(POINT, steps, 1):
        observations, _, dones, _ = venv.step(np.repeat(action, venv.num_envs, axis=0))
        seen.append(array(observations)[index])
        if dones[index]:
            tasks.append(venv.get_attr("task", index)[0])
    return tasks, np.array(seen)


def test_every_episode_has_a_task_drawn_anew_whatever_plays_beside_it() -> None:
    dist = dataclasses.replace(POINT, horizon=5)
    tasks, observations = played(dist.sb3_env("train", num_envs=3, seed=7), 19, index=2)
    assert len(tasks) == len(set(tasks)) == 4
    assert not set(tasks) & {*dist.tasks("validation"), *dist.tasks("test")}
    alone, same = played(dist.sb3_env("train", num_envs=1, seed=9), 19, index=0)
    assert alone == tasks and np.array_equal(observations, same)
    others, _ = played(dist.sb3_env("test", num_envs=2, seed=7), 19, index=1)
    assert set(others) <= set(dist.tasks("test"))


def test_a_seed_begins_the_streams_anew() -> None:
    venv = dataclasses.replace(POINT, horizon=5).sb3_env(num_envs=2, seed=3)
    first, on = played(venv, 12, index=0), played(venv, 12, index=0)
    assert first[0] != on[0]
    venv.seed(3)
    again = played(venv, 12, index=0)
    assert first[0] == again[0] and np.array_equal(first[1], again[1])


def test_fixed_tasks_are_played_in_turn_and_can_be_set() -> None:
    one, two, three = POINT.tasks("test")[:3]
    venv = dataclasses.replace(POINT, horizon=3).sb3_env([one, two], num_envs=3)
    assert played(venv, 7, index=2) and venv.tasks == (one, two, one)
    venv.env_method("set_task", three, indices=1)
    assert venv.tasks == (one, three, one)
    venv.set_options({"task": two})
    venv.reset()
    assert venv.get_attr("task") == [two, two, two]


def test_success_is_told_at_the_end() -> None:
    dist = dataclasses.replace(envs.make("metaworld-ml1-reach-v3"), horizon=2)
    venv = dist.sb3_env(num_envs=1)
    venv.reset()
    assert "is_success" not in venv.step(np.zeros((1, 4), np.float32))[3][0]
    assert venv.step(np.zeros((1, 4), np.float32))[3][0]["is_success"] is False


def test_stable_baselines_learns_and_judges_on_it() -> None:
    venv = dataclasses.replace(POINT, horizon=8).sb3_env(num_envs=4)
    model = PPO("MlpPolicy", venv, n_steps=16, batch_size=32, n_epochs=1, seed=0, device="cpu").learn(64)
    assert len(model.ep_info_buffer or ()) == 8
    returns, lengths = evaluate_policy(
        model, dataclasses.replace(POINT, horizon=8).sb3_env("test", num_envs=2), 4, return_episode_rewards=True
    )
    assert isinstance(returns, list) and lengths == [8, 8, 8, 8]


def test_pictures(drawing: str) -> None:
    venv = POINT.sb3_env(num_envs=2)
    venv.reset()
    picture = venv.render()
    assert picture is not None and picture.shape == (720, 480, 3)
    silent = dataclasses.replace(POINT, renders=False).sb3_env(num_envs=2)
    assert silent.render_mode is None and silent.get_images() == [None, None]


def test_what_cannot_be_done_is_refused() -> None:
    task = POINT.tasks("test")[0]
    with pytest.raises(ValueError, match="2 sub-environments can keep 1 to 2 tasks, got 3"):
        POINT.sb3_env(POINT.tasks("test")[:3], num_envs=2)
    venv = POINT.sb3_env(num_envs=2)
    with pytest.raises(ValueError, match="each episode's task is drawn here"):
        venv.env_method("set_task", task)
    with pytest.raises(AttributeError, match="no attribute 'gravity' .* there are task, render_mode, metadata"):
        venv.get_attr("gravity")
    assert not venv.has_attr("gravity")
    with pytest.raises(AttributeError, match="'gravity' cannot be set"):
        venv.set_attr("gravity", 1.0)
    with pytest.raises(AttributeError, match="no method 'jump'"):
        venv.env_method("jump")
    venv.set_options({"tsak": task})
    with pytest.raises(ValueError, match="knows the option task only"):
        venv.reset()
    fixed = POINT.sb3_env([task], num_envs=2)
    with pytest.raises(ValueError, match="unknown families moon"):
        fixed.env_method("set_task", Task.of("moon", gravity=1.6))
    assert fixed.tasks == (task, task)


def test_spaces_that_stable_baselines_does_not_take_are_named() -> None:
    for space, message in ((Tuple((Discrete(2),)), "no observations of Tuple"), (Discrete(2, start=1), "from 0")):
        with pytest.raises(ValueError, match=message):
            check_sb3_space("observation", space)
