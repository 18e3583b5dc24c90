"""A run's folder: what it was started with, whose it is now, and where its files are.

    runs/ice/config.json  metrics.jsonl  checkpoints/<step>/  store/  evaluations/<name>.json
    videos/  pictures/  report.html

What decides a run's results (learner, options, distribution and its hash, seed, device) is its `Experiment`, and a
folder holds one. `--steps` may grow. Thread counts, versions and the git revision should not change results, but
could in the last bit: a change of them is allowed, said in one line, and written into `config.json`.
"""

import contextlib
import dataclasses
import difflib
import errno
import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal, TypeVar, cast, final

from metarl import checks, registry
from metarl.errors import RunError, UsageError, warn
from metarl.runs import files
from metarl.runs.decoding import OpenKinds, decode, options_from_json
from metarl.runs.files import TEMPORARY, encode_json, write_atomically, writing
from metarl.runs.provenance import Environment
from metarl.tasks import SPLITS, Json, Split, content_hash

Which = Literal["last", "best"]
"""A run's last checkpoint, or its best on validation."""

Kind = Literal["agent", "fewshot"]
"""The kinds of learners: those that act, and those that predict."""

_CONFIG, _LOCK = "config.json", ".lock"
_FORMAT = 2
_ABSENT = object()
_STEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
Record = TypeVar("Record")


@final
@dataclasses.dataclass(frozen=True)
class Experiment:
    """What decides a run's results; a change of any of it needs another folder."""

    kind: Kind
    """What kind of learner it is."""
    learner: str
    """Id of the learner: `maml`, or as `metarl.registry.canonical` gives it."""
    options: Mapping[str, object]
    """By group: the learner's options, the tasks', the training's; defaults written out, without steps, threads and the
    folder. As `options_to_json` writes them; a tuple counts as the list it becomes there."""
    distribution: str
    """Id of the task distribution."""
    distribution_hash: str
    """Content hash of its spec."""
    seed: int
    device: str = "cpu"

    def __post_init__(self) -> None:
        checks.seed(self.seed)
        for id in (self.learner, self.distribution):
            if (file := _file_of(id)) is not None and not file.is_absolute():
                raise ValueError(f"a run names files by their absolute paths, not {id!r}")

    @property
    def hash(self) -> str:
        """Content hash. A file that an id names (`/home/me/my_agent.py:mine`) may move to another folder."""
        return content_hash(cast(Json, _without_folders(self.to_json())))

    def differences(self, other: "Experiment") -> tuple[str, ...]:
        """What differs, one phrase each: `options.learner.inner_lr is 0.1 there and 0.2 here`."""
        here, there = _flatten(self.to_json()), _flatten(other.to_json())
        return tuple(
            f"{name} is {there.get(name, 'absent')} there and {here.get(name, 'absent')} here"
            for name in sorted(here.keys() | there.keys())
            if here.get(name, _ABSENT) != there.get(name, _ABSENT)
        )

    @property
    def code(self) -> tuple[str, ...]:
        """The ids in it that name code from outside, each once: to build the learner or the tasks, it would be run."""
        texts = _texts(self.to_json())
        return tuple(dict.fromkeys(text for text in texts if registry.names_code(text)))

    def to_json(self) -> dict[str, object]:
        return json.loads(json.dumps(dataclasses.asdict(self), allow_nan=False))


@final
@dataclasses.dataclass(frozen=True)
class Config:
    """The content of `config.json`: everything needed to repeat the run."""

    experiment: Experiment
    steps: int
    """Outer steps asked for, the highest so far."""
    environments: tuple[Environment, ...]
    """What it ran in, the first first; another is added when a run goes on in another one."""


