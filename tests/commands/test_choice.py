"""Which tasks are filmed: by name, by a parameter's range, or by how well they went."""

import dataclasses
from pathlib import Path

import pytest

from metarl import envs
from metarl.commands.record_video import Condition, VideoOptions, find_tasks
from metarl.errors import UsageError
from metarl.evaluation.results import Evaluation
from metarl.runs import run_folder
from metarl.runs.trained import TrainedAgent
from tests.evaluation.evaluations import made_up, write_run

DIST = envs.make("cheetah-terrain")
TASKS = DIST.tasks("test")


@pytest.fixture
def run(tmp_path: Path) -> TrainedAgent:
    """Only the folder and the distribution of a run, evaluated: each task scores 10 more than the one before."""
    evaluation: Evaluation = made_up(tasks=TASKS)
    folder = write_run(tmp_path / "ice", evaluations={"test": evaluation})
    empty: TrainedAgent = object.__new__(TrainedAgent)
    object.__setattr__(empty, "run", run_folder.read(folder))
    object.__setattr__(empty, "dist", DIST)
    return empty


def chosen(run: TrainedAgent, **options: object) -> list[int]:
    """The places in the list of the tasks that are filmed."""
    asked = dataclasses.replace(VideoOptions(run.run.folder), **options)
    return [TASKS.index(task) for task in find_tasks(run.dist, run, asked)]


def test_tasks_are_chosen_by_how_well_they_went(run: TrainedAgent) -> None:
    assert chosen(run, task="worst") == [0]
    assert chosen(run, task="best") == [39]
    assert chosen(run, task="best", grid=3) == [39, 38, 37]
    assert chosen(run, task="median") == [19]
    assert sorted(chosen(run, task="median", grid=3)) == [18, 19, 20]
    rough = [number for number, task in enumerate(TASKS) if task.family == "rough"]
    assert chosen(run, task="worst", where=("amplitude>0",)) == rough[:1]


def test_tasks_are_chosen_by_family_id_and_range(run: TrainedAgent) -> None:
    assert chosen(run) == [0]
    ice = [number for number, task in enumerate(TASKS) if task.family == "ice"]
    assert chosen(run, task="ice", grid=4) == ice[:4]
    assert chosen(run, task=TASKS[5].id) == [5]
    for number in chosen(run, where=("friction>0.06", "slope<2"), grid=2):
        assert TASKS[number].number("friction") > 0.06
        assert TASKS[number].number("slope") < 2


def test_what_fits_nothing_is_told_with_what_there_is(run: TrainedAgent) -> None:
    with pytest.raises(
        UsageError, match="no test task fits --where friction>9; parameters are amplitude, .* wavelength"
    ):
        chosen(run, where=("friction>9",))
    with pytest.raises(
        UsageError, match=r"no test task 'icee' here: name a family \(ice, icy-slope, rough\).*did you mean ice"
    ):
        chosen(run, task="icee")
    with pytest.raises(UsageError, match="--grid 41 needs as many test tasks, and 40 fit"):
        chosen(run, grid=41)
    (run.run.evaluations / "test.json").unlink()
    with pytest.raises(UsageError, match="is missing: metarl evaluate .* --split test"):
        chosen(run, task="worst")


@pytest.mark.parametrize("text", ["friction", "friction<", "<0.05", "friction!0.05", "friction<fast"])
def test_a_condition_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--where takes a parameter"):
        Condition.parse(text)
