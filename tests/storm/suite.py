"""Kills trainings at random moments, goes on with them, and compares their ends with those of uninterrupted ones.

`storm.py --kills 200 --seed 0`: each learner in turn, as its program trains it, on a small budget. Most kills are
SIGKILL, some are SIGINT, SIGTERM, or the kill of one of its worker processes. Wrong is an end that differs in any bit
(parameters, optimiser, counters, metrics without the clock's), a traceback, and a process that outlives its maker.
`storm.py --cluster --kills 30 --seed 0`: one training on a Ray cluster instead, whose workers, nodes and head are
killed (`cluster.py`). Exit status: 0 where nothing went wrong.
"""

import argparse
import contextlib
import ctypes
import dataclasses
import importlib
import os
import random
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from metarl import agents
from metarl.commands.main import PROGRAMS
from metarl.fewshot.registry import LEARNERS
from metarl.runs import metrics
from tests.fuzz.harness import CRASHED, ended, guarded, in_here, scheduled
from tests.programs import call

STEPS = 6
PATIENCE = 1800.0  # s for a training, which takes a fraction of one
ENDLESS = 1e9  # s
ORPHAN_PATIENCE = 30.0  # s in which workers notice that their maker is gone
PR_SET_CHILD_SUBREAPER = 36  # of Linux: orphans become this process's children
WORLDS = ("bernoulli-bandit", "point-navigation")
"""Where agents train: in the first that is for them."""
IN_PROCESS = ("--validation-tasks", "1", "--threads", "1")
IN_WORKERS = ("--validation-tasks", "1", "--threads", "2", "--env", "metaworld-ml1-reach-v3")
_TASKS, _UPDATES = ("--meta-batch", "2"), ("--epochs", "1", "--minibatches", "1")
SMALL: Mapping[str, tuple[str, ...]] = {
    "maml": (*_TASKS, "--episodes-per-adaptation", "2", "--hidden", "4"),
    "promp": (*_TASKS, "--episodes-per-adaptation", "2", "--hidden", "4"),
    "ppo": (*_TASKS, "--hidden", "4", *_UPDATES),
    "rl2": (*_TASKS, "--episodes-per-trial", "2", "--hidden", "4", *_UPDATES),
    "varibad": (*_TASKS, *_UPDATES, "--hidden", "4", "--encoder-hidden", "4", "--decoder-layers", "4",
                "--buffer-trials", "6", "--elbo-trials", "2", "--elbo-terms", "5", "--decoded-steps", "5"),
    "sb3-ppo": (*_TASKS, "--hidden", "4", "--epochs", "1"),
    # What it keeps for replay is full before the end, so that chunks of the store are dropped.
    "sb3-sac": (*_TASKS, "--hidden", "4", "--batch-size", "8", "--updates-per-step", "0.1", "--buffer-size", "500"),
}  # fmt: skip
"""Options that make agents quick; others train as they are."""
TASKS = ("--train-ways", "2", "--train-queries", "2")
TRAINED_ON: Mapping[str, tuple[str, ...]] = {"transfer": ()}
"""Sizes of training tasks, for few-shot learners that are trained on tasks."""


@dataclasses.dataclass(frozen=True)
class Training:
    """A command whose run is killed and gone on with."""

    name: str
    program: str
    arguments: tuple[str, ...]
    worlds: tuple[str, ...] = ()
    """Those of an agent that may train in one or another."""

    def start(self, run: Path, output: Path) -> int:
        """The process id of a process that trains."""
        child = os.fork()
        if child == 0:
            status = CRASHED
            with contextlib.suppress(BaseException):
                status = guarded(lambda: call(self.program, *self.arguments, "--run", run), output)
            os._exit(status)
        return child


@dataclasses.dataclass
class Count:
    """What was done and what went wrong."""

    kills: int = 0
    resumes: int = 0
    trainings: int = 0
    different: int = 0
    orphans: int = 0
    tracebacks: int = 0
    by_signal: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def faults(self) -> int:
        return self.different + self.orphans + self.tracebacks

    @property
    def told(self) -> str:
        """All kills, by signal."""
        signals = ", ".join(f"{number} {name}" for name, number in sorted(self.by_signal.items()))
        return f"{self.kills} kills ({signals})"


