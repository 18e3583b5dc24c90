import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from metarl.errors import RunError, UsageError, exit_status
from metarl.runs import run_folder
from metarl.runs.interrupt import stop_requested
from metarl.runs.provenance import Environment, environment
from metarl.runs.run_folder import Experiment

EXPERIMENT = Experiment("maml", {"inner_rate": 0.1, "policy": {"hidden": [64, 64]}}, "point-navigation", "0123", seed=3)
HERE = Environment(1, {"python": "3.11.7", "torch": "2.13.0"}, "abc123", dirty=False)


def start(folder: Path, experiment: Experiment = EXPERIMENT, steps: int = 10, here: Environment = HERE) -> list[str]:
    """Claims the folder and lets it go; returns the warnings."""
    warnings: list[str] = []
    with run_folder.claim(folder, experiment, steps=steps, environment=here, warning=warnings.append):
        pass
    return warnings


def test_a_new_run_writes_down_all_that_is_needed_to_repeat_it(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "ice"
    assert start(folder) == []
    config = json.loads((folder / "config.json").read_text())
    assert config["experiment"]["options"] == EXPERIMENT.options
    assert config["experiment"]["distribution"] == "point-navigation" and config["experiment"]["seed"] == 3
    assert config["environments"] == [
        {"threads": 1, "versions": {"python": "3.11.7", "torch": "2.13.0"}, "revision": "abc123", "dirty": False}
    ]
    run = run_folder.read(folder)
    assert run.config == run_folder.Config(EXPERIMENT, 10, (HERE,)) and run.folder == folder


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
        ({"options": {"inner_rate": 0.2, "policy": {"hidden": [64, 64]}}}, "options.inner_rate is 0.1 there and 0.2"),
        ({"options": {"inner_rate": 0.1, "policy": {"hidden": [32]}}}, r"policy.hidden is \[64, 64\] there and \[32\]"),
        ({"options": {"inner_rate": 0.1}}, r"options.policy.hidden is \[64, 64\] there and absent here"),
        (
            {"options": {"inner_rate": 0.1, "new": None, "policy": {"hidden": [64, 64]}}},
            "options.new is absent there and None here",
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
    options: dict[str, object] = {"inner_rate": 0.1, "policy": {"hidden": (64, 64)}}
    assert EXPERIMENT.differences(Experiment(**{**vars(EXPERIMENT), "options": options})) == ()


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
    ["", "[]", "{}", '{"format": 2}', '{"format": 1}', '{"format": 1, "steps": 1, "environments": [], "experiment": 3}',
     '{"format": 1, "steps": 1, "environments": [3], "experiment": {}}', "\udcff", '{"format": NaN}', "[" * 100_000],
)  # fmt: skip
def test_a_damaged_config_is_one_clear_line(tmp_path: Path, content: str) -> None:
    start(tmp_path)
    (tmp_path / "config.json").write_bytes(content.encode(errors="surrogateescape"))
    for attempt in (lambda: start(tmp_path), lambda: run_folder.read(tmp_path)):
        with pytest.raises(RunError, match=r"config.json cannot be read \(.*restore it") as caught:
            attempt()
        assert "\n" not in str(caught.value)


def test_reading_what_is_no_run(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UsageError, match="is not a run: it has no config.json"):
            run_folder.read(folder)


def test_evaluations_are_written_at_once(tmp_path: Path) -> None:
    with run_folder.claim(tmp_path, EXPERIMENT, steps=1, environment=HERE) as run:
        path = run.write_evaluation("test", {"score": 1.0})
        with pytest.raises(ValueError, match="JSON"):
            run.write_evaluation("test", {"score": float("nan")})
        with pytest.raises((ValueError, TypeError), match="tset"):  # TypeError where annotations are checked
            run.evaluation("tset")  # type: ignore[arg-type]
    assert path == tmp_path / "evaluations" / "test.json" and json.loads(path.read_text()) == {"score": 1.0}
    assert os.listdir(path.parent) == ["test.json"]
    assert run.videos == tmp_path / "videos" and run.checkpoints == tmp_path / "checkpoints"


HOLDER = """
import sys, pathlib
from metarl.runs import run_folder
from metarl.runs.provenance import Environment
experiment = run_folder.Experiment("maml", {}, "point", "0", 0)
with run_folder.claim(pathlib.Path(sys.argv[1]), experiment, steps=1, environment=Environment(1, {}, "none", False)):
    print("claimed", flush=True)
    sys.stdin.read()
"""


def test_two_processes_never_train_in_one_folder_and_a_kill_frees_it(tmp_path: Path) -> None:
    nowhere, experiment = Environment(1, {}, "none", False), Experiment("maml", {}, "point", "0", 0)
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "claimed\n"
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
    assert Environment.from_json(json.loads(json.dumps(here.to_json()))) == here


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UsageError("no such\nid"), 2, "error: no such id\n"),
        (RunError("the disk is full"), 1, "error: the disk is full\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (None, 0, ""),
    ],
)
def test_errors_become_one_line_and_an_exit_status(
    capsys: pytest.CaptureFixture[str], error: BaseException | None, status: int, line: str
) -> None:
    def program() -> None:
        if error is not None:
            raise error

    assert exit_status(program) == status
    assert capsys.readouterr().err == line


def test_a_reader_that_has_gone_ends_the_program_in_silence() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    program = "import sys; from metarl.errors import exit_status; sys.exit(exit_status(lambda: print('x' * 9)))"
    done = subprocess.run([sys.executable, "-c", program], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_another_broken_pipe_is_no_silent_end() -> None:
    def program() -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        exit_status(program)


def test_other_errors_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        exit_status(lambda: 1 // 0)


def test_ctrl_c_is_a_question_the_first_time_and_an_interruption_the_second() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_requested() as stop:
        assert not stop()
        signal.raise_signal(signal.SIGINT)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_sigterm_asks_to_stop_too() -> None:
    with stop_requested() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop()


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    answers: list[bool] = []

    def work() -> None:
        with stop_requested() as stop:
            answers.append(stop())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [False]