@final
@dataclasses.dataclass(frozen=True)
class _ConfigFile:
    """`config.json` as it stands there."""

    format: int
    experiment: Experiment
    experiment_hash: str
    """So that a change by hand is noticed: checkpoints are of the experiment that was."""
    steps: int
    environments: tuple[Environment, ...]

    def __post_init__(self) -> None:
        checks.at_least(1, steps=self.steps)
        if self.experiment_hash != self.experiment.hash:
            raise ValueError(
                f"the experiment was changed by hand: its hash is {self.experiment.hash}, not {self.experiment_hash}"
            )


@final
@dataclasses.dataclass(frozen=True, repr=False)
class Run:
    """A run's folder and what stands in its `config.json`."""

    folder: Path
    config: Config

    def __repr__(self) -> str:
        experiment = self.config.experiment
        return f"<Run {self.folder}: {experiment.learner} on {experiment.distribution}, seed {experiment.seed}>"

    @property
    def checkpoints(self) -> Path:
        """See `metarl.runs.checkpoints`. Like the folders below, it need not exist yet."""
        return self.folder / "checkpoints"

    @property
    def store(self) -> Path:
        """The chunks of the learner's store, see `metarl.runs.stored`."""
        return self.folder / "store"

    @property
    def evaluations(self) -> Path:
        return self.folder / "evaluations"

    @property
    def videos(self) -> Path:
        return self.folder / "videos"

    @property
    def pictures(self) -> Path:
        """PNGs of tasks with their answers."""
        return self.folder / "pictures"

    def options(
        self,
        group: str,
        kind: type[Record],
        *,
        open_kinds: OpenKinds | None = None,
    ) -> Record:
        """A group of the experiment's options as a record.

        Args:
            open_kinds: how the records of registries are named.

        Raises:
            RunError: it is not a record of this kind.
        """
        options, at = self.config.experiment.options, f"$.experiment.options.{group}"
        if group not in options:
            raise RunError(
                f"{self.folder / _CONFIG} has no options {group!r}; there are {', '.join(options) or 'none'}"
            )
        return options_from_json(kind, options[group], self.folder / _CONFIG, at=at, open_kinds=open_kinds or {})

    def evaluation_path(self, name: str) -> Path:
        """The file of an evaluation; it need not exist yet. `evaluation_name` makes the name.

        Raises:
            ValueError: the name is not a plain one.
        """
        if not _STEM.fullmatch(name):
            raise ValueError(f"an evaluation's name is of letters, digits, '.', '_' and '-', at most 200, got {name!r}")
        return self.evaluations / f"{name}.json"

    def write_evaluation(self, name: str, content: Mapping[str, object]) -> Path:
        """Writes `evaluations/<name>.json` at once or not at all, in place of an earlier one.

        Raises:
            ValueError: a NaN or an infinity in the content, or no plain name.
            RunError: it could not be written; an earlier one is untouched.
        """
        path, encoded = self.evaluation_path(name), encode_json(content)
        with writing(path):
            files.make_folder(self.evaluations)
        write_atomically(path, encoded)
        return path


def evaluation_name(split: Split, *settings: str, checkpoint: Which = "last") -> str:
    """What an evaluation's file is called: by its split and all that is not as usual.

    >>> evaluation_name("test"), evaluation_name("test", "5-tasks", checkpoint="best")
    ('test', 'test-5-tasks-best')

    Args:
        split: the tasks that were evaluated.
        settings: one label for each setting that differs from its default: `5-tasks`, `20w5s`.
        checkpoint: which was evaluated.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; the splits are {', '.join(SPLITS)}")
    return "-".join(filter(None, (split, *settings, "" if checkpoint == "last" else checkpoint)))


def need_trusted(run: Run) -> None:
    """Refuses to run what a `config.json` names: a run folder from somebody else is data, and it may name any code.

    Raises:
        UsageError: it names code from outside the package; the message lists the ids.
    """
    if code := run.config.experiment.code:
        raise UsageError(
            f"{run.folder} names code from outside of metarl, which would be run: {', '.join(code)}; "
            "if you trust it, say so by --trust-code (in Python, trust_code=True)"
        )


def begun(folder: Path) -> bool:
    """Whether there is a run in the folder, or something that has its config's name."""
    return os.path.lexists(folder / _CONFIG)


