"""Plays what strangers and slips of the keyboard do to the programs, case after case, and counts what goes wrong.

`fuzz.py --seconds 600 --seed 0`: until the time is up, every kind of case in turn; the same seed plays the same cases.
Wrong is a traceback, a hang, a kill, a silent refusal, a file touched outside of the case's own folder, or a result
from damaged parameters. `--only checkpoint --number 17` plays one case again and shows what it printed. Exit status: 0
where nothing went wrong.
"""

import argparse
import collections
import contextlib
import gc
import importlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from metarl.commands.main import PROGRAMS
from tests.fuzz import programs, values
from tests.fuzz.harness import FAULTS, PATIENCE, Kind, Rooms, Verdict, in_here, judged
from tests.programs import call

KINDS: Mapping[str, Kind] = {
    "command_line": programs.command_line,
    "config": programs.config,
    "checkpoint": programs.checkpoint,
    "planted": programs.planted,
    "evaluation": values.evaluation,
    "task": values.task,
    "action": values.action,
    "data": values.data,
}


def prepare_bases(rooms: Rooms) -> None:
    """The runs, data and helps that cases begin with. They are small, and made by the programs, in this process: what
    programs import and set up when they are first used, no case has to.
    """
    images = np.random.default_rng(0).integers(256, size=(60, 6, 6), dtype=np.uint8)
    np.savez(rooms.base / "photos.npz", images=images, labels=np.arange(60) % 10)
    agent, few, output = str(rooms.base / "agent"), str(rooms.base / "fewshot"), rooms.base / "output"
    photos = str(rooms.base / "photos.npz")
    in_here(lambda: call("train", *programs.AGENT, "--run", agent, "--steps", "1"), output)
    in_here(lambda: call("fewshot", *programs.FEWSHOT, "--data", photos, "--run", few, "--steps", "1"), output)
    in_here(lambda: call("evaluate", agent, *programs.EVALUATE), output)
    in_here(lambda: call("report", agent, "--output", rooms.work / "report.html"), output)
    (rooms.base / "agent" / "evaluations" / "test-num-tasks-2.json").rename(rooms.base / "evaluation.json")
    for program in programs.base_commands(rooms.base):
        first = {"train": ("maml",), "fewshot": ("prototypical",)}.get(program, ())
        (rooms.base / f"{program}.help").write_text(
            in_here(lambda program=program, first=first: call(program, *first, "--help"), output)
        )


@contextlib.contextmanager
def rooms_of_suite() -> Iterator[Rooms]:
    """Fresh folders, with everything that cases begin with."""
    with tempfile.TemporaryDirectory(prefix="metarl-fuzz-") as name:
        top = Path(name)
        rooms = Rooms(top, top / "base", top / "work", top / "outside" / "victim")
        for folder in (rooms.base, rooms.work, rooms.victim.parent, top / "cache"):
            folder.mkdir()
        rooms.victim.write_text("of the user")
        # Decoded pictures are kept there; it may change.
        os.environ |= {"XDG_CACHE_HOME": str(rooms.work / "cache"), "HOME": str(top / "outside"), "COLUMNS": "1000"}
        prepare_bases(rooms)
        gc.collect()
        gc.freeze()  # a collection in a child would copy what it shares with this process
        yield rooms


def verdicts(options: argparse.Namespace, rooms: Rooms) -> Iterator[Verdict]:
    """Case after case, until the time is up or as many as were asked for are played."""
    kinds = options.only or list(KINDS)
    until, number = time.monotonic() + options.seconds, 0
    while time.monotonic() < until and (options.cases is None or number < options.cases):
        kind = kinds[number % len(kinds)]
        chosen = number // len(kinds) if options.number is None else options.number
        shutil.rmtree(rooms.work, ignore_errors=True)
        rooms.work.mkdir()
        yield judged(kind, KINDS[kind], options.seed, chosen, rooms, options.patience)
        number += 1
        if options.number is not None and number == len(kinds):
            return


def main(arguments: Sequence[str]) -> int:
    """Prints what went wrong and the counts; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0, help="how long (default: 600)")
    parser.add_argument("--cases", type=int, help="at most so many cases")
    parser.add_argument("--seed", type=int, default=0, help="decides all cases (default: 0)")
    parser.add_argument("--only", action="append", choices=KINDS, help="only this kind; may be given again")
    parser.add_argument("--number", type=int, help="only the case of this number, of each kind, with what it printed")
    parser.add_argument("--patience", type=float, default=PATIENCE, help="s until a case hangs (default: 30)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for program in PROGRAMS:  # once, for all forks
        importlib.import_module(f"metarl.commands.{program}")
    played, faults = collections.Counter[str](), collections.Counter[str]()
    endings = collections.Counter[int]()
    began = time.monotonic()
    with rooms_of_suite() as rooms:
        for verdict in verdicts(options, rooms):
            played[verdict.kind] += 1
            endings[verdict.status] += 1
            faults.update(verdict.faults)
            if played.total() % 500 == 0:
                print(f"{played.total()} cases in {time.monotonic() - began:.0f} s", flush=True)
            if verdict.faults or options.number is not None:
                print(
                    f"{verdict.kind} {verdict.number}: {', '.join(verdict.faults) or 'fine'}, status {verdict.status}"
                )
                print(f"    {verdict.what}")
                print("\n".join(f"    {line[:300]}" for line in verdict.output.splitlines()[-12:]), flush=True)
    kinds = ", ".join(f"{count} {kind}" for kind, count in played.items())
    statuses = ", ".join(f"{count} with {status}" for status, count in sorted(endings.items()))
    print(f"{played.total()} cases in {time.monotonic() - began:.0f} s: {kinds}; ended {statuses}")
    print(", ".join(f"{faults[name]} {name}" for name in FAULTS))
    return 1 if faults else 0
