"""Puts one plausible bug after the other into a copy of the checkout: the tests named beside each must fail.

    python scripts/mutants.py                        all in tests/mutants/*.toml
    python scripts/mutants.py --only best-is-last    one of them; may be given again
    python scripts/mutants.py --jobs 2               several at once

A bug is a table in one of those files:

    [[mutant]]
    name = "best-is-last"
    file = "metarl/runs/checkpoints.py"
    old = 'if which == "last" else self.best(expected, warning)'
    new = 'if which == "last" else self.latest(expected, warning)'
    tests = ["tests/runs/test_checkpoints.py"]

`old` is a text that the file has exactly once; `tests` are named as pytest takes them.

Exit status: 0 where every bug was caught; 1 where one survived, where its text is not there exactly once, or where the
tests fail without any bug.
"""

import argparse
import concurrent.futures
import dataclasses
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path("tests", "mutants")
LEFT_OUT = {".git", ".venv", "build", "dist", "runs", "data"}  # at the checkout's top; no test needs them
TIMEOUT = 900.0  # seconds for the tests of one bug, which may hang them
Outcome = Literal["killed", "survived", "misplaced", "broken"]


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A bug and the tests that must notice it."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of a bug."""

    mutant: Mutant
    outcome: Outcome
    details: str


def read_mutants(folder: Path) -> tuple[Mutant, ...]:
    """The bugs in a folder's .toml files.

    Raises:
        ValueError: a table has other fields, or two have one name.
    """
    mutants: list[Mutant] = []
    fields = {field.name for field in dataclasses.fields(Mutant)}
    for path in sorted(folder.glob("*.toml")):
        for table in tomllib.loads(path.read_text(encoding="utf-8")).get("mutant", []):
            if table.keys() != fields or not table["tests"]:
                raise ValueError(f"{path}: a mutant needs {', '.join(sorted(fields))}, got {', '.join(table)}")
            mutants.append(Mutant(**{**table, "tests": tuple(table["tests"])}))
    names = [mutant.name for mutant in mutants]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"there are two mutants called {twice[0]!r}")
    return tuple(mutants)


def copy_checkout(root: Path, target: Path) -> None:
    """A copy to put bugs into, its symlinks kept as they are."""

    def left_out(folder: str, names: Iterable[str]) -> set[str]:
        caches = {name for name in names if name.endswith((".pyc", "_cache")) or name == "__pycache__"}
        return caches | (LEFT_OUT if Path(folder) == root else set())

    shutil.copytree(root, target, symlinks=True, ignore=left_out)


def run_tests(checkout: Path, tests: Sequence[str]) -> tuple[int | None, str]:
    """pytest's exit status, None where it took too long, and the end of what it printed."""
    path = os.pathsep.join(filter(None, (str(checkout), os.environ.get("PYTHONPATH", ""))))
    # No bytecode: a bug and its repair may fall within one tick of the file system's clock.
    variables = os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command, cwd=checkout, env=variables, capture_output=True, text=True, check=False, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired:
        return None, f"took more than {TIMEOUT:.0f} s"
    return done.returncode, done.stdout[-2000:] + done.stderr[-2000:]


def judge(mutant: Mutant, checkout: Path) -> Verdict:
    """Puts a bug into the copy, runs its tests, takes it out again."""
    path = checkout / mutant.file
    original = path.read_text(encoding="utf-8") if path.is_file() else ""
    if (count := original.count(mutant.old)) != 1:
        return Verdict(mutant, "misplaced", f"{mutant.file} has its text {count} times, not once")
    try:
        path.write_text(original.replace(mutant.old, mutant.new), encoding="utf-8")
        status, output = run_tests(checkout, mutant.tests)
    finally:
        path.write_text(original, encoding="utf-8")
    if status is None or status == 1:  # tests failed, or hang
        return Verdict(mutant, "killed", output)
    # Other statuses: nothing was collected, no such test, a module that cannot be imported.
    return Verdict(mutant, "survived" if status == 0 else "broken", output)


def judge_all(mutants: Sequence[Mutant], root: Path, jobs: int) -> Iterable[Verdict]:
    """The verdicts, as they come in."""
    with tempfile.TemporaryDirectory(prefix="metarl-mutants-") as folder:
        copies: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for number in range(jobs):
            copy_checkout(root, Path(folder, str(number)))
            copies.put(Path(folder, str(number)))
        tests = sorted({test for mutant in mutants for test in mutant.tests})
        status, output = run_tests(Path(folder, "0"), tests)
        if status != 0:
            raise ValueError(f"the tests fail without any bug:\n{output}")

        def work(mutant: Mutant) -> Verdict:
            checkout = copies.get()
            try:
                return judge(mutant, checkout)
            finally:
                copies.put(checkout)

        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(work, mutant) for mutant in mutants]
            for future in concurrent.futures.as_completed(futures):
                yield future.result()


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    """Prints each bug's fate; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", metavar="NAME", action="append", help="only this bug; may be given again")
    parser.add_argument("--jobs", metavar="N", type=int, default=1, help="how many at once (default: 1)")
    options = parser.parse_args(arguments)
    try:
        mutants = read_mutants(root / FOLDER)
        if options.jobs < 1:
            raise ValueError(f"--jobs must be at least 1, got {options.jobs}")
        if unknown := sorted(set(options.only or ()) - {mutant.name for mutant in mutants}):
            raise ValueError(f"there is no mutant {unknown[0]!r} in {FOLDER}/*.toml")
        chosen = [mutant for mutant in mutants if not options.only or mutant.name in options.only]
        verdicts: list[Verdict] = []
        for verdict in judge_all(chosen, root, options.jobs):
            verdicts.append(verdict)
            print(f"{verdict.outcome:9}  {verdict.mutant.name}", flush=True)
            if verdict.outcome != "killed":
                print("\n".join(f"    {line}" for line in verdict.details.splitlines()[-15:]), flush=True)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    killed = sum(verdict.outcome == "killed" for verdict in verdicts)
    print(f"{killed} of {len(verdicts)} killed")
    return 0 if killed == len(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
