"""What a fuzz case is, how it is played in a process of its own, and what is wrong with how it ended.

What programs need is imported once; every case is a fork. A case is a function of (suite's seed, kind, number) alone.
"""

import contextlib
import dataclasses
import hashlib
import os
import random
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

PATIENCE = 30.0  # s, without those in which a case waited for a core
MEMORY = 16 << 30  # bytes of address space: what wants more fails at once rather than the machine later
FAULTS = ("traceback", "hang", "killed", "silent", "touched", "damaged")
"""What can be wrong with how a case ended."""
CRASHED = 99
"""The exit status of a case that raised what nobody meant for its user."""


@dataclasses.dataclass(frozen=True)
class Rooms:
    """Folders of a suite, all in one that is deleted after it."""

    top: Path
    """Nothing may change in it but in the two below."""
    base: Path
    """Runs and data as they were made, to be copied."""
    work: Path
    """Where a case plays, empty before each."""
    victim: Path
    """A file of the user's outside of every run, for links to point to."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One thing that a user, or a stranger whose files a user has, may do."""

    what: str
    play: Callable[[], int]
    """Gives the exit status."""
    damaged: bool = False
    """Whether it uses parameters that are damaged: then it must not end as if all were well."""


Kind = Callable[[random.Random, Rooms], Case]
"""Prepares a case, in the process that then plays it."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How a case ended."""

    kind: str
    number: int
    what: str
    faults: tuple[str, ...]
    """Those of `FAULTS`; none where all is well."""
    status: int
    output: str


def judged(kind: str, prepare: Kind, seed: int, number: int, rooms: Rooms, patience: float = PATIENCE) -> Verdict:
    """Plays one case and looks at what came of it."""
    before, output = snapshot(rooms), rooms.base / "output"
    status, hangs = in_child(lambda: _play(prepare, random.Random(f"{seed} {kind} {number}"), rooms), output, patience)
    text = output.read_text(errors="replace")
    what, damaged, text = _told(text)
    faults = {
        "hang": hangs,
        "killed": status < 0 and not hangs,
        "traceback": status == CRASHED or "Traceback (most recent call last)" in text,
        "silent": status in (1, 2) and not text.strip(),
        "touched": snapshot(rooms) != before,
        "damaged": damaged and status == 0,
    }
    return Verdict(kind, number, what, tuple(name for name, is_so in faults.items() if is_so), status, text)


def snapshot(rooms: Rooms) -> str:
    """A checksum of all names and contents in the suite's folder, but for where cases play and what they print."""
    total = hashlib.sha256()
    for folder, folders, names in os.walk(rooms.top):
        folders[:] = sorted(name for name in folders if Path(folder, name) != rooms.work)
        for name in sorted(names):
            path = Path(folder, name)
            if path != rooms.base / "output":
                status = path.lstat()
                total.update(f"{path} {status.st_size} {status.st_mtime_ns} {status.st_mode}\n".encode())
    return total.hexdigest()


_HEAD = "\x1ecase\x1e"


def _told(text: str) -> tuple[str, bool, str]:
    """What the case was, whether its parameters are damaged, and what it printed."""
    head, mark, rest = text.partition(f"{_HEAD}\n")
    if not mark:
        return "(not prepared)", False, text
    return head[1:].strip(), head.startswith("!"), rest


def _play(prepare: Kind, rng: random.Random, rooms: Rooms) -> int:
    os.chdir(rooms.work)
    case = prepare(rng, rooms)
    what = " ".join(case.what.encode("ascii", "backslashreplace").decode().split())
    os.write(2, f"{'!' if case.damaged else ' '}{what[:500]}{_HEAD}\n".encode())
    return case.play()


def in_here(play: Callable[[], int], output: Path) -> str:
    """Plays in this process, so that what it imports and sets up is there for all forks; what it printed.

    Raises:
        RuntimeError: it did not end well.
    """
    with output.open("w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        status = play()
    text = output.read_text(errors="replace")
    if status != 0:
        raise RuntimeError(f"it should have ended well, and ended with {status}:\n{text}")
    return text


def in_child(play: Callable[[], int], output: Path, patience: float) -> tuple[int, bool]:
    """Plays in a process of its own: the exit status (minus a signal's number), and whether it did not end in time."""
    child = os.fork()
    if child == 0:
        status = CRASHED
        with contextlib.suppress(BaseException):  # nothing of this process may go on in the child
            status = guarded(play, output)
        os._exit(status)
    began = time.monotonic()
    while not ended(child, patience):
        if time.monotonic() - began - scheduled(child)[1] > patience:
            with contextlib.suppress(ProcessLookupError):  # its group is not there before it has run
                os.kill(child, signal.SIGKILL)
                os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return -signal.SIGKILL, True
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), False


def ended(child: int, seconds: float) -> bool:
    """Whether a child ends within a time; it is still to be waited for."""
    descriptor = os.pidfd_open(child)
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


def scheduled(process: int) -> tuple[float, float]:
    """Seconds that a process's threads ran, and that they were ready to run and got no core.

    By these, unlike by a clock, a busy machine makes no difference. 0 where the system does not tell.
    """
    ran = waited = 0
    for path in Path(f"/proc/{process}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError):
            nanoseconds = path.read_text().split()
            ran, waited = ran + int(nanoseconds[0]), waited + int(nanoseconds[1])
    return ran / 1e9, waited / 1e9


def guarded(play: Callable[[], int], output: Path) -> int:
    """In a forked child: what it plays prints into the file, and any exception becomes the status `CRASHED`."""
    os.setpgid(0, 0)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for stream in (1, 2):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if stream == 1 else 0)), stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for name, stream in (("stdout", 1), ("stderr", 2)):
        setattr(sys, name, open(stream, "w", closefd=False, errors="backslashreplace"))  # noqa: SIM115
    try:
        status = play()
    except BaseException:
        traceback.print_exc()
        status = CRASHED
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    return status
