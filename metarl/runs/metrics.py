"""The metrics of every outer step, in `metrics.jsonl` and as TensorBoard events.

A line is one JSON object: `step`, `wall_time` (seconds since 1970), and the figures by name. JSON has no NaN and no
infinity: such a figure is null there (TensorBoard shows it as it is). Figures that differ between equal runs because
a clock went into them have names that begin with `time/`.

TensorBoard's horizontal axis is the environment steps so far where there are any, which aligns agents whose outer steps
are of other sizes; and its tags are grouped (`tag`).
"""

import contextlib
import json
import math
import os
import time
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import final

import msgspec

from metarl.errors import RunError, warn
from metarl.learning.protocols import Metrics
from metarl.runs import events, files
from metarl.runs.files import write_all, write_atomically, writing

FILE = "metrics.jsonl"
EVENTS = "events.out.tfevents."
Row = dict[str, int | float | None]
"""A line of the file."""
RESERVED = ("step", "wall_time")
MAX_BYTES = 2 << 30
"""The largest file of metrics that is read: 2 GiB, millions of steps."""

ENV_STEPS = "env_steps"
"""The metric that counts environment steps so far."""
_SCORES = ("return", "success", "accuracy", "error")
_COUNTS = (ENV_STEPS, "episodes", "examples", "diverged")

_DECODER = msgspec.json.Decoder(Row)


@final
class Recorder:
    """Takes the metrics of one step after the other; a line is in the file when `log` returns."""

    def __init__(self, folder: Path, start: int, clock: Callable[[], float], lines: int, events_file: int) -> None:
        self._folder = folder
        self._clock = clock
        self._lines = lines  # file descriptor of metrics.jsonl
        self._events = events_file  # file descriptor of the events
        self._next = start

    def log(self, step: int, figures: Metrics) -> None:
        """Writes the figures of a step.

        Raises:
            DiskFullError: no room; the line is taken back.
            RunError: any other fault of the operating system.
            ValueError: the step was logged before, or a figure has a reserved name.
        """
        if step < self._next:
            raise ValueError(f"step {step} was logged before; the next is {self._next} or later")
        if taken := [name for name in RESERVED if name in figures]:
            raise ValueError(f"a figure cannot be called {taken[0]!r}: that is a field of every line")
        now = self._clock()
        line = {"step": step, "wall_time": round(now, 3)} | {name: _number(value) for name, value in figures.items()}
        _append(self._folder / FILE, self._lines, (json.dumps(line, allow_nan=False) + "\n").encode())
        tagged = {tag(name): value for name, value in figures.items()} | {"experience/outer_step": float(step)}
        _append(self._folder / EVENTS, self._events, events.scalars(now, _axis(step, figures), tagged))
        self._next = step + 1

    def sync(self) -> None:
        """Waits until all lines are on the disk: before a checkpoint, so that it is never ahead of the metrics."""
        with writing(self._folder / FILE):
            os.fsync(self._lines)


@contextlib.contextmanager
def recording(
    folder: Path,
    start: int,
    *,
    notes: Mapping[str, str] = types.MappingProxyType({}),
    clock: Callable[[], float] = time.time,
    warning: Callable[[str], None] = warn,
) -> Iterator[Recorder]:
    """Goes on with a run's metrics at step `start`; whatever was written of that step and later ones is dropped.

    Args:
        folder: the run's.
        start: the next outer step.
        notes: texts in Markdown for TensorBoard, by their tags.
        clock: seconds since 1970.
        warning: told of damaged lines.

    Raises:
        DiskFullError: no room.
        RunError: any other fault of the operating system.
    """
    _rewind(folder / FILE, start, warning)
    kept = read(folder)
    begin = _axis(int(kept[-1]["step"] or 0), kept[-1]) + 1 if kept else 0
    with writing(folder / FILE), contextlib.ExitStack() as stack:
        lines = files.open_to_append(folder / FILE)
        stack.callback(os.close, lines)
        events_file = os.open(_new_events(folder), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
        stack.callback(os.close, events_file)
        closing = stack.pop_all()
    with closing:
        now = clock()
        noted = events.texts(now, notes) if notes else b""
        _append(folder / EVENTS, events_file, events.header(now) + events.purge(now, begin) + noted)
        yield Recorder(folder, start, clock, lines, events_file)


def tag(name: str) -> str:
    """A metric's name in TensorBoard, in a group with those of its kind.

    >>> tag("return_after"), tag("validation"), tag("validation_return")
    ('score/return_after', 'validation/score', 'validation/return')
    >>> tag("env_steps"), tag("kl"), tag("time/outer_step")
    ('experience/env_steps', 'learner/kl', 'time/outer_step')
    """
    if "/" in name:
        return name
    first, _, rest = name.partition("_")
    if first == "validation":
        return f"validation/{rest or 'score'}"
    group = "experience" if name in _COUNTS else "score" if first in _SCORES else "learner"
    return f"{group}/{name}"


def _axis(step: int, figures: Mapping[str, int | float | None]) -> int:
    """Where a step is on TensorBoard's horizontal axis."""
    done = figures.get(ENV_STEPS)
    return step if done is None else int(done)


def read(folder: Path) -> tuple[Row, ...]:
    """The lines of a run's metrics by ascending step, each step once; empty where there are none.

    Lines that are torn or damaged are left out: the run may be going on at this moment.

    Raises:
        RunError: the file is there and cannot be read.
    """
    rows, _ = _parse(_content(folder / FILE))
    return tuple(rows[step][1] for step in sorted(rows))


def _rewind(path: Path, start: int, warning: Callable[[str], None]) -> None:
    """Leaves one whole line for each step before `start`, and nothing else."""
    content = _content(path)
    rows, damaged = _parse(content)
    if damaged:
        warning(f"{path}: {damaged} damaged lines are left out")
    kept = b"".join(rows[step][0] for step in sorted(rows) if step < start)
    if kept != content:
        write_atomically(path, kept)


def _content(path: Path) -> bytes:
    try:
        return files.read_bytes(path, MAX_BYTES)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise RunError(f"could not read {path}: {files.reason(error)}") from error


def _parse(content: bytes) -> tuple[dict[int, tuple[bytes, Row]], int]:
    """Whole lines by their step (the last one wins), and how many others there are besides a torn last one."""
    *lines, _torn = content.split(b"\n")
    parsed = [(line, _row(line)) for line in lines]
    rows = {int(row["step"] or 0): (line + b"\n", row) for line, row in parsed if row is not None}
    return rows, sum(row is None for _, row in parsed)


def _row(line: bytes) -> Row | None:
    """A line's metrics, or None where it is damaged."""
    try:
        row = _DECODER.decode(line)
    except (ValueError, RecursionError):
        return None
    step, whole = row.get("step"), (value for value in row.values() if isinstance(value, int))
    return row if isinstance(step, int) and step >= 0 and all(abs(value) < 1 << 63 for value in whole) else None


def _number(value: float) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def _append(path: Path, descriptor: int, content: bytes) -> None:
    """Appends all of it or, where the disk is full, nothing."""
    with writing(path):
        size = os.fstat(descriptor).st_size
        try:
            write_all(descriptor, content)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, size)
            raise


def _new_events(folder: Path) -> Path:
    """The next events file. TensorBoard reads them in the order of their names, so they are numbered."""
    taken = [path.name.removeprefix(EVENTS) for path in folder.glob(f"{EVENTS}*")]
    number = 1 + max((int(suffix) for suffix in taken if suffix.isascii() and suffix.isdigit()), default=0)
    return folder / f"{EVENTS}{number:06d}"