def trainings(photos: Path, *, workers: bool) -> tuple[Training, ...]:
    """One of each learner that has a name, and one in worker processes."""
    loop = ("--steps", str(STEPS), "--checkpoint-every", "2", "--validate-every", "3")
    own = [
        Training(name, "train", (name, *IN_PROCESS, *SMALL.get(name, ()), *loop), WORLDS) for name in agents.REGISTRY
    ]
    few = ("--data", str(photos), "--ways", "2", "--shots", "1", "--queries", "2", "--tasks", "2",
           "--validation-tasks", "2", "--threads", "1", *loop)  # fmt: skip
    own += [Training(f"few-shot {name}", "fewshot", (name, *few, *TRAINED_ON.get(name, TASKS))) for name in LEARNERS]
    if workers:
        own.append(Training("rl2 in workers", "train", ("rl2", *IN_WORKERS, *SMALL["rl2"], *loop)))
    return tuple(own)


def last_state(run: Path, step: int = STEPS) -> tuple[object, ...]:
    """What a run ended with, to the bit."""
    folder = run / "checkpoints" / str(step)
    files = [folder / name for name in ("params.safetensors", "optimizer.safetensors", "state.json")]
    files += sorted((run / "store").glob("*")) if (run / "store").is_dir() else []
    rows = [
        {name: value for name, value in row.items() if name != "wall_time" and not name.startswith("time/")}
        for row in metrics.read(run)
    ]
    return (*(path.read_bytes() for path in files), rows)


