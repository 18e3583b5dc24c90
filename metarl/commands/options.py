"""What the options that several programs share mean, and how they are made into things."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch
import tyro

from metarl import checks, envs
from metarl.commands.parsing import first_line, parse, usage
from metarl.envs import EnvDistribution
from metarl.errors import UsageError, did_you_mean
from metarl.registry import Registry, canonical
from metarl.runs import files

__all__ = [
    "MOST_THREADS",
    "ComputeOptions",
    "RunOptions",
    "available_cores",
    "distribution",
    "first_line",
    "learner_id",
    "parse",
    "subcommands",
    "usage",
]

Config = TypeVar("Config")


def subcommands(registry: Registry[type[Config]], arguments: Sequence[str]) -> object:
    """A type for `parse` whose values are the registry's configs, each a sub-command by its id (a union, to Python).

    The ids are the registered names and, where the first argument names a config from outside the package, that.

    Raises:
        UsageError: the first argument is no such id.
    """
    first = next((argument for argument in arguments if not argument.startswith("-")), "")
    with usage():
        configs = {name: registry[name] for name in registry}
        if ":" in first:
            configs[first] = registry[first]
    if arguments and first == arguments[0] and first not in configs:
        hint = did_you_mean(first, configs, f"there are {', '.join(configs)}")
        raise UsageError(f"unknown {registry.kind} {first!r}; {hint}")
    about = {name: first_line(config) for name, config in configs.items()}
    return tyro.extras.subcommand_type_from_defaults({name: config() for name, config in configs.items()}, about)


def learner_id(registry: Registry[type[Config]], config: Config, arguments: Sequence[str]) -> str:
    """The id that a run remembers of the config that was chosen among `subcommands`."""
    name = registry.name_of(type(config))
    if name is not None:
        return name
    return canonical(next(argument for argument in arguments if argument in registry or ":" in argument))


def available_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


MOST_THREADS = 1024


@dataclasses.dataclass(frozen=True)
class ComputeOptions:
    """What a program runs on."""

    threads: int = dataclasses.field(default_factory=available_cores)
    """Threads that step the simulators, on which no result depends; or, in few-shot learning, of linear algebra, on
    which the last bit of results may depend."""
    device: str = "cpu"
    """PyTorch's device: cpu, cuda, cuda:1."""

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= MOST_THREADS:
            raise ValueError(f"--threads must be between 1 and {MOST_THREADS}, got {self.threads}")

    def use(self, linear_algebra_threads: int = 1) -> None:
        """Checks that the device is there, and sets PyTorch's threads.

        One unless asked for more: policies are small, and next to a busy core two threads were several times slower
        than one. Sums on one thread also come out the same whatever `--threads` says.

        Raises:
            UsageError: it is not there, or holds no numbers.
        """
        torch.set_num_threads(linear_algebra_threads)
        try:
            float(torch.zeros(1, device=self.device))
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"--device {self.device} cannot be used here: {reason}") from error


@dataclasses.dataclass(frozen=True)
class TrustOptions:
    """What of a run's folder may be run."""

    trust_code: bool = False
    """Import the code from outside of metarl that the run's config.json names (my_file.py:name). A folder from somebody
    else may name any code: look at it first."""


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Where a run is and what decides its chance."""

    run: Path
    """The run's folder; the same command again goes on where it stopped."""
    seed: int = 0
    """Decides everything that is random."""

    def __post_init__(self) -> None:
        checks.seed(self.seed)


def check_output(path: Path) -> None:
    """Checks, before any work is done, that a file could be written there.

    Raises:
        ValueError: its folder is missing, or it is a link, a folder or a device.
    """
    if not os.path.isdir(path.parent):  # noqa: PTH112  # it answers no to names that are none
        raise ValueError(f"--output {path}: there is no folder {path.parent}")
    try:
        files.need_regular(path, missing_ok=True)
    except (OSError, ValueError) as error:
        what = files.reason(error) if isinstance(error, OSError) else str(error)
        raise ValueError(f"--output {path} cannot be written: {what}") from error
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ValueError(f"--output {path} cannot be written: the folder does not permit it")


def distribution(id: str) -> EnvDistribution:
    """The distribution of this id; a wrong one is the user's error."""
    with usage():
        return envs.make(id)
