"""A run's folder: what it was started with, whose it is now, and where its files are.

    runs/ice/config.json  metrics.jsonl  checkpoints/<step>/  evaluations/<split>.json  videos/  report.html

What decides a run's results (learner, options, distribution and its hash, seed, device) is its `Experiment`, and a
folder holds one. `--steps` may grow. Thread counts, versions and the git revision should not change results, but
could in the last bit: a change of them is allowed, said in one line, and written into `config.json`.
"""

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar, final

from metarl.errors import RunError, UsageError, warn
from metarl.runs.files import TEMPORARY, encode_json, read_json, remove, write_atomically, writing
from metarl.runs.provenance import Environment
from metarl.tasks import SPLITS, Json, Split

__all__ = ["Config", "Experiment", "Run", "claim", "options_from_json", "read", "write_atomically"]

_CONFIG, _LOCK = "config.json", ".lock"
_FORMAT = 1
_ABSENT = object()
Record = TypeVar("Record")


@final
@dataclasses.dataclass(frozen=True)
class Experiment:
    """What decides a run's results; a change of any of it needs another folder."""

    learner: str
    """The program's word for it: `maml`, `rl2`."""
    options: Mapping[str, object]
    """The learner's options and the loop's, defaults written out; without steps, threads and the folder. Whatever
    JSON can hold; a tuple counts as the list it becomes there."""
    distribution: str
    """Id of the task distribution."""
    distribution_hash: str
    """Content hash of its spec."""
    seed: int
    device: str = "cpu"

    def differences(self, other: "Experiment") -> tuple[str, ...]:
        """What differs, one phrase each: `options.inner_rate is 0.1 there and 0.2 here`."""
        here, there = _flatten(self.to_json()), _flatten(other.to_json())
        return tuple(
            f"{name} is {there.get(name, 'absent')} there and {here.get(name, 'absent')} here"
            for name in sorted(here.keys() | there.keys())
            if here.get(name, _ABSENT) != there.get(name, _ABSENT)
        )

    def to_json(self) -> dict[str, Json]:
        return json.loads(json.dumps(dataclasses.asdict(self)))


@final
@dataclasses.dataclass(frozen=True)
class Config:
    """The content of `config.json`: everything needed to repeat the run."""

    experiment: Experiment
    steps: int
    """Outer steps asked for, the highest so far."""
    environments: tuple[Environment, ...]
    """What it ran in, the first first; another is added when a run goes on in another one."""

    def to_json(self) -> dict[str, Json]:
        experiment = self.experiment.to_json()
        environments: list[Json] = [environment.to_json() for environment in self.environments]
        return {"format": _FORMAT, "experiment": experiment, "steps": self.steps, "environments": environments}

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "Config":
        """Raises ValueError where the value is not what `to_json` gives."""
        experiment, steps, environments = (value.get(name) for name in ("experiment", "steps", "environments"))
        if value.get("format") != _FORMAT:
            raise ValueError(f"format {value.get('format')}; this version reads format {_FORMAT}")
        if not isinstance(steps, int) or not isinstance(environments, list):
            raise ValueError("steps must be an integer and environments a list")
        return cls(_experiment(experiment), steps, tuple(Environment.from_json(item) for item in environments))


@final
@dataclasses.dataclass(frozen=True)
class Run:
    """A run's folder and what stands in its `config.json`."""

    folder: Path
    config: Config

    @property
    def checkpoints(self) -> Path:
        """For `metarl.checkpoints`; it need not exist yet."""
        return self.folder / "checkpoints"

    @property
    def videos(self) -> Path:
        """It need not exist yet."""
        return self.folder / "videos"

    def evaluation(self, split: Split, *, size: str = "", best: bool = False) -> Path:
        """The file of a split's evaluation, of the last checkpoint or the best; it need not exist yet.

        Args:
            split: the tasks that were evaluated.
            size: names their size, where it is not the one that the run is for: `20w5s`.
            best: of the best checkpoint on validation.
        """
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}; the splits are {', '.join(SPLITS)}")
        return self.folder / "evaluations" / ("-".join(filter(None, (split, size, "best" if best else ""))) + ".json")

    def write_evaluation(
        self, split: Split, content: Mapping[str, Json], *, size: str = "", best: bool = False
    ) -> Path:
        """Writes `evaluations/<split>.json` (see `evaluation`) at once or not at all, in place of an earlier one.

        Raises:
            ValueError: a NaN or an infinity in the content.
            RunError: it could not be written; an earlier one is untouched.
        """
        path, encoded = self.evaluation(split, size=size, best=best), encode_json(content)
        with writing(path):
            path.parent.mkdir(exist_ok=True)
        write_atomically(path, encoded)
        return path


def begun(folder: Path) -> bool:
    """Whether there is a run in the folder."""
    return (folder / _CONFIG).is_file()


def read(folder: Path) -> Run:
    """The run in a folder, to evaluate it or to look at it; takes no lock.

    Raises:
        UsageError: there is no run in the folder.
        RunError: its `config.json` cannot be read.
    """
    if not begun(folder):
        raise UsageError(f"{folder} is not a run: it has no {_CONFIG}; train one with --run {folder}")
    try:
        return Run(folder, Config.from_json(read_json(folder / _CONFIG)))
    except (OSError, ValueError, TypeError) as error:
        raise RunError(
            f"{folder / _CONFIG} cannot be read ({error}); restore it from a copy, or use another folder"
        ) from error


