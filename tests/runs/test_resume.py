"""A real training process, killed at random moments and started again, ends as one that was never interrupted.

Starting Python with PyTorch takes seconds. So a server process imports everything once and forks a child for each
start; the child runs `scripts/train.py` as its main program. The uninterrupted runs are ordinary processes, which
shows that the forks are as good.
"""

import contextlib
import dataclasses
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

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / "scripts" / "train.py"
PATIENCE = 240.0  # seconds to wait for a process on a busy machine; it takes a fraction of one
STEPS = 16
COMMON = ("--env", "point-navigation", "--threads", "1", "--meta-batch", "2", "--hidden", "4")
AGENTS = {
    "maml": ("maml", *COMMON, "--episodes", "2", "--cg-iterations", "2", "--line-search-tries", "4"),
    "rl2": ("rl2", *COMMON, "--episodes-per-trial", "2", "--epochs", "1", "--minibatches", "1"),
}
LOOP = ("--steps", str(STEPS), "--checkpoint-every", "2", "--validate-every", "8", "--validation-tasks", "1")
CHEAP = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

SERVER = """
import json, os, runpy, sys, traceback
import metarl.commands.train, torch._dynamo
for line in iter(sys.stdin.readline, ""):
    script, arguments, output = json.loads(line)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for stream in (1, 2):
                os.dup2(os.open(f"{output}.{stream}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
            sys.argv = [script, *arguments]
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            status = end.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


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

    def running(self) -> bool:
        """Whether it has not ended yet."""
        with contextlib.suppress(ProcessLookupError, FileNotFoundError, IndexError):
            stat = Path(f"/proc/{self.pid}/stat").read_text() if Path("/proc").is_dir() else ") R"
            os.kill(self.pid, 0)
            return stat.rpartition(")")[2].split()[0] not in "ZX"
        return False

    def told(self, stream: int) -> str:
        return Path(f"{self.output}.{stream}").read_text()


@pytest.fixture(scope="module")
def server() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=CHEAP) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def start(server: subprocess.Popen[str], run: Path, *arguments: str) -> Child:
    assert server.stdin is not None and server.stdout is not None
    output = run.with_name(f"{run.name}-output")
    server.stdin.write(json.dumps([str(SCRIPT), [*arguments, "--run", str(run)], str(output)]) + "\n")
    server.stdin.flush()
    return Child(int(server.stdout.readline()), server, output)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The folders of runs that nothing happened to, from ordinary processes, by agent."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    for name, options in AGENTS.items():
        command = [sys.executable, str(SCRIPT), *options, *LOOP, "--run", str(folder / name)]
        done = subprocess.run(command, env=CHEAP, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    yield {name: folder / name for name in AGENTS}
    shutil.rmtree(folder)


def lines(run: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return (run / metrics.FILE).read_bytes().count(b"\n")
    return 0


def saving(run: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return any(name.startswith(".tmp-") for name in os.listdir(run / "checkpoints"))
    return False


def wait_for_a_moment(child: Child, run: Path, rng: random.Random) -> None:
    """Waits for a random moment: early in the start, some steps on, or while a checkpoint is being written."""
    kind, deadline = rng.choice(["early", "steps", "steps", "saving"]), time.monotonic() + PATIENCE
    if kind == "early":
        time.sleep(rng.uniform(0.0, 0.5))
        return
    goal = lines(run) + rng.randint(1, 3)
    while child.running() and time.monotonic() < deadline:
        if saving(run) if kind == "saving" else lines(run) >= goal:
            break
        time.sleep(0.002)
    time.sleep(rng.uniform(0.0, 0.02 if kind == "saving" else 0.1))


def figures(run: Path) -> list[dict[str, int | float | None]]:
    """The metrics without what a clock went into."""
    rows = [json.loads(line) for line in (run / metrics.FILE).read_text().splitlines()]
    return [
        {name: value for name, value in row.items() if name != "wall_time" and not name.startswith("time/")}
        for row in rows
    ]


def events(run: Path, tag: str) -> list[tuple[int, float]]:
    accumulator = EventAccumulator(str(run), size_guidance={"scalars": 0})
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def check_same_end(run: Path, expected: Path) -> None:
    """The same parameters, byte for byte, and the same figures, each step once."""
    for name in ("params.safetensors", "optimizer.safetensors", "state.json"):
        last = Path("checkpoints") / str(STEPS) / name
        assert (run / last).read_bytes() == (expected / last).read_bytes(), name
    assert sorted(os.listdir(run / "checkpoints")) == sorted(os.listdir(expected / "checkpoints"))
    assert figures(run) == figures(expected)
    assert [row["step"] for row in figures(run)] == list(range(1, STEPS + 1))
    assert events(run, "env_steps") == events(expected, "env_steps")


@pytest.mark.parametrize(("agent", "kills"), [("maml", 20), ("rl2", 5)])
def test_a_run_killed_again_and_again_ends_as_one_that_was_not(
    server: subprocess.Popen[str], uninterrupted: dict[str, Path], tmp_path: Path, agent: str, kills: int
) -> None:
    rng, reached, killed, folders = random.Random(7), set[int](), 0, 0
    while killed < kills:  # in one folder after the other, where a run gets to its end between the kills
        run, status, folders = tmp_path / f"run-{folders}", -signal.SIGKILL, folders + 1
        while status == -signal.SIGKILL:
            child = start(server, run, *AGENTS[agent], *LOOP)
            if killed < kills:
                wait_for_a_moment(child, run, rng)
                reached.add(lines(run))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)
            status = child.wait()
            killed += status == -signal.SIGKILL
            assert status in (0, -signal.SIGKILL) and "using the checkpoint of step" not in child.told(2), child.told(2)
        check_same_end(run, uninterrupted[agent])
    assert len(reached) > kills // 5, f"the kills came after {sorted(reached)} steps only"


def test_ctrl_c_ends_with_a_checkpoint_and_one_line(
    server: subprocess.Popen[str], uninterrupted: dict[str, Path], tmp_path: Path
) -> None:
    run, deadline = tmp_path / "run", time.monotonic() + PATIENCE
    child = start(server, run, *AGENTS["maml"], *LOOP)
    while lines(run) < 3 and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(child.pid, signal.SIGINT)
    status = child.wait()
    done = lines(run)
    assert status in (0, 130), child.told(2)
    assert 3 <= done < STEPS and (run / "checkpoints" / str(done) / "state.json").exists()
    assert child.told(1).count("\n") == 1 and "goes on" in child.told(1)
    assert "Traceback" not in child.told(2)
    child = start(server, run, *AGENTS["maml"], *LOOP)
    assert child.wait() == 0, child.told(2)
    for name in ("params.safetensors", "optimizer.safetensors"):
        last = Path("checkpoints") / str(STEPS) / name
        assert (run / last).read_bytes() == (uninterrupted["maml"] / last).read_bytes()
    assert figures(run) == figures(uninterrupted["maml"])


def test_a_damaged_checkpoint_costs_time_and_not_the_result(
    server: subprocess.Popen[str], uninterrupted: dict[str, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(uninterrupted["maml"], run)
    last = run / "checkpoints" / str(STEPS) / "params.safetensors"
    last.write_bytes(last.read_bytes()[:-1])
    child = start(server, run, *AGENTS["maml"], *LOOP)
    assert child.wait() == 0, child.told(2)
    warnings = [line for line in child.told(2).splitlines() if "using the checkpoint of step" in line]
    assert len(warnings) == 1 and f"of step {STEPS - 2} instead" in warnings[0]
    check_same_end(run, uninterrupted["maml"])


def test_a_finished_run_goes_on_where_more_steps_are_asked_for(
    server: subprocess.Popen[str], uninterrupted: dict[str, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    few = ("--steps", "8", *LOOP[2:])
    assert start(server, run, *AGENTS["maml"], *few).wait() == 0
    assert lines(run) == 8
    assert start(server, run, *AGENTS["maml"], *LOOP).wait() == 0
    check_same_end(run, uninterrupted["maml"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--steps", str(STEPS - 1), *LOOP[2:]), "steps can only grow"),
        (("--seed", "1", *LOOP), "holds another experiment: seed is 0 there and 1 here"),
        (("--inner-rate", "0.5", *LOOP), "options.agent.inner_rate is 0.1 there and 0.5 here"),
    ],
)
def test_another_experiment_in_the_same_folder_is_one_line_and_status_2(
    server: subprocess.Popen[str], uninterrupted: dict[str, Path], tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(uninterrupted["maml"], run)
    child = start(server, run, *AGENTS["maml"], *arguments)
    assert child.wait() == 2
    assert told in child.told(2) and child.told(2).count("\n") == 1
