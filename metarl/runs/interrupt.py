"""Ctrl-C as a question that the training loop asks, rather than an exception anywhere in the middle of a step."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import final


class Interrupted(Exception):  # noqa: N818  # no error: somebody asked for it
    """Raised by `Stop.interruption_point` once a stop was asked for: what is under way is dropped."""


@final
class Stop:
    """Whether somebody asked to stop, by SIGINT (Ctrl-C) or SIGTERM."""

    def __init__(self) -> None:
        self.signal: int | None = None
        """The first signal that came; None as long as none did."""

    def interruption_point(self) -> None:
        """A point where long work can be dropped: raises `Interrupted` once a stop was asked for."""
        if self.signal is not None:
            raise Interrupted

    def ask(self, number: int, _frame: FrameType | None) -> None:
        """The signals' handler: says at once what happens now. A second SIGINT interrupts at once.

        Raises:
            KeyboardInterrupt: this is a second SIGINT.
        """
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = self.signal or number
        with contextlib.suppress(OSError, ValueError):  # nobody reads it
            print(
                "\nstopping after this step, or as soon as it can be dropped; Ctrl-C again drops it now",
                file=sys.stderr,
                flush=True,
            )


@contextlib.contextmanager
def stop_requested() -> Iterator[Stop]:
    """Within the block SIGINT and SIGTERM only ask the yielded `Stop`; a second SIGINT interrupts.

    Signals can only be caught in the main thread; elsewhere nothing changes.

    >>> with stop_requested() as stop:
    ...     stop.signal is None
    True
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
