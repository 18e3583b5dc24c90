"""What comes from outside the package, in files of its user: trained, killed, resumed, loaded, judged, filmed.

The files are those of docs/extending.md, as a reader would save them.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import metarl
from metarl import agents, envs
from metarl.fewshot import encoders
from metarl.fewshot.registry import LEARNERS
from metarl.runs.trained import TrainedAgent, TrainedFewShot
from tests.programs import call

ROOT = Path(__file__).resolve().parent.parent
GRID = ROOT / "tests" / "external" / "hidden_corner.py"
TRAIN = ("--meta-batch", "2", "--threads", "1", "--validation-tasks", "1", "--validate-every", "0")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of docs/extending.md."""
    folder = tmp_path_factory.mktemp("outside")
    page = (ROOT / "docs" / "extending.md").read_text()
    found = re.findall(r"<!-- ci: file ([\w.]+) -->\n```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert {name for name, _ in found} == {"my_world.py", "my_agent.py", "my_learner.py", "my_data.py", "my_texts.py"}
    for name, text in found:
        assert sum(bool(line.strip()) for line in text.splitlines()) < 40, f"{name} is to be short"
        (folder / name).write_text(text)
    return folder


def test_an_agent_and_a_world_are_killed_resumed_loaded_and_judged(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (
        "my_agent.py:BestMoveConfig",
        "--env",
        "my_world.py:hidden_target",
        *TRAIN[2:],
        "--checkpoint-every",
        "1",
    )
    monkeypatch.chdir(files)
    assert call("train", *command, "--steps", "20", "--run", tmp_path / "whole") == 0
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    script = (sys.executable, ROOT / "scripts" / "train.py", *command, "--steps", "20", "--run", tmp_path / "killed")
    with subprocess.Popen(script, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / "killed" / "checkpoints" / "3").exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    monkeypatch.chdir(tmp_path)  # the run remembers where its files are
    command = (f"{files}/my_agent.py:BestMoveConfig", "--env", f"{files}/my_world.py:hidden_target", *command[3:])
    assert call("train", *command, "--steps", "20", "--run", tmp_path / "killed") == 0
    last = Path("checkpoints") / "20" / "params.safetensors"
    assert (tmp_path / "killed" / last).read_bytes() == (tmp_path / "whole" / last).read_bytes()

    run = metarl.load(tmp_path / "killed", trust_code=True)
    assert isinstance(run, TrainedAgent)
    assert run.ref.learner == f"{files}/my_agent.py:BestMoveConfig"
    evaluation = metarl.evaluate(run, num_tasks=10)
    assert evaluation.gain().mean.low > 0  # it does find out where it is wanted
    capsys.readouterr()
    assert call("evaluate", tmp_path / "killed", "--trust-code", "--num-tasks", "10", "--threads", "1") == 0
    assert f"{evaluation.curve()[-1].mean:.2f}" in capsys.readouterr().out


def test_a_world_from_outside_is_filmed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "grid"
    command = ("rl2", "--env", f"{GRID}:hidden_corner", *TRAIN, "--hidden", "8", "--epochs", "1", "--minibatches", "1")
    assert call("train", *command, "--steps", "1", "--run", run) == 0
    assert call("evaluate", run, "--trust-code", "--num-tasks", "2", "--threads", "1") == 0
    assert "share of episodes with success" in capsys.readouterr().out
    assert (
        call("record_video", run, "--trust-code", "--width", "64", "--height", "64", "--every", "5", "--threads", "1")
        == 0
    )
    (film,) = (run / "videos").glob("*.mp4")
    assert film.stat().st_size > 500


def test_a_learner_a_data_set_and_an_encoder_are_trained_loaded_and_judged(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    data = ("--data", "my_data.py:blobs", "--tasks", "20", "--validation-tasks", "5", "--threads", "1")
    assert call("fewshot", "my_learner.py:NearestConfig", *data, "--steps", "3", "--run", tmp_path / "nearest") == 0
    small = ("--steps", "3", "--train-ways", "5", "--run", tmp_path / "wide")
    assert call("fewshot", "prototypical", "my_data.py:wide", *data, *small) == 0
    monkeypatch.chdir(tmp_path)
    for name in ("nearest", "wide"):
        run = metarl.load(tmp_path / name, trust_code=True)
        assert isinstance(run, TrainedFewShot)
        examples = np.eye(8, dtype=np.float32)[:3] * 3
        assert run.adapt(examples, ["a", "b", "c"]).predict(examples).argmax(1).tolist() == [0, 1, 2]
        assert metarl.evaluate(run, num_tasks=20).curve()[-1].mean.value > 0.8
        assert call("evaluate", tmp_path / name, "--trust-code", "--num-tasks", "20", "--threads", "1") == 0


def test_ids_that_name_nothing_are_one_line(files: Path) -> None:
    for make, id in (
        (envs.make, f"{files}/my_world.py:hiden_target"),
        (agents.config_class, f"{files}/my_agent.py:BestMovConfig"),
        (LEARNERS.__getitem__, f"{files}/my_learner.py:NearestConfi"),
        (encoders.default_options, f"{files}/my_data.py:wid"),
    ):
        with pytest.raises(ValueError, match="did you mean") as error:
            make(id)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="there is no Python file"):
        envs.make("nowhere.py:world")
    with pytest.raises(ValueError, match="there is no module 'no_such_package'"):
        agents.config_class("no_such_package:Config")
    with pytest.raises(ValueError, match="is not a agent|is not an agent|expected a dataclass"):
        agents.config_class(f"{files}/my_world.py:hidden_target")
