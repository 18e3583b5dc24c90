"""A training program: `python -m tests.runs.tiny_program FOLDER STEPS PAUSE [SEED]`; PAUSE in seconds a step.

With `--server` it forks itself for every line of such arguments on its standard input, so that a start takes no time.
"""

import functools
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from metarl.errors import exit_status
from metarl.runs import provenance
from metarl.runs.interrupt import interruption_point
from metarl.runs.session import train
from tests.runs.tiny import Source, Tiny, request, validate


def main(arguments: Sequence[str]) -> None:
    """Trains."""
    folder, steps, pause, seed = Path(arguments[0]), int(arguments[1]), float(arguments[2]), int([*arguments, "5"][3])

    def wait(_step: int) -> None:
        until = time.monotonic() + pause
        while time.monotonic() < until:
            interruption_point()
            time.sleep(min(pause, 0.01))

    asked = request(folder, steps, seed=seed, checkpoint_every=3, validate_every=8)
    train(asked, Tiny(), Source(wait), validate)
    print(f"{folder}: done")


def serve() -> None:
    """Prints each child's process id, and its exit status when it has ended."""
    provenance.environment(1)  # asks git once for all children
    for line in iter(sys.stdin.readline, ""):
        *arguments, output = line.rstrip("\n").split("\t")
        child = os.fork()
        if child == 0:
            for stream in (1, 2):
                os.dup2(os.open(f"{output}.{stream}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
            try:
                status = exit_status(functools.partial(main, arguments))
            except BaseException:
                traceback.print_exc()
                status = 99
            sys.stderr.flush()
            os._exit(status)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["--server"]:
        serve()
    else:
        sys.exit(exit_status(lambda: main(sys.argv[1:])))
