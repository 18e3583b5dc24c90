import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from metarl.errors import RunError, UsageError
from metarl.runs import run_folder
from metarl.runs.decoding import options_from_json
from metarl.runs.provenance import Environment, environment
from metarl.runs.run_folder import Config, Experiment, evaluation_name
from tests.runs.tiny import EXPERIMENT, HERE

POLICY = {"hidden": [64, 64]}


def start(folder: Path, experiment: Experiment = EXPERIMENT, steps: int = 10, here: Environment = HERE) -> list[str]:
    """Opens the folder and lets it go; returns the warnings."""
    warnings: list[str] = []
    with run_folder.open_run(folder, experiment, steps=steps, environment=here, warning=warnings.append):
        pass
    return warnings


def test_a_new_run_writes_down_all_that_is_needed_to_repeat_it(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "ice"
    assert start(folder) == []
    config = json.loads((folder / "config.json").read_text())
    assert config["experiment"]["options"] == EXPERIMENT.options
    assert config["format"] == 2 and config["experiment_hash"] == EXPERIMENT.hash
    assert config["experiment"]["distribution"] == "point-navigation" and config["experiment"]["seed"] == 3
    assert config["environments"] == [
        {"threads": 1, "versions": {"python": "3.11.7", "torch": "2.13.0"}, "revision": "abc123", "dirty": False}
    ]
    run = run_folder.read(folder)
    assert run.config == Config(EXPERIMENT, 10, (HERE,)) and run.folder == folder


def test_the_same_again_goes_on_and_changes_nothing(tmp_path: Path) -> None:
    start(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    assert start(tmp_path) == []
    assert (tmp_path / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"learner": "rl2"}, "learner is maml there and rl2 here"),
        ({"seed": 4}, "seed is 3 there and 4 here"),
        ({"distribution": "ant"}, "distribution is point-navigation there and ant here"),
        ({"distribution_hash": "4567"}, "distribution_hash is 0123 there and 4567 here"),
        ({"device": "cuda"}, "device is cpu there and cuda here"),
        (
            {"options": {"learner": {"inner_lr": 0.2, "policy": POLICY}}},
            "options.learner.inner_lr is 0.1 there and 0.2",
        ),
        (
            {"options": {"learner": {"inner_lr": 0.1, "policy": {"hidden": [32]}}}},
            r"learner.policy.hidden is \[64, 64\] there and \[32\]",
        ),
        ({"options": {"learner": {"inner_lr": 0.1}}}, r"policy.hidden is \[64, 64\] there and absent here"),
        (
            {"options": {"learner": {"inner_lr": 0.1, "new": None, "policy": POLICY}}},
            "options.learner.new is absent there and None here",
        ),
    ],
)
def test_another_experiment_is_refused_and_what_differs_is_named(
    tmp_path: Path, change: dict[str, object], told: str
) -> None:
    start(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(UsageError, match=f"holds another experiment: .*{told}.*use another --run"):
        start(tmp_path, dataclasses.replace(EXPERIMENT, **change))
    assert (tmp_path / "config.json").read_bytes() == before


def test_tuples_are_the_lists_they_become_in_json(tmp_path: Path) -> None:
    start(tmp_path)
    options = {"learner": {"inner_lr": 0.1, "policy": {"hidden": (64, 64)}}}
    same = dataclasses.replace(EXPERIMENT, options=options)
    assert EXPERIMENT.differences(same) == () and EXPERIMENT.hash == same.hash


@pytest.mark.parametrize(
    "change",
    [{"seed": 4}, {"device": "cuda"}, {"options": {}}, {"learner": "/a/other.py:mine"}, {"distribution_hash": "1"}],
)
def test_the_hash_tells_experiments_apart(change: dict[str, object]) -> None:
    assert dataclasses.replace(EXPERIMENT, **change).hash != EXPERIMENT.hash


def test_the_file_of_an_id_may_move_and_nothing_else_of_it() -> None:
    def of(learner: str, encoder: str) -> str:
        options = {"learner": {"encoder": {"type": encoder}}}
        return dataclasses.replace(EXPERIMENT, learner=learner, options=options).hash

    assert of("/home/a/mine.py:Mine", "/home/a/nets.py:Net") == of("/home/b/mine.py:Mine", "/home/b/nets.py:Net")
    assert of("/home/a/mine.py:Mine", "x") != of("/home/a/mine.py:Other", "x")
    assert of("x", "/home/a/mine.py:Mine") != of("x", "/home/a/yours.py:Mine")


@pytest.mark.parametrize("change", [{"seed": -1}, {"seed": 2**63}, {"learner": "mine.py:Mine"}])
def test_an_experiment_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="seed must be between 0 and|by their absolute paths"):
        dataclasses.replace(EXPERIMENT, **change)


