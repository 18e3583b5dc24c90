"""Kills workers, whole nodes, and in the end the head of a Ray cluster at random moments while a training plays there.

`storm.py --cluster --kills 30 --seed 0`: a head without CPUs and two nodes; MAML trains with three workers. Between
kills there is at least one outer step. The training must go on by itself through the loss of workers and nodes, end
with one line where the head is lost, and go on from its checkpoint on another cluster. Wrong is an end that differs in
any bit from that of a training in one process (parameters, optimiser, counters, metrics without the clock's), a
traceback, a loss that goes unsaid, and a process that outlives the training and its clusters.
"""

import contextlib
import dataclasses
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, Literal, final

from ray.cluster_utils import Cluster

from metarl.commands.benchmark_training import resident
from tests.storm.suite import descendants, last_state, reap

SMALL = ("maml", "--env", "point-navigation", "--hidden", "8", "--meta-batch", "6", "--episodes-per-adaptation", "4")
SMALL = (*SMALL, "--validation-tasks", "3", "--validate-every", "1", "--threads", "1", "--seed", "0")
WORKERS, NODES = 3, 2
SYSTEM = {"worker_niceness": 0, "prestart_worker_first_driver": False, "enable_worker_prestart": False}
NODES_SHARE = 0.25  # of kills
PATIENCE = 900.0  # s for a step, or for a training to end, either of which takes a fraction of one

Target = Literal["worker", "node"]


@final
@dataclasses.dataclass
class Outcome:
    """What was killed, and what went wrong."""

    killed: dict[Target, int] = dataclasses.field(default_factory=lambda: {"worker": 0, "node": 0})
    busy: int = 0
    """Workers that were killed in the middle of a share."""
    steps: int = 0
    """Outer steps that were trained under the kills, head's included."""
    resident: list[float] = dataclasses.field(default_factory=list)
    """MiB that the training's process held at each kill."""
    faults: list[str] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        """One line."""
        first, last = self.resident[0], self.resident[-1]
        wrong = "; ".join(self.faults) or "nothing lost, nothing orphaned"
        return (
            f"{self.killed['worker']} workers ({self.busy} of them amid a share), {self.killed['node']} nodes and the "
            f"head killed in {self.steps} outer steps; its process held {first:.0f} MiB at the first kill and "
            f"{last:.0f} at the last; {wrong}"
        )


def plan(kills: int, rng: random.Random) -> list[Target]:
    """What to kill, in random order: a quarter of it nodes, at least one."""
    nodes = max(1, round(NODES_SHARE * kills))
    targets: list[Target] = [*repeat("node", nodes), *repeat("worker", kills - nodes)]
    rng.shuffle(targets)
    return targets


def storm(folder: Path, targets: Sequence[Target], rng: random.Random, pause: float = 2.0) -> Outcome:
    """Trains through these kills and the head's, and once more in one process.

    This process must be one that orphans become children of.

    Args:
        folder: for the runs.
        targets: what to kill.
        rng: decides when, and which of them.
        pause: most seconds from a step to a kill.
    """
    outcome, run = Outcome(), folder / "many"
    with _cluster() as cluster:
        training = Training(run, cluster.address)
        try:
            for target in targets:
                _kill(target, cluster, training, rng, pause, outcome)
                print(f"{sum(outcome.killed.values())} of {len(targets)}: {target}, step {training.steps}", flush=True)
            training.wait_for_steps(1)
            cluster.remove_node(cluster.head_node, allow_graceful=False)
            status, said = training.end()
        finally:
            training.process.kill()
        if status != 1 or not re.match(r"error: the head of the cluster, \S+, has not answered", said):
            outcome.faults.append(f"the head's loss ended the training with {status}: {said}")
    with _cluster() as cluster:
        training = Training(run, cluster.address)
        try:
            training.wait_for_steps(2)
            training.process.send_signal(signal.SIGINT)
            status, said = training.end()
        finally:
            training.process.kill()
        outcome.steps = training.steps
        if status != 128 + signal.SIGINT:
            outcome.faults.append(f"it did not go on after the head's loss: {status}: {said}")
    if left := reap():
        outcome.faults.append(f"{len(left)} processes left behind")
    if "Traceback" in training.log.read_text():
        outcome.faults.append("a traceback")
    alone = [*_command(folder / "alone"), "--steps", str(outcome.steps)]
    subprocess.run(alone, check=True, capture_output=True)
    if found := differences(last_state(run, outcome.steps), last_state(folder / "alone", outcome.steps)):
        outcome.faults.append(f"it ended otherwise than undisturbed: {found}")
    return outcome


