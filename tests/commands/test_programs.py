"""The programs as people call them: what they print, write and refuse."""

import dataclasses
import json
import math
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import metarl
from metarl import agents
from metarl.commands import main as commands
from metarl.commands.main import PROGRAMS
from metarl.errors import UsageError
from metarl.evaluation.judge import EvaluationSettings
from metarl.evaluation.results import Evaluation
from metarl.evaluation.table import table
from metarl.fewshot.registry import LEARNERS
from metarl.learning.collect import Collector, point_seeds
from metarl.learning.random_streams import task_seeds
from metarl.learning.sources import TrialSource
from metarl.registry import Registry
from metarl.runs import run_folder
from metarl.runs.command import command
from metarl.runs.trained import TrainedAgent, TrainedFewShot
from tests.programs import call

TINY = ["--meta-batch", "2", "--threads", "1", "--validation-tasks", "2", "--env", "point-navigation"]
AGENTS = {
    "maml": ["maml", *TINY, "--episodes-per-adaptation", "2", "--hidden", "8"],
    "rl2": ["rl2", *TINY, "--hidden", "8", "--epochs", "1", "--minibatches", "1"],
}


def loaded(folder: Path) -> TrainedAgent:
    """The agent of a run."""
    trained = metarl.load(folder)
    assert isinstance(trained, TrainedAgent)
    return trained


