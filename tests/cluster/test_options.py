"""What programs say where workers cannot be had: one line, before any work is done."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from metarl.commands import evaluate, train
from metarl.commands.options import ComputeOptions
from metarl.commands.workers import WorkerOptions
from metarl.errors import UsageError
from metarl.learning.collect import InProcess


def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "ray" else find(name, *rest))


MISSING = r"^--\w+ \w+ takes Ray, which is not installed: pip install 'metarl-suite\[ray\]'$"


@pytest.mark.parametrize("option", ["--workers 2", "--cluster local", "--workers 8 --cluster auto"])
def test_without_ray_there_is_one_line(option: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_ray(monkeypatch)
    with pytest.raises(UsageError, match=MISSING):
        train.program(["ppo", "--env", "point-navigation", "--run", str(tmp_path / "run"), *option.split()], "train")
    assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match="takes Ray"):
        evaluate.program(["--policy", "random", "--env", "point-navigation", *option.split()], "evaluate")


def test_one_worker_without_a_cluster_is_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray(monkeypatch)
    with WorkerOptions().open(ComputeOptions(threads=3)) as collectors:
        assert isinstance(collectors, InProcess)
        assert collectors.threads == 3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: WorkerOptions(workers=0), "workers must be between 1 and 10000, got 0"),
        (lambda: WorkerOptions(worker_threads=0, workers=2), "worker_threads must be between 1 and 1024, got 0"),
        (lambda: WorkerOptions(worker_threads=2), "--worker-threads are those of workers on a cluster"),
    ],
)
def test_wrong_numbers_are_named(wrong: Callable[[], WorkerOptions], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrong()


def test_workers_play_on_the_cpu() -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'metarl-suite[ray]'")
    with (
        pytest.raises(UsageError, match="workers play on the CPU: --device cuda"),
        WorkerOptions(workers=2).open(ComputeOptions(device="cuda")),
    ):
        pass