def test_options_that_json_does_not_have_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    for value in (float("nan"), "\udcff"):
        with pytest.raises(UsageError, match="options cannot be written into .*JSON"):
            start(tmp_path / "run", dataclasses.replace(EXPERIMENT, options={"learner": {"rate": value}}))
    assert os.listdir(tmp_path) == []


def test_steps_may_grow_and_not_shrink(tmp_path: Path) -> None:
    start(tmp_path, steps=10)
    start(tmp_path, steps=20)
    assert run_folder.read(tmp_path).config.steps == 20
    with pytest.raises(UsageError, match="asked for 20 steps before and for 19 now; .* use --steps 20 or more"):
        start(tmp_path, steps=19)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"threads": 2}, "threads 1 before, 2 now"),
        ({"versions": {"python": "3.11.7", "torch": "2.14.0"}}, "torch 2.13.0 before, 2.14.0 now"),
        ({"revision": "def456"}, "git revision abc123 before, def456 now"),
        ({"dirty": True}, "git revision abc123 before, abc123 with changes now"),
    ],
)
def test_other_conditions_are_told_once_and_written_down(tmp_path: Path, change: dict[str, object], told: str) -> None:
    now = dataclasses.replace(HERE, **change)
    start(tmp_path)
    warnings = start(tmp_path, here=now)
    assert len(warnings) == 1 and warnings[0].endswith(told), warnings
    assert start(tmp_path, here=now) == []
    assert run_folder.read(tmp_path).config.environments == (HERE, now)


def test_a_folder_with_other_things_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="not empty and not a run: it holds thesis.tex but no config.json"):
        start(tmp_path)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ice").write_text("mine")
    with pytest.raises(UsageError, match="ice is a file; name a folder"):
        start(tmp_path / "ice")
    with pytest.raises(UsageError, match="is a file; name a folder"):
        start(tmp_path / "ice" / "deeper")


def test_a_start_that_was_killed_before_its_config_is_started_again(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("")
    (tmp_path / ".tmp-config.json").write_text('{"form')
    start(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".lock", "config.json"]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"format": 3}', '{"format": 2}', '{"format": 2, "steps": 1, "environments": [], "experiment": 3}',
     '{"format": 2, "steps": 1, "environments": [3], "experiment": {}}', "\udcff", '{"format": NaN}', "[" * 100_000],
)  # fmt: skip
def test_a_damaged_config_is_one_clear_line(tmp_path: Path, content: str) -> None:
    start(tmp_path)
    (tmp_path / "config.json").write_bytes(content.encode(errors="surrogateescape"))
    for attempt in (lambda: start(tmp_path), lambda: run_folder.read(tmp_path)):
        with pytest.raises(RunError, match=r"config.json cannot be read: .*restore it") as caught:
            attempt()
        assert "\n" not in str(caught.value)


def edit(folder: Path, *path: str, value: object) -> None:
    """Changes one value of the config."""
    content = json.loads((folder / "config.json").read_text())
    part = content
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    (folder / "config.json").write_text(json.dumps(content))


def test_a_run_of_another_version_is_one_clear_line(tmp_path: Path) -> None:
    start(tmp_path)
    edit(tmp_path, "format", value=1)
    with pytest.raises(RunError, match="another version of metarl wrote it: format 1, this one reads format 2"):
        run_folder.read(tmp_path)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("experiment", "seed"), 4),
        (("experiment", "options", "learner", "inner_lr"), 0.2),
        (("experiment", "distribution"), "cheetah-terrain"),
        (("experiment", "device"), "cuda"),
        (("experiment_hash",), "0" * 16),
    ],
)
def test_an_experiment_changed_by_hand_is_noticed(tmp_path: Path, path: tuple[str, ...], value: object) -> None:
    start(tmp_path)
    edit(tmp_path, *path, value=value)
    with pytest.raises(RunError, match=r"cannot be read: \$: the experiment was changed by hand: its hash is"):
        run_folder.read(tmp_path)


def test_a_run_can_be_told_where_a_file_has_moved_to(tmp_path: Path) -> None:
    start(tmp_path / "run", dataclasses.replace(EXPERIMENT, learner="/gone/mine.py:Mine"))
    edit(tmp_path / "run", "experiment", "learner", value="/here/mine.py:Mine")
    assert run_folder.read(tmp_path / "run").config.experiment.learner == "/here/mine.py:Mine"


