"""Plain environments in worker processes: the same bit for bit, and what happens when one fails, hangs or dies."""

import dataclasses
import threading
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from metarl import envs
from metarl.agents.fixed import random_policy
from metarl.envs import EnvDistribution, TaskVectorEnv, process_simulator
from metarl.envs.classic_control import cartpole_physics
from metarl.envs.gymnasium_simulator import GymnasiumSimulator
from metarl.envs.gymnasium_workers import GymnasiumGame, step_seconds
from metarl.envs.process_simulator import WorkerSimulator
from metarl.errors import RunError, WorkerLostError
from metarl.learning.collect import Collector
from metarl.learning.random_streams import task_seeds
from metarl.registry import load_object
from tests.envs.metaworld.test_process_simulator import wait_until_gone

FILE = Path(__file__).parent.parent / "external" / "slow_world.py"
FAIL, HANG, DIE = 0.625, 0.75, 0.875


def slow(stepping: str, seconds: float = 0.0) -> EnvDistribution:
    """Of a file that workers cannot import, by a lambda."""
    make = load_object(f"{FILE}:slow")
    assert callable(make)
    dist = make(stepping, seconds)
    assert isinstance(dist, EnvDistribution)
    return dist


def workers(venv: TaskVectorEnv) -> WorkerSimulator:
    simulator = venv._simulator  # pyright: ignore[reportPrivateUsage]
    assert isinstance(simulator, WorkerSimulator)
    return simulator


def test_results_are_the_same_bit_for_bit() -> None:
    """Of a Dict space, with chance, ends and terms; the second collection in the same workers."""
    found = []
    for stepping, threads in (("here", 1), ("processes", 2)):
        dist = slow(stepping)
        collector = Collector(dist, threads)
        tasks = dist.sample("train", 5, np.random.default_rng(0))
        played = [
            collector.collect_episodes(random_policy(dist.spaces), tasks, 2, task_seeds(seed, num_tasks=5))
            for seed in (0, 1)
        ]
        collector.close()
        found.append(played)
    for one, other in zip(*found, strict=True):
        assert 0 < int(one.terminated.sum()) < 10
        for name, tensor in one.tensors().items():
            assert torch.equal(tensor, other.tensors()[name]), name


def test_terms_and_an_id_of_gymnasiums_registry_go_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers do not know what only this process has registered."""
    monkeypatch.setitem(gym.registry, "OnlyHere-v0", gym.spec("CartPole-v1"))  # is taken away after the test
    del gym.registry["OnlyHere-v0"]
    gym.register("OnlyHere-v0", entry_point="gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=500)
    parameters = {"gravity": envs.make("cartpole-physics").space.train[0].parameters["gravity"]}
    made = [
        envs.from_gymnasium("OnlyHere-v0", id="only-here", parameters=parameters, stepping=stepping).vector_env(3, 2)
        for stepping in ("here", "processes")
    ]
    assert workers(made[1]).processes
    for venv in made:
        venv.reset(seed=3)
    for step in range(20):
        actions = np.array([0, 1, step % 2])
        one, other = (venv.step(actions) for venv in made)
        assert all(np.array_equal(a, b) for a, b in zip(one[:4], other[:4], strict=True))
        assert one[4].keys() == other[4].keys()
    for venv in made:
        venv.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metarl.envs.gymnasium_workers.PATIENCE", 2.0)


@pytest.mark.parametrize(
    ("action", "kind", "message"),
    [
        (
            FAIL,
            RunError,
            r"lambda> failed in step 2 on physics\(gain=.*\): ArithmeticError: told to fail$",
        ),
        (HANG, WorkerLostError, r"worker 2 of 2 has made no progress for 2 s while stepping physics\(gain="),
        (DIE, WorkerLostError, r"worker 2 of 2 ended with status 3 while stepping physics\(gain="),
    ],
    ids=["fails", "hangs", "dies"],
)
def test_one_that_fails_hangs_or_dies_is_named_within_seconds_and_none_is_left(
    action: float, kind: type[Exception], message: str, impatient: None
) -> None:
    venv = slow("processes").vector_env(4, threads=2)
    venv.reset(seed=0)
    _, _, terminated, _, _ = venv.step(np.ones((4, 2), np.float32) * 0.1)
    pids, actions = workers(venv).processes, np.zeros((4, 2), np.float32)
    actions[3 if terminated[1] else 1, 0] = action
    began = time.monotonic()
    with pytest.raises(kind, match=message) as raised:
        venv.step(actions)
    assert "\n" not in str(raised.value)
    assert time.monotonic() - began < 30
    wait_until_gone(*pids)


def test_a_measurement_chooses_and_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def choose(seconds: float, threads: int) -> tuple[TaskVectorEnv, str]:
        monkeypatch.setattr("metarl.envs.gymnasium_workers.step_seconds", lambda game, probe: seconds)
        return slow("measured").vector_env(4, threads), capsys.readouterr().err

    quick, told = choose(1e-3, 2)
    assert told.endswith("a step takes 1,000 µs, so 4 environments are stepped in this process\n")
    assert isinstance(quick._simulator, GymnasiumSimulator)  # pyright: ignore[reportPrivateUsage]
    venv, told = choose(3e-3, 2)
    assert told.endswith("a step takes 3,000 µs, so 4 environments are stepped in 2 worker processes\n")
    pids = workers(venv).processes
    venv.close()
    wait_until_gone(*pids)
    alone, told = choose(3e-3, 1)
    assert isinstance(alone._simulator, GymnasiumSimulator) and told == ""  # pyright: ignore[reportPrivateUsage]


def test_the_measurement_is_of_a_step() -> None:
    dist = slow("measured", 0.02)
    game = dist.make_simulator.keywords["game"]  # pyright: ignore[reportFunctionMemberAccess]
    assert 0.02 <= step_seconds(game, dist.tasks("train")[0]) < 1


def test_what_cannot_be_sent_is_refused_by_name() -> None:
    game = cartpole_physics().make_simulator.keywords["game"]  # pyright: ignore[reportFunctionMemberAccess]
    assert isinstance(game, GymnasiumGame)
    lock = threading.Lock()
    locked = dataclasses.replace(game, recipe=dataclasses.replace(game.recipe, env=lambda: lock))
    with pytest.raises(ValueError, match="cannot be sent to worker processes: TypeError"):
        WorkerSimulator(2, 2, game.spaces, locked)
    assert process_simulator.PATIENCE >= 2
