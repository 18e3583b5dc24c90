"""Probability of improvement, profiles and differences, against plain loops and rliable where it is installed."""

import json
import subprocess
import sys

import numpy as np
import pytest

from metarl.maths import comparison
from metarl.maths.statistics import bootstrap, mean

RNG = np.random.default_rng(3)
X = RNG.integers(0, 6, size=(4, 7)).astype(float)  # ties among them
Y = RNG.integers(0, 7, size=(3, 7)).astype(float)


def test_probability_of_improvement_by_its_definition() -> None:
    by_task = []
    for task in range(7):
        wins = [1.0 if x > y else 0.5 if x == y else 0.0 for x in X[:, task] for y in Y[:, task]]
        by_task.append(sum(wins) / 12)
    assert comparison.improvements(X, Y).mean() == pytest.approx(sum(by_task) / 7)
    both = comparison.improvements(X, Y).mean() + comparison.improvements(Y, X).mean()
    assert both == pytest.approx(1)


def test_a_profile_counts_strictly_above() -> None:
    scores = np.array([[0.0, 1.0], [1.0, 3.0]])
    thresholds = np.array([-1.0, 0.0, 1.0, 2.0, 3.0])
    assert comparison.performance_profile(scores, thresholds).tolist() == [
        1,
        0.75,
        0.25,
        0.25,
        0,
    ]
    assert comparison.performance_profile(scores, np.array([0.5, 1.0, 2.0]), of="tasks").tolist() == [0.5, 0.5, 0]


def test_rliable_says_the_same() -> None:
    pytest.importorskip("rliable", reason="rliable is not installed: pip install rliable")
    # In a process of its own: it warns while it is imported, and draws its resamples by arch, which is not asked for
    # here and does not go with every pandas.
    code = f"""
import sys, types
import numpy as np
arch, bootstrap = types.ModuleType("arch"), types.ModuleType("arch.bootstrap")
arch.bootstrap, bootstrap.IIDBootstrap, bootstrap.IndependentSamplesBootstrap = bootstrap, object, object
sys.modules |= {{"arch": arch, "arch.bootstrap": bootstrap}}
from rliable import library, metrics
x, y = np.array({X.tolist()}), np.array({Y.tolist()})
thresholds = np.array([-1.0, 0.0, 1.5, 3.0, 5.0])
runs, tasks = (
    [float(of(x, threshold)) for threshold in thresholds]
    for of in (library.run_score_deviation, library.mean_score_deviation)
)
print([float(metrics.probability_of_improvement(x, y)), runs, tasks])
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    improvement, runs, tasks = json.loads(result.stdout.splitlines()[-1])
    thresholds = np.array([-1.0, 0.0, 1.5, 3.0, 5.0])
    assert comparison.improvements(X, Y).mean() == pytest.approx(improvement)
    assert comparison.performance_profile(X, thresholds) == pytest.approx(np.array(runs))
    assert comparison.performance_profile(X, thresholds, of="tasks") == pytest.approx(np.array(tasks))


def test_against_nothing_the_difference_is_the_bootstrap_of_one_agent() -> None:
    zero = np.zeros((1, 40))
    scores = np.random.default_rng(0).normal(size=(5, 40))
    own = comparison.mean_of_pairs(comparison.differences(scores, zero), np.random.default_rng(1), resamples=20_000)
    known = bootstrap(scores, mean, np.random.default_rng(2), resamples=20_000)
    assert own.value == pytest.approx(known.value)
    assert own.low == pytest.approx(known.low, abs=0.02)
    assert own.high == pytest.approx(known.high, abs=0.02)


def test_the_spread_between_tasks_cancels_in_a_difference() -> None:
    tasks = 100 * np.arange(20.0)
    x, y = tasks + np.array([[1.0], [2.0]]), tasks + np.array([[0.0], [0.5]])
    found = comparison.mean_of_pairs(comparison.differences(x, y), np.random.default_rng(0))
    assert found.value == pytest.approx(1.25)
    assert 0.4 < found.low < found.high < 2.1


def test_strata_are_redrawn_within_themselves_and_fixed_tasks_not_at_all() -> None:
    pairs = comparison.differences(np.array([[0.0, 0.0, 10.0, 10.0]]), np.zeros((1, 4)))
    free = comparison.mean_of_pairs(pairs, np.random.default_rng(0))
    assert free.low < 5 < free.high
    within = comparison.mean_of_pairs(pairs, np.random.default_rng(0), strata=["a", "a", "b", "b"])
    assert (within.low, within.high) == (5, 5)
    fixed = comparison.mean_of_pairs(pairs, np.random.default_rng(0), tasks_vary=False)
    assert np.isnan(fixed.low)
    with pytest.raises(ValueError, match="got 1 for 4 tasks"):
        comparison.mean_of_pairs(pairs, np.random.default_rng(0), strata=["a"])
    with pytest.raises(ValueError, match="need finite values"):
        comparison.mean_of_pairs(pairs * np.nan, np.random.default_rng(0))
