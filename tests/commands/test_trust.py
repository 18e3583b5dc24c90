"""Run folders from strangers: none of the code that they name is run, and no file of the user's is written."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import metarl
from metarl.errors import UsageError
from metarl.registry import load_object, names_code
from metarl.runs import run_folder
from metarl.runs.run_folder import Experiment
from tests.commands.test_programs import AGENTS
from tests.programs import call

SECRET = b"of the user"
SMALL = ("--width", "64", "--height", "48", "--every", "50", "--threads", "1")


def rewritten(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes a run's experiment as a stranger would, its hash put right."""
    config = json.loads((run / "config.json").read_text())
    change(config["experiment"])
    config["experiment_hash"] = Experiment(**config["experiment"]).hash
    (run / "config.json").write_text(json.dumps(config))


PLACES: dict[str, tuple[str, Callable[[dict[str, Any], str], object]]] = {
    "the tasks": ("agent", lambda experiment, id: experiment.update(distribution=id)),
    "the agent": ("agent", lambda experiment, id: experiment.update(learner=id)),
    "the learner": ("fewshot", lambda experiment, id: experiment.update(learner=id)),
    "the data": ("fewshot", lambda experiment, id: experiment["options"]["data"].update(data=id)),
    "the encoder": ("fewshot", lambda experiment, id: experiment["options"]["learner"].update(encoder={"type": id})),
}


@pytest.mark.parametrize("place", PLACES)
def test_code_that_a_run_names_is_not_imported_unless_it_is_trusted(
    made: Path, tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, change = PLACES[place]
    run, proof = tmp_path / "run", tmp_path / "proof"
    shutil.copytree(made / kind, run)
    (tmp_path / "stranger.py").write_text(f"import pathlib\npathlib.Path({str(proof)!r}).touch()\nTHING = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    for id in (f"{tmp_path}/stranger.py:THING", "stranger:THING"):
        rewritten(run, lambda experiment, id=id: change(experiment, id))
        for program in ("evaluate", "record_video"):
            assert call(program, run) == 2
            told = capsys.readouterr().err
            assert "--trust-code" in told or program == "record_video"
            assert (id in told) == ("--trust-code" in told)
        with pytest.raises(UsageError, match="trust_code=True"):
            metarl.load(run)
        assert not proof.exists()
    if place != "the data":  # that is not needed before there is something to judge
        sys.modules.pop("stranger", None)  # of another place
        assert call("evaluate", run, "--trust-code") in (1, 2)
        assert proof.exists()


def test_a_function_of_an_installed_module_is_not_called_either(made: Path, tmp_path: Path) -> None:
    """`os:abort` takes no arguments, as a distribution's function does."""
    shutil.copytree(made / "agent", tmp_path / "run")
    rewritten(tmp_path / "run", lambda experiment: experiment.update(distribution="os:abort"))
    assert call("evaluate", tmp_path / "run") == 2


def test_to_begin_with_a_strangers_checkpoint_runs_none_of_its_code(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "agent", tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert run_folder.read(tmp_path / "run").config.experiment.code == ()
    proof = tmp_path / "proof"
    (tmp_path / "stranger.py").write_text(f"import pathlib\npathlib.Path({str(proof)!r}).touch()\n")
    change = {"distribution": f"{tmp_path}/stranger.py:x"}
    config["experiment"].update(change)
    config["experiment_hash"] = Experiment(**config["experiment"]).hash
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    origin = tmp_path / "run" / "checkpoints" / "1"
    call("train", *AGENTS["maml"], "--run", tmp_path / "new", "--steps", "1", "--start-from", origin)
    assert not proof.exists()


@pytest.mark.parametrize(
    "id",
    ["x", "x:", ":x", "::", ".x:y", "a b:c", "os:path.join", "x.py:a.b", "a\0.py:x", "cuda:1", "C:\\data\\x", ".:x"],
)
def test_what_is_no_id_of_code_is_imported_by_nobody(id: str) -> None:
    assert not names_code(id)
    with pytest.raises(ValueError, match="names nothing"):
        load_object(id)


def videos_elsewhere(run: Path, victim: Path) -> None:
    (run / "videos").symlink_to(victim.parent)


def a_link_for_the_video(run: Path, victim: Path) -> None:
    (run / "videos").mkdir()
    (run / "videos" / "test-goal-f4e27d68.mp4").symlink_to(victim)


def a_link_for_what_is_half_written(run: Path, victim: Path) -> None:
    (run / "videos").mkdir()
    (run / "videos" / ".tmp-test-goal-f4e27d68.mp4").symlink_to(victim)


@pytest.mark.parametrize("plant", [videos_elsewhere, a_link_for_the_video, a_link_for_what_is_half_written])
def test_a_video_is_written_through_no_link(
    made: Path, tmp_path: Path, plant: Callable[[Path, Path], None], drawing: str
) -> None:
    shutil.copytree(made / "agent", tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    victim = tmp_path / "elsewhere" / "victim"
    victim.write_bytes(SECRET)
    plant(tmp_path / "run", victim)
    assert call("record_video", tmp_path / "run", *SMALL) == (0 if "half" in plant.__name__ else 1)
    assert victim.read_bytes() == SECRET and os.listdir(victim.parent) == ["victim"]


def test_a_colon_in_a_name_is_no_protocol_of_the_video_writers(
    made: Path, tmp_path: Path, drawing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(made / "agent", tmp_path / "http:run")
    monkeypatch.chdir(tmp_path)
    assert call("record_video", "http:run", *SMALL) == 0
    (video,) = (tmp_path / "http:run" / "videos").iterdir()
    assert video.stat().st_size > 1000


def test_the_table_is_printed_though_its_file_cannot_be_written(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made / "agent", tmp_path / "run")
    (tmp_path / "run" / "evaluations").symlink_to(tmp_path)
    assert call("evaluate", tmp_path / "run", "--num-tasks", "2", "--threads", "1") == 1
    told = capsys.readouterr()
    assert "undiscounted return" in told.out and "symbolic link" in told.err
