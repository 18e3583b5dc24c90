"""What training does around the loop, with a learner that takes no time."""

import dataclasses
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from metarl.errors import DiskFullError, RunError, StoppedError, UsageError, WorkerLostError
from metarl.learning.protocols import Metrics, Parameters, State
from metarl.runs import metrics, run_folder
from metarl.runs.checkpoints import CheckpointFolder
from metarl.runs.interrupt import STOPPING, Interrupted, interruption_point
from metarl.runs.run_folder import Run
from metarl.runs.session import TrainingOptions, train
from metarl.runs.warm_start import warm_parameters, warm_state
from tests.runs import tiny
from tests.runs.tiny import Source, Tiny, check_equal, request


def run_loop(
    folder: Path, steps: int, learner: Tiny | None = None, source: Source | None = None, **options: int
) -> Run:
    return train(request(folder, steps, **options), learner or Tiny(), source or Source(), tiny.validate)


def last_step(run: Run) -> int:
    saved = CheckpointFolder(run).latest(Tiny().init(5))
    assert saved is not None
    return saved.step


def at(step: int, action: Callable[[], object]) -> Source:
    """Does something while the experience of an outer step (counted from 1) is collected."""
    return Source(lambda done: action() if done + 1 == step else None)


def press(*numbers: signal.Signals) -> Callable[[], object]:
    def action() -> None:
        for number in numbers:
            signal.raise_signal(number)

    return action


def fail(error: BaseException) -> Callable[[], object]:
    def action() -> None:
        raise error

    return action


def check_same_state(run: Run, expected: Run, step: int) -> None:
    """The same files of a checkpoint, byte for byte."""
    for name in ("params.safetensors", "optimizer.safetensors", "state.json"):
        one, other = ((each.checkpoints / str(step) / name).read_bytes() for each in (run, expected))
        assert one == other, name


def check_same_end(run: Run, expected: Run, step: int) -> None:
    """The same last checkpoint and the same metrics."""
    check_same_state(run, expected, step)
    assert sorted(os.listdir(run.store)) == sorted(os.listdir(expected.store))
    without_clock = [
        [
            {k: v for k, v in row.items() if k != "wall_time" and not k.startswith("time/")}
            for row in metrics.read(each.folder)
        ]
        for each in (run, expected)
    ]
    assert without_clock[0] == without_clock[1]


def test_each_step_stands_once_in_the_metrics_and_the_last_is_saved(tmp_path: Path) -> None:
    run = run_loop(tmp_path / "run", 10)
    rows = metrics.read(run.folder)
    assert [row["step"] for row in rows] == list(range(1, 11))
    assert [row["env_steps"] for row in rows] == [10 * step for step in range(1, 11)]
    assert [row["step"] for row in rows if "validation" in row] == [5, 10]
    assert all("time/outer_step" in row and "distance" in row for row in rows)
    saved = CheckpointFolder(run).latest(Tiny().init(5))
    assert saved is not None and (saved.step, saved.env_steps) == (10, 100)
    assert saved.score == rows[-1]["validation"]


def test_the_best_on_validation_is_kept(tmp_path: Path) -> None:
    run = run_loop(tmp_path / "run", 40, checkpoint_every=16, keep=2)
    scores = {row["step"]: row["validation"] for row in metrics.read(run.folder) if "validation" in row}
    best = CheckpointFolder(run).best(Tiny().init(5))
    assert best is not None and best.step == max(scores, key=lambda step: scores[step] or 0.0)
    assert CheckpointFolder(run).steps() == tuple(sorted({best.step, 35, 40}))


@pytest.mark.parametrize("steps", [2, 3, 7, 12])
def test_a_run_in_parts_ends_as_one_in_a_piece(tmp_path: Path, steps: int) -> None:
    whole = run_loop(tmp_path / "whole", 12)
    run_loop(tmp_path / "run", steps)
    check_same_state(run_loop(tmp_path / "run", 12), whole, 12)


def test_what_decides_results_is_written_down_and_steps_may_grow(tmp_path: Path) -> None:
    run = run_loop(tmp_path / "run", 3)
    experiment = run_folder.read(run.folder).config.experiment
    assert experiment.options == {
        "learner": {"width": 3},
        "training": {"checkpoint_every": 4, "validate_every": 5, "keep": 3},
    }
    with pytest.raises(UsageError, match="options.training.keep is 3 there and 2 here"):
        run_loop(tmp_path / "run", 3, keep=2)
    with pytest.raises(UsageError, match="seed is 5 there and 6 here"):
        run_loop(tmp_path / "run", 3, seed=6)
    given = dataclasses.replace(request(tmp_path / "x", 3), options={"training": {"validation_tasks": 20}}).experiment()
    assert given.options["training"] == {"checkpoint_every": 4, "validate_every": 5, "keep": 3, "validation_tasks": 20}


