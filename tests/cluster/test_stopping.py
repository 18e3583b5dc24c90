"""A training on a cluster of its own that is stopped or killed leaves no process behind, and goes on."""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

import metarl
from metarl.runs.trained import TrainedAgent

pytest.importorskip("ray", reason="Ray is not installed: pip install 'metarl-suite[ray]'")
pytestmark = pytest.mark.timeout(1800)  # Ray's processes take a minute to start where the machine is busy

TINY = ("maml", "--env", "point-navigation", "--hidden", "8", "--meta-batch", "4", "--episodes-per-adaptation", "2")
LOCAL = ("--workers", "2", "--cluster", "local", "--validation-tasks", "2", "--steps", "100000")
MARK = "METARL_TEST_MARK"


def marked(mark: str) -> list[int]:
    """The processes that have a mark in their environment: those that a marked one made inherit it."""
    found = list[int]()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{MARK}={mark}".encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_what_is_stopped_or_killed_leaves_nothing_behind_and_goes_on(tmp_path: Path) -> None:
    code = "from metarl.commands.main import main; main()"
    command = [sys.executable, "-c", code, "train", *TINY, *LOCAL, "--run", str(tmp_path / "run")]
    done = 0
    for number in (signal.SIGINT, signal.SIGKILL):
        mark = uuid.uuid4().hex
        log = tmp_path / f"{number.name}.txt"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, env={**os.environ, MARK: mark}, stdout=output, stderr=output, start_new_session=True
            )
        metrics = tmp_path / "run" / "metrics.jsonl"
        while not (metrics.is_file() and len(metrics.read_text().splitlines()) > done + 12):
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
        assert len(marked(mark)) > 4  # Ray's own, and the workers
        os.killpg(process.pid, number)  # as a terminal does
        status = process.wait(120)
        deadline = time.monotonic() + 60
        while marked(mark) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not marked(mark)
        trained = metarl.load(tmp_path / "run")
        assert isinstance(trained, TrainedAgent)
        assert trained.ref.step > done
        done = trained.ref.step
        if number == signal.SIGINT:
            assert status == 130, log.read_text()
            assert "the same command goes on from here" in log.read_text().splitlines()[-1]
            assert "Traceback" not in log.read_text()
