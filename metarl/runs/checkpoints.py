"""Checkpoints: folders that are either whole or not there, hold no pickle, and notice when they have been damaged.

    checkpoints/<step>/params.safetensors, optimizer.safetensors    the learner's state
                       behaviour.safetensors                        its behaviour policy's parameters, if it has any
                       state.json                                   step, validation score, counters, checksums
    store/<number>.safetensors                                      what its store has, see `metarl.runs.stored`

A checkpoint is written under a temporary name, synced, then renamed. Its validation score stands in its own
`state.json`, so that "the best on validation" follows from the checkpoints themselves and cannot disagree with them.
What is loaded is held against the run (another run's checkpoint may have been copied in) and against the learner.
"""

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, cast, final

from torch import Tensor

from metarl import checks
from metarl.errors import RunError, UsageError, warn
from metarl.learning.protocols import Parameters, State
from metarl.runs import files, tensors
from metarl.runs.decoding import check_format, options_from_json, options_to_json, read_object, unreadable
from metarl.runs.files import TEMPORARY, encode_json, remove, sync_folder, write_new, writing
from metarl.runs.run_folder import Run, Which
from metarl.runs.stored import StoreFolder, StoreRecord
from metarl.runs.tensors import BrokenCheckpointError, TensorFile, check_state, check_structure, check_values
from metarl.tasks import Json, content_hash

__all__ = [
    "BrokenCheckpointError",
    "Checkpoint",
    "CheckpointFolder",
    "check_state",
    "check_structure",
]

PARAMETERS, OPTIMIZER, STATE = "params.safetensors", "optimizer.safetensors", "state.json"
BEHAVIOUR = "behaviour.safetensors"
_REPLACED = ".replaced-"
_FORMAT = 2
_ROOM = 64 << 20  # bytes in a file of tensors besides the tensors that are expected: its header, other tensors


@final
@dataclasses.dataclass(frozen=True, repr=False)
class Checkpoint:
    """A learner at one point of its training."""

    step: int
    """Outer steps done; training goes on with the step of this number."""
    state: State
    score: float | None
    """On validation, higher is better; None where this checkpoint was not validated."""
    env_steps: int
    """The simulator's steps up to here; 0 where there is none."""
    content: str
    """SHA-256 of the file of its parameters: two checkpoints with the same content are no two results."""
    whole: bool = True
    """Whether training can go on from it; a published one is without the optimiser's state, to be used alone."""

    def __repr__(self) -> str:
        return f"<Checkpoint of step {self.step}, score {self.score}, content {self.content[:12]}>"


@final
@dataclasses.dataclass(frozen=True)
class _RandomState:
    """Where random numbers go on: outer step n draws from NumPy's generator with the seed (run's seed, n)."""

    bit_generator: Literal["PCG64"]
    next_seed: tuple[int, int]


@final
@dataclasses.dataclass(frozen=True)
class _StateFile:
    """`state.json`, without its checksum of itself."""

    format: int
    experiment_hash: str
    step: int
    score: float | None
    env_steps: int
    random: _RandomState
    parameters: TensorFile
    optimizer: TensorFile | None
    """None in a published checkpoint."""
    store: StoreRecord
    behaviour: TensorFile | None = checks.added(None)
    """None, and not in the file, where collecting does not lag behind learning."""

    def __post_init__(self) -> None:
        checks.at_least(0, step=self.step, env_steps=self.env_steps)


