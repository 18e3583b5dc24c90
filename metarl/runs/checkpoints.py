"""Checkpoints: folders that are either whole or not there, hold no pickle, and notice when they have been damaged.

    checkpoints/<step>/params.safetensors, optimizer.safetensors    the learner's state
                       state.json                                   step, validation score, counters, checksums

A checkpoint is written under a temporary name, synced, then renamed. Its validation score stands in its own
`state.json`, so that "the best on validation" follows from the checkpoints themselves and cannot disagree with them.
"""

import contextlib
import dataclasses
import hashlib
import math
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import final

import safetensors.torch
from safetensors import SafetensorError

from metarl.errors import RunError, UsageError, warn
from metarl.learning.protocols import Parameters, State
from metarl.runs.files import TEMPORARY, encode_json, read_json, remove, sync_folder, write_synced, writing
from metarl.tasks import Json, content_hash

PARAMETERS, OPTIMIZER, STATE = "params.safetensors", "optimizer.safetensors", "state.json"
_REPLACED = ".replaced-"
_FORMAT = 1


@final
@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A learner at one point of its training."""

    step: int
    """Outer steps done; training goes on with the step of this number."""
    state: State
    score: float | None
    """On validation, higher is better; None where this checkpoint was not validated."""
    extra: Mapping[str, Json]
    """What else was saved: counters, RNG states."""


class BrokenCheckpointError(RunError):
    """A checkpoint is damaged; the message names the file and what is wrong with it."""


def save(
    folder: Path,
    step: int,
    state: State,
    extra: Mapping[str, Json],
    *,
    score: float | None = None,
    keep_last: int = 3,
) -> Path:
    """Writes `folder/<step>`, then deletes all but the last `keep_last` checkpoints and the best on validation.

    Args:
        folder: the run's `checkpoints` folder; it is created where it is missing.
        score: on validation, higher is better; None, NaN or infinite: this checkpoint cannot be the best.

    Raises:
        DiskFullError: no room; the earlier checkpoints are untouched and nothing half-written is left.
        RunError: any other fault of the operating system; the same holds.
        ValueError: a negative step, `keep_last` below 1, or a NaN in `extra`.
    """
    if step < 0 or keep_last < 1:
        raise ValueError(f"need step >= 0 and keep_last >= 1, got step {step} and keep_last {keep_last}")
    tensors = {PARAMETERS: state.parameters, OPTIMIZER: state.optimizer}
    files = {name: _encode(values) for name, values in tensors.items()}
    records: dict[str, Json] = {name: _record(tensors[name], content) for name, content in files.items()}
    files[STATE] = _encode_state(step, score, extra, records)
    target, temporary = folder / str(step), folder / f"{TEMPORARY}{step}"
    with writing(target):
        try:
            _make_folder(folder)
            remove(temporary)
            os.mkdir(temporary)
            for name, content in files.items():
                write_synced(temporary / name, content)
            sync_folder(temporary)
            _move(temporary, target)
        except OSError:
            remove(temporary)
            raise
        sync_folder(folder)
    _prune(folder, step, keep_last)
    return target


def load(folder: Path, step: int) -> Checkpoint:
    """Reads one checkpoint.

    Raises:
        UsageError: there is no checkpoint of this step; the message names those there are.
        BrokenCheckpointError: it is damaged.
    """
    if not (folder / str(step)).is_dir():
        there = ", ".join(map(str, steps(folder))) or "none"
        raise UsageError(f"{folder} has no checkpoint of step {step}; there are: {there}")
    return _read(folder / str(step))


def steps(folder: Path) -> tuple[int, ...]:
    """The steps that have a checkpoint, whole or not, in ascending order."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return tuple(sorted(int(name) for name in names if name.isascii() and name.isdigit() and str(int(name)) == name))


def latest(folder: Path, warning: Callable[[str], None] = warn) -> Checkpoint | None:
    """The newest whole checkpoint; None where none was ever saved.

    Damaged ones are passed over, with one warning that names each damaged file and the step used instead.

    Raises:
        RunError: there are checkpoints, and every one is damaged.
    """
    return _first_whole(folder, tuple(reversed(steps(folder))), warning)


def best(folder: Path, warning: Callable[[str], None] = warn) -> Checkpoint | None:
    """The whole checkpoint with the highest validation score, the earliest of equals; None where none has a score.

    Raises:
        RunError: some checkpoints have a score, and every one of those is damaged.
    """
    return _first_whole(folder, _ranked(folder), warning)


def clean_up(folder: Path) -> None:
    """Removes what killed processes left half-written. Call it while holding the run's lock.

    A checkpoint that was just being replaced by another of the same step is put back.
    """
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(folder)):
            target = folder / name.removeprefix(_REPLACED)
            if name.startswith(_REPLACED) and not target.exists():
                with writing(target):
                    os.rename(folder / name, target)
            elif name.startswith((TEMPORARY, _REPLACED)):
                remove(folder / name)


