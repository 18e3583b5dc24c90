"""The errors that a program shows its user as one line, and the warning line."""

import contextlib
import os
import select
import sys
from collections.abc import Callable
from signal import SIGINT


class UsageError(Exception):
    """What was asked for cannot be done: a wrong id, a folder of another experiment. Exit status 2."""


class RunError(Exception):
    """What was asked for went wrong on the way: a full disk, no whole checkpoint. Exit status 1."""


class WorkerLostError(RunError):
    """A worker process was killed or hangs. Nothing but its current work is lost: start anew and repeat that."""


class DiskFullError(RunError):
    """There was no room for a file. What had been written before is still there, and nothing half-written is left."""


class StoppedError(Exception):
    """Somebody stopped the work; everything is saved. Exit status 128 + the signal: 130 for Ctrl-C, 143 for SIGTERM."""

    def __init__(self, message: str, signal: int | None = None) -> None:
        """`signal` is the number of the one that came; SIGINT if None."""
        super().__init__(message)
        self.signal = SIGINT if signal is None else signal


def warn(message: str) -> None:
    """One line on stderr; a closed stderr is no reason to stop."""
    with contextlib.suppress(OSError, ValueError):
        print(f"warning: {message}", file=sys.stderr, flush=True)


def exit_status(program: Callable[[], object]) -> int:
    """Runs a program and returns its exit status: 0, 2 for wrong usage, 1 for a fault, 128 + its number for a signal.

    So `train && evaluate` and schedulers see that a training was stopped: 130 after Ctrl-C, 143 after SIGTERM.

    Errors meant for the user become one line on stderr; any other exception passes, with its traceback. Where the
    reader of stdout has gone (`| head`) the program ends in silence with 141, as the shell's own do.
    """
    try:
        program()
        sys.stdout.flush()
    except UsageError as error:
        return _fail(error, 2)
    except RunError as error:
        return _fail(error, 1)
    except StoppedError as stopped:
        with contextlib.suppress(OSError, ValueError):
            print(stopped, flush=True)
        return 128 + stopped.signal
    except KeyboardInterrupt:
        return _fail("interrupted", 128 + SIGINT)
    except BrokenPipeError:
        if not _reader_gone():  # it was another pipe
            raise
        # Python flushes once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0


def _reader_gone() -> bool:
    """Whether stdout is a pipe that nobody reads any more."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):
        return False


def _fail(error: Exception | str, status: int) -> int:
    with contextlib.suppress(OSError, ValueError):
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return status
