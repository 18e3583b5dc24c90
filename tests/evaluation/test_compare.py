"""Agents side by side: equal amounts on the task, what cannot be compared, and what is said of the rest."""

import dataclasses

import numpy as np
import pytest

from metarl.evaluation.compare import compare, comparison_table, winners
from metarl.evaluation.results import Evaluation
from tests.evaluation.evaluations import TASKS, made_up, renamed


def test_agents_are_compared_at_equal_amounts() -> None:
    slow = made_up("maml", amounts=(0, 20), gain=1.0)
    fast = made_up("rl2", amounts=(0, 1, 2), gain=4.0)
    found = compare({"maml": slow, "rl2": fast})
    assert found.amounts == (0, 1, 2, 20)
    first = found.at(1)
    assert [standing.spent for standing in first.standings] == [0, 1]  # 20 episodes are more than one
    assert first.duels[0].difference.value == -4
    assert first.duels[0].improvement.value == 0
    last = found.at(20)
    assert [standing.spent for standing in last.standings] == [20, 2]
    assert last.duels[0].difference.value == 20 - 8
    assert last.duels[0].improvement.value == 1
    assert last.duels[0].decided
    assert "rl2 was measured to 2 episodes only; beyond that its last point stands" in found.notes
    assert "maml does better than rl2 after at most 20 episodes: maml − rl2 is 12" in winners(found)[0]
    assert "after at most 20 episodes" in comparison_table(found)


def test_less_is_better_for_errors() -> None:
    worse, better = made_up(gain=0.0, foreign=False), made_up(gain=-1.0, foreign=False)
    errors = {
        name: renamed_score(evaluation, "error") for name, evaluation in {"worse": worse, "better": better}.items()
    }
    found = compare(errors)
    (duel,) = found.at(2).duels
    assert duel.difference.value == 2
    assert duel.improvement.value == 0
    assert winners(found)[0].startswith("better does better than worse")


def renamed_score(evaluation: Evaluation, name: str) -> Evaluation:
    metrics = {name: evaluation.metrics["return"]}
    return dataclasses.replace(evaluation, metrics=metrics, config=dataclasses.replace(evaluation.config, score=name))


def test_only_tasks_in_common_are_compared() -> None:
    found = compare({"a": made_up(tasks=TASKS[:6]), "b": made_up(tasks=TASKS[2:])})
    assert found.evaluations["a"].tasks == TASKS[2:6] == found.evaluations["b"].tasks
    assert "compared on the 4 tasks in common (a 6, b 6 were evaluated)" in found.notes
    # b numbers its tasks from its own first one: its scores on the common tasks are 20 lower.
    assert found.at(0).duels[0].difference.value == 20
    with pytest.raises(ValueError, match="a and b have no task in common"):
        compare({"a": made_up(tasks=TASKS[:4]), "b": made_up(tasks=TASKS[4:])})


@pytest.mark.parametrize(("field", "value"), [("distribution_hash", "ff"), ("unit", "support"), ("split", "train")])
def test_what_means_something_else_is_refused_by_name(field: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"a and b cannot be compared: {field} is .* and '{value}'"):
        compare({"a": made_up(), "b": renamed(made_up(), **{field: value})})
    with pytest.raises(ValueError, match="at least two evaluations, got a"):
        compare({"a": made_up()})


def test_one_seed_and_what_cannot_be_told_apart_are_said() -> None:
    found = compare({"a": made_up(), "b": made_up(seeds=(0, 1))})
    assert "one seed of a: intervals say nothing about other seeds" in found.notes
    same = compare({"a": made_up(seeds=(0, 3)), "b": made_up(seeds=(1, 2))})
    assert "cannot be told apart after at most 2 episodes: a − b is 0 [" in winners(same)[0]


def test_profiles_draw_the_share_of_runs_above() -> None:
    chart = compare({"a": made_up(), "b": made_up(gain=9.0)}).profiles(2)
    (axes,) = chart.figure.axes
    first, second = (np.asarray(line.get_ydata()) for line in axes.lines)
    assert (first[0], first[-1]) == (1, 0)
    assert (second >= first).all()
    assert second.sum() > first.sum()