def descendants(pid: int) -> list[int]:
    """Processes that a process made, and those that they made."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    with contextlib.suppress(OSError):
        children = [int(word) for word in path.read_text().split()]
        return [*children, *(each for child in children for each in descendants(child))]
    return []


def reap() -> list[int]:
    """Waits for orphans to end; those that do not are killed and given back."""
    until, left = time.monotonic() + ORPHAN_PATIENCE, list[int]()
    while time.monotonic() < until:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not (left := descendants(os.getpid())):
            return []
        time.sleep(0.1)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return left


def wait(child: int, until: float) -> int | None:
    """The exit status of a child that ends in time; None of one that runs on."""
    if not ended(child, max(0.0, until - time.monotonic())):
        return None
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def wait_for_work(child: int, seconds: float) -> int | None:
    """As `wait`, but until it and its workers have computed for so long, however slow the machine is meanwhile."""
    while not ended(child, 0.002):
        if sum(scheduled(pid)[0] for pid in (child, *descendants(child))) >= seconds:
            return None
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill(child: int, rng: random.Random, count: Count) -> None:
    """One kill of a training, or of one of its workers where it has some."""
    workers = descendants(child)
    if workers and rng.random() < 0.5:
        target, number, name = rng.choice(workers), signal.SIGKILL, "a worker's SIGKILL"
    else:
        number = rng.choices([signal.SIGKILL, signal.SIGINT, signal.SIGTERM], [8, 1, 1])[0]
        target, name = child, number.name
    with contextlib.suppress(ProcessLookupError):
        os.kill(target, number)
        count.kills += 1
        count.by_signal[name] = count.by_signal.get(name, 0) + 1


def play(
    training: Training,
    whole: tuple[object, ...],
    seconds: float,
    folder: Path,
    rng: random.Random,
    count: Count,
    most: int,
) -> None:
    """One training that is killed again and again, at most `most` times, until it ends; then it is compared."""
    run, output = folder / "run", folder / "output"
    shutil.rmtree(run, ignore_errors=True)
    count.trainings += 1
    left, status = most, None
    while status != 0:
        child = training.start(run, output)
        moment = rng.uniform(0.0, 1.0) * seconds
        status = wait_for_work(child, moment) if left else wait(child, time.monotonic() + PATIENCE)
        if status is None and left:
            kill(child, rng, count)
            left -= 1
            status = wait(child, time.monotonic() + PATIENCE)
        text = output.read_text(errors="replace") if output.exists() else ""
        fine = status in (0, -signal.SIGKILL, -signal.SIGINT, -signal.SIGTERM, 130, 143)
        if "Traceback (most recent call last)" in text or not fine:
            count.tracebacks += 1
            print(f"{training.name}: status {status}\n{text[-2000:]}", flush=True)
            return
        if orphans := reap():
            count.orphans += len(orphans)
            print(f"{training.name}: {len(orphans)} processes outlived it", flush=True)
        count.resumes += status != 0
    if last_state(run) != whole:
        count.different += 1
        print(f"{training.name}: it ended otherwise than uninterrupted", flush=True)


def uninterrupted(training: Training, folder: Path) -> tuple[Training, tuple[object, ...], float]:
    """The training in a world that is for it, what it ends with if nobody kills it, and how long it computes, s."""
    output = folder / "output"
    for world in training.worlds or ("",):
        own = dataclasses.replace(training, arguments=(*training.arguments, *(("--env", world) if world else ())))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        status = wait(own.start(folder / "whole", output), time.monotonic() + PATIENCE)
        if status == 0:
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            end = last_state(folder / "whole")
            shutil.rmtree(folder / "whole")
            return own, end, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    raise RuntimeError(f"{training.name} does not even end undisturbed:\n{output.read_text(errors='replace')}")


@contextlib.contextmanager
def prepared(workers: bool) -> Iterator[tuple[Path, tuple[Training, ...]]]:
    """A folder, and the trainings."""
    with tempfile.TemporaryDirectory(prefix="metarl-storm-") as name:
        photos = Path(name, "photos.npz")
        images = np.random.default_rng(0).integers(256, size=(60, 6, 6), dtype=np.uint8)
        np.savez(photos, images=images, labels=np.arange(60) % 10)
        yield Path(name), trainings(photos, workers=workers)


def warm_up(everything: Sequence[Training], folder: Path) -> None:
    """Imports and sets up in this process what trainings need, once for all forks."""
    for program in PROGRAMS:
        importlib.import_module(f"metarl.commands.{program}")
    for name in ("maml", "sb3-ppo", "few-shot prototypical"):
        training = next(each for each in everything if each.name == name)
        world = ("--env", training.worlds[0]) if training.worlds else ()
        run = folder / "warm"
        in_here(lambda each=training: call(each.program, *each.arguments, *world, "--run", run), folder / "output")  # noqa: B023
        shutil.rmtree(run)


def main(arguments: Sequence[str]) -> int:
    """Prints what went wrong and the counts; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, help="how many (default: 200, or 30 with --cluster)")
    parser.add_argument("--cluster", action="store_true", help="kill workers, nodes and the head of a Ray cluster")
    parser.add_argument("--seconds", type=float, default=ENDLESS, help="no new training after so long")
    parser.add_argument("--seed", type=int, default=0, help="decides moments and signals (default: 0)")
    parser.add_argument("--only", action="append", metavar="NAME", help="only this training; may be given again")
    parser.add_argument("--no-workers", action="store_true", help="leave the training in worker processes out")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if options.cluster:
        if options.only or options.no_workers or options.seconds != ENDLESS:
            parser.error("--cluster is one training: --only, --no-workers and --seconds do not go with it")
        return _on_cluster(30 if options.kills is None else options.kills, options.seed)
    options.kills = 200 if options.kills is None else options.kills
    count, rng, began = Count(), random.Random(options.seed), time.monotonic()
    with prepared(not options.no_workers) as (folder, everything):
        chosen = [training for training in everything if not options.only or training.name in options.only]
        if not chosen:
            parser.error(f"there are {', '.join(training.name for training in everything)}")
        warm_up(everything, folder)
        ends: dict[str, tuple[Training, tuple[object, ...], float]] = {}
        share = -(-options.kills // len(chosen))
        while count.kills < options.kills and time.monotonic() - began < options.seconds:
            training = chosen[count.trainings % len(chosen)]
            if training.name not in ends:
                ends[training.name] = uninterrupted(training, folder)
            before = count.kills
            most = min(share, options.kills - count.kills)
            play(*ends[training.name], folder, rng, count, most)
            print(f"{training.name}: {count.kills - before} kills; {count.told}", flush=True)
    print(f"{count.told} of {count.trainings} trainings in {time.monotonic() - began:.0f} s")
    print(f"{count.different} ended otherwise, {count.orphans} orphans, {count.tracebacks} tracebacks")
    return 1 if count.faults else 0


def _on_cluster(kills: int, seed: int) -> int:
    from tests.storm import cluster  # which takes Ray

    began, rng = time.monotonic(), random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="metarl-storm-") as name:
        outcome = cluster.storm(Path(name), cluster.plan(kills, rng), rng)
    print(f"{outcome} ({time.monotonic() - began:.0f} s)")
    return 1 if outcome.faults else 0
