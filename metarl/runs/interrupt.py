"""Ctrl-C as a question the training loop asks, rather than an exception anywhere in the middle of a step."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """Within the block SIGINT and SIGTERM only make the yielded function answer True; a second SIGINT interrupts.

    Signals can only be caught in the main thread; elsewhere the answer stays False.

    >>> with stop_requested() as stop:
    ...     stop()
    False
    """
    asked = threading.Event()

    def ask(number: int, _frame: FrameType | None) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