@contextlib.contextmanager
def claim(
    folder: Path,
    experiment: Experiment,
    *,
    steps: int,
    environment: Environment,
    warning: Callable[[str], None] = warn,
) -> Iterator[Run]:
    """Starts a run in an empty or missing folder, or goes on with the one there; nobody else can train in it meanwhile.

    Raises:
        UsageError: the folder holds another experiment (the message names what differs), asks for fewer steps than
            before, or holds something that is not a run.
        RunError: another process is training in the folder, or it cannot be written.
    """
    _need_free_or_run(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder, warning):
        remove(folder / f"{TEMPORARY}{_CONFIG}")
        yield _open(folder, Config(experiment, steps, (environment,)), warning)


def _open(folder: Path, asked: Config, warning: Callable[[str], None]) -> Run:
    """Writes `config.json` where there is none, or compares what is asked for with it and brings it up to date."""
    if not (folder / _CONFIG).exists():
        return _write(folder, asked)
    there = read(folder).config
    if different := asked.experiment.differences(there.experiment):
        raise UsageError(f"{folder} holds another experiment: {'; '.join(different)}; use another --run folder")
    if asked.steps < there.steps:
        raise UsageError(
            f"{folder} was asked for {there.steps} steps before and for {asked.steps} now; "
            f"steps can only grow: use --steps {there.steps} or more, or another --run folder"
        )
    environments = there.environments
    changes = asked.environments[-1].differences(environments[-1]) if environments else ()
    if changes or not environments:
        warning(f"{folder} goes on under other conditions, results may differ in the last bit: {'; '.join(changes)}")
        environments += asked.environments
    return _write(folder, dataclasses.replace(asked, environments=environments))


def _write(folder: Path, config: Config) -> Run:
    write_atomically(folder / _CONFIG, encode_json(config.to_json()))
    return Run(folder, config)


def _need_free_or_run(folder: Path) -> None:
    """Refuses a folder with foreign files, before anything is written into it."""
    try:
        names = set(os.listdir(folder))
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise UsageError(f"--run {folder} is a file; name a folder") from None
    except OSError as error:
        raise UsageError(f"--run {folder} cannot be opened ({error.strerror})") from error
    foreign = sorted(name for name in names if name != _LOCK and not name.startswith(TEMPORARY))
    if foreign and _CONFIG not in names:
        raise UsageError(
            f"{folder} is not empty and not a run: it holds {', '.join(foreign[:3])}{' ...' if foreign[3:] else ''} "
            f"but no {_CONFIG}; name an empty or a new folder"
        )


@contextlib.contextmanager
def _locked(folder: Path, warning: Callable[[str], None]) -> Iterator[None]:
    """Holds the run's lock. The system frees it when the process ends, however it ends."""
    with writing(folder):
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _lock(descriptor, folder, warning)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path, warning: Callable[[str], None]) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        raise RunError(
            f"another process (pid {holder}) is training in {folder}; wait until it ends, or use another --run folder"
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
            raise RunError(f"could not lock {folder}: {error.strerror}") from error
        warning(f"{folder} is on a file system without locks: take care that only one process trains in it")
    with writing(folder / _LOCK):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


def _flatten(value: Mapping[str, Json], prefix: str = "") -> dict[str, Json]:
    """Nested objects as one, `options.policy.width` for a name."""
    flat: dict[str, Json] = {}
    for name, item in value.items():
        if isinstance(item, dict) and item:
            flat |= _flatten(item, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = item
    return flat


def options_from_json(kind: type[Record], written: object, folder: Path) -> Record:
    """A frozen record of options as it stands in a run's `config.json`; records within it, too.

    Raises:
        RunError: it is not a record of this version's kind.
    """
    if not isinstance(written, dict):
        raise RunError(f"{folder} was written by another version: its options have no {kind.__name__}")
    types = typing.get_type_hints(kind)
    names = {field.name for field in dataclasses.fields(kind)}  # pyright: ignore[reportArgumentType]  # a record
    if different := sorted(names ^ set(written)):
        raise RunError(f"{folder} was written by another version: the options {', '.join(different)} differ")
    values = {
        name: options_from_json(types[name], value, folder)
        if dataclasses.is_dataclass(types[name])
        else tuple(value)
        if isinstance(value, list)
        else value
        for name, value in written.items()
    }
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise RunError(f"{folder} has options that do not fit: {error}") from error


def _experiment(value: Json) -> Experiment:
    names = {field.name for field in dataclasses.fields(Experiment)}
    if not isinstance(value, dict) or value.keys() != names:
        raise ValueError(f"experiment must be an object with {', '.join(sorted(names))}")
    options = value["options"]
    if not isinstance(options, dict) or not isinstance(value["seed"], int):
        raise ValueError("options must be an object and seed an integer")
    return Experiment(
        learner=str(value["learner"]),
        options=options,
        distribution=str(value["distribution"]),
        distribution_hash=str(value["distribution_hash"]),
        seed=value["seed"],
        device=str(value["device"]),
    )