def read(folder: Path) -> Run:
    """The run in a folder, to evaluate it or to look at it; takes no lock.

    Raises:
        UsageError: there is no run in the folder.
        RunError: its `config.json` cannot be read, was written by another version or changed by hand.
    """
    try:
        os.lstat(folder / _CONFIG)
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            f"{folder} is not a run: it has no {_CONFIG}; {_hint(folder)}train one with --run {folder}"
        ) from None
    except OSError as error:
        raise UsageError(f"{folder} cannot be opened ({error.strerror})") from error
    try:
        content = decode(_ConfigFile, folder / _CONFIG, format=_FORMAT)
    except RunError as error:
        raise RunError(f"{error}; restore it from a copy, or use another folder") from error
    for id in (content.experiment.learner, content.experiment.distribution):
        # Its code would be run, and a folder that was given away is data.
        if (file := _file_of(id)) is not None and file.resolve().is_relative_to(folder.resolve()):
            raise RunError(f"{folder / _CONFIG} names code inside the run's own folder: {id}; put the file elsewhere")
    return Run(folder, Config(content.experiment, content.steps, content.environments))


def _hint(folder: Path) -> str:
    """The runs in a folder, or beside it, that may have been meant."""
    for place, about in ((folder, "it holds runs, did you mean"), (folder.parent, "did you mean")):
        with contextlib.suppress(OSError):
            runs = sorted(name for name in os.listdir(place) if begun(place / name))
            near = runs[:3] if place == folder else difflib.get_close_matches(folder.name, runs, n=3)
            if near:
                return f"{about} {' or '.join(str(place / name) for name in near)}? Or "
    return ""


@contextlib.contextmanager
def open_run(
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
    asked = Config(experiment, steps, (environment,))
    _encode(folder, asked)
    _need_free_or_run(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder, warning):
        for part in (folder, folder / "evaluations", folder / "videos", folder / "pictures"):
            files.clean_up(part)
        yield _open(folder, asked, warning)


def _open(folder: Path, asked: Config, warning: Callable[[str], None]) -> Run:
    """Writes `config.json` where there is none, or compares what is asked for with it and brings it up to date."""
    if not begun(folder):
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
    write_atomically(folder / _CONFIG, _encode(folder, config))
    return Run(folder, config)


def _encode(folder: Path, config: Config) -> bytes:
    """The content of `config.json`; UsageError for options that are not JSON."""
    try:
        return encode_json(
            {
                "format": _FORMAT,
                "experiment": config.experiment.to_json(),
                "experiment_hash": config.experiment.hash,
                "steps": config.steps,
                "environments": [environment.to_json() for environment in config.environments],
            }
        )
    except ValueError as error:
        raise UsageError(f"the options cannot be written into {folder / _CONFIG}: {error}") from error


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
    with writing(folder / _LOCK):
        descriptor = files.open_lock(folder / _LOCK)
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


def _flatten(value: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested objects as one, `options.policy.width` for a name."""
    flat: dict[str, object] = {}
    for name, item in value.items():
        if isinstance(item, dict) and item:
            flat |= _flatten(item, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = item
    return flat


def _texts(value: object) -> Iterator[str]:
    """All texts in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _file_of(id: str) -> Path | None:
    """The file that an id names; None where it names none."""
    place, _, _ = id.rpartition(":")
    return Path(place) if place.endswith(".py") else None


def _without_folders(value: object) -> object:
    """The same with every id of a file cut down to the file's name."""
    if isinstance(value, dict):
        return {name: _without_folders(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    if isinstance(value, str) and (file := _file_of(value)) is not None:
        return f"{file.name}:{value.rpartition(':')[2]}"
    return value
