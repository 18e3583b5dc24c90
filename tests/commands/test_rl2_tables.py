"""Agents in the tables of the RL² paper: on the algorithms' tasks, and only in lines that they were trained for."""

import json
from pathlib import Path

import numpy as np
import pytest

from metarl.commands.classical_tables import RL2, bandit_table, mdp_table
from metarl.envs.bandits import bernoulli_bandit
from metarl.envs.tabular_mdp import tabular_mdp
from metarl.learning.collect import Collector
from metarl.learning.protocols import AdaptationProtocol
from metarl.learning.random_streams import task_seeds
from tests.commands.test_programs import loaded
from tests.programs import call

TRAIN = ("train", "rl2", "--steps", "1", "--meta-batch", "4", "--hidden", "4", "--threads", "1", "--epochs", "1")


@pytest.fixture(scope="module")
def bandit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An agent of two arms and five pulls."""
    folder = tmp_path_factory.mktemp("runs") / "bandit"
    world = ("--env", "bernoulli-bandit-k2-n5", "--episodes-per-trial", "1")
    assert call(*TRAIN, *world, "--validation-tasks", "2", "--run", folder) == 0
    return folder


@pytest.fixture(scope="module")
def mdp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An agent of MDPs, for three episodes."""
    folder = tmp_path_factory.mktemp("runs") / "mdp"
    world = ("--env", "tabular-mdp", "--episodes-per-trial", "3")
    assert call(*TRAIN, *world, "--validation-tasks", "2", "--run", folder) == 0
    return folder


def test_an_agent_plays_the_algorithms_bandits(bandit: Path) -> None:
    agent, count = loaded(bandit), 30
    rows = {row.algorithm: row for row in bandit_table(2, 5, count, 3, ("random", "Thompson"), [agent])}
    dist, rng = bernoulli_bandit(2, 5), np.random.default_rng(3)
    dist.sample("train", count, rng)  # for choosing options
    tasks = dist.sample("train", count, rng)
    policy, seeds = agent.agent.start(agent.state, count), task_seeds(3, num_tasks=count)
    totals = Collector(dist).collect_episodes(policy, tasks, 1, seeds).returns[:, 0].double().numpy()
    assert rows[RL2].reward.value == pytest.approx(totals.mean())
    assert rows[RL2].option == "seed 0, 20 steps"
    assert rows["Thompson"].above is not None and rows["Thompson"].above.value == 0.0
    above = rows[RL2].above
    assert above is not None and above.low < above.value < above.high
    assert above.value == pytest.approx(rows[RL2].reward.value / rows["Thompson"].reward.value - 1)


def test_an_agent_plays_as_many_episodes_of_an_mdp_as_it_was_trained_with(mdp: Path) -> None:
    agent, count = loaded(mdp), 20
    table = mdp_table((2, 3), count, 5, 3, ("random", "PSRL"), [agent])
    (row,) = (row for row in table if row.algorithm == RL2)
    assert row.trial == "n=3" and row.above is not None
    dist, rng = tabular_mdp(), np.random.default_rng(3)
    dist.sample("train", 5, rng)
    tasks = dist.sample("train", count, rng)
    policy, seeds = agent.agent.start(agent.state, count), task_seeds(3, num_tasks=count)
    trials = Collector(dist).collect_trials(policy, tasks, AdaptationProtocol(2, 1), seeds)
    total = sum(float(point.returns.double().mean()) for point in trials.episodes)
    assert row.reward.value == pytest.approx(total)


def test_the_program(bandit: Path, mdp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "rows.json"
    assert call("rl2_tables", bandit, "--bandits", "2x5", "--num-tasks", "10", "--output", output) == 0
    printed = capsys.readouterr().out
    assert "RL² seed 0, 20 steps" in printed and "% above posterior sampling" in printed
    written = json.loads(output.read_text())
    assert written["command"].endswith(f"{bandit} --bandits 2x5 --num-tasks 10 --output {output}")
    assert "bernoulli-bandit-k2-n5" in written["runs"][0]["command"] and len(written["rows"]) == 9
    for arguments, sentence in (
        ((), "name a line at least"),
        (("--bandits", "5 by 10"), "arms x pulls, such as 5x10; got '5 by 10'"),
        (("--mdps", "0"), "numbers of episodes from 1, got 0"),
        (("--bandits", "2x5", "--num-tasks", "1"), "at least 2, or there is no interval"),
        (("--bandits", "2x5", "--seed", "-1"), "seed must be"),
        ((bandit, "--bandits", "5x5"), "was trained on bernoulli-bandit-k2-n5, for no line that is asked for"),
        ((bandit, "--mdps", "3"), "was trained on bernoulli-bandit-k2-n5, for no line that is asked for"),
        ((mdp, "--mdps", "4"), "was trained on tabular-mdp, for no line that is asked for"),
    ):
        assert call("rl2_tables", *arguments) == 2
        assert sentence in " ".join(capsys.readouterr().err.replace("│", " ").split())