def test_code_inside_a_runs_folder_is_not_for_running(tmp_path: Path) -> None:
    start(tmp_path / "run", dataclasses.replace(EXPERIMENT, learner="/gone/mine.py:Mine"))
    for place in (tmp_path / "run", tmp_path / "run" / "videos" / ".."):
        edit(tmp_path / "run", "experiment", "learner", value=f"{place}/mine.py:Mine")
        with pytest.raises(RunError, match="names code inside the run's own folder"):
            run_folder.read(tmp_path / "run")
    edit(tmp_path / "run", "experiment", "learner", value="mine.py:Mine")
    with pytest.raises(RunError, match="absolute paths, not 'mine.py:Mine'"):
        run_folder.read(tmp_path / "run")


@dataclasses.dataclass(frozen=True)
class LearnerOptions:
    inner_lr: float
    policy: dict[str, tuple[int, ...]]


def test_a_group_of_options_is_read_as_its_record(tmp_path: Path) -> None:
    start(tmp_path)
    run = run_folder.read(tmp_path)
    assert run.options("learner", LearnerOptions) == LearnerOptions(0.1, {"hidden": (64, 64)})
    with pytest.raises(RunError, match=r"config.json has no options 'tasks'; there are learner"):
        run.options("tasks", LearnerOptions)
    with pytest.raises(RunError, match=r"config.json cannot be read: \$.experiment.options.learner: unknown field"):
        run.options("learner", Experiment)


def test_a_run_is_shown_in_a_line(tmp_path: Path) -> None:
    start(tmp_path / "ice")
    run = run_folder.read(tmp_path / "ice")
    assert repr(run) == f"<Run {tmp_path / 'ice'}: maml on point-navigation, seed 3>"


def test_reading_what_is_no_run(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UsageError, match="is not a run: it has no config.json"):
            run_folder.read(folder)


def test_evaluations_are_written_at_once(tmp_path: Path) -> None:
    with run_folder.open_run(tmp_path, EXPERIMENT, steps=1, environment=HERE) as run:
        path = run.write_evaluation("test", {"score": 1.0})
        with pytest.raises(ValueError, match="JSON"):
            run.write_evaluation("test", {"score": float("nan")})
    assert path == tmp_path / "evaluations" / "test.json" and json.loads(path.read_text()) == {"score": 1.0}
    assert os.listdir(path.parent) == ["test.json"]
    assert run.videos == tmp_path / "videos" and run.checkpoints == tmp_path / "checkpoints"


def test_an_evaluation_of_another_kind_has_a_file_of_its_own(tmp_path: Path) -> None:
    assert evaluation_name("test") == "test"
    assert evaluation_name("validation", "5-tasks", "20w5s", checkpoint="best") == "validation-5-tasks-20w5s-best"
    with pytest.raises((ValueError, TypeError), match="tset"):  # TypeError where annotations are checked
        evaluation_name("tset")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", ".", "..", "../test", "a/b", "-x", ".tmp-x", "x" * 201, "a\nb", "ä", "a b"])
def test_an_evaluations_name_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    with run_folder.open_run(tmp_path / "run", EXPERIMENT, steps=1, environment=HERE) as run:
        with pytest.raises(ValueError, match="an evaluation's name is of letters"):
            run.write_evaluation(name, {})
        assert not run.evaluations.exists()


HOLDER = """
import sys, pathlib
from metarl.runs import run_folder
from metarl.runs.provenance import Environment
experiment = run_folder.Experiment("agent", "maml", {}, "point", "0", 0)
with run_folder.open_run(pathlib.Path(sys.argv[1]), experiment, steps=1, environment=Environment(1, {}, "none", False)):
    print("open", flush=True)
    sys.stdin.read()
"""


def test_two_processes_never_train_in_one_folder_and_a_kill_frees_it(tmp_path: Path) -> None:
    nowhere, experiment = Environment(1, {}, "none", False), Experiment("agent", "maml", {}, "point", "0", 0)
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "open\n"
        with pytest.raises(
            RunError, match=rf"another process \(pid {holder.pid}\) is training in .*wait until it ends"
        ):
            start(tmp_path, experiment, 1, nowhere)
        assert run_folder.read(tmp_path).config.steps == 1  # reading needs no lock
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    start(tmp_path, experiment, 1, nowhere)


def test_what_this_process_runs_in() -> None:
    here = environment(threads=2)
    assert here.threads == 2 and here.versions["torch"].startswith("2.")
    assert options_from_json(type(here), json.loads(json.dumps(here.to_json())), "config.json") == here
