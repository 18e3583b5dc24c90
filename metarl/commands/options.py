"""What the options that several programs share mean, and how they are made into things."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import torch
import tyro

from metarl import envs
from metarl.envs import EnvDistribution
from metarl.errors import UsageError
from metarl.learning.protocols import Schedule, State
from metarl.learning.training import LoopConfig
from metarl.runs import checkpoints, run_folder

Options = TypeVar("Options")


def parse(options: type[Options], arguments: Sequence[str], name: str, about: str | None) -> Options:
    """A program's options from its arguments; wrong ones end the process with one message and exit status 2."""
    return tyro.cli(
        options,
        prog=name,
        description=about,
        args=list(arguments),
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.CascadeSubcommandArgs),
    )


def _cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclasses.dataclass(frozen=True)
class Machine:
    """What a program runs on."""

    threads: int = dataclasses.field(default_factory=_cores)
    """Threads that step the physics (no result depends on them), or, where there is none, of linear algebra."""
    device: str = "cpu"
    """PyTorch's device: cpu, cuda, cuda:1."""

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"--threads must be at least 1, got {self.threads}")

    def use(self, linear_algebra_threads: int = 1) -> None:
        """Checks that the device is there, and sets PyTorch's threads.

        One unless asked for more: policies are small, and next to a busy core two threads were several times slower
        than one. Sums on one thread also come out the same whatever `--threads` says.

        Raises:
            UsageError: it is not.
        """
        torch.set_num_threads(linear_algebra_threads)
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"--device {self.device} cannot be used here: {reason}") from error


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a run is and what it is of."""

    run: Path
    """The run's folder; the same command again goes on where it stopped."""
    seed: int = 0
    """Decides everything that is random."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"--seed must not be negative, got {self.seed}")


@runtime_checkable
class Identified(Protocol):
    """A task distribution, as far as a run's config names it."""

    @property
    def id(self) -> str: ...

    @property
    def hash(self) -> str: ...


def experiment(
    learner: str,
    options: Mapping[str, Mapping[str, object]],
    loop: LoopConfig,
    tasks: Identified,
    place: Place,
    machine: Machine,
) -> run_folder.Experiment:
    """What decides a run's results: the options by group, and in the group `loop` also the loop's own.

    The number of steps does not: it may grow.
    """
    lasting = {name: value for name, value in dataclasses.asdict(loop).items() if name != "steps"}
    return run_folder.Experiment(
        learner=learner,
        options={**options, "loop": {**lasting, **options.get("loop", {})}},
        distribution=tasks.id,
        distribution_hash=tasks.hash,
        seed=place.seed,
        device=machine.device,
    )


@contextlib.contextmanager
def usage() -> Iterator[None]:
    """Makes the `ValueError` of a wrong option the user's error: one line, exit status 2."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error


def distribution(name: str) -> EnvDistribution:
    """The distribution of this id; a wrong one is the user's error."""
    with usage():
        return envs.make(name)


def state_of(checkpoint: Path) -> State:
    """What `--start-from` names: the state of another run's checkpoint.

    Raises:
        UsageError: it is not a checkpoint's folder.
        BrokenCheckpointError: it is damaged.
    """
    if not checkpoint.name.isdecimal():
        raise UsageError(f"--start-from names a checkpoint's folder, runs/other/checkpoints/500; got {checkpoint}")
    return checkpoints.load(checkpoint.parent, int(checkpoint.name)).state


def trial_schedule(own: Schedule, rounds: int | None, episodes: int | None) -> Schedule:
    """An agent's own schedule, but for what the user asked for."""
    return Schedule(own.rounds if rounds is None else rounds, own.episodes if episodes is None else episodes)
