"""The statistics against SciPy, against each other, and against data whose truth is known."""

import dataclasses

import numpy as np
import pytest
from jaxtyping import TypeCheckError
from scipy import stats

from metarl.maths import statistics
from metarl.maths.statistics import (
    Resampling,
    bootstrap,
    bootstrap_of_means,
    interquartile_mean,
    mean,
    paired_difference,
    t_interval,
)


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 40, 101])
def test_interquartile_mean_is_scipys_trimmed_mean(count: int) -> None:
    samples = _rng().standard_cauchy(size=(3, 2, count))
    np.testing.assert_allclose(interquartile_mean(samples), stats.trim_mean(samples, 0.25, axis=-1), rtol=1e-12)


def test_interquartile_mean_by_hand_ignores_the_outer_quarters() -> None:
    assert interquartile_mean(np.array([1e9, 2.0, 4.0, -1e9])) == 3.0
    assert interquartile_mean(np.array([1.0, 2.0, 6.0])) == 3.0  # three samples: nothing to cut


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_t_interval_is_scipys(confidence: float) -> None:
    samples = _rng().normal(48.7, 10, size=37)
    found = t_interval(samples, confidence)
    low, high = stats.t.interval(confidence, df=36, loc=samples.mean(), scale=stats.sem(samples))
    np.testing.assert_allclose([found.value, found.low, found.high], [samples.mean(), low, high], rtol=1e-12)


@pytest.mark.parametrize("axis", ["seeds", "tasks"])
@pytest.mark.parametrize("statistic", [mean, interquartile_mean])
def test_one_axis_is_scipys_percentile_bootstrap(axis: Resampling, statistic: statistics.Statistic) -> None:
    samples = _rng().gamma(2.0, 3.0, size=60)  # skewed, so that low and high differ in distance
    scores = samples[:, None] if axis == "seeds" else samples[None]
    found = bootstrap(scores, statistic, _rng(), resample=axis, resamples=8_000)
    oracle = stats.bootstrap(
        (samples,), statistic, vectorized=False, n_resamples=8_000, method="percentile", rng=_rng(1)
    )
    tolerance = 0.03 * samples.std()  # the two draw other resamples; a wrong quantile is off by far more
    assert found.value == pytest.approx(float(statistic(samples)))
    assert found.low == pytest.approx(oracle.confidence_interval.low, abs=tolerance)
    assert found.high == pytest.approx(oracle.confidence_interval.high, abs=tolerance)


def test_runs_within_tasks_is_scipys_bootstrap_of_one_sample_per_task() -> None:
    scores = _rng().normal(size=(6, 4)) + 10 * np.arange(4)
    found = bootstrap(scores, mean, _rng(), resample="runs within tasks", resamples=8_000)

    def mean_of_all(*tasks: np.ndarray, axis: int) -> np.ndarray:
        return np.concatenate(tasks, axis=axis).mean(axis)

    oracle = stats.bootstrap(
        tuple(scores.T), mean_of_all, vectorized=True, n_resamples=8_000, method="percentile", rng=_rng(1)
    )
    assert found.low == pytest.approx(oracle.confidence_interval.low, abs=0.015)
    assert found.high == pytest.approx(oracle.confidence_interval.high, abs=0.015)


def test_seeds_and_tasks_reduces_to_one_axis_where_the_other_has_one_entry() -> None:
    scores = _rng().normal(size=(1, 12))
    cases: list[tuple[np.ndarray, Resampling]] = [(scores, "tasks"), (scores.T, "seeds")]
    for one, axis in cases:
        both = bootstrap(one, interquartile_mean, _rng(3), resample="seeds and tasks")
        assert both == bootstrap(one, interquartile_mean, _rng(3), resample=axis)


def test_strata_keep_the_number_of_tasks_of_each_family() -> None:
    # Two families of tasks that score 0 and 100 exactly: within them there is nothing uncertain.
    scores = np.array([[0.0, 100.0, 0.0, 100.0, 0.0, 100.0]])
    within = bootstrap(scores, mean, _rng(), strata=["flat", "ice"] * 3)
    assert (within.low, within.high) == (50.0, 50.0)
    without = bootstrap(scores, mean, _rng())
    assert without.high - without.low > 50


def test_pairing_cancels_what_the_tasks_have_in_common() -> None:
    rng = _rng()
    before = 1000 * rng.normal(size=(3, 20))
    after = before + 5 + rng.normal(size=(3, 20))
    gain = paired_difference(before, after, mean, rng)
    assert gain.low < 5 < gain.high
    assert gain.high - gain.low < 2
    unpaired = bootstrap(after, mean, rng)
    assert unpaired.high - unpaired.low > 100


@pytest.mark.parametrize(
    ("scores", "resample"),
    [(np.ones((1, 1)), "seeds and tasks"), (np.ones((1, 5)), "seeds"), (np.ones((5, 1)), "tasks")],
)
def test_nothing_to_resample_gives_no_interval(scores: np.ndarray, resample: Resampling) -> None:
    found = bootstrap(scores, mean, _rng(), resample=resample)
    assert found.value == 1.0
    assert np.isnan([found.low, found.high]).all()
    assert f"{found}" == "1.0 [no interval]"


