"""Runs as yardsticks: known by what they were trained on, and played on the same tasks."""

from pathlib import Path

import numpy as np
import pytest

import metarl
from metarl.errors import UsageError
from metarl.evaluation.evaluate import evaluate
from metarl.evaluation.judge import EvaluationSettings
from metarl.evaluation.results import Evaluation
from metarl.learning.collect import InProcess
from metarl.runs.trained import TrainedAgent
from metarl.runs.yardsticks import YardstickRuns
from tests.programs import call

TINY = ["--steps", "1", "--meta-batch", "4", "--hidden", "8", "--validation-tasks", "2", "--threads", "1"]
WORLD = Path(__file__).parent.parent / "external" / "two_families.py"
ENV = f"{WORLD}:two_families"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrainedAgent]:
    """PPO on the distribution and its variants, and an agent that adapts."""
    folder = tmp_path_factory.mktemp("runs")
    for name, agent, suffix in (
        ("blind", "ppo", ""),
        ("informed", "ppo", "+informed"),
        ("specialist", "ppo", "+informed+only-far"),
        ("rl2", "rl2", ""),
    ):
        assert call("train", agent, *TINY, "--env", ENV + suffix, "--run", folder / name) == 0
    loaded = {path.name: metarl.load(path, trust_code=True) for path in folder.iterdir()}
    return {name: run for name, run in loaded.items() if isinstance(run, TrainedAgent)}


def measured(runs: dict[str, TrainedAgent], agent: str, *names: str) -> Evaluation:
    """The evaluation of an agent, held against the runs of these names."""
    run = runs[agent]
    known = YardstickRuns.of(run.dist, [runs[name] for name in names])
    evaluation = evaluate(run, settings=EvaluationSettings(episodes_per_adaptation=2))
    found = known.measure(evaluation, InProcess(), lambda share: None)
    return Evaluation(evaluation.config, evaluation.tasks, evaluation.sources, evaluation.metrics, yardsticks=found)


def test_runs_are_known_by_what_they_were_trained_on(runs: dict[str, TrainedAgent]) -> None:
    dist = runs["blind"].dist
    known = YardstickRuns.of(dist, [runs[name] for name in ("informed", "specialist", "blind")])
    assert {name: [run.run.folder.name for run in found] for name, found in known.by_name.items()} == {
        name: [name] for name in ("informed", "specialist", "blind")
    }
    assert known.missing() == ()
    (line,) = YardstickRuns.of(dist, [runs["blind"]]).missing()
    assert f"train ppo --env {dist.id}+informed" in line
    with pytest.raises(UsageError, match=r"rl2 is no yardstick of two-families .* it is rl2 on .*; yardsticks are ppo"):
        YardstickRuns.of(dist, [runs["rl2"]])


def test_the_blind_run_itself_scores_0_and_the_informed_one_1(runs: dict[str, TrainedAgent]) -> None:
    blind = measured(runs, "blind", "blind")
    np.testing.assert_array_equal(blind.yardsticks["blind"].scores, blind.scores[:, 0, -1])
    above = blind.above("blind")
    assert above is not None and (above.value, above.low, above.high) == (0.0, 0.0, 0.0)
    assert set(blind.yardsticks) == {"random", "blind"}  # nothing adapts: nothing is fine-tuned either


def test_an_agent_is_held_against_all_that_there_are(runs: dict[str, TrainedAgent]) -> None:
    found = measured(runs, "rl2", "blind", "informed", "specialist")
    assert tuple(found.yardsticks) == ("random", "blind", "fine-tuned", "informed", "specialist")
    far = np.array([task.family == "far" for task in found.tasks])
    assert np.array_equal(np.isfinite(found.yardsticks["specialist"].scores[0]), far)
    blind = measured(runs, "blind", "blind")
    assert found.config.adaptations[-1] == 1
    np.testing.assert_array_equal(found.yardsticks["blind"].scores, blind.scores[:, 0, -1])
    informed = evaluate(runs["informed"], settings=EvaluationSettings(episodes_per_adaptation=2))
    np.testing.assert_array_equal(found.yardsticks["informed"].scores, informed.scores[:, 0, -1])
    assert not np.array_equal(found.yardsticks["fine-tuned"].scores, found.yardsticks["blind"].scores)


def test_the_program_holds_agents_against_yardsticks(
    runs: dict[str, TrainedAgent], capsys: pytest.CaptureFixture[str]
) -> None:
    rl2, blind = runs["rl2"].run.folder, runs["blind"].run.folder
    arguments = [rl2, "--num-tasks", "3", "--threads", "1", "--trust-code"]
    assert call("evaluate", *arguments, "--beside", blind) == 0
    printed = capsys.readouterr()
    assert "above blind" in printed.out and "above fine-tuned" in printed.out
    assert "no informed policy of two-families" in printed.err
    assert call("evaluate", *arguments, "--no-yardsticks") == 0
    printed = capsys.readouterr()
    assert "random" not in printed.out and "no blind policy" not in printed.err
    assert call("evaluate", *arguments, "--no-yardsticks", "--beside", blind) == 2
    assert "--no-yardsticks leaves out" in capsys.readouterr().err
    assert call("evaluate", *arguments, "--beside", rl2) == 2
    assert "is no yardstick of two-families" in capsys.readouterr().err