@pytest.fixture(scope="module", params=list(AGENTS))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two outer steps."""
    folder = tmp_path_factory.mktemp("runs") / request.param
    assert call("train", *AGENTS[request.param], "--run", folder, "--steps", "2") == 0
    return folder


def test_every_option_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    for name in PROGRAMS:
        assert call(name, "--help") == 0
        assert f"{name}.py" in capsys.readouterr().out
    assert call("train", "maml", "--help") == 0
    assert "--inner-lr" in capsys.readouterr().out


def test_the_entry_point_lists_and_runs_the_same_programs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["metarl"])
    with pytest.raises(SystemExit) as end:
        commands.main()
    assert end.value.code == 0
    assert all(name in capsys.readouterr().out for name in ["train"])
    monkeypatch.setattr(sys, "argv", ["metarl", "trian"])
    with pytest.raises(SystemExit) as end:
        commands.main()
    assert end.value.code == 2 and "unknown program 'trian'; did you mean train?" in capsys.readouterr().err
    for arguments in (["metarl", "--version"], ["metarl", "train", "--version"]):
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit):
            commands.main()
        assert capsys.readouterr().out == f"metarl {metarl.__version__}\n"


def test_train_evaluate_and_load(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("evaluate", run, "--num-tasks", "3", "--threads", "1") == 0
    printed = capsys.readouterr().out
    found = Evaluation.from_json(json.loads((run / "evaluations" / "test-num-tasks-3.json").read_text()))
    assert not (run / "evaluations" / "test.json").exists()  # a part does not stand in for the whole
    assert len(found.tasks) == 3 and found.sources[0].step == 2 and found.sources[0].checkpoint == "last"
    assert table(found) in printed
    trained = loaded(run)
    again = metarl.evaluate(trained, trained.dist, split="test", num_tasks=3)
    assert (again.scores == found.scores).all()
    assert len(repr(trained)) < 300 and len(repr(again)) < 300
    assert call("evaluate", run, "--num-tasks", "3", "--threads", "1", "--checkpoint", "best") == 0
    best = json.loads((run / "evaluations" / "test-num-tasks-3-best.json").read_text())
    assert Evaluation.from_json(best).sources[0].checkpoint == "best on validation"


def test_checkpoints_are_scored_on_validation_tasks(run: Path) -> None:
    trained = loaded(run)
    settings = EvaluationSettings(split="validation", num_tasks=2, swap_control=False)
    expected = metarl.evaluate(trained, settings=settings).curve()[-1].mean.value
    written = json.loads((run / "checkpoints" / "2" / "state.json").read_text())
    assert written["score"] == pytest.approx(expected, rel=1e-6)
    test = metarl.evaluate(trained, settings=dataclasses.replace(settings, split="test")).curve()[-1].mean.value
    assert test != pytest.approx(expected, rel=1e-3)


def test_the_same_command_on_a_finished_run_changes_nothing(run: Path) -> None:
    before = (run / "checkpoints" / "2" / "params.safetensors").read_bytes()
    assert call("train", *AGENTS[run.name], "--run", run, "--steps", "2") == 0
    assert (run / "checkpoints" / "2" / "params.safetensors").read_bytes() == before


def test_another_experiment_in_the_same_folder_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("train", *AGENTS[run.name], "--run", run, "--steps", "2", "--seed", "9") == 2
    assert "seed is 0 there and 9 here" in capsys.readouterr().err
    assert call("train", *AGENTS[run.name], "--run", run, "--steps", "1") == 2


def test_collecting_may_overlap_with_learning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "ahead"
    train = ("train", *AGENTS["rl2"], "--run", folder, "--overlap", "--steps")
    assert call(*train, "2") == 0 and call(*train, "3") == 0
    trained = loaded(folder)
    assert trained.state.behaviour is not None and "--overlap" in command(trained.run).split()
    assert call("evaluate", folder, "--num-tasks", "2", "--threads", "1") == 0
    capsys.readouterr()
    assert call("train", *AGENTS["rl2"], "--run", folder, "--steps", "4") == 2
    assert "collection" in capsys.readouterr().err
    assert call("train", *AGENTS["maml"], "--run", tmp_path / "maml", "--overlap", "--steps", "2") == 2
    assert "maml learns only from what its present parameters have collected" in capsys.readouterr().err
    assert not (tmp_path / "maml").exists()


def test_a_video_of_an_adapted_agent(run: Path, drawing: str) -> None:
    target = run / "film.mp4"
    small = ("--width", "96", "--height", "64", "--every", "10", "--threads", "1")
    assert call("record_video", run, "--task", "goal", "--output", target, *small) == 0
    assert target.stat().st_size > 1000


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        ("train", ["maml", "--env", "cheetah-terain", "--run", "FOLDER/a"], "did you mean cheetah-terrain"),
        ("train", ["maml", "--env", "point-navigation", "--run", "FOLDER/a", "--meta-batch", "-1"], "got -1"),
        ("train", ["maml", "--env", "point-navigation", "--run", "FOLDER/a", "--threads", "0"], "got 0"),
        ("train", ["maml", "--env", "point-navigation", "--run", "FOLDER/a", "--device", "cuda:9"], "--device cuda:9"),
        ("train", ["maml", "--env", "point-navigation", "--run", "FOLDER/a", "--steps", "many"], "many"),
        ("train", ["dqn", "--env", "point-navigation", "--run", "FOLDER/a"], "dqn"),
        ("evaluate", ["FOLDER/nothing"], "is not a run"),
        ("evaluate", [], "at least one run"),
        ("record_video", ["FOLDER/nothing"], "is not a run"),
        ("record_video", ["FOLDER/nothing", "--width", "7"], "must be even"),
        ("record_video", ["FOLDER/nothing", "--output", "clip.avi"], "ends in .mp4 or .gif"),
        ("evaluate", ["FOLDER/nothing", "--evaluation-seed", "-1"], "seed must be between 0"),
        ("evaluate", ["FOLDER/nothing", "--output", "/"], "cannot be written: it is not"),
        ("evaluate", ["--policy", "expret", "--env", "point-navigation"], "did you mean expert"),
        ("evaluate", ["--policy", "expert", "--env", "point-navigation"], "for Meta-World only"),
        ("train", ["maml", "--env", "point-navigation", "--run", "FOLDER/a", "--device", "meta"], "--device meta"),
        ("train", ["mamll", "--env", "point-navigation", "--run", "FOLDER/a"], "did you mean maml"),
        ("train", ["maml", "--env", "point-navigation", "--run", "FOLDER/a", "--max-kl", "inf"], "inf"),
        ("train", ["maml", "--env", "point-navigation", "--run", "FOLDER/a", "--initial-log-std", "nan"], "got nan"),
        ("train", ["rl2", "--env", "point-navigation", "--run", "FOLDER/a", "--learning-rate", "inf"], "got inf"),
        ("fewshot", ["maml", "--data", "sinusoid", "--run", "FOLDER/a", "--learning-rate", "inf"], "got inf"),
        ("fewshot", ["maml", "--data", "sinusoid", "--run", "FOLDER/a", "--inner-lr", "nan"], "got nan"),
        ("train", ["maml", "--env", "point-navigation", "--run", "FOLDER/a", "--threads", "100000"], "--threads"),
        ("train", ["maml", "--env", "point-navigation", "--run", "FOLDER/a", "--seed", "18446744073709551616"], "seed"),
        ("fewshot", ["maml", "--data", "sinusoid", "--run", "FOLDER/a", "--shots", "0"], "got 0"),
        ("benchmark", ["--rounds", "0"], "rounds must be between 1 and 100000, got 0"),
        ("benchmark", ["--seconds", "inf"], "seconds must be finite, got inf"),
        ("benchmark", ["--output", "FOLDER/none/x.json"], "there is no folder"),
        ("train", ["maml", "--env", "point-navigation", "--run", "FOLDER/a", "--meta-batch", "10000000"], "at most"),
        ("train", ["rl2", "--env", "point-navigation", "--run", "FOLDER/a", "--hidden", "100000"], "8192 wide"),
        ("train", ["maml", "--env", ".x:y", "--run", "FOLDER/a"], "names nothing"),
        ("train", ["maml", "--env", "point-navigation", "--run", "FOLDER/a", "--steps", "9" * 30], "at most"),
        ("evaluate", ["FOLDER/nothing", "--adaptations", "10000000"], "at most 1000000"),
        ("evaluate", ["FOLDER/nothing", "--output", "/dev/full"], "cannot be written: it is not a regular file"),
        ("evaluate", ["FOLDER/nothing", "--output", "FOLDER/" + "x" * 300], "File name too long"),
        ("record_video", ["FOLDER/nothing", "--width", "1000000"], "between 1 and 4096"),
        ("record_video", ["FOLDER/nothing", "--every", "1000000000"], "between 1 and 1000"),
        ("fewshot", ["maml", "--data", "sinusoid", "--run", "FOLDER/a", "--tasks", "99999999999"], "at most"),
    ],
)
def test_wrong_usage_is_one_message_and_status_2(
    program: str, arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(program, *(argument.replace("FOLDER", str(tmp_path)) for argument in arguments)) == 2
    printed = capsys.readouterr().err
    assert message in " ".join(printed.split()) and "Traceback" not in printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("registry", [agents.REGISTRY, LEARNERS])
def test_no_number_of_any_learner_may_be_nan_or_infinite(registry: Registry[Any]) -> None:
    for name in registry:
        kind = registry[name]
        for field in dataclasses.fields(kind):
            if isinstance(getattr(kind(), field.name), float):
                for value in (math.nan, math.inf, -math.inf):
                    with pytest.raises(ValueError, match=field.name):
                        kind(**{field.name: value})


def test_wrong_requests_of_a_run_name_what_there_is(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("evaluate", run, "--num-tasks", "1000", "--threads", "1") == 2
    assert "40 test tasks; 1000 were asked for" in capsys.readouterr().err
    assert call("record_video", run, "--task", "ice", "--threads", "1") == 2
    assert "name a family (goal)" in capsys.readouterr().err


def test_a_run_without_a_checkpoint_is_not_loaded(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "config.json").write_bytes((run / "config.json").read_bytes())
    with pytest.raises(UsageError, match="no checkpoint yet"):
        metarl.load(folder)
    assert run_folder.read(folder).config.experiment.learner == run.name


def test_the_sinusoids_are_trained_evaluated_and_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("maml", "--data", "sinusoid", "--run", tmp_path / "sinusoid", "--validate-every", "10")
    assert call("fewshot", *command, "--steps", "20") == 0
    assert "1 seed × 600 tasks" in capsys.readouterr().out
    written = json.loads((tmp_path / "sinusoid" / "evaluations" / "test.json").read_text())
    found = Evaluation.from_json(written)
    assert found.config.adaptations == (0, 1, 5, 10) and found.scores.shape == (1, 1, 4, 600)
    assert call("fewshot", *command, "--steps", "30") == 0
    assert isinstance(metarl.load(tmp_path / "sinusoid"), TrainedFewShot)
    assert call("record_video", tmp_path / "sinusoid") == 2


def test_a_run_can_begin_with_what_another_one_learned(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = loaded(run)
    options = [*AGENTS[trained.ref.learner], "--run", tmp_path / "next", "--steps", "1", "--seed", "5"]
    origin = run / "checkpoints" / "2"
    assert call("train", *options, "--start-from", origin) == 0
    trials = TrialSource(trained.dist, Collector(trained.dist)).collect(trained.agent, trained.state, 5, 0)
    wanted, _ = trained.agent.meta_step(trained.state, trials, np.random.default_rng([5, 0]))
    found = loaded(tmp_path / "next").state
    for there, here in ((wanted.parameters, found.parameters), (wanted.optimizer, found.optimizer)):
        assert there.keys() == here.keys()
        assert all(torch.equal(value, here[name]) for name, value in there.items())
    capsys.readouterr()
    assert call("train", *options) == 2
    assert str(origin) in capsys.readouterr().err


def test_maml_and_promp_can_begin_with_the_task_blind_policy_and_nobody_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before they adapt they are then that policy; where the architectures differ, one line names both sides."""
    blind = tmp_path / "blind"
    assert call("train", "ppo", *TINY, "--hidden", "8", "--run", blind, "--steps", "1") == 0
    same = ["--normalise-observations", "--no-squash-mean"]
    for agent in ("maml", "promp"):
        options = [agent, *TINY, "--episodes-per-adaptation", "2", "--run", tmp_path / agent, "--start-from", blind]
        capsys.readouterr()
        assert call("train", *options, "--hidden", "9", "--steps", "1") == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1 and not (tmp_path / agent).exists()
        for part in (f"{blind}, of ppo, does not fit {agent}", "--hidden 8", *same):
            assert part in told
        assert call("train", *options, "--hidden", "8", *same, "--steps", "1") == 0
        metrics = json.loads((tmp_path / agent / "metrics.jsonl").read_text().splitlines()[0])
        trained, dist = loaded(blind), loaded(blind).dist
        tasks, seeds = dist.sample("train", 2, np.random.default_rng([0, 0, 1])), task_seeds(0, 0, 2, num_tasks=2)
        policy = trained.agent.start(trained.state, 2)
        played = Collector(dist).collect_episodes(policy, tasks, 2, point_seeds(seeds, 0))
        assert metrics["return_before"] == pytest.approx(float(played.returns.mean()), rel=1e-4)
    assert call("train", *AGENTS["rl2"], "--run", tmp_path / "rl2", "--start-from", blind, "--steps", "1") == 2
    assert "is of ppo, and rl2 can only begin with its own kind" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "options", "message"),
    [
        ("checkpoints", [], "name a run's folder or that of one of its checkpoints"),
        ("checkpoints/7", [], "no checkpoint of step 7; there are: 2"),
        (".", ["--hidden", "9"], "is of another learner"),
    ],
)
def test_a_run_refuses_to_begin_with_what_does_not_fit(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str, options: list[str], message: str
) -> None:
    arguments = [*AGENTS[run.name], *options, "--run", tmp_path / "next", "--steps", "1"]
    capsys.readouterr()
    assert call("train", *arguments, "--start-from", run / place) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "next").exists()


def test_the_command_of_a_run_repeats_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = ["--hidden", "8", "4", "--no-learn-inner-lr", "--anil", "--inner-lr", "0.05", "--steps", "1"]
    assert call("train", "maml", *TINY, "--episodes-per-adaptation", "2", *options, "--run", folder) == 0
    typed = shlex.split(command(run_folder.read(folder)))
    assert typed[:3] == ["metarl", "train", "maml"]
    assert "--discount" not in typed  # its default
    # Another option than it was trained with would be refused: "holds another experiment".
    assert call("train", *typed[2:], "--threads", "1") == 0
    other = [word.replace(str(folder), str(tmp_path / "again")) for word in typed]
    assert call("train", *other[2:], "--threads", "1") == 0
    first, second = (loaded(path).state.parameters for path in (folder, tmp_path / "again"))
    assert all(torch.equal(first[name], second[name]) for name in first)
