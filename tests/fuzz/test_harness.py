"""The fuzz suite sees what it is there to see."""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from metarl.errors import say
from tests.fuzz.harness import Case, Rooms, judged


@pytest.fixture
def rooms(tmp_path: Path) -> Rooms:
    rooms = Rooms(tmp_path, tmp_path / "base", tmp_path / "work", tmp_path / "outside" / "victim")
    for folder in (rooms.base, rooms.work, rooms.victim.parent):
        folder.mkdir()
    rooms.victim.write_text("of the user")
    return rooms


def raising() -> int:
    raise KeyError("a bug")


def refusing() -> int:
    say("error: no")
    return 2


def writing() -> int:
    Path("own").write_text("fine")
    return 0


def asleep() -> int:
    time.sleep(600)
    return 0


ENDS: dict[str, tuple[Callable[[], int], bool, tuple[str, ...]]] = {
    "a refusal": (refusing, True, ()),
    "its own files": (writing, False, ()),
    "a traceback": (raising, False, ("traceback",)),
    "the end of the process": (lambda: sys.exit(3), False, ("traceback",)),
    "a hang": (asleep, False, ("hang",)),
    "a crash": (lambda: os.kill(os.getpid(), signal.SIGSEGV) or 0, False, ("killed",)),
    "silence": (lambda: 2, False, ("silent",)),
    "a result from damaged parameters": (lambda: 0, True, ("damaged",)),
    "a file of the user's": (lambda: Path("../outside/victim").write_text("OF THE USER") * 0, False, ("touched",)),
    "a new file": (lambda: Path("../outside/new").write_text("") * 0, False, ("touched",)),
}


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # the child neither locks nor starts threads before
@pytest.mark.parametrize("end", ENDS)
def test_every_bad_end_is_seen_and_no_good_one(rooms: Rooms, end: str) -> None:
    play, damaged, faults = ENDS[end]
    verdict = judged(
        "kind",
        lambda rng, _: Case(f"number {rng.random():.3f}", play, damaged),
        7,
        3,
        rooms,
        5 if end == "a hang" else 30,
    )
    assert verdict.faults == faults, verdict
    assert verdict.what == f"number {random.Random('7 kind 3').random():.3f}"
