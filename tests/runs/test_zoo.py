"""The zoo: published by name with a card, found by every program, refused where a figure could not be repeated."""

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import metarl
from metarl.errors import UsageError
from metarl.evaluation.evaluate import evaluate
from metarl.evaluation.results import Evaluation
from metarl.runs import zoo
from metarl.runs.publishing import publish
from metarl.runs.trained import TrainedAgent
from metarl.runs.warm_start import warm_state
from metarl.runs.yardsticks import YardstickRuns, in_zoo
from tests.programs import call
from tests.runs.tiny import Tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainedAgent:
    """A blind policy, as if it had been trained without local changes."""
    folder = tmp_path_factory.mktemp("runs") / "blind"
    arguments = ["--steps", "1", "--meta-batch", "4", "--hidden", "8", "6", "--no-normalise-rewards", "--threads", "1"]
    arguments += ["--validation-tasks", "2", "--env", "point-navigation", "--run", str(folder)]
    assert call("train", "ppo", *arguments) == 0
    trained = metarl.load(folder)
    assert isinstance(trained, TrainedAgent)
    return with_changes(trained, False)


def with_changes(run: TrainedAgent, dirty: bool) -> TrainedAgent:
    config = run.run.config
    environments = tuple(dataclasses.replace(each, dirty=dirty) for each in config.environments)
    return dataclasses.replace(
        run, run=dataclasses.replace(run.run, config=dataclasses.replace(config, environments=environments))
    )


@pytest.fixture(scope="module")
def evaluation(run: TrainedAgent) -> Evaluation:
    return evaluate(run)


@pytest.fixture
def empty_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(zoo, "FOLDER", tmp_path / "zoo")
    return tmp_path / "zoo"


def test_what_is_published_is_found_by_its_name(
    run: TrainedAgent, evaluation: Evaluation, empty_zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert zoo.names() == () and in_zoo(run.dist) == ()
    folder = publish(run, "point-navigation/blind", evaluation)
    assert zoo.names() == ("point-navigation/blind",)
    loaded = metarl.load("zoo:point-navigation/blind")
    assert isinstance(loaded, TrainedAgent)
    assert loaded.ref.content == run.ref.content
    (found,) = in_zoo(run.dist)
    assert YardstickRuns.of(run.dist, [found]).by_name["blind"][0].ref.content == run.ref.content
    card = (folder / "card.md").read_text()
    assert "metarl train ppo --env point-navigation --run runs/blind --seed 0 --steps 1" in card
    assert "--hidden 8 6 --no-normalise-rewards" in card
    assert "40 tasks" in card and str(run.run.folder.parent) not in card
    assert call("evaluate", "zoo:point-navigation/blind", "--num-tasks", "3", "--threads", "1") == 0
    assert "above blind" in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == {
        "card.md",
        "config.json",
        "checkpoints",
        "evaluation.json",
    }  # nothing is written
    assert call("record_video", "zoo:point-navigation/blind") == 2
    assert "the zoo is only read" in capsys.readouterr().err


def test_what_is_published_is_begun_with_and_not_gone_on_with(
    run: TrainedAgent, evaluation: Evaluation, empty_zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It holds no optimiser's state, which nobody but a training needs."""
    folder = publish(run, "point-navigation/blind", evaluation)
    assert [path.name for path in folder.rglob("*.safetensors")] == ["params.safetensors"]
    train = ("--meta-batch", "4", "--hidden", "8", "6", "--no-normalise-rewards", "--threads", "1")
    train = (*train, "--validation-tasks", "2", "--env", "point-navigation", "--steps", "2")
    begun = tmp_path / "begun"
    assert call("train", "ppo", *train, "--run", begun, "--start-from", "zoo:point-navigation/blind") == 0
    shutil.copytree(folder, tmp_path / "copied")
    capsys.readouterr()
    assert call("train", "ppo", *train, "--run", tmp_path / "copied") == 2
    assert "published without its optimiser's state, so its training cannot go on" in capsys.readouterr().err
    fresh = run.agent.init(3)
    warm = warm_state(folder, fresh)
    assert all(torch.equal(value, warm.parameters[name]) for name, value in run.state.parameters.items())
    assert all(torch.equal(value, warm.optimizer[name]) for name, value in fresh.optimizer.items())
    with pytest.raises(UsageError, match="another learner"):
        warm_state(folder, Tiny().init(0))


def test_an_evaluation_is_published_through_no_link(
    run: TrainedAgent, empty_zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, elsewhere = tmp_path / "blind", tmp_path / "elsewhere"
    shutil.copytree(run.run.folder, folder)
    elsewhere.mkdir()
    (elsewhere / "test.json").write_text("{}")
    written = folder / "evaluations" / "test.json"
    plants: list[tuple[Callable[[], object], str]] = [
        (lambda: None, "is missing"),
        (lambda: written.symlink_to(elsewhere / "test.json"), "it is a symbolic link"),
        (lambda: os.mkfifo(written), "it is not a regular file"),
        (lambda: written.write_text("[" * 10_000), "cannot be read"),
        (lambda: (written.parent.rmdir(), written.parent.symlink_to(elsewhere)), "it is a symbolic link"),
    ]
    for plant, message in plants:
        written.parent.mkdir(exist_ok=True)
        plant()
        capsys.readouterr()
        assert call("publish", folder, "--as", "point-navigation/blind") == 2
        told = capsys.readouterr().err
        assert f"the evaluation {written}" in told and message in told and told.count("\n") == 1
        written.unlink(missing_ok=True)
    assert zoo.names() == ()


def test_an_unknown_name_says_what_is_near(run: TrainedAgent, evaluation: Evaluation, empty_zoo: Path) -> None:
    with pytest.raises(UsageError, match="the zoo has no 'x/y'; it is empty"):
        zoo.resolve("zoo:x/y")
    publish(run, "point-navigation/blind", evaluation)
    with pytest.raises(UsageError, match="did you mean zoo:point-navigation/blind"):
        metarl.load("zoo:point-navigation/blnd")


def test_what_nobody_could_repeat_is_not_published(run: TrainedAgent, evaluation: Evaluation, empty_zoo: Path) -> None:
    with pytest.raises(UsageError, match="trained with local changes"):
        publish(with_changes(run, True), "point-navigation/blind", evaluation)
    other = dataclasses.replace(evaluation, sources=(dataclasses.replace(run.ref, content="other"),))
    with pytest.raises(UsageError, match="evaluate again"):
        publish(run, "point-navigation/blind", other)
    for name in ("blind", "cheetah-terrain/blind", "point-navigation/a/b", "point-navigation/", "point-navigation/.."):
        with pytest.raises(UsageError, match="is called point-navigation/NAME"):
            publish(run, name, evaluation)
    assert zoo.names() == ()
