"""Programs as processes of their own, which end with whoever started them."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # of Linux
_START = "from metarl.runs.children import bind; bind(); from metarl.commands.main import main; main()"


def start(arguments: Sequence[str], log: Path) -> "subprocess.Popen[bytes]":
    """`metarl <arguments>`, with all that it says appended to a file."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-c", _START, str(os.getpid()), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )


def bind() -> None:
    """Binds this process to its maker, whose id `sys.argv` holds: it is told to end when that does."""
    maker = int(sys.argv.pop(1))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)  # it saves what is done, and ends
    if os.getppid() != maker:  # it had ended before
        sys.exit(128 + signal.SIGTERM)


def last_line(log: Path) -> str:
    """What a program said last, for a message."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.is_file() else []
    return lines[-1] if lines else "it said nothing"
