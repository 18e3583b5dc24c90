"""The errors that a program shows its user as one line, the exit status of each, and the warning line."""

import contextlib
import difflib
import errno
import io
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TextIO

_OUTPUT_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}  # print says no file's name
_LONGEST_LINE = 2000


class UsageError(Exception):
    """What was asked for cannot be done: a wrong id, a folder of another experiment. Exit status 2."""


class RunError(Exception):
    """What was asked for went wrong on the way: a full disk, no whole checkpoint. Exit status 1."""


class WorkerLostError(RunError):
    """A worker process was killed or hangs. Nothing but its current work is lost: start anew and repeat that."""


class DivergedError(RunError):
    """All episodes on a task diverged, so that a policy has no score there."""


class DiskFullError(RunError):
    """There was no room for a file. What had been written before is still there, and nothing half-written is left."""


class StoppedError(Exception):
    """A signal stopped what can be taken up again, with everything saved.

    Exit status 128 + the signal's number, as the shell's: 130 after SIGINT, 143 after SIGTERM. So `train && evaluate`
    does not go on, and a scheduler does not take the run for finished.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


def one_line(message: str) -> str:
    r"""A message without line ends and control characters, which files of strangers may have put into it, and not long.

    >>> one_line("no\n such  id \x1b[2J")
    'no such id \\x1b[2J'
    """
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(message.split()))
    half = _LONGEST_LINE // 2
    return line if len(line) <= _LONGEST_LINE else f"{line[:half]} … {line[-half:]}"


def did_you_mean(name: str, known: Iterable[str], otherwise: str, *, most: int = 3, cutoff: float = 0.6) -> str:
    """What to say of a name that is none of those known: those like it, or, where none is, the other sentence.

    >>> did_you_mean("trian", ("train", "list"), "there are train, list")
    'did you mean train?'

    Args:
        most: names that are offered.
        cutoff: how like they must be, from 0 to 1, by `difflib`.
    """
    near = difflib.get_close_matches(name, list(known), n=most, cutoff=cutoff)
    return f"did you mean {' or '.join(near)}?" if near else otherwise


def warn(message: str) -> None:
    """One line on stderr; a closed stderr is no reason to stop."""
    say(f"warning: {one_line(message)}")


def say(line: str) -> None:
    """A line on stderr, if there is one."""
    if sys.stderr is not None:  # print(file=None) would print on stdout
        with contextlib.suppress(OSError, ValueError):
            print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def starting_up() -> Iterator[None]:
    """While modules are imported, SIGINT ends the process at once and in silence: there is nothing to save yet.

    The shell sees 130. An exception would come out of the middle of some library, which may turn it into another.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def exit_status(program: Callable[[], object]) -> int:
    """Runs a program and returns its exit status: 0, 2 for wrong usage, 1 for a fault, 130 for Ctrl-C.

    Errors meant for the user, the operating system's that name a file, and a lack of memory become one line on stderr;
    any other exception passes, with its traceback. Where the reader of stdout has gone (`| head`) the program ends in
    silence with 141, as the shell's own do.
    """
    _occupy_standard_descriptors()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # whatever the locale, and names that are no text
            stream.reconfigure(errors="backslashreplace")
    try:
        program()
    except UsageError as error:
        return _end(2, f"error: {error}")
    except RunError as error:
        return _end(1, f"error: {error}")
    except StoppedError as error:
        return _end(128 + error.signal_number, str(error))
    except KeyboardInterrupt:
        return _end(128 + signal.SIGINT, "error: interrupted")
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        return _end(1, f"error: there is not enough memory: {error}; ask for less at once")
    except BrokenPipeError:
        if not _reader_gone():  # it was another pipe
            raise
        _discard(sys.stdout)
        return 128 + signal.SIGPIPE
    except OSError as error:
        if isinstance(error.filename, str | bytes):
            return _end(1, f"error: {os.fsdecode(error.filename)}: {error.strerror}")
        if _nowhere():
            return _end(1, "error: the folder that this runs in is not there any more, or may not be looked at")
        if error.errno not in _OUTPUT_FAULTS:
            raise
        return _unwritten(error)
    return _end(0)


def _nowhere() -> bool:
    """Whether the current folder has no name: it was deleted, say. Relative paths then cannot be made absolute."""
    try:
        Path.cwd()
    except OSError:
        return True
    return False


def _occupy_standard_descriptors() -> None:
    """Gives a standard stream that is closed (`2>&-`) to nobody: else the next file that is opened has its number, and
    what a library in C complains about stands in the user's file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it takes the lowest number that is free


def _out_of_memory(error: Exception) -> bool:
    """Whether Python, NumPy or PyTorch (whose classes are not imported here) got no memory."""
    return isinstance(error, MemoryError) or "allocate memory" in str(error) or "out of memory" in str(error)


def _end(status: int, line: str | None = None) -> int:
    """The exit status, after a last line and whatever is still to be printed."""
    unwritten = _flush()
    if line is not None:
        say(one_line(line))
    if sys.stderr is not None:
        try:
            sys.stderr.flush()
        except OSError:
            _discard(sys.stderr)
    return status or unwritten


def _flush() -> int:
    """Prints what waits for it; the exit status where it cannot be printed, else 0."""
    if sys.stdout is None:
        return 0
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)
        return 128 + signal.SIGPIPE
    except OSError as error:
        return _unwritten(error)
    return 0


def _unwritten(error: OSError) -> int:
    _discard(sys.stdout)
    say(f"error: the output could not be written: {error.strerror}")
    return 1


def _discard(stream: TextIO) -> None:
    """Python flushes once more at its end, and would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _reader_gone() -> bool:
    """Whether stdout is a pipe that nobody reads any more."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):
        return False
