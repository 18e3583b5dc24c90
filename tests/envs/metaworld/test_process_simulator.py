# pyright: reportPrivateUsage=false
"""Worker processes: that they change nothing, and what happens when one is killed or hangs, or the parent is."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl import envs
from metarl.envs import process_simulator
from metarl.envs.metaworld.class_simulator import SimulationOptions
from metarl.envs.metaworld.distribution import ACTION_SPACE, observation_space
from metarl.envs.metaworld.simulator import MetaworldGame
from metarl.envs.process_simulator import WorkerSimulator
from metarl.envs.vector import TaskVectorEnv
from metarl.errors import WorkerLostError
from metarl.learning.collect import Collector
from metarl.learning.episodes import Episodes
from metarl.learning.protocols import Carry, Memoryless
from metarl.learning.random_streams import TaskRandom

DIST = envs.make("metaworld-ml1-reach-v3")


@dataclasses.dataclass(frozen=True)
class Noise(Memoryless):
    """Acts at random."""

    def act(self, observations: Tensor, carry: Carry, random: TaskRandom | None) -> tuple[Tensor, Carry]:
        assert random is not None
        return random.normal(4), carry

    def adapt(self, support: Episodes) -> "Noise":
        return self


@pytest.fixture
def simulator() -> Iterator[WorkerSimulator]:
    simulator = WorkerSimulator(
        4, 2, (observation_space(False), ACTION_SPACE), MetaworldGame(SimulationOptions()), patience=2.0
    )
    yield simulator
    simulator.close()


def running(simulator: WorkerSimulator) -> TaskVectorEnv:
    venv = TaskVectorEnv(simulator, DIST.horizon, DIST.families, DIST.tasks("train")[:4])
    venv.reset(seed=0)
    return venv


def gone(pid: int) -> bool:
    """Whether no such process runs; a child that nobody has waited for has ended too."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state in "ZX"


def wait_until_gone(*pids: int) -> None:
    deadline = time.monotonic() + 20
    while not all(map(gone, pids)):
        assert time.monotonic() < deadline, "a worker lives on"
        time.sleep(0.05)


def test_a_killed_worker_is_reported_with_its_task(simulator: WorkerSimulator) -> None:
    venv = running(simulator)
    first, second = simulator.processes
    os.kill(second, signal.SIGKILL)
    with pytest.raises(WorkerLostError, match=r"worker 2 of 2 was killed by SIGKILL while stepping reach-v3\(rand_0="):
        venv.step(np.zeros((4, 4), np.float32))
    wait_until_gone(first, second)


def test_a_worker_that_hangs_is_noticed_within_seconds(simulator: WorkerSimulator) -> None:
    venv = running(simulator)
    pids = simulator.processes
    os.kill(pids[0], signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(WorkerLostError, match="worker 1 of 2 has made no progress for 2 s while stepping reach-v3"):
        venv.step(np.zeros((4, 4), np.float32))
    assert time.monotonic() - began < 20
    wait_until_gone(*pids)


def test_workers_end_with_the_environment() -> None:
    venv = DIST.vector_env(2, threads=2)
    simulator = venv._simulator
    assert isinstance(simulator, WorkerSimulator)
    pids = simulator.processes
    venv.reset(seed=0)
    del venv, simulator  # nobody called close
    wait_until_gone(*pids)


@pytest.mark.parametrize("stopped", [False, True])
def test_no_worker_outlives_a_killed_parent(stopped: bool) -> None:
    """Not even one that is stopped, and could do nothing about it itself."""
    program = """
import sys, time
from metarl import envs
venv = envs.make("metaworld-ml1-reach-v3").vector_env(2, threads=2)
venv.reset(seed=0)
print(*venv._simulator.processes, flush=True)
import numpy as np
while True:
    venv.step(np.zeros((2, 4), np.float32))
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    assert not any(map(gone, pids))
    if stopped:
        os.kill(pids[0], signal.SIGSTOP)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until_gone(*pids)


def test_a_lost_trial_is_played_again_and_comes_out_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = DIST.tasks("train")[:2]
    short = dataclasses.replace(DIST, horizon=30)
    expected = Collector(short, threads=1).collect_episodes(Noise(), tasks, 1, (4, 5))
    started, calls = process_simulator._start, []

    def fragile(*arguments: object) -> object:
        worker = started(*arguments)  # pyright: ignore[reportArgumentType]
        calls.append(worker.process.pid)
        if len(calls) == 2:
            worker.process.kill()
        return worker

    monkeypatch.setattr(process_simulator, "_start", fragile)
    collector = Collector(short, threads=2)
    found = collector.collect_episodes(Noise(), tasks, 1, (4, 5))
    assert len(calls) == 4
    assert "worker 2 of 2 was killed by SIGKILL" in capsys.readouterr().err
    for name, tensor in expected.tensors().items():
        assert torch.equal(tensor, found.tensors()[name]), name
    collector.close()
    wait_until_gone(*calls)


def test_workers_that_are_lost_again_end_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    started = process_simulator._start

    def dying(*arguments: object) -> object:
        worker = started(*arguments)  # pyright: ignore[reportArgumentType]
        worker.process.kill()
        return worker

    monkeypatch.setattr(process_simulator, "_start", dying)
    with pytest.raises(WorkerLostError, match="was killed by SIGKILL while resetting its first task"):
        Collector(DIST, threads=2).collect_episodes(Noise(), DIST.tasks("train")[:2], 1, (4, 5))


FORKED = """
import os, sys
import numpy as np
from metarl import envs
venv = envs.make("metaworld-ml1-reach-v3").vector_env(2, threads=2)
first, _ = venv.reset(seed=0)
child = os.fork()
if not child:
    try:
        venv.step(np.zeros((2, 4), np.float32))
    except RuntimeError as error:
        print(error, flush=True)
    venv.close()
    own = envs.make("metaworld-ml1-reach-v3").vector_env(2)
    same = np.array_equal(own.reset(seed=0)[0], first)
    sys.exit(0 if same else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
venv.step(np.zeros((2, 4), np.float32))
print("goes on")
"""


def test_a_forked_child_is_refused_its_parents_workers_and_makes_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=120)
    message, status, last = done.stdout.splitlines()
    assert "make it anew there, after the fork" in message
    assert (status, last) == ("0", "goes on")
    assert done.stderr == ""


def test_workers_load_no_pytorch() -> None:
    program = "import sys, metarl.envs.process_worker, metarl.envs.metaworld.simulator; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_only_one_module_imports_metaworld() -> None:
    root = Path(envs.__file__).parent.parent
    found = [
        path.name
        for folder in (root, root / "envs", root / "agents")  # links are not followed
        for path in folder.resolve().rglob("*.py")
        for line in path.read_text().splitlines()
        if line.lstrip().startswith(("import metaworld", "from metaworld"))
    ]
    assert set(found) == {"metaworld_api.py"}
