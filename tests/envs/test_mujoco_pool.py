"""The pool of simulations: faults are seen, and stay where they happen."""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)

from pathlib import Path

import mujoco
import numpy as np
import pytest
from numpy import ndarray

from metarl import envs
from metarl.envs.body import default_model
from metarl.envs.body_models import body_xml
from metarl.envs.ground import ground_world
from metarl.envs.mujoco_pool import MujocoPool
from metarl.envs.planar import HALF_CHEETAH
from metarl.envs.terrain import INTEGRATION
from metarl.tasks import Task

EVERYBODY = np.ones(3, bool)


def started(threads: int = 1, model: mujoco.MjModel | None = None) -> MujocoPool:
    pool = MujocoPool(default_model(HALF_CHEETAH) if model is None else model, 3, 5, threads)
    for index in range(3):
        pool.reset(index, np.zeros(9), np.zeros(9))
    return pool


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("position", "velocity"),
    [(np.nan, 0.0), (1e12, 0.0), (0.0, np.inf), (0.0, 1e12), (0.0, 1e8)],
    ids=[
        "nan position",
        "huge position",
        "infinite velocity",
        "huge velocity",
        "velocity that makes a bad acceleration",
    ],
)
def test_blow_ups_are_seen(position: float, velocity: float, threads: int) -> None:
    pool, healthy = started(threads), started()
    qpos, qvel = np.zeros(9), np.zeros(9)
    qpos[3], qvel[3:] = position, velocity
    pool.reset(1, qpos, qvel)
    diverged = np.zeros(3, bool)
    for _ in range(3):
        diverged |= pool.step(np.full((3, 6), 0.1), EVERYBODY & ~diverged)
        assert not healthy.step(np.full((3, 6), 0.1), EVERYBODY).any()
    assert diverged.tolist() == [False, True, False]
    for index in (0, 2):
        assert np.array_equal(pool.qpos[index], healthy.qpos[index])
    pool.reset(1, np.zeros(9), np.zeros(9))
    assert not pool.step(np.zeros((3, 6)), EVERYBODY).any()
    pool.close()


def test_mujoco_itself_would_carry_on() -> None:
    """Why the pool reads warning counters: after a blow-up MuJoCo shows a finite, plausible state."""
    pool = started()
    pool.reset(1, np.zeros(9), np.full(9, 1e12))
    assert pool.step(np.zeros((3, 6)), EVERYBODY)[1]
    assert np.abs(pool.qpos[1]).max() < 1


@pytest.mark.parametrize("bytes_", [2048, 8192], ids=["MuJoCo raises", "MuJoCo warns"])
def test_too_little_memory_is_seen(bytes_: int) -> None:
    pool = started(model=mujoco.MjModel.from_xml_string(body_xml("half_cheetah.xml", bytes_)))
    diverged = np.zeros(3, bool)
    for _ in range(10):  # until the feet touch the ground, memory is not an issue
        diverged |= pool.step(np.ones((3, 6)), EVERYBODY & ~diverged)
    assert diverged.all()


def test_leaves_no_log_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pool = started()
    pool.reset(1, np.zeros(9), np.full(9, np.inf))
    pool.step(np.zeros((3, 6)), EVERYBODY)
    assert list(tmp_path.iterdir()) == []


def test_the_idle_stay_where_they_are() -> None:
    pool = started()
    pool.step(np.zeros((3, 6)), np.array([True, False, True]))
    assert not pool.qpos[1].any()
    assert np.array_equal(pool.qpos[0], pool.qpos[2])
    assert pool.qpos[0].any()


def test_changing_models_leaves_no_trace() -> None:
    """Memory goes from model to model; what happens must be what happens in fresh memory."""
    grounds = [
        Task.of("sand", damping=2.0, depth=0.08, drag=5.0, softness=0.08),
        Task.of("rough", amplitude=0.2, seed=3.0, wavelength=1.5),
        Task.of("slope-up", slope=7.0),
        Task.of("ice", friction=0.05),
    ]
    actions = np.random.default_rng(0).uniform(-1, 1, (40, 1, 6)).repeat(3, 1)
    used = started()
    for ground in grounds:
        model = ground_world(HALF_CHEETAH, INTEGRATION, ground).model
        fresh = MujocoPool(model, 3, 5, 1)
        for index in range(3):
            used.load(index, model)
            for pool in (used, fresh):
                pool.reset(index, np.full(9, 0.01 * index), np.zeros(9))
        for step in range(40):
            used.step(actions[step], EVERYBODY)
            fresh.step(actions[step], EVERYBODY)
            assert np.array_equal(used.qpos, fresh.qpos)
            assert np.array_equal(used.qvel, fresh.qvel)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_blow_up_ends_one_episode(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    start = MujocoPool.reset

    def explosive(self: MujocoPool, index: int, qpos: ndarray, qvel: ndarray) -> None:
        start(self, index, qpos, qvel + (1e8 if index == 1 else 0.0))

    dist = envs.make("cheetah-direction")
    actions = np.random.default_rng(0).uniform(-1, 1, (10, 3, 6))
    healthy = dist.vector_env(3)
    healthy.reset(seed=0)
    with monkeypatch.context() as patch:
        patch.setattr(MujocoPool, "reset", explosive)
        venv = dist.vector_env(3, threads)
        first, _ = venv.reset(seed=0)
    for step in range(10):
        observations, rewards, terminated, truncated, infos = venv.step(actions[step])
        expected = healthy.step(actions[step])
        for index in (0, 2):
            assert np.array_equal(observations[index], expected[0][index])
            assert rewards[index] == expected[1][index]
        assert terminated.tolist() == infos["diverged"].tolist() == [False, True, False]
        assert not truncated.any()
        assert rewards[1] == infos["x_velocity"][1] == 0
        assert np.array_equal(observations[1], first[1])
    venv.reset(seed=0)
    assert not venv.step(actions[0])[4]["diverged"].any()