def test_runs_within_tasks_of_one_run_has_no_interval_either() -> None:
    assert np.isnan(bootstrap(_rng().normal(size=(1, 9)), mean, _rng(), resample="runs within tasks").low)


def _coverage(resample: Resampling, num_seeds: int, num_tasks: int, seed_effect: float, task_effect: float) -> float:
    """How often the interval holds the truth, 0: score = seed's effect + task's effect + noise."""
    rng, hits, repetitions = _rng(7), 0, 400
    for _ in range(repetitions):
        scores = (
            seed_effect * rng.normal(size=(num_seeds, 1))
            + task_effect * rng.normal(size=(1, num_tasks))
            + rng.normal(size=(num_seeds, num_tasks))
        )
        found = bootstrap(scores, mean, rng, resample=resample, resamples=400)
        hits += found.low <= 0 <= found.high
    return hits / repetitions


@pytest.mark.parametrize(
    ("num_seeds", "num_tasks", "seed_effect", "task_effect"),
    [(1, 40, 0.0, 1.0), (10, 40, 1.0, 0.0), (10, 40, 1.0, 3.0), (10, 20, 0.0, 0.0)],
)
def test_intervals_over_seeds_and_tasks_hold_the_truth(
    num_seeds: int, num_tasks: int, seed_effect: float, task_effect: float
) -> None:
    # 95 % is what they claim. Percentile intervals of ten seeds fall a little short; pure noise is over-covered,
    # because the pigeonhole bootstrap counts it on both axes.
    covered = _coverage("seeds and tasks", num_seeds, num_tasks, seed_effect, task_effect)
    assert covered >= 0.87, covered
    assert covered <= (0.99 if seed_effect or task_effect else 1.0), covered


def test_runs_within_tasks_is_too_sure_where_runs_are_shared_by_all_tasks() -> None:
    """Why it is not the default: see the module's docstring."""
    assert _coverage("runs within tasks", 10, 40, 1.0, 0.0) < 0.6


def test_runs_within_tasks_holds_the_truth_in_its_own_setting() -> None:
    assert 0.87 <= _coverage("runs within tasks", 10, 40, 0.0, 0.0) <= 0.99


def test_the_same_generator_gives_the_same_interval() -> None:
    scores = _rng().normal(size=(3, 10))
    assert bootstrap(scores, mean, _rng(1)) == bootstrap(scores, mean, _rng(1))
    assert bootstrap(scores, mean, _rng(1)) != bootstrap(scores, mean, _rng(2))


def test_wrong_input_is_refused_with_its_numbers() -> None:
    good = np.ones((2, 3))
    with pytest.raises(ValueError, match=r"shape \(2, 0\)"):
        bootstrap(np.ones((2, 0)), mean, _rng())
    with pytest.raises(ValueError, match="1 of 6 scores are not finite"):
        bootstrap(np.where(np.arange(6).reshape(2, 3) == 4, np.nan, 1.0), mean, _rng())
    with pytest.raises(ValueError, match="got 2 for 3 tasks"):
        bootstrap(good, mean, _rng(), strata=["ice", "sand"])
    with pytest.raises(ValueError, match=r"got 0 and 0\.95"):
        bootstrap(good, mean, _rng(), resamples=0)
    with pytest.raises((ValueError, TypeCheckError)):  # the type checker of the test run may be first
        paired_difference(good, good.T.copy(), mean, _rng())
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        t_interval(np.ones(1))
    with pytest.raises(ValueError, match=r"got 95"):
        t_interval(np.ones(5), 95.0)


def test_the_difference_of_two_means_is_the_paired_difference() -> None:
    one, two = np.random.default_rng(1).normal(size=(2, 1, 30))
    strata = ["a"] * 10 + ["b"] * 20
    combined = bootstrap_of_means([two, one], lambda means: means[0] - means[1], _rng(), strata=strata)
    paired = paired_difference(one, two, mean, _rng(), strata=strata)
    np.testing.assert_allclose(dataclasses.astuple(combined), dataclasses.astuple(paired))


def test_a_mean_of_one_learner_is_its_bootstrap() -> None:
    scores = np.random.default_rng(2).normal(size=(1, 25))
    combined = bootstrap_of_means([scores], lambda means: means[0], _rng())
    np.testing.assert_allclose(dataclasses.astuple(combined), dataclasses.astuple(bootstrap(scores, mean, _rng())))


def test_seeds_of_different_learners_are_redrawn_apart() -> None:
    """With a seed's effect alone, the variance of a difference is the sum of the two learners' variances."""
    one, two = (effects[:, None] * np.ones((1, 7)) for effects in np.random.default_rng(3).normal(size=(2, 400)))
    difference = bootstrap_of_means([one, two], lambda means: means[0] - means[1], _rng(), tasks_vary=False)
    expected = 2 * 1.96 * np.sqrt(one[:, 0].var() / 400 + two[:, 0].var() / 400)
    assert difference.high - difference.low == pytest.approx(expected, rel=0.06)


def test_learners_on_other_tasks_are_not_combined() -> None:
    with pytest.raises(ValueError, match=r"the same tasks, got \[3, 4\]"):
        bootstrap_of_means([np.zeros((1, 3)), np.zeros((1, 4))], lambda means: means[0], _rng())
