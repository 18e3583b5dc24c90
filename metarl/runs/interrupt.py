"""Ctrl-C as a question that training asks, rather than an exception anywhere in the middle of a step.

The first SIGINT or SIGTERM is answered at once on stderr; the step is finished, or dropped at the next
`interruption_point`. A second SIGINT drops the step at once.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import final

from metarl.errors import say

STOPPING = "stopping: after this step, or sooner where it can be left; Ctrl-C again drops it at once"


class Interrupted(BaseException):
    """The present step is to be dropped. Internal: `metarl.runs.session` raises it through collectors and catches it.

    Like KeyboardInterrupt, it is no `Exception`: nobody takes it for a fault and carries on.
    """


@final
class Stop:
    """Whether somebody asked this process to stop."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        """The first signal that asked; None where none did."""
        self._presses = 0
        self._in_step = False
        self._process = os.getpid()

    @property
    def requested(self) -> bool:
        return self.signal_number is not None

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """A block that may be dropped: `Interrupted` can come out of it."""
        self._in_step = True
        try:
            yield
        finally:
            self._in_step = False

    def interruption_point(self) -> None:
        """Ends a step's block once a stop was asked for."""
        if self._in_step and self.requested:
            raise Interrupted

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Takes a signal."""
        if os.getpid() != self._process:  # a forked worker: whoever made it ends it
            return
        self._presses += 1
        if self.signal_number is None:
            self.signal_number = number
        elif number == signal.SIGINT and self._in_step:
            raise Interrupted
        elif number == signal.SIGINT and self._presses > 2:  # even saving takes too long for somebody
            raise KeyboardInterrupt


_listening: list[Stop] = []  # the last one listens; signals are the whole process's, so this is, too


def interruption_point() -> None:
    """For whoever collects experience, between the parts of long work: drops the outer step once a stop was asked for.

    The state from before the step is saved. Outside of training it does nothing.
    """
    if _listening:
        _listening[-1].interruption_point()


@contextlib.contextmanager
def stop_requested() -> Iterator[Stop]:
    """Within the block SIGINT and SIGTERM ask to stop; see the yielded `Stop`.

    Signals can only be caught in the main thread; elsewhere nothing ever asks.

    >>> with stop_requested() as stop:
    ...     stop.requested
    False
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    with _said_at_once(), contextlib.ExitStack() as stack:
        for number in (signal.SIGINT, signal.SIGTERM):
            stack.callback(signal.signal, number, signal.signal(number, stop.handle))
        _listening.append(stop)
        stack.callback(_listening.remove, stop)
        yield stop


@contextlib.contextmanager
def _said_at_once() -> Iterator[None]:
    """Says so when the first signal comes.

    A handler runs when the interpreter is between two instructions, which may be many seconds from now: in the middle
    of a backward pass, say. The system writes signals' numbers into a pipe at once, and a thread reads them.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    ended = 0  # no signal has this number

    def wait() -> None:
        while (number := os.read(reader, 1)[0]) != ended:
            if number in (signal.SIGINT, signal.SIGTERM):
                below_the_bar = "\n" if sys.stderr is not None and sys.stderr.isatty() else ""
                say(f"{below_the_bar}{STOPPING}")
                return

    thread = threading.Thread(target=wait, name="metarl-signals", daemon=True)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.write(writer, bytes([ended]))  # closing it would not do: a forked worker may have it open, too
        thread.join()
        os.close(writer)
        os.close(reader)