def differences(one: tuple[object, ...], other: tuple[object, ...]) -> str:
    """Which parts of two `last_state` differ, and the first row of metrics that does; empty where none does."""
    parts = ("parameters", "optimiser", "counters")
    found = [name for name, here, there in zip(parts, one, other, strict=False) if here != there]
    rows, others = one[-1], other[-1]
    assert isinstance(rows, list) and isinstance(others, list)
    different = [(here, there) for here, there in itertools.zip_longest(rows, others) if here != there]
    if different:
        found.append(f"{len(different)} rows of metrics, the first {different[0][0]}, not {different[0][1]}")
    return ", ".join(found)


@final
class Training:
    """A training on a cluster, in a process of its own, that goes on until it is stopped."""

    def __init__(self, run: Path, address: str | None) -> None:
        assert address is not None
        self._run, self.log = run, run.with_suffix(".txt")
        more = ("--workers", str(WORKERS), "--cluster", address, "--steps", "1000000")
        with self.log.open("ab") as output:
            self.process = subprocess.Popen([*_command(run), *more], stdout=output, stderr=output)

    @property
    def steps(self) -> int:
        """Outer steps that are done."""
        path = self._run / "metrics.jsonl"
        return len(path.read_text().splitlines()) if path.is_file() else 0

    def wait_for_steps(self, count: int) -> None:
        """Until so many more are done, or it ends."""
        until, wanted = time.monotonic() + PATIENCE, self.steps + count
        while self.steps < wanted and self.process.poll() is None:
            if time.monotonic() > until:
                raise RuntimeError(f"no {count} steps in {PATIENCE:g} s:\n{self.log.read_text()}")
            time.sleep(0.05)

    def end(self) -> tuple[int, str]:
        """Waits for its end: the exit status, and what it said last."""
        status = self.process.wait(PATIENCE)
        return status, self.log.read_text().strip().splitlines()[-1]

    def players(self) -> list[tuple[int, bool]]:
        """The processes of its workers that have started, and whether they are playing."""
        found = [(pid, _title(pid)) for pid in descendants(os.getpid())]  # nodes are children, workers theirs
        return [(pid, b".play" in title) for pid, title in found if title.startswith(b"ray::Player")]


def _kill(
    target: Target, cluster: Cluster, training: Training, rng: random.Random, pause: float, outcome: Outcome
) -> None:
    """One kill, after at least one more step."""
    training.wait_for_steps(1)
    time.sleep(rng.uniform(0.0, pause))
    if target == "node":
        cluster.remove_node(rng.choice(sorted(cluster.worker_nodes, key=id)), allow_graceful=False)
        add_node(cluster)
    else:
        while not (players := training.players()) and training.process.poll() is None:
            time.sleep(0.02)
        pid, playing = rng.choice(players)
        os.kill(pid, signal.SIGKILL)
        outcome.busy += playing
    if training.process.poll() is not None:
        raise RuntimeError(f"the training ended by itself:\n{training.log.read_text()}")
    outcome.killed[target] += 1
    outcome.resident.append(resident(training.process.pid))


@contextlib.contextmanager
def _cluster() -> Iterator[Cluster]:
    """A head without CPUs, and nodes."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": SYSTEM})
    try:
        for _ in range(NODES):
            add_node(cluster)
        yield cluster
    finally:
        cluster.shutdown()


def add_node(cluster: Cluster) -> Any:  # Ray does not type its nodes
    """Another node; Ray gives one 30 s to start, which is little on a busy machine."""
    for _ in range(10):
        try:
            return cluster.add_node(num_cpus=WORKERS)
        except Exception as error:
            print(f"a node did not start: {error}", flush=True)
    raise RuntimeError("no node starts on this machine")


def _command(run: Path) -> list[str]:
    return [sys.executable, "-c", "from metarl.commands.main import main; main()", "train", *SMALL, "--run", str(run)]


def _title(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has just ended
        return b""
