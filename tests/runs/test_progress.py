import contextlib
import io
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from metarl.runs.progress import describe, duration, progress


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def plain_lines(steps: int, seconds_a_step: float, done: int = 0) -> list[str]:
    clock, stream = Clock(), io.StringIO()
    with progress("maml", steps, done=done, stream=stream, clock=clock) as shown:
        for step in range(done, steps):
            clock.now += seconds_a_step
            shown.update(step + 1, {"score": float(step)})
    return stream.getvalue().splitlines()


def test_without_a_terminal_the_first_the_last_and_a_few_a_minute() -> None:
    lines = plain_lines(steps=60, seconds_a_step=1.0)
    assert lines[0] == "maml: 1/60; score 0; 0:01 gone, 0:59 left"
    assert lines[-1] == "maml: 60/60; score 59; 1:00 gone, 0:00 left"
    assert [line.split(";")[0] for line in lines] == ["maml: 1/60", "maml: 16/60", "maml: 31/60", "maml: 46/60",
                                                      "maml: 60/60"]  # fmt: skip


def test_slow_steps_are_all_shown_and_fast_ones_are_not() -> None:
    assert len(plain_lines(steps=4, seconds_a_step=100.0)) == 4
    assert len(plain_lines(steps=1000, seconds_a_step=0.001)) == 2


def test_the_time_left_counts_the_steps_of_this_process_only() -> None:
    assert plain_lines(steps=100, seconds_a_step=2.0, done=90)[0] == "maml: 91/100; score 90; 0:02 gone, 0:18 left"


def test_what_is_said_before_the_first_step_stands_alone() -> None:
    stream = io.StringIO()
    with progress("ice", 20, done=9, note="resumed from step 9", stream=stream, clock=Clock()) as shown:
        shown.update(10, {})
    assert stream.getvalue().splitlines()[0] == "ice: resumed from step 9"


def test_the_last_step_before_an_interruption_is_shown() -> None:
    clock, stream = Clock(), io.StringIO()

    def interrupted() -> None:
        with progress("maml", 10, stream=stream, clock=clock) as shown:
            for step in range(3):
                clock.now += 1
                shown.update(step + 1, {})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [line.split(";")[0] for line in stream.getvalue().splitlines()] == ["maml: 1/10", "maml: 3/10"]


def test_nothing_to_do_shows_nothing() -> None:
    assert plain_lines(steps=5, seconds_a_step=1.0, done=5) == []


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (3723.0, "1:02:03"), (360000.0, "100:00:00")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_figures_are_short_and_in_the_order_given() -> None:
    figures = {"score": 123.456, "kl": 0.000123456, "nan": float("nan"), "huge": float("inf")}
    assert describe(figures) == "score 123.5, kl 0.0001235, nan nan, huge inf"
    counts = {"few": 9600.0, "many": -12_300.0, "more": 1_254_000.0, "most": 80e9}
    assert describe(counts) == "few 9600, many -12.3k, more 1.254M, most 80G"


class BrokenStream(io.StringIO):
    """A pipe whose reader has gone after some writes."""

    def __init__(self, writes: int, terminal: bool) -> None:
        super().__init__()
        self.writes, self.terminal = writes, terminal

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        self.writes -= 1
        if self.writes < 0:
            raise BrokenPipeError(32, "Broken pipe")
        return super().write(text)


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("writes", range(8))
def test_a_broken_pipe_stops_the_showing_not_the_work(
    monkeypatch: pytest.MonkeyPatch, writes: int, terminal: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    clock, done = Clock(), 0
    with progress("maml", 10, stream=BrokenStream(writes, terminal), clock=clock) as shown:
        for step in range(10):
            clock.now += 20
            shown.update(step + 1, {})
            done += 1
    assert done == 10


def test_a_closed_stream_stops_the_showing_not_the_work() -> None:
    stream, done = io.StringIO(), 0
    stream.close()
    with progress("maml", 2, stream=stream) as shown:
        for step in range(2):
            shown.update(step + 1, {})
            done += 1
    assert done == 2


PROGRAM = """
import sys
from metarl.runs.progress import progress
stream = getattr(sys, sys.argv[1])
with progress("maml", 3, stream=stream) as shown:
    for step in range(3):
        shown.update(step + 1, {"score": 1.0})
open(sys.argv[2], "w").write("finished")
"""


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_program_whose_reader_has_gone_finishes_with_status_0(tmp_path: Path, name: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    finished = tmp_path / "finished"
    command = [sys.executable, "-c", PROGRAM, name, str(finished)]
    other = "stderr" if name == "stdout" else "stdout"
    streams = {name: writer, other: subprocess.PIPE}
    done = subprocess.run(command, stdout=streams["stdout"], stderr=streams["stderr"], check=False)
    os.close(writer)
    assert done.returncode == 0 and finished.read_text() == "finished"
    assert not (done.stdout or done.stderr)


def in_a_terminal(work: Callable[[io.TextIOWrapper], None]) -> str:
    """What a terminal gets to see."""
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as stream:
        work(stream)
    seen = b""
    with contextlib.suppress(OSError):  # the end of what a terminal has seen is EIO, not EOF
        while chunk := os.read(master, 4096):
            seen += chunk
    os.close(master)
    return seen.decode()


def test_a_terminal_gets_a_bar_with_figures_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")

    def work(stream: io.TextIOWrapper) -> None:
        clock = Clock()
        with progress("maml", 4, stream=stream, clock=clock) as shown:
            for step in range(4):
                clock.now += 30
                shown.update(step + 1, {"score": 12.0})

    seen = in_a_terminal(work)
    assert "1/4" in seen and "0:30 gone, 1:30 left" in seen and "score 12" in seen and "━" in seen
    assert "0:00 left" in seen


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")

    def work(stream: io.TextIOWrapper) -> None:
        with progress("maml", 1, stream=stream) as shown:
            shown.update(1, {})

    assert in_a_terminal(work).strip() == "maml: 1/1; 0:00 gone, 0:00 left"


@pytest.mark.parametrize("title", ["[/x] [red]", "a\nb", "\x1b[2J", "\udcff"])
def test_a_run_may_have_any_name(title: str) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream in (io.StringIO(), Terminal()):
        with progress(title, 2, stream=stream) as shown:
            shown.update(2, {"[/score]": 1.0})
        told = stream.getvalue()
        assert "[/score] 1" in told and "\x1b[2J" not in told and "a\nb" not in told
        assert ("[/x] [red]" in told) == (title == "[/x] [red]")
