"""How far a long job is: a bar with the time left in a terminal, plain lines, a few a minute, anywhere else."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import IO, TYPE_CHECKING, Protocol, cast, final, runtime_checkable

from metarl.errors import one_line

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

LINE_EVERY = 15.0
"""Seconds between plain lines."""
BAR_EVERY = 0.1
"""Seconds between redraws of the bar, at least."""


@runtime_checkable
class Stream(Protocol):
    """What is needed of a text stream."""

    def write(self, text: str, /) -> int: ...
    def flush(self) -> None: ...
    def isatty(self) -> bool: ...
    def fileno(self) -> int: ...


class Progress(Protocol):
    """Told of every step; decides itself what to show."""

    def update(self, done: int, figures: Mapping[str, float]) -> None:
        """`done` steps of all are done; the figures are shown in the order given."""
        ...


@contextlib.contextmanager
def progress(
    title: str,
    total: int,
    *,
    done: int = 0,
    note: str = "",
    stream: Stream | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Progress]:
    """Shows the progress of `total` steps, `done` of which were done before. Faults of the stream are ignored.

    Args:
        note: what is said before the first step: `resumed from step 9`.
        stream: where to; the program's stderr unless given.
        clock: seconds, of which only differences matter.
    """
    title = one_line(title)
    output = _Output(stream if stream is not None else sys.stderr)
    pace = _Pace(total, done, clock)
    if note:
        output.line(f"{title}: {note}")
    if not output.is_terminal():
        lines = _Lines(title, output, pace)
        try:
            yield lines
        finally:
            lines.close()
        return
    bar = _Bar(title, output, pace)
    try:
        yield bar
    finally:
        bar.close()


@contextlib.contextmanager
def progress_of_share(title: str) -> Iterator[Callable[[float], None]]:
    """The same for a job that tells which share of it is done, from 0 to 1: the function to be told."""
    with progress(title, 100) as shown:
        yield lambda share: shown.update(round(100 * share), {})


def describe(figures: Mapping[str, float]) -> str:
    """Figures in one line: `env_steps 1.25M, score 12.3, kl 0.00987`."""
    return ", ".join(f"{name} {_short(value)}" for name, value in figures.items())


def _short(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= max(size, 10_000) and abs(value) < 1e13:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds: `1:02:03`, `2:03`."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@final
class _Pace:
    """How long it took and how long it will."""

    def __init__(self, total: int, done: int, clock: Callable[[], float]) -> None:
        self.total = total
        self.before = done
        self.clock = clock
        self.begun = clock()

    def elapsed(self) -> float:
        return self.clock() - self.begun

    def left(self, done: int) -> str:
        """The time left if the rest goes at the pace so far; steps of an earlier process do not count."""
        if done <= self.before:
            return "?"
        return duration(self.elapsed() / (done - self.before) * max(0, self.total - done))


@final
class _Output:
    """A stream that may be closed, or a pipe nobody reads any more: writing then does nothing."""

    def __init__(self, stream: Stream | None) -> None:
        self.stream = stream

    def is_terminal(self) -> bool:
        try:
            return self.stream is not None and self.stream.isatty() and os.environ.get("TERM") != "dumb"
        except (OSError, ValueError):
            return False

    def line(self, text: str) -> None:
        self.attempt(lambda stream: print(text, file=stream, flush=True))

    def attempt(self, write: Callable[[Stream], object]) -> None:
        """Writes, and gives the stream up for good where that fails."""
        if self.stream is None:
            return
        try:
            write(self.stream)
        except (OSError, ValueError):
            self.stream = None


@final
class _Lines:
    """The first step, then one every `LINE_EVERY` seconds, then the last."""

    def __init__(self, title: str, output: _Output, pace: _Pace) -> None:
        self.title, self.output, self.pace = title, output, pace
        self.shown_at: float | None = None
        self.pending: str | None = None

    def update(self, done: int, figures: Mapping[str, float]) -> None:
        now = self.pace.clock()
        details = f"{describe(figures)}; " if figures else ""
        self.pending = (
            f"{self.title}: {done}/{self.pace.total}; {details}"
            f"{duration(self.pace.elapsed())} gone, {self.pace.left(done)} left"
        )
        if self.shown_at is None or now - self.shown_at >= LINE_EVERY or done >= self.pace.total:
            self._show(now)

    def close(self) -> None:
        if self.pending is not None:
            self._show(self.pace.clock())

    def _show(self, now: float) -> None:
        self.output.line(self.pending or "")
        self.pending, self.shown_at = None, now


@final
class _Bar:
    """One line in the terminal, redrawn. No thread of its own: a fault of the terminal would print a traceback."""

    def __init__(self, title: str, output: _Output, pace: _Pace) -> None:
        self.title, self.output, self.pace = title, output, pace
        self.drawn_at = pace.begun
        self.bar: RichProgress | None = None
        output.attempt(self._begin)

    def _begin(self, stream: Stream) -> None:
        from rich.console import Console  # slow: not needed without a terminal
        from rich.progress import BarColumn, Progress, TextColumn

        class RaisingConsole(Console):
            """Rich's own answer to a broken pipe is to end the program."""

            def on_broken_pipe(self) -> None:
                raise BrokenPipeError

        self.bar = Progress(
            TextColumn("{task.description}", markup=False),  # a run may be called [ice]
            BarColumn(),
            TextColumn("{task.completed}/{task.total} {task.fields[details]}", markup=False),
            console=RaisingConsole(file=cast(IO[str], stream)),
            auto_refresh=False,
            redirect_stdout=False,  # would stay redirected if the terminal broke
            redirect_stderr=False,
        )
        self.task = self.bar.add_task(self.title, total=self.pace.total, completed=self.pace.before, details="")
        self.bar.start()

    def update(self, done: int, figures: Mapping[str, float]) -> None:
        now = self.pace.clock()
        due = now - self.drawn_at >= BAR_EVERY or done >= self.pace.total
        if self.bar is None:
            return
        times = f"{duration(self.pace.elapsed())} gone, {self.pace.left(done)} left"
        self.bar.update(self.task, completed=done, details=f"{times}  {describe(figures)}")
        if due:
            self.drawn_at = now
            self.output.attempt(lambda _: self.bar.refresh() if self.bar else None)

    def close(self) -> None:
        if self.bar is not None:
            self.output.attempt(lambda _: self.bar.stop() if self.bar else None)
            self.bar = None
