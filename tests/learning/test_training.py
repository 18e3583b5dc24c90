"""The training loop, with a learner that only counts."""

import dataclasses
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from metarl.errors import RunError, WorkerLostError
from metarl.learning.protocols import Figures, State
from metarl.learning.training import LoopConfig, Training, train
from metarl.runs import checkpoints, metrics, provenance, run_folder
from metarl.tasks import Split, Task


@dataclasses.dataclass(frozen=True)
class Counter:
    """Adds a random number to its only parameter at each step."""

    meta_batch: int = 3
    spoil_at: float = np.inf
    """The parameter's value from which on it is not a number."""
    stop_at: int = -1
    """The step count at which somebody presses Ctrl-C."""
    lost_at: int = -1
    """The step count at which the environments' workers are lost for good."""

    @property
    def shown(self) -> tuple[str, ...]:
        return ("value",)

    def init(self, seed: int) -> State:
        return State({"value": torch.tensor([0.0, float(seed)], dtype=torch.float64)}, {"calls": torch.zeros(1)})

    def meta_step(self, state: State, batch: tuple[Task, ...], rng: np.random.Generator) -> tuple[State, Figures]:
        assert len(batch) == self.meta_batch
        calls = state.optimizer["calls"] + 1
        value = state.parameters["value"] + torch.tensor([rng.uniform(), 0.0])
        if int(calls) == self.lost_at:
            raise WorkerLostError("worker 1 of 2 was killed")
        if int(calls) == self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        value = torch.where(value > self.spoil_at, torch.nan, value)
        return State({"value": value}, {"calls": calls}), {"value": float(value[0]), "env_steps": 10}


class Source:
    """Tasks by the generator."""

    def sample(self, split: Split, count: int, rng: np.random.Generator) -> tuple[Task, ...]:
        assert split == "train"
        return tuple(Task.of("x", x=float(rng.uniform())) for _ in range(count))


def validate(state: State) -> Figures:
    """Best at the start of the run."""
    return {"validation": -float(state.parameters["value"][0])}


def run_loop(folder: Path, steps: int, learner: Counter | None = None, **loop: int) -> tuple[bool, run_folder.Run]:
    experiment = run_folder.Experiment("counter", {}, "x", "0", seed=5)
    config = LoopConfig(**({"steps": steps, "checkpoint_every": 4, "validate_every": 5} | loop))
    with run_folder.claim(folder, experiment, steps=steps, environment=provenance.environment(1)) as run:
        return train(Training(learner or Counter(), Source(), validate, ("value",)), run, config), run


def test_each_step_stands_once_in_the_metrics_and_the_last_is_saved(tmp_path: Path) -> None:
    finished, run = run_loop(tmp_path / "run", 10)
    rows = metrics.read(run.folder)
    assert finished and [row["step"] for row in rows] == list(range(1, 11))
    assert [row["env_steps"] for row in rows] == [10 * step for step in range(1, 11)]
    assert [row["step"] for row in rows if "validation" in row] == [5, 10]
    saved = checkpoints.latest(run.checkpoints)
    assert saved is not None and saved.step == 10 and saved.extra["env_steps"] == 100
    state = json.loads((run.checkpoints / "10" / "state.json").read_text())
    assert state["extra"]["rng"]["next_seed"] == [5, 10]


def test_the_best_on_validation_is_kept(tmp_path: Path) -> None:
    _, run = run_loop(tmp_path / "run", 40, checkpoint_every=16, keep=2)
    assert checkpoints.steps(run.checkpoints) == (5, 35, 40)
    best = checkpoints.best(run.checkpoints)
    assert best is not None and best.step == 5


def test_ctrl_c_saves_and_the_same_command_goes_on_to_the_same_end(tmp_path: Path) -> None:
    _, whole = run_loop(tmp_path / "whole", 12)
    finished, run = run_loop(tmp_path / "run", 12, Counter(stop_at=7))
    saved = checkpoints.latest(run.checkpoints)
    assert not finished and saved is not None and saved.step == 7
    finished, run = run_loop(tmp_path / "run", 12)
    assert finished
    one, other = ((each.checkpoints / "12" / "params.safetensors").read_bytes() for each in (whole, run))
    assert one == other
    without_clock = [
        [{k: v for k, v in row.items() if k != "wall_time" and not k.startswith("time/")} for row in metrics.read(each)]
        for each in (whole.folder, run.folder)
    ]
    assert without_clock[0] == without_clock[1]


def test_lost_workers_end_the_run_with_all_steps_before_saved(tmp_path: Path) -> None:
    _, whole = run_loop(tmp_path / "whole", 12)
    for lost_at, saved_at in ((7, 6), (9, 8)):  # between checkpoints, and right after one
        with pytest.raises(WorkerLostError, match="worker 1 of 2"):
            run_loop(tmp_path / "run", 12, Counter(lost_at=lost_at))
        saved = checkpoints.latest(tmp_path / "run" / "checkpoints")
        assert saved is not None and saved.step == saved_at
    _, run = run_loop(tmp_path / "run", 12)
    one, other = ((each.checkpoints / "12" / "params.safetensors").read_bytes() for each in (whole, run))
    assert one == other
    assert [row["step"] for row in metrics.read(run.folder)] == list(range(1, 13))


def test_a_finished_run_can_be_made_longer(tmp_path: Path) -> None:
    _, whole = run_loop(tmp_path / "whole", 14)
    run_loop(tmp_path / "run", 6)
    _, run = run_loop(tmp_path / "run", 14)
    one, other = ((each.checkpoints / "14" / "params.safetensors").read_bytes() for each in (whole, run))
    assert one == other


def test_parameters_that_are_no_longer_finite_end_the_run_before_they_are_saved(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"parameter value is no longer finite after step \d+"):
        run_loop(tmp_path / "run", 40, Counter(spoil_at=6.0))
    saved = checkpoints.latest(tmp_path / "run" / "checkpoints")
    assert saved is not None and bool(saved.state.parameters["value"].isfinite().all())


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"checkpoint_every": 0}, {"keep": 0}, {"validate_every": -1}])
def test_wrong_options_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LoopConfig(**({"steps": 5} | wrong))
