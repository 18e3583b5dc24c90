"""Trains an agent with several seeds and options: `sweep.py --runs runs/lr --seeds 0 1 2 --vary inner-lr=0.05,0.1 --
maml --env cheetah-direction --steps 100`. What follows `--` is a `train` command without --run, --seed, --threads,
--workers and --cluster.

Each run is an ordinary one in a folder of its own, which `train` goes on with, `evaluate` evaluates and `report` shows.
The same command again goes on with those that are not done.

How long it takes: each run as long as `train --help` says.
"""

import dataclasses
import itertools
import subprocess
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol, final, runtime_checkable

from metarl import checks
from metarl.commands.options import parse
from metarl.commands.train import parse_training
from metarl.commands.workers import need_ray
from metarl.errors import RunError, StoppedError, UsageError, say
from metarl.runs import children
from metarl.runs.interrupt import stop_requested

_OWN = ("--run", "--seed", "--threads", "--workers", "--cluster")
_POLL = 0.2  # s


@dataclasses.dataclass(frozen=True)
class SweepOptions:
    """Which runs there are, and how many at a time."""

    runs: Path
    """The folder that holds the runs' folders."""
    seeds: tuple[int, ...] = (0,)
    """A run with each."""
    vary: tuple[str, ...] = ()
    """Options of the agent or the training, each with its values: `inner-lr=0.05,0.1`, `hidden="64 64,32"`. A run with
    every combination, and each seed."""
    jobs: int = 1
    """Runs at a time."""
    threads: int = 1
    """Threads of each run; on a cluster as many CPUs are reserved for it."""
    cluster: str | None = None
    """Run on a Ray cluster, whose machines share the folder: `local`, `auto` or HOST:PORT as in `train`. Not given:
    processes on this machine."""

    def __post_init__(self) -> None:
        checks.between(1, 1000, jobs=self.jobs)
        checks.between(1, 1024, threads=self.threads)
        for seed in self.seeds:
            checks.seed(seed)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"--seeds must be some numbers, each once, got {self.seeds}")


@final
@dataclasses.dataclass(frozen=True)
class Point:
    """One run of a sweep."""

    name: str
    """Of its folder."""
    arguments: tuple[str, ...]
    """Of `train`."""


@runtime_checkable
class Jobs(Protocol):
    """Runs programs elsewhere; a handle is whatever it takes to ask for one again."""

    def start(self, arguments: Sequence[str], log: Path) -> object: ...

    def status(self, job: object) -> int | None:
        """The exit status; None while it runs."""
        ...

    def stop(self, job: object) -> None:
        """Asks it to save what is done and to end."""
        ...


@final
class Processes:
    """Programs as processes of this machine."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, arguments: Sequence[str], log: Path) -> int:
        self._running.append(children.start(arguments, log))
        return len(self._running) - 1

    def status(self, job: object) -> int | None:
        assert isinstance(job, int)
        return self._running[job].poll()

    def stop(self, job: object) -> None:
        assert isinstance(job, int)
        self._running[job].terminate()


def program(arguments: Sequence[str], name: str) -> None:
    """Trains all runs, as many at a time as asked for."""
    arguments = list(arguments)
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options = parse(SweepOptions, arguments[:split], name, __doc__)
    training = arguments[split + 1 :]
    if not training:
        raise UsageError("what to train follows after --: sweep --runs runs/x --seeds 0 1 -- maml --env ID --steps 100")
    made = points(options, training)
    for point in made:  # whatever is wrong is said before any work is done
        parse_training(point.arguments, name)
    with _jobs(options) as jobs:
        _run(jobs, made, options)
    print(f"{options.runs}: all {len(made)} runs are done; next: metarl evaluate {options.runs}/RUN")


def points(options: SweepOptions, training: Sequence[str]) -> list[Point]:
    """All runs: every combination of the varied options' values, with each seed.

    Raises:
        UsageError: an option is given twice, has no values, or one of them twice.
    """
    given = [argument.partition("=")[0] for argument in training]
    varied = dict[str, tuple[str, ...]]()
    for text in options.vary:
        option, equals, values = text.partition("=")
        names = tuple(value.strip() for value in values.split(","))
        if not option or not equals or not all(names) or len(set(names)) < len(names):
            raise UsageError(f"--vary takes OPTION=VALUE,VALUE with values that differ, got {text!r}")
        if option in varied or f"--{option}" in (*given, *_OWN):
            raise UsageError(f"--vary {text}: --{option} is given already, or is the sweep's own")
        varied[option] = names
    if own := sorted(set(given) & set(_OWN)):
        raise UsageError(f"{own[0]} is the sweep's own: it is not given after --")
    made = list[Point]()
    for chosen in itertools.product(*varied.values()):
        pairs = list(zip(varied, chosen, strict=True))
        for seed in options.seeds:
            label = "-".join((*(f"{option}={'_'.join(value.split())}" for option, value in pairs), f"seed={seed}"))
            folder = options.runs / label.replace("/", "_")
            more = itertools.chain.from_iterable((f"--{option}", *value.split()) for option, value in pairs)
            own = ("--run", str(folder), "--seed", str(seed), "--threads", str(options.threads))
            made.append(Point(folder.name, (*training, *more, *own)))
    return made


def _jobs(options: SweepOptions) -> AbstractContextManager[Jobs]:
    if options.cluster is None:
        return nullcontext(Processes())
    need_ray(f"--cluster {options.cluster}")
    from metarl.cluster.ray_jobs import ray_jobs

    return ray_jobs(options.cluster, options.jobs, options.threads)


def _run(jobs: Jobs, made: Sequence[Point], options: SweepOptions) -> None:
    """Runs all of them.

    Raises:
        StoppedError: a signal asked to stop; every run has saved what is done.
        RunError: some runs failed, or no folder could be made; the others are done.
    """
    logs = options.runs / "logs"
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{logs}: {error.strerror}") from error
    waiting, running, failed, done = list(made), dict[str, object](), dict[str, str](), 0
    with stop_requested() as stop:
        while running or (waiting and not stop.requested):
            while waiting and len(running) < options.jobs and not stop.requested:
                point = waiting.pop(0)
                running[point.name] = jobs.start(("train", *point.arguments), logs / f"{point.name}.txt")
            if stop.requested:
                for job in running.values():
                    jobs.stop(job)
            time.sleep(_POLL)
            for name, status in _ended(jobs, running.items()):
                del running[name]
                if status == 0:
                    done += 1
                    say(f"{done} of {len(made)} done: {name}")
                elif not stop.requested:
                    failed[name] = f"{name} ({children.last_line(logs / f'{name}.txt')})"
                    say(f"failed: {failed[name]}")
        if stop.requested and done < len(made):
            assert stop.signal_number is not None
            left = f"stopped with {done} of {len(made)} runs done"
            raise StoppedError(f"{options.runs}: {left}; the same command goes on from here", stop.signal_number)
    if failed:
        raise RunError(f"{len(failed)} of {len(made)} runs failed: {'; '.join(failed.values())}; all is in {logs}")


def _ended(jobs: Jobs, running: Iterable[tuple[str, object]]) -> list[tuple[str, int]]:
    found = [(name, jobs.status(job)) for name, job in running]
    return [(name, status) for name, status in found if status is not None]
