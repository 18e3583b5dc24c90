"""A validation that fails ends the training, unless it is the policy's own fault."""

from pathlib import Path

import pytest

from metarl.commands import train
from metarl.errors import DivergedError, RunError, WorkerLostError

TINY = ("maml", "--env", "point-navigation", "--hidden", "4", "--meta-batch", "2", "--episodes-per-adaptation", "2")
TINY = (*TINY, "--validation-tasks", "1", "--validate-every", "1", "--steps", "1", "--threads", "1")


def trained(monkeypatch: pytest.MonkeyPatch, folder: Path, error: Exception) -> None:
    def evaluate_with(*_: object) -> object:
        raise error

    monkeypatch.setattr(train, "evaluate_with", evaluate_with)
    train.program([*TINY, "--run", str(folder / "run")], "train")


@pytest.mark.parametrize("error", [WorkerLostError("a worker was lost"), RunError("the head has not answered")])
def test_what_is_lost_on_the_way_is_no_missing_score(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    with pytest.raises(RunError, match=str(error)):
        trained(monkeypatch, tmp_path, error)


def test_a_policy_that_diverges_trains_on_without_a_score(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(monkeypatch, tmp_path, DivergedError("all 2 episodes diverged"))
    assert "warning: no validation score: all 2 episodes diverged" in capsys.readouterr().err
