"""One task as a plain environment, by itself and through Gymnasium's registry."""

import dataclasses

import gymnasium
import numpy as np
import pytest

from metarl import envs
from metarl.envs import TaskEnv, TaskVectorEnv
from metarl.tasks import Task

DIST = envs.make("point-navigation")
TASK, OTHER = DIST.tasks("test")[:2]
FORWARD = np.full(2, 0.1, np.float32)


def test_a_new_task_is_taken_up_at_the_next_reset() -> None:
    env = DIST.env(TASK)
    env.reset(seed=0)
    before = env.step(FORWARD)[1]
    env.set_task(OTHER)
    env.reset()
    after = env.step(FORWARD)[1]
    assert env.task == OTHER
    env.reset(options={"task": TASK})
    assert env.step(FORWARD)[1] == before != after
    env.reset(options={})  # goes on with the task it has
    assert env.step(FORWARD)[1] == before


def test_wrong_tasks_and_options_are_refused() -> None:
    env = DIST.env(TASK)
    with pytest.raises(ValueError, match=r"knows the option task only, got \['taks'\]"):
        env.reset(options={"taks": TASK})
    with pytest.raises(ValueError, match=r"must be a metarl.tasks.Task, got dict"):
        env.reset(options={"task": TASK.to_json()})
    with pytest.raises(ValueError, match="unknown families moon"):
        env.set_task(Task.of("moon", gravity=1.6))
    assert env.task == TASK
    with pytest.raises(ValueError, match="this world has no pictures"):
        dataclasses.replace(DIST, renders=False).env(render_mode="rgb_array")
    assert dataclasses.replace(DIST, renders=False).env().metadata["render_modes"] == []


def truncated_after(env: gymnasium.Env[np.ndarray, np.ndarray], most: int = 250) -> int | None:
    """The step at which an episode is truncated; None if that does not happen in `most` steps."""
    env.reset(seed=0)
    return next((step for step in range(1, most + 1) if env.step(np.zeros(2, np.float32))[3]), None)


def wrappers(env: gymnasium.Env[np.ndarray, np.ndarray]) -> list[str]:
    names = []
    while isinstance(env, gymnasium.Wrapper):
        names.append(type(env).__name__)
        env = env.env
    return names


def test_gymnasium_puts_one_limit_around_it_and_ours_is_the_default() -> None:
    made = gymnasium.make("metarl/PointNavigation-v0", task=OTHER)
    assert made.spec is not None and made.spec.max_episode_steps == DIST.horizon == truncated_after(made)
    assert wrappers(made).count("TimeLimit") == 1
    for asked, wanted in ((30, 30), (200, 200), (-1, None)):
        assert truncated_after(gymnasium.make("metarl/PointNavigation-v0", max_episode_steps=asked)) == wanted
    direct = DIST.env(OTHER)
    assert direct.spec is not None and direct.spec.max_episode_steps == DIST.horizon == truncated_after(direct)
    again = direct.spec.make()
    assert isinstance(again.unwrapped, TaskEnv)
    assert again.unwrapped.task == OTHER
    assert truncated_after(again) == DIST.horizon


def test_gymnasium_makes_the_same_environment() -> None:
    for id in ("cheetah-terrain", "metaworld-ml1-reach-v3"):
        dist = envs.make(id)
        task = dist.tasks("test")[-1]
        made, direct = gymnasium.make(envs.gymnasium_id(id), task=task, disable_env_checker=True), dist.env(task)
        assert np.array_equal(made.reset(seed=4)[0], direct.reset(seed=4)[0])
        action = np.full(dist.action_space.shape or (), 0.3, np.float32)
        assert made.step(action)[1] == direct.step(action)[1]


def test_gymnasium_makes_the_vector_environment() -> None:
    venv = gymnasium.make_vec("metarl/PointNavigation-v0", num_envs=3, tasks=[TASK, OTHER, TASK])
    assert isinstance(venv, TaskVectorEnv)
    assert venv.spec is not None and venv.spec.max_episode_steps == venv.horizon == DIST.horizon
    assert venv.tasks == (TASK, OTHER, TASK)
    for asked, wanted in ((7, 7), (-1, None)):
        other = gymnasium.make_vec("metarl/PointNavigation-v0", num_envs=2, max_episode_steps=asked)
        assert isinstance(other, TaskVectorEnv)
        assert other.horizon == wanted
    with pytest.raises(ValueError, match="unknown render_mode 'human'"):
        gymnasium.make_vec("metarl/PointNavigation-v0", num_envs=2, render_mode="human")


def test_gymnasiums_own_vector_environments_take_it() -> None:
    venv = gymnasium.make_vec("metarl/PointNavigation-v0", num_envs=2, vectorization_mode="sync", task=TASK)
    venv.reset(seed=0)
    direct = DIST.env(TASK)
    direct.reset(seed=0)
    assert venv.step(np.stack([FORWARD, FORWARD]))[1].tolist() == [direct.step(FORWARD)[1]] * 2
    venv.close()