# Stopping


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_step_saves_and_ends_with_the_shells_status(
    tmp_path: Path, number: signal.Signals, status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = run_loop(tmp_path / "whole", 12)
    with pytest.raises(StoppedError, match="run: stopped after 7 of 12 steps; the same command goes on") as stopped:
        run_loop(tmp_path / "run", 12, source=at(7, press(number)))
    assert 128 + stopped.value.signal_number == status
    assert capfd.readouterr().err.count(STOPPING) == 1
    assert last_step(whole) == 12 and last_step(Run(tmp_path / "run", whole.config)) == 7
    check_same_end(run_loop(tmp_path / "run", 12), whole, 12)


@pytest.mark.parametrize(
    "action", [press(signal.SIGINT, signal.SIGINT), lambda: (press(signal.SIGTERM)(), interruption_point())]
)
def test_a_step_that_is_dropped_is_taken_again(tmp_path: Path, action: Callable[[], object]) -> None:
    """By a second Ctrl-C, or at a point where a collector allows it."""
    whole = run_loop(tmp_path / "whole", 12)
    with pytest.raises(StoppedError, match="stopped after 6 of 12 steps"):
        run_loop(tmp_path / "run", 12, source=at(7, action))
    assert last_step(Run(tmp_path / "run", whole.config)) == 6
    assert len(metrics.read(tmp_path / "run")) == 6
    check_same_end(run_loop(tmp_path / "run", 12), whole, 12)


def test_a_validation_that_is_dropped_is_done_again(tmp_path: Path) -> None:
    whole = run_loop(tmp_path / "whole", 12)
    calls: list[int] = []

    def validate(state: State) -> Metrics:
        calls.append(1)
        if len(calls) == 2:  # after step 10
            press(signal.SIGINT, signal.SIGINT)()
        return tiny.validate(state)

    with pytest.raises(StoppedError, match="stopped after 9 of 12 steps"):
        train(request(tmp_path / "run", 12), Tiny(), Source(), validate)
    check_same_end(run_loop(tmp_path / "run", 12), whole, 12)


def test_a_signal_in_the_first_step_leaves_a_run_that_can_begin(tmp_path: Path) -> None:
    whole = run_loop(tmp_path / "whole", 3)
    with pytest.raises(StoppedError, match="stopped after 0 of 3 steps"):
        run_loop(tmp_path / "run", 3, source=at(1, press(signal.SIGINT, signal.SIGINT)))
    check_same_end(run_loop(tmp_path / "run", 3), whole, 3)


def test_a_signal_in_the_last_step_stops_what_would_come_after_it(tmp_path: Path) -> None:
    with pytest.raises(StoppedError, match="run: all 3 steps are done$"):
        run_loop(tmp_path / "run", 3, source=at(3, press(signal.SIGTERM)))
    assert run_loop(tmp_path / "run", 3).folder == tmp_path / "run"


# Collecting while learning


@dataclasses.dataclass(frozen=True)
class Lagging(Tiny):
    """Weighs what it is given by the parameters that it was collected with."""

    def off_policy_meta_step(
        self, state: State, behaviour: Parameters, experience: tiny.Noise, rng: np.random.Generator
    ) -> tuple[State, Metrics]:
        return self.meta_step(state, tiny.Noise(experience.values + behaviour["w"]), rng)


def run_lagging(folder: Path, steps: int, source: Source | None = None, *, overlap: bool = True) -> Run:
    asked = dataclasses.replace(request(folder, steps), overlap=overlap)
    return train(asked, Lagging(), source or Source(), tiny.validate)


@pytest.mark.parametrize("steps", [2, 3, 4, 7, 12])
def test_a_run_in_parts_that_lags_behind_ends_as_one_in_a_piece(tmp_path: Path, steps: int) -> None:
    whole = run_lagging(tmp_path / "whole", 12)
    run_lagging(tmp_path / "run", steps)
    run = run_lagging(tmp_path / "run", 12)
    check_same_state(run, whole, 12)
    one, other = ((each.checkpoints / "12" / "behaviour.safetensors").read_bytes() for each in (run, whole))
    assert one == other


@pytest.mark.parametrize(
    "action", [press(signal.SIGINT), press(signal.SIGINT, signal.SIGINT), fail(Interrupted()), fail(WorkerLostError())]
)
def test_stopping_while_the_next_step_is_collected_loses_at_most_a_step(
    tmp_path: Path, action: Callable[[], object]
) -> None:
    whole = run_lagging(tmp_path / "whole", 12)
    with pytest.raises((StoppedError, WorkerLostError)):
        run_lagging(tmp_path / "run", 12, at(7, lambda: (press(signal.SIGINT)(), action())))
    assert last_step(Run(tmp_path / "run", whole.config)) in (5, 6)
    check_same_end(run_lagging(tmp_path / "run", 12), whole, 12)


def test_whether_collecting_lags_behind_is_part_of_the_experiment(tmp_path: Path) -> None:
    run = run_lagging(tmp_path / "run", 3)
    assert run_folder.read(run.folder).config.experiment.options["collection"] == {"overlap": True}
    with pytest.raises(UsageError, match="collection"):
        run_lagging(tmp_path / "run", 6, overlap=False)
    plain = run_lagging(tmp_path / "plain", 3, overlap=False)
    assert not (plain.checkpoints / "3" / "behaviour.safetensors").exists()
    ends = [CheckpointFolder(each).latest(Tiny().init(5)) for each in (run, plain)]
    assert ends[0] is not None and ends[1] is not None
    assert not torch.equal(ends[0].state.parameters["w"], ends[1].state.parameters["w"])


def test_a_learner_that_needs_its_own_experience_does_not_lag_behind(tmp_path: Path) -> None:
    asked = dataclasses.replace(request(tmp_path / "run", 3), overlap=True)
    with pytest.raises(UsageError, match="tiny learns only from what its present parameters have collected"):
        train(asked, Tiny(), Source(), tiny.validate)
    assert os.listdir(tmp_path) == []


# Failing


@pytest.mark.parametrize("failing", [7, 9])  # between checkpoints, and right after one
@pytest.mark.parametrize("error", [WorkerLostError("worker 1 of 2 was killed"), ZeroDivisionError("a bug")])
def test_a_failure_keeps_all_steps_before_it(tmp_path: Path, failing: int, error: Exception) -> None:
    whole = run_loop(tmp_path / "whole", 12)
    with pytest.raises(type(error), match="worker 1 of 2|a bug"):
        run_loop(tmp_path / "run", 12, source=at(failing, fail(error)))
    assert last_step(Run(tmp_path / "run", whole.config)) == failing - 1
    check_same_end(run_loop(tmp_path / "run", 12), whole, 12)


def test_a_failure_is_told_though_nothing_can_be_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lose_worker() -> None:
        monkeypatch.setattr(CheckpointFolder, "save", lambda *_, **__: fail(DiskFullError("no room"))())
        raise WorkerLostError("worker 1 of 2 was killed")

    with pytest.raises(WorkerLostError, match="worker 1"):
        run_loop(tmp_path / "run", 12, source=at(7, lose_worker))
    assert "warning: no room\n" in capsys.readouterr().err


@dataclasses.dataclass(frozen=True)
class Spoilt(Tiny):
    """Becomes something else after some steps."""

    after: int = 6
    parameters: Callable[[State], dict[str, torch.Tensor]] = lambda state: {}

    def meta_step(self, state: State, experience: tiny.Noise, rng: np.random.Generator) -> tuple[State, Metrics]:
        state, figures = super().meta_step(state, experience, rng)
        if int(state.parameters["a.count"]) > self.after:
            state = dataclasses.replace(state, parameters={**state.parameters, **self.parameters(state)})
        return state, figures


def test_parameters_that_are_no_longer_finite_end_the_run_with_those_before(tmp_path: Path) -> None:
    spoilt = Spoilt(parameters=lambda state: {"w": state.parameters["w"] * torch.nan})
    with pytest.raises(RunError, match="parameter w is no longer finite after step 7"):
        run_loop(tmp_path / "run", 12, spoilt)
    assert last_step(run_folder.read(tmp_path / "run")) == 6


def test_a_learner_that_gives_other_tensors_than_it_began_with_is_told_at_once(tmp_path: Path) -> None:
    """Its checkpoints could not be held against it."""
    for other, told in (
        ({"w": torch.zeros(9)}, r"parameter 'w' has the shape \[9\], in the learner \[3\]"),
        ({"late": torch.zeros(1)}, "parameter 'late' is there, the learner has none"),
    ):
        with pytest.raises(RunError, match=f"the first outer step changed what the state holds: {told}.*`init`"):
            run_loop(tmp_path / "run", 12, Spoilt(after=0, parameters=lambda _, other=other: other))


def test_checkpoints_of_another_learner_are_not_gone_on_with(tmp_path: Path) -> None:
    run_loop(tmp_path / "run", 4)
    with pytest.raises(RunError, match=r"parameter 'w' has the shape \[3\], in the learner \[5\]"):
        run_loop(tmp_path / "run", 8, Tiny(width=5))


def test_a_damaged_checkpoint_costs_time_and_not_the_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = run_loop(tmp_path / "whole", 12)
    run = run_loop(tmp_path / "run", 10)
    path = run.checkpoints / "10" / "params.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    check_same_end(run_loop(tmp_path / "run", 12), whole, 12)
    assert capsys.readouterr().err.count("using the checkpoint of step 8 instead") == 1


# The beginning


def test_a_beginning_that_does_not_fit_leaves_no_folder(tmp_path: Path) -> None:
    def first_state(seed: int) -> State:
        raise UsageError("it is of another learner")

    with pytest.raises(UsageError, match="another learner"):
        train(request(tmp_path / "run", 3), Tiny(), Source(), tiny.validate, first_state=first_state)
    assert os.listdir(tmp_path) == []


def test_options_that_cannot_be_written_leave_no_folder(tmp_path: Path) -> None:
    for wrong in ({"seed": -1}, {"options": {"learner": {"rate": float("inf")}}}, {"learner": "mine.py:Mine"}):
        asked = dataclasses.replace(request(tmp_path / "run", 3), **wrong)
        with pytest.raises(UsageError):
            train(asked, Tiny(), Source(), tiny.validate)
    assert os.listdir(tmp_path) == []


def test_the_first_state_is_made_once(tmp_path: Path) -> None:
    seeds: list[int] = []

    def first_state(seed: int) -> State:
        seeds.append(seed)
        return Tiny().init(77)

    run = train(request(tmp_path / "run", 1), Tiny(), Source(), tiny.validate, first_state=first_state)
    assert seeds == [5]
    train(request(tmp_path / "run", 2), Tiny(), Source(), tiny.validate, first_state=first_state)
    assert seeds == [5] and last_step(run) == 2


def test_a_run_can_begin_with_what_another_has_learned(tmp_path: Path) -> None:
    other = run_loop(tmp_path / "other", 4)
    path = other.checkpoints / "4"
    fresh = Tiny().init(9)
    saved = CheckpointFolder(other).load(4, fresh).state
    for origin in (path, other.folder):  # the last one
        check_equal(warm_state(origin, fresh), State(saved.parameters, saved.optimizer))
    source, parameters = warm_parameters(path)
    assert source.config.experiment.distribution_hash == "0123" and list(parameters) == list(saved.parameters)
    for wrong, told in (
        (lambda: warm_state(path, Tiny(width=5).init(0)), r"another learner: .*'w' has the shape \[3\]"),
        (lambda: warm_state(other.checkpoints, fresh), "name a run's folder or that of one of its checkpoints"),
        (lambda: warm_state(other.checkpoints / "5", fresh), "no checkpoint of step 5; there are: 4"),
        (lambda: warm_state(tmp_path / "checkpoints" / "4", fresh), "is not a run"),
    ):
        with pytest.raises(UsageError, match=told):
            wrong()


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"checkpoint_every": 0}, {"keep": 0}, {"validate_every": -1}])
def test_wrong_options_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrainingOptions(**({"steps": 5} | wrong))


def test_nothing_is_validated_but_the_last_where_nobody_asks_for_it() -> None:
    options = TrainingOptions(steps=7, checkpoint_every=3, validate_every=0)
    assert [step for step in range(1, 8) if options.validates(step)] == [7]
    assert [step for step in range(1, 8) if options.saves(step)] == [3, 6, 7]


def test_it_says_how_fast_it_is_and_where_it_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_loop(tmp_path / "run", 9)
    first = capsys.readouterr().err.splitlines()
    assert first[0].startswith("run: 1/9; env_steps 10, env_steps/s ")
    run = run_loop(tmp_path / "run", 12)
    again = capsys.readouterr().err.splitlines()
    assert again[0] == "run: resumed from step 9"
    assert again[1].startswith("run: 10/12; env_steps 100, env_steps/s ")
    assert not [key for row in metrics.read(run.folder) for key in row if key.endswith("/s")]
