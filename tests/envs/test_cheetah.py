"""The cheetah against Gymnasium's HalfCheetah-v5, the independent oracle."""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)

import dataclasses
from typing import cast

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv

from metarl import envs
from metarl.envs import TaskVectorEnv
from metarl.envs.body import default_model
from metarl.envs.integration import Integration
from metarl.envs.planar import HALF_CHEETAH
from metarl.envs.terrain import INTEGRATION
from metarl.tasks import Task

TASKS = {
    "cheetah-direction": Task.of("direction", direction=1.0),
    "cheetah-velocity": Task.of("velocity", velocity=1.5),
    "cheetah-terrain": Task.of("flat", direction=1.0, friction=0.4),
}


def oracles(count: int, integration: Integration = HALF_CHEETAH.integration) -> list[HalfCheetahEnv]:
    """Gymnasium's HalfCheetah-v5, with another integrator where one is given."""
    cheetahs = [cast(HalfCheetahEnv, gymnasium.make("HalfCheetah-v5").unwrapped) for _ in range(count)]
    if integration != HALF_CHEETAH.integration:
        for cheetah in cheetahs:
            integration.configure(cheetah.model)
            cheetah.frame_skip = integration.frame_skip
    return cheetahs


def playing(id: str, count: int, horizon: int) -> TaskVectorEnv:
    venv = dataclasses.replace(envs.make(id), horizon=horizon).vector_env(count)
    venv.set_tasks([TASKS[id]] * count)
    return venv


@pytest.mark.parametrize(
    ("id", "precision"),
    [(id, np.float32) for id in TASKS] + [("cheetah-terrain", np.float64)],
)
def test_moves_bit_for_bit_as_half_cheetah(id: str, precision: type) -> None:
    """On default ground; `cheetah-terrain` as one that has its integrator."""
    count, horizon = 3, 1000
    integration = INTEGRATION if id == "cheetah-terrain" else HALF_CHEETAH.integration
    venv, cheetahs = playing(id, count, horizon), oracles(count, integration)
    rng = np.random.default_rng(0)
    for seed in (11, None):  # without a seed, the streams of random numbers go on
        observations, _ = venv.reset(seed=seed)
        starts = [each.reset(seed=None if seed is None else seed + i)[0] for i, each in enumerate(cheetahs)]
        assert np.array_equal(observations, starts)
        for step in range(1, horizon + 1):
            actions = rng.uniform(-1.3, 1.3, (count, 6)).astype(precision)
            observations, rewards, terminated, truncated, infos = venv.step(actions)
            wanted = [each.step(action) for each, action in zip(cheetahs, actions, strict=True)]
            assert np.array_equal(observations, [one[0] for one in wanted])
            for ours, theirs in (("x_position", "x_position"), ("x_velocity", "x_velocity"), ("reward_ctrl",) * 2):
                assert np.array_equal(infos[ours], [one[4][theirs] for one in wanted])
            if id == "cheetah-velocity":
                assert np.array_equal(infos["reward_task"], [-abs(one[4]["x_velocity"] - 1.5) for one in wanted])
            else:
                assert np.array_equal(infos["reward_task"], [one[4]["reward_forward"] for one in wanted])
                assert np.array_equal(rewards, [one[1] for one in wanted])
            assert np.array_equal(rewards, infos["reward_task"] + infos["reward_ctrl"])
            assert not terminated.any()
            assert truncated.tolist() == [step == horizon] * count


def test_half_cheetahs_integration_is_gymnasiums() -> None:
    (cheetah,) = oracles(1)
    model = mujoco.MjModel.from_xml_string("<mujoco/>")
    HALF_CHEETAH.integration.configure(model)
    for name in ("timestep", "integrator", "cone"):
        assert getattr(cheetah.model.opt, name) == getattr(model.opt, name)
    assert cheetah.frame_skip == HALF_CHEETAH.integration.frame_skip
    assert cheetah.dt == HALF_CHEETAH.integration.control_period == INTEGRATION.control_period


def test_backwards_is_rewarded_backwards() -> None:
    venv = envs.make("cheetah-direction").vector_env(2)
    venv.set_tasks([Task.of("direction", direction=1.0), Task.of("direction", direction=-1.0)])
    venv.reset(seed=[3, 3])
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 1, 6)).repeat(2, 1)
    for step in range(20):
        _, rewards, _, _, infos = venv.step(actions[step])
        assert infos["reward_task"][0] == -infos["reward_task"][1] == infos["x_velocity"][0]
        assert np.array_equal(rewards, infos["reward_task"] + infos["reward_ctrl"])


def test_specs_are_the_published_ones() -> None:
    direction, velocity, slower = map(envs.make, ("cheetah-direction", "cheetah-velocity", "cheetah-velocity-2"))
    assert (direction.horizon, velocity.horizon, slower.horizon) == (100, 200, 200)
    assert {task["direction"] for task in direction.tasks("test")} == {-1.0, 1.0}
    assert not direction.held_out
    for dist, fastest in ((velocity, 3.0), (slower, 2.0)):
        drawn = [task.number("velocity") for task in dist.sample("train", 2000, np.random.default_rng(0))]
        assert 0 <= min(drawn) < 0.01 * fastest
        assert 0.99 * fastest < max(drawn) <= fastest
        assert dist.held_out
    assert velocity.physics["mujoco"] == mujoco.__version__


def test_little_memory_is_enough_and_changes_nothing() -> None:
    """Half a minute of thrashing about, on Gymnasium's 6 MB of scratch memory and on ours."""
    theirs = oracles(1)[0]
    theirs.reset(seed=0)
    model = default_model(HALF_CHEETAH)
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = theirs.data.qpos, theirs.data.qvel
    mujoco.mj_forward(model, data)
    rng = np.random.default_rng(0)
    for _ in range(600):
        action = rng.choice([-1.0, 1.0], 6)
        theirs.step(action)
        data.ctrl[:] = action
        mujoco.mj_step(model, data, 5)
        assert np.array_equal(data.qpos, theirs.data.qpos)
        assert np.array_equal(data.qvel, theirs.data.qvel)
    assert theirs.model.narena > 20 * model.narena
    assert model.narena == HALF_CHEETAH.arena_bytes
    assert data.maxuse_arena < HALF_CHEETAH.arena_bytes / 4
