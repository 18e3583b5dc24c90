"""A real training process, killed at random moments and started again, ends as one that was never interrupted."""

import contextlib
import dataclasses
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metarl.runs import metrics
from metarl.runs.interrupt import STOPPING

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE = 240.0  # seconds to wait for a process on a busy machine; it takes a fraction of one
STEPS = 24
KILLS = 50
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
STARTS = itertools.count()
PROGRAM = [sys.executable, "-m", "tests.runs.tiny_program"]


@dataclasses.dataclass(frozen=True)
class Child:
    """A training process."""

    pid: int
    server: subprocess.Popen[str]
    output: Path

    def wait(self) -> int:
        """The exit status; minus the signal's number where one killed it."""
        assert self.server.stdout is not None
        return int(self.server.stdout.readline())

    def kill(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def running(self) -> bool:
        """Whether it has not ended yet."""
        with contextlib.suppress(OSError, IndexError):
            stat = Path(f"/proc/{self.pid}/stat").read_text() if Path("/proc").is_dir() else ") R"
            os.kill(self.pid, 0)
            return stat.rpartition(")")[2].split()[0] not in "ZX"
        return False

    def told(self, stream: int) -> str:
        return Path(f"{self.output}.{stream}").read_text()


@pytest.fixture(scope="module")
def server() -> Iterator[subprocess.Popen[str]]:
    command, pipe = [*PROGRAM, "--server"], subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True, env=ENVIRONMENT) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing happened to, from an ordinary process: forks are as good."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    command = [*PROGRAM, str(folder), str(STEPS), "0"]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def start(server: subprocess.Popen[str], run: Path, *, pause: float = 0.0, seed: int = 5, steps: int = STEPS) -> Child:
    assert server.stdin is not None and server.stdout is not None
    output = run.with_name(f"{run.name}-output-{next(STARTS)}")
    server.stdin.write("\t".join([str(run), str(steps), str(pause), str(seed), str(output)]) + "\n")
    server.stdin.flush()
    return Child(int(server.stdout.readline()), server, output)


