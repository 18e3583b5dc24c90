"""Programs, run in this process as their scripts run them."""

import sys
from pathlib import Path

from metarl.commands import main as commands


def call(name: str, *arguments: str | Path) -> int:
    """Runs a program in this process; its exit status."""
    before = sys.argv
    sys.argv = [f"{name}.py", *map(str, arguments)]
    try:
        commands.script(name)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    finally:
        sys.argv = before
    raise AssertionError("a script ends with its status")
