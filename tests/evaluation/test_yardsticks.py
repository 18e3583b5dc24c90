"""Yardsticks in an evaluation: what is normalised by what, and what is not said where it is not known."""

import dataclasses
import json

import numpy as np
import pytest

from metarl.evaluation.evaluate import aggregate
from metarl.evaluation.records import CheckpointRef, EvaluationConfig, Yardstick
from metarl.evaluation.results import Evaluation
from metarl.evaluation.table import table
from metarl.tasks import Task

TASKS = tuple(Task.of("ice" if index < 8 else "rough", value=float(index)) for index in range(20))
CONFIG = EvaluationConfig(
    distribution="terrain",
    distribution_hash="0" * 16,
    split="test",
    held_out=True,
    fixed_tasks=False,
    score="return",
    adaptations=(0, 1),
    amounts=(0, 10),
    unit="episode",
    episodes_per_adaptation=10,
    trials=1,
    seed=7,
    actions="sampled",
)
RNG = np.random.default_rng(0)
BLIND = RNG.normal(100, 30, size=(1, 20))
INFORMED = BLIND + RNG.normal(200, 20, size=(1, 20))


def ref(name: str, seed: int = 0) -> CheckpointRef:
    return CheckpointRef(name, f"runs/{name}-{seed}", seed, "last", 5, f"{name}{seed}")


def yardstick(scores: np.ndarray, name: str = "ppo") -> Yardstick:
    return Yardstick(tuple(ref(name, seed) for seed in range(len(scores))), scores)


def evaluation(after: np.ndarray, seed: int = 0, **yardsticks: np.ndarray) -> Evaluation:
    """An agent with these scores [task] after its adaptation."""
    scores = np.stack([np.zeros_like(after), after])[None, None]
    held = {name: yardstick(values) for name, values in yardsticks.items()}
    return Evaluation(CONFIG, TASKS, (ref("maml", seed),), {"return": scores}, yardsticks=held)


def test_blind_scores_0_and_informed_1() -> None:
    for scores, expected in ((BLIND, 0.0), (INFORMED, 1.0), ((BLIND + 3 * INFORMED) / 4, 0.75)):
        normalised = evaluation(scores[0], blind=BLIND, informed=INFORMED).normalised()
        assert normalised is not None
        assert normalised.value == pytest.approx(expected)
        assert normalised.low == pytest.approx(expected, abs=1e-9)  # paired by task: nothing is left to vary
        assert normalised.high == pytest.approx(expected, abs=1e-9)


def test_above_blind_is_paired_by_task() -> None:
    above = evaluation(BLIND[0] + 5.0, blind=BLIND).above("blind")
    assert above is not None
    assert (above.value, above.low, above.high) == pytest.approx((5.0, 5.0, 5.0))


def test_a_yardstick_s_own_seeds_widen_the_interval() -> None:
    seeds = BLIND + np.array([[-20.0], [0.0], [20.0]])
    above = evaluation(BLIND[0], blind=seeds).above("blind")
    assert above is not None
    assert above.value == pytest.approx(0.0)
    assert above.low < -8 and above.high > 8


def test_nothing_is_normalised_where_knowing_the_task_brings_nothing() -> None:
    noise = BLIND + np.random.default_rng(1).normal(0, 10, size=(1, 20))
    found = evaluation(BLIND[0], blind=BLIND, informed=noise)
    room = found.room()
    assert room is not None and room.low < 0
    assert found.normalised() is None
    assert evaluation(BLIND[0], blind=BLIND).normalised() is None


def test_a_distribution_needs_what_only_those_reach_who_know_the_task() -> None:
    need = evaluation(INFORMED[0], blind=BLIND, informed=INFORMED, random=2 * BLIND - INFORMED).need()
    assert need is not None
    assert need.value == pytest.approx(0.5)
    assert need.low <= 0.5 <= need.high
    assert evaluation(INFORMED[0], blind=BLIND, informed=INFORMED).need() is None


def test_a_specialist_speaks_of_its_own_family_alone() -> None:
    scores = np.where([[task.family == "ice" for task in TASKS]], 50.0, np.nan)
    found = evaluation(BLIND[0], specialist=scores)
    assert found.yardstick("specialist") is None
    ice = found.only("ice").yardstick("specialist")
    assert ice is not None and ice.value == 50.0
    again = Evaluation.from_json(json.loads(json.dumps(found.to_json())))
    np.testing.assert_array_equal(again.yardsticks["specialist"].scores, scores)
    assert again.yardsticks["specialist"].sources == found.yardsticks["specialist"].sources


def test_the_table_shows_them_by_family_with_what_lies_above() -> None:
    printed = table(evaluation(BLIND[0] + 5.0, blind=BLIND, informed=INFORMED, random=BLIND - 50))
    rows = {line.split("  ")[0]: line for line in printed.splitlines()}
    assert "all" in rows["on the same tasks, mean"] and "rough" in rows["on the same tasks, mean"]
    assert rows["above blind"].count("5.0 [5.0, 5.0]") == 3
    assert "0 is blind, 1 informed" in rows
    assert list(rows).index("random") < list(rows).index("blind") < list(rows).index("informed")


def test_seeds_share_their_yardsticks() -> None:
    seeds = [evaluation(BLIND[0] + seed, seed, blind=BLIND) for seed in range(3)]
    np.testing.assert_array_equal(aggregate(seeds).yardsticks["blind"].scores, BLIND)
    assert aggregate([seeds[0], dataclasses.replace(seeds[1], yardsticks={})]).yardsticks == {}
    other = evaluation(BLIND[0], 9, blind=BLIND + 1)
    with pytest.raises(ValueError, match="have other blind yardsticks"):
        aggregate([seeds[0], other])


def test_yardsticks_are_of_known_names_and_of_these_tasks() -> None:
    with pytest.raises(ValueError, match="a yardstick is one of random, blind"):
        evaluation(BLIND[0], expert=BLIND)
    with pytest.raises(ValueError, match="on 20 tasks, got blind of shape"):
        evaluation(BLIND[0], blind=BLIND[:, :3])
