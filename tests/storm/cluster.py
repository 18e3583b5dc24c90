"""Kills workers and whole nodes of a Ray cluster at random moments while a training plays on them.

`cluster_storm.py --kills 30 --seed 0`: a head without CPUs and three nodes; MAML trains with three workers, and every
few steps a worker's process is killed, or a node is lost and another one joins. The training must go on by itself,
end with the very parameters of one that played in its own process, and leave no worker behind. Exit status: 0 where it
did.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ray.cluster_utils import Cluster

import metarl
from metarl.runs.trained import TrainedAgent
from tests.storm.suite import descendants

SMALL = ("maml", "--env", "point-navigation", "--hidden", "8", "--meta-batch", "6", "--episodes-per-adaptation", "4")
SMALL = (*SMALL, "--validation-tasks", "3", "--validate-every", "0", "--threads", "1", "--seed", "0")
SYSTEM = {"worker_niceness": 0, "prestart_worker_first_driver": False, "enable_worker_prestart": False}
PATIENCE = 60.0  # s in which a lost node's processes end


def main(arguments: Sequence[str]) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pause", type=float, default=2.0, help="most seconds from a step to a kill")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        return storm(Path(folder), options.kills, random.Random(options.seed), options.pause)


def storm(folder: Path, kills: int, rng: random.Random, pause: float) -> int:
    """Trains through so many kills, and again without any; 0 where both ended alike."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": SYSTEM})
    nodes = [_node(cluster) for _ in range(3)]
    log, run = folder / "log.txt", folder / "many"
    assert cluster.address is not None
    more = ("--workers", "3", "--cluster", cluster.address, "--steps", "1000000")
    with log.open("wb") as output:
        training = subprocess.Popen([*_train(run), *more], stdout=output, stderr=output)
    killed, resident = {"worker": 0, "node": 0}, list[float]()
    try:
        _wait_for_step(run, 1, training)
        while sum(killed.values()) < kills:
            _wait_for_step(run, _steps(run) + 1, training)  # between two kills there is always some work
            time.sleep(rng.uniform(0.0, pause))
            if training.poll() is not None:
                break
            if rng.random() < 0.75:
                players = _players()
                if not players:
                    continue
                os.kill(rng.choice(players), signal.SIGKILL)
                killed["worker"] += 1
            else:
                cluster.remove_node(nodes.pop(rng.randrange(len(nodes))), allow_graceful=False)
                nodes.append(_node(cluster))
                killed["node"] += 1
            resident.append(_resident(training.pid))
            print(f"{sum(killed.values())} of {kills}: step {_steps(run)}, {resident[-1]:.0f} MiB", flush=True)
        if training.poll() is None:
            _wait_for_step(run, _steps(run) + 2, training)
            training.send_signal(signal.SIGINT)
        status = training.wait(PATIENCE * 5)
        time.sleep(2)
        left = _players()
    finally:
        training.kill()
        cluster.shutdown()
    end = _loaded(run)
    print(log.read_text().strip().splitlines()[-1])
    alone = folder / "alone"
    subprocess.run([*_train(alone), "--steps", str(end.ref.step)], check=True, capture_output=True)
    expected = _loaded(alone).state
    same = all(torch.equal(value, end.state.parameters[name]) for name, value in expected.parameters.items())
    same = same and all(torch.equal(value, end.state.optimizer[name]) for name, value in expected.optimizer.items())
    print(
        f"{killed['worker']} workers and {killed['node']} nodes killed in {end.ref.step} outer steps; "
        f"exit status {status}; parameters {'the same' if same else 'DIFFERENT'}; {len(left)} workers left behind; "
        f"driver {resident[0]:.0f} MiB at the first kill, {resident[-1]:.0f} at the last"
    )
    return 0 if same and not left and status == 128 + signal.SIGINT and sum(killed.values()) == kills else 1


def _node(cluster: Cluster) -> Any:  # Ray does not type its nodes
    """Another node; Ray gives one 30 s to start, which is little on a busy machine."""
    for _ in range(10):
        try:
            return cluster.add_node(num_cpus=3)
        except Exception as error:
            print(f"a node did not start: {error}", flush=True)
    raise RuntimeError("no node starts on this machine")


def _train(run: Path) -> list[str]:
    return [sys.executable, "-c", "from metarl.commands.main import main; main()", "train", *SMALL, "--run", str(run)]


def _loaded(run: Path) -> TrainedAgent:
    trained = metarl.load(run)
    assert isinstance(trained, TrainedAgent)
    return trained


def _steps(run: Path) -> int:
    path = run / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.is_file() else 0


def _wait_for_step(run: Path, step: int, training: "subprocess.Popen[bytes]") -> None:
    while _steps(run) < step and training.poll() is None:
        time.sleep(0.2)


def _players() -> list[int]:
    """The ids of the processes that play: nodes are this process's children, workers are theirs."""
    return [pid for pid in descendants(os.getpid()) if b"ray::Player" in _command(pid)]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has just ended
        return b""


def _resident(pid: int) -> float:
    """MiB that a process holds."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