def _encode(tensors: Parameters) -> bytes:
    # A copy each: the format refuses tensors that share memory, as views of one flat vector do.
    return safetensors.torch.save(
        {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    )


def _record(tensors: Parameters, content: bytes) -> Json:
    """A tensor file's checksum, and the order of its tensors: the format sorts them, but sums depend on the order."""
    return {"sha256": hashlib.sha256(content).hexdigest(), "order": list(tensors)}


def _encode_state(step: int, score: float | None, extra: Mapping[str, Json], records: Mapping[str, Json]) -> bytes:
    content: dict[str, Json] = {
        "format": _FORMAT,
        "step": step,
        "score": score if score is not None and math.isfinite(score) else None,
        "extra": dict(extra),
        "files": dict(records),
    }
    return encode_json(content | {"checksum": content_hash(content)})


def _make_folder(folder: Path) -> None:
    """Creates the checkpoints folder, durably, where it is missing."""
    if not folder.is_dir():
        os.mkdir(folder)
        sync_folder(folder.parent)


def _move(temporary: Path, target: Path) -> None:
    """Renames a finished checkpoint into place; one that stands there is moved aside first and deleted after."""
    aside = target.with_name(f"{_REPLACED}{target.name}")
    if not target.exists():
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


def _prune(folder: Path, step: int, keep_last: int) -> None:
    """Deletes old checkpoints. Ones past `step` are not counted: training went back behind them, they were damaged."""
    past = [other for other in steps(folder) if other <= step]
    keep = {*past[-keep_last:], *_ranked(folder)[:1]}
    for other in past:
        if other not in keep:
            # Renamed before it is emptied, so that a kill half-way leaves no checkpoint with files missing.
            doomed = folder / f"{TEMPORARY}{other}"
            with writing(doomed):
                os.rename(folder / str(other), doomed)
            remove(doomed)


def _ranked(folder: Path) -> tuple[int, ...]:
    """The steps with a validation score, the best first, the earliest of equals; reads no tensors."""
    scores: dict[int, float] = {}
    for step in steps(folder):
        with contextlib.suppress(BrokenCheckpointError):
            score = _read_state(folder / str(step))["score"]
            if isinstance(score, int | float):
                scores[step] = score
    return tuple(sorted(scores, key=lambda step: (-scores[step], step)))


def _first_whole(folder: Path, candidates: tuple[int, ...], warning: Callable[[str], None]) -> Checkpoint | None:
    """The first candidate that can be read, after a warning about those before it that cannot."""
    faults: list[str] = []
    for step in candidates:
        try:
            checkpoint = _read(folder / str(step))
        except BrokenCheckpointError as error:
            faults.append(str(error))
            continue
        if faults:
            warning(f"{'; '.join(faults)}; using the checkpoint of step {step} instead")
        return checkpoint
    if faults:
        raise RunError(
            f"{'; '.join(faults)}; there is no whole checkpoint: delete {folder} to start from the beginning, "
            "or restore it from a copy"
        )
    return None


def _read(path: Path) -> Checkpoint:
    """Reads a checkpoint, comparing every file with its checksum before looking inside."""
    state = _read_state(path)
    score, extra, records = state["score"], state["extra"], state["files"]
    if not isinstance(extra, dict) or not isinstance(records, dict):
        raise BrokenCheckpointError(f"{path / STATE} is damaged (extra and files must be objects)")
    parameters, optimizer = (_read_tensors(path / name, records.get(name)) for name in (PARAMETERS, OPTIMIZER))
    score = float(score) if isinstance(score, int | float) else None
    return Checkpoint(int(path.name), State(parameters, optimizer), score, extra)


def _read_state(path: Path) -> dict[str, Json]:
    """The content of `state.json`, which carries a checksum of itself."""
    file = path / STATE
    try:
        _need_plain_file(file)
        state = read_json(file)
        if state.pop("checksum", None) != content_hash(state):
            raise ValueError("its checksum differs")
    except (OSError, ValueError) as error:
        raise BrokenCheckpointError(f"{file} is {_fault(error)}") from error
    if state.get("format") != _FORMAT or not state.keys() >= {"step", "score", "extra", "files"}:
        raise BrokenCheckpointError(f"{file} has format {state.get('format')}; this version reads format {_FORMAT}")
    if state["step"] != int(path.name):
        raise BrokenCheckpointError(f"{file} is of step {state['step']}, in the folder of step {path.name}")
    return state


def _read_tensors(file: Path, record: Json) -> Parameters:
    """The tensors in their first order, each in memory of its own, aligned as tensors are that were never saved."""
    try:
        if not isinstance(record, dict) or not isinstance(order := record.get("order"), list):
            raise ValueError(f"{STATE} does not describe it")
        _need_plain_file(file)
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != record.get("sha256"):
            raise ValueError("its checksum differs")
        tensors = safetensors.torch.load(content)
        if sorted(map(str, order)) != sorted(tensors):
            raise ValueError(f"{STATE} names other tensors")
        return {str(name): tensors[str(name)].clone() for name in order}
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise BrokenCheckpointError(f"{file} is {_fault(error)}") from error


def _need_plain_file(file: Path) -> None:
    """A pipe or a device in a checkpoint from a stranger would block the reader."""
    if not stat.S_ISREG(os.stat(file).st_mode):
        raise ValueError("not a plain file")


def _fault(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "missing"
    if isinstance(error, OSError):
        return f"unreadable ({error.strerror})"
    return f"damaged ({' '.join(str(error).split())[:120]})"