def lines(run: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return (run / metrics.FILE).read_bytes().count(b"\n")
    return 0


def saving(run: Path) -> bool:
    """Whether something has a temporary name at this moment: a checkpoint, a chunk, the config."""
    for folder in (run, run / "checkpoints", run / "store"):
        with contextlib.suppress(FileNotFoundError):
            if any(name.startswith(".tmp-") for name in os.listdir(folder)):
                return True
    return False


def wait_for_a_moment(child: Child, run: Path, rng: random.Random) -> None:
    """Waits for a random moment: early in the start, some steps on, or while something is being written then."""
    kind, deadline = rng.choice(["early", "steps", "saving", "saving"]), time.monotonic() + PATIENCE
    if kind == "early":
        time.sleep(rng.uniform(0.0, 0.05))
        return
    goal = lines(run) + rng.randint(1, 4)
    while (
        child.running()
        and time.monotonic() < deadline
        and not (lines(run) >= goal and (kind == "steps" or saving(run)))
    ):
        time.sleep(0.0002)
    time.sleep(rng.uniform(0.0, 0.003))


def figures(run: Path) -> list[dict[str, int | float | None]]:
    """The metrics without what a clock went into."""
    rows = [json.loads(line) for line in (run / metrics.FILE).read_text().splitlines()]
    return [{name: value for name, value in row.items() if "time" not in name} for row in rows]


def events(run: Path, tag: str) -> list[tuple[int, float]]:
    accumulator = EventAccumulator(str(run), size_guidance={"scalars": 0})
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def check_same_end(run: Path, expected: Path) -> None:
    """The same checkpoints and chunks, byte for byte, the same metrics, each step once, and nothing left over."""
    for folder in ("checkpoints", "store"):
        files = sorted(path.relative_to(run) for path in (run / folder).rglob("*") if path.is_file())
        assert files == sorted(p.relative_to(expected) for p in (expected / folder).rglob("*") if p.is_file())
        for file in files:
            assert (run / file).read_bytes() == (expected / file).read_bytes(), file
    assert figures(run) == figures(expected)
    assert [row["step"] for row in figures(run)] == list(range(1, STEPS + 1))
    assert events(run, "experience/env_steps") == events(expected, "experience/env_steps")
    assert not list(run.rglob(".tmp-*"))


def test_a_run_killed_again_and_again_ends_as_one_that_was_not(
    server: subprocess.Popen[str], whole: Path, tmp_path: Path
) -> None:
    rng, reached, killed, folders = random.Random(7), set[int](), 0, 0
    while killed < KILLS:  # in one folder after the other, where a run gets to its end between the kills
        run, status, folders = tmp_path / f"run-{folders}", -signal.SIGKILL, folders + 1
        while status == -signal.SIGKILL:
            child = start(server, run, pause=0.003 if killed < KILLS else 0.0)
            if killed < KILLS:
                wait_for_a_moment(child, run, rng)
                reached.add(lines(run))
                child.kill(signal.SIGKILL)
            status = child.wait()
            killed += status == -signal.SIGKILL
            assert status in (0, -signal.SIGKILL) and "warning" not in child.told(2), child.told(2)
        check_same_end(run, whole)
    assert len(reached) > KILLS // 5, f"the kills came after {sorted(reached)} steps only"


@pytest.mark.parametrize(("numbers", "status"), [([signal.SIGINT], 130), ([signal.SIGTERM], 143)])
def test_a_signal_ends_with_a_checkpoint_a_line_and_a_status_of_its_own(
    server: subprocess.Popen[str], whole: Path, tmp_path: Path, numbers: list[signal.Signals], status: int
) -> None:
    """`train && evaluate` does not go on; and a step that takes minutes is left at once."""
    run, deadline = tmp_path / "run", time.monotonic() + PATIENCE
    child = start(server, run, pause=0.005)
    while lines(run) < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    child.kill(numbers[0])
    assert child.wait() == status, child.told(2)
    done = lines(run)
    assert 4 <= done < STEPS and (run / "checkpoints" / str(done) / "state.json").exists()
    assert child.told(1) == "" and "Traceback" not in child.told(2)
    assert f"{STOPPING}\n" in child.told(2)
    assert child.told(2).endswith(f"run: stopped after {done} of {STEPS} steps; the same command goes on from here\n")
    child = start(server, run, pause=600.0)
    while child.running() and time.monotonic() < deadline:
        time.sleep(0.05)
        child.kill(signal.SIGTERM)  # before it listens, it is killed; then it leaves at the next point
    assert child.wait() in (143, -signal.SIGTERM) and lines(run) == done
    assert start(server, run).wait() == 0
    check_same_end(run, whole)


def test_another_seed_does_not_take_over_what_is_there(
    server: subprocess.Popen[str], whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    child = start(server, run, seed=6)
    assert child.wait() == 2
    assert "holds another experiment: seed is 5 there and 6 here" in child.told(2) and child.told(2).count("\n") == 1
    (run / "config.json").unlink()
    child = start(server, run, seed=6)
    assert child.wait() == 2 and "not empty and not a run" in child.told(2)
    (run / "config.json").symlink_to(tmp_path / "nowhere")
    child = start(server, run, seed=6)
    assert child.wait() == 1 and "symbolic link" in child.told(2)
    assert not (tmp_path / "nowhere").exists()


def test_fewer_steps_are_one_line_and_status_2(server: subprocess.Popen[str], whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    child = start(server, run, steps=STEPS - 1)
    assert child.wait() == 2 and "steps can only grow" in child.told(2) and child.told(2).count("\n") == 1


BARE = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "LC_ALL": "C", "PATH": os.defpath, "PYTHONUTF8": "0"}
"""An environment with nothing in it: no HOME, no locale."""


@pytest.mark.parametrize(
    ("redirection", "status"), [("2>&-", 0), (">&-", 0), ("2>/dev/full", 0), (">/dev/full", 1)]
)  # fmt: skip
def test_odd_streams_are_no_traceback(tmp_path: Path, redirection: str, status: int) -> None:
    command = ["/bin/sh", "-c", f'exec "$@" {redirection}', "sh", *PROGRAM, str(tmp_path / "run"), "2", "0"]
    done = subprocess.run(command, cwd=ROOT, env=BARE, capture_output=True, check=False)
    assert b"Traceback" not in done.stderr and done.returncode == status, done.stderr
    assert done.stderr.count(b"error:") <= status


ONE_AFTER_THE_OTHER = """
import sys
from metarl.errors import exit_status
from tests.runs.tiny_program import main
for folder in sys.argv[1:]:
    status = exit_status(lambda: main([folder, "2", "0"]))
    sys.stderr.write(f"\\0{status}\\0")
"""


def test_odd_places_are_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    names = {b"a run: [/x] 100 %": 0, b"r\xff\xfe": 0, b"x" * 300: 2, b"/proc/none": 1, b"": 2}
    command = [sys.executable, "-c", ONE_AFTER_THE_OTHER, *(str(tmp_path / os.fsdecode(name)) for name in names)]
    done = subprocess.run(command, cwd=ROOT, env=BARE, capture_output=True, check=False)
    assert b"Traceback" not in done.stderr and done.returncode == 0, done.stderr
    fields = done.stderr.split(b"\0")
    assert [int(status) for status in fields[1::2]] == list(names.values()), done.stderr
    for said, status in zip(fields[:-1:2], names.values(), strict=True):
        assert said.count(b"error:") <= 1 and (said or not status)
