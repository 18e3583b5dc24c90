"""A sweep: which runs there are, that each is an ordinary run, and what is refused or goes wrong on the way."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import metarl
from metarl.commands import sweep
from metarl.commands.sweep import SweepOptions, points
from metarl.errors import RunError, UsageError
from metarl.runs.trained import TrainedAgent

TINY = ["maml", "--env", "point-navigation", "--meta-batch", "2", "--validation-tasks", "2", "--hidden", "8"]
TINY = [*TINY, "--episodes-per-adaptation", "2"]


def loaded(folder: Path) -> TrainedAgent:
    trained = metarl.load(folder)
    assert isinstance(trained, TrainedAgent)
    return trained


def test_there_is_a_run_for_every_combination_and_seed(tmp_path: Path) -> None:
    options = SweepOptions(tmp_path, seeds=(0, 7), vary=("inner-lr=0.1,0.2", "hidden=8 4,16"), threads=3)
    made = points(options, ["maml", "--env", "x"])
    assert [point.name for point in made] == [
        f"inner-lr={rate}-hidden={hidden}-seed={seed}"
        for rate in ("0.1", "0.2")
        for hidden in ("8_4", "16")
        for seed in (0, 7)
    ]
    varied = ("--inner-lr", "0.1", "--hidden", "8", "4")
    own = ("--run", str(tmp_path / made[1].name), "--seed", "7", "--threads", "3")
    assert made[1].arguments == ("maml", "--env", "x", *varied, *own)


@pytest.mark.parametrize(
    ("vary", "training", "message"),
    [
        (("inner-lr",), ["maml"], "takes OPTION=VALUE,VALUE"),
        (("inner-lr=0.1,0.1",), ["maml"], "with values that differ"),
        (("inner-lr=0.1,",), ["maml"], "takes OPTION=VALUE,VALUE"),
        (("seed=1,2",), ["maml"], "--seed is given already, or is the sweep's own"),
        (("inner-lr=1,2", "inner-lr=3"), ["maml"], "--inner-lr is given already"),
        (("inner-lr=1,2",), ["maml", "--inner-lr=3"], "--inner-lr is given already"),
        ((), ["maml", "--run", "x"], "--run is the sweep's own"),
        ((), ["maml", "--workers=2"], "--workers is the sweep's own"),
    ],
)
def test_what_contradicts_itself_is_refused(vary: tuple[str, ...], training: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        points(SweepOptions(Path("runs"), vary=vary), training)


def test_wrong_options_are_refused_before_any_run_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="follows after --"):
        sweep.program(["--runs", str(tmp_path / "x")], "sweep")
    with pytest.raises(SystemExit) as end:
        sweep.program(["--runs", str(tmp_path / "x"), "--vary", "inner-rate=1,2", "--", *TINY], "sweep")
    assert end.value.code == 2
    with pytest.raises(ValueError, match="each once"):
        SweepOptions(tmp_path, seeds=(1, 1))
    assert not (tmp_path / "x").exists()


def test_its_runs_are_those_of_train_and_one_that_fails_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    (runs / "seed=1").mkdir(parents=True)
    (runs / "seed=1" / "config.json").write_text("{}")  # of something else
    command = ["--runs", str(runs), "--seeds", "1", "2", "--jobs", "1", "--", *TINY, "--steps", "2"]
    with pytest.raises(RunError, match=r"1 of 2 runs failed: seed=1 \(error: .*; all is in .*logs"):
        sweep.program(command, "sweep")
    assert "1 of 2 done" in capsys.readouterr().err
    from metarl.commands.train import program

    program([*TINY, "--steps", "2", "--seed", "2", "--run", str(tmp_path / "alone"), "--threads", "1"], "train")
    alone, swept = (loaded(folder).state for folder in (tmp_path / "alone", runs / "seed=2"))
    assert all(torch.equal(value, swept.parameters[name]) for name, value in alone.parameters.items())


def test_a_sweep_that_is_stopped_stops_its_runs_and_goes_on(tmp_path: Path) -> None:
    code = "from metarl.commands.main import main; main()"
    command = [sys.executable, "-c", code, "sweep", "--runs", "runs", "--seeds", "0", "1", "--jobs", "2", "--", *TINY]
    process = subprocess.Popen([*command, "--steps", "100000"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    folders = [tmp_path / "runs" / f"seed={seed}" for seed in (0, 1)]
    metrics = [folder / "metrics.jsonl" for folder in folders]
    deadline = time.monotonic() + 400
    while not all(path.is_file() and path.stat().st_size for path in metrics) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "runs: stopped with 0 of 2 runs done; the same command goes on from here"
    for folder in folders:
        assert "the same command goes on" in (tmp_path / "runs" / "logs" / f"{folder.name}.txt").read_text()
        assert loaded(folder).ref.step > 0