@final
class CheckpointFolder:
    """The checkpoints of a run. Whoever writes them holds the run's lock, and keeps one of these while it does."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._folder = run.checkpoints
        self._store = StoreFolder(run.store)

    def save(
        self, step: int, state: State, *, env_steps: int = 0, score: float | None = None, keep_last: int = 3
    ) -> Path:
        """Writes a checkpoint, then deletes all but the last `keep_last` and the best on validation.

        Args:
            step: outer steps done.
            state: the learner's.
            env_steps: the simulator's steps so far.
            score: on validation, higher is better; None, NaN or infinite: this checkpoint cannot be the best.
            keep_last: at least 1.

        Raises:
            DiskFullError: no room; the earlier checkpoints are untouched and nothing half-written is left.
            RunError: any other fault of the operating system; the same holds.
            ValueError: a negative step or `keep_last` below 1; a chunk of the store was replaced.
        """
        if step < 0 or keep_last < 1:
            raise ValueError(f"need step >= 0 and keep_last >= 1, got step {step} and keep_last {keep_last}")
        content = {PARAMETERS: tensors.encode(state.parameters), OPTIMIZER: tensors.encode(state.optimizer)}
        if state.behaviour is not None:
            content[BEHAVIOUR] = tensors.encode(state.behaviour)
        experiment = self._run.config.experiment
        record = _StateFile(
            format=_FORMAT,
            experiment_hash=experiment.hash,
            step=step,
            score=float(score) if score is not None and math.isfinite(score) else None,
            env_steps=env_steps,
            random=_RandomState("PCG64", (experiment.seed, step)),
            parameters=_tensor_file(content[PARAMETERS], state.parameters),
            optimizer=_tensor_file(content[OPTIMIZER], state.optimizer),
            store=self._store.write(state.store),
            behaviour=None if state.behaviour is None else _tensor_file(content[BEHAVIOUR], state.behaviour),
        )
        target = self._folder / str(step)
        with writing(target):
            files.make_folder(self._folder)
            _write_folder(target, {**content, STATE: _encode_state(record)})
        self.prune(step, keep_last)
        return target

    def export(self, step: int, target: Path) -> None:
        """Writes a checkpoint to another folder, without what only its training goes on with.

        Raises:
            BrokenCheckpointError: it is damaged.
            RunError: the operating system refuses.
        """
        record = self._read_state(step)
        content, _ = tensors.read(self._folder / str(step) / PARAMETERS, record.parameters.sha256)
        alone = dataclasses.replace(record, optimizer=None, behaviour=None, store=StoreRecord(0, ()))
        with writing(target):
            files.make_folder(target.parent)
            _write_folder(target, {PARAMETERS: content, STATE: _encode_state(alone)})

    def load(self, step: int, expected: State | None) -> Checkpoint:
        """One checkpoint.

        Args:
            step: its number.
            expected: the learner's `init`, that the tensors are held against; None where the learner is not known:
                then only that all values are finite is checked.

        Raises:
            UsageError: there is no checkpoint of this step; the message names those there are.
            BrokenCheckpointError: it is damaged, or of another run or learner.
        """
        if step not in (there := self.steps()):
            listed = ", ".join(map(str, there)) or "none"
            raise UsageError(f"{self._folder} has no checkpoint of step {step}; there are: {listed}")
        return self._read(step, expected)

    def find(self, which: Which, expected: State | None, warning: Callable[[str], None] = warn) -> Checkpoint | None:
        """The last checkpoint or the best: `latest` or `best`."""
        return self.latest(expected, warning) if which == "last" else self.best(expected, warning)

    def latest(self, expected: State | None, warning: Callable[[str], None] = warn) -> Checkpoint | None:
        """The newest whole checkpoint; None where none was ever saved.

        Damaged ones, and those of other runs or learners, are passed over, with one warning that names each file and
        the step used instead.

        Raises:
            RunError: there are checkpoints, and every one is damaged.
        """
        return self._first_whole(tuple(reversed(self.steps())), expected, warning)

    def best(self, expected: State | None, warning: Callable[[str], None] = warn) -> Checkpoint | None:
        """The whole checkpoint with the highest validation score, the earliest of equals; None where none has a score.

        Raises:
            RunError: some checkpoints have a score, and every one of those is damaged.
        """
        return self._first_whole(self._ranked(), expected, warning)

    def steps(self) -> tuple[int, ...]:
        """The steps that have a checkpoint, whole or not, in ascending order.

        Raises:
            RunError: the folder cannot be opened, or is none.
        """
        try:
            files.need_folder(self._folder)
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise RunError(f"{self._folder} cannot be opened: {files.reason(error)}") from error
        return files.numbers(names)

    def clean_up(self) -> None:
        """Removes what killed processes left half-written, and chunks that no checkpoint has.

        A checkpoint that was just being replaced by another of the same step is put back.
        """
        steps = self.steps()
        with contextlib.suppress(FileNotFoundError):
            for name in sorted(os.listdir(self._folder)):
                target = self._folder / name.removeprefix(_REPLACED)
                if name.startswith(_REPLACED) and not os.path.lexists(target):
                    with writing(target):
                        os.rename(self._folder / name, target)
                elif name.startswith((TEMPORARY, _REPLACED)):
                    remove(self._folder / name)
        files.clean_up(self._run.store)
        records = tuple(self._records())
        if len(records) == len(steps):  # a damaged one may still be restored from a copy
            self._store.keep(record.store for record in records)

    def prune(self, step: int, keep_last: int) -> None:
        """Deletes old checkpoints. Ones past `step` do not count: training went back behind them, they were damaged."""
        past = [other for other in self.steps() if other <= step]
        keep = {*past[-keep_last:], *self._ranked()[:1]}
        for other in past:
            if other not in keep:
                # Renamed before it is emptied, so that a kill half-way leaves no checkpoint with files missing.
                doomed = files.temporary_beside(self._folder / str(other))
                with writing(doomed):
                    os.rename(self._folder / str(other), doomed)
                remove(doomed)
        self._store.keep(record.store for record in self._records())

    def _records(self) -> Iterator[_StateFile]:
        """What the checkpoints say of themselves, ascending; damaged ones left out; reads no tensors."""
        for step in self.steps():
            with contextlib.suppress(BrokenCheckpointError):
                yield self._read_state(step)

    def _ranked(self) -> tuple[int, ...]:
        """The steps with a validation score, the best first, the earliest of equals."""
        scores = {record.step: record.score for record in self._records() if record.score is not None}
        return tuple(sorted(scores, key=lambda step: (-scores[step], step)))

    def _first_whole(
        self, candidates: tuple[int, ...], expected: State | None, warning: Callable[[str], None]
    ) -> Checkpoint | None:
        """The first candidate that can be read, after a warning about those before it that cannot."""
        faults: list[str] = []
        for step in candidates:
            try:
                checkpoint = self._read(step, expected)
            except BrokenCheckpointError as error:
                faults.append(str(error))
                continue
            if faults:
                warning(f"{'; '.join(faults)}; using the checkpoint of step {step} instead")
            return checkpoint
        if faults:
            raise RunError(
                f"{'; '.join(faults)}; there is no whole checkpoint: delete {self._folder} to start from the "
                "beginning, or restore it from a copy"
            )
        return None

    def _read(self, step: int, expected: State | None) -> Checkpoint:
        """Reads a checkpoint, comparing every file with its checksum before looking inside."""
        path, record = self._folder / str(step), self._read_state(step)
        parameters = _read_tensors(path / PARAMETERS, record.parameters, expected and expected.parameters)
        optimizer: Parameters = {}
        if record.optimizer is not None:
            optimizer = _read_tensors(path / OPTIMIZER, record.optimizer, expected and expected.optimizer)
        elif expected is not None:
            expected = dataclasses.replace(expected, optimizer={})
        state = State(parameters, optimizer)
        _check(state, expected, path)
        if record.behaviour is not None:
            behaviour = _read_tensors(path / BEHAVIOUR, record.behaviour, parameters)
            _check(State(behaviour, {}), State(parameters, {}), path / BEHAVIOUR)
            state = dataclasses.replace(state, behaviour=behaviour)
        state = dataclasses.replace(state, store=self._store.read(record.store))
        whole = record.optimizer is not None
        return Checkpoint(step, state, record.score, record.env_steps, record.parameters.sha256, whole)

    def _read_state(self, step: int) -> _StateFile:
        file = self._folder / str(step) / STATE
        try:
            files.need_folder(file.parent)
            value = read_object(file)
            check_format(value, _FORMAT)
            if value.pop("checksum", None) != content_hash(cast(Json, value)):
                raise ValueError("it is damaged (its checksum differs)")
            record = options_from_json(_StateFile, value, file)
        except (OSError, ValueError) as error:
            raise BrokenCheckpointError(f"{file} {unreadable(error)}") from error
        except RunError as error:
            raise BrokenCheckpointError(str(error)) from error
        experiment = self._run.config.experiment
        if record.experiment_hash != experiment.hash:
            raise BrokenCheckpointError(
                f"{file} is of another run: of experiment {record.experiment_hash}, this run's is {experiment.hash}"
            )
        if record.step != step or record.random.next_seed != (experiment.seed, step):
            raise BrokenCheckpointError(f"{file} is of step {record.step}, in the folder of step {step}")
        return record


def _tensor_file(content: bytes, parameters: Parameters) -> TensorFile:
    return TensorFile(tensors.digest(content), tuple(parameters))


def _read_tensors(path: Path, file: TensorFile, expected: Parameters | None) -> dict[str, Tensor]:
    # Room for tensors of other types and shapes, so that the message can name the one that differs.
    limit = files.MAX_BYTES if expected is None else _ROOM + 8 * tensors.num_bytes(expected)
    _, loaded = tensors.read(path, file.sha256, limit)
    return tensors.in_order(loaded, file.order, path)


def _check(state: State, expected: State | None, where: Path) -> None:
    if expected is None:
        check_values(state, where)
    else:
        check_state(state, expected, where)


def _encode_state(record: _StateFile) -> bytes:
    content = options_to_json(record)
    return encode_json({**content, "checksum": content_hash(cast(Json, content))})


def _write_folder(target: Path, content: dict[str, bytes]) -> None:
    """Writes a folder of files under a temporary name, synced, and renames it."""
    temporary = files.temporary_beside(target)
    try:
        os.mkdir(temporary)
        for name, encoded in content.items():
            write_new(temporary / name, encoded)
        sync_folder(temporary)
        _move(temporary, target)
    except BaseException:
        remove(temporary)
        raise
    sync_folder(target.parent)


def _move(temporary: Path, target: Path) -> None:
    """Renames a finished checkpoint into place; one that stands there is moved aside first and deleted after."""
    aside = target.with_name(f"{_REPLACED}{target.name}")
    if not os.path.lexists(target):
        os.rename(temporary, target)
        return
    remove(aside)
    os.rename(target, aside)
    try:
        os.rename(temporary, target)
    except OSError:
        os.rename(aside, target)
        raise
    remove(aside)
