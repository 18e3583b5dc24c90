"""Calibration against computations written out by hand."""

import math

import numpy as np
import pytest

from metarl.maths import calibration


def error(confidences: list[float], right: list[bool]) -> float:
    return calibration.calibration_error(calibration.reliability_bins(np.array(confidences), np.array(right)))


def test_extremes() -> None:
    assert error([1.0] * 4, [True] * 4) == 0.0
    assert error([1.0] * 4, [False] * 4) == 1.0
    # Gaps of one bin make up for each other, those of different bins do not.
    assert error([0.5, 0.5], [True, False]) == 0.0
    assert error([0.25, 0.75], [True, False]) == pytest.approx(0.75)


def test_bins_hold_answers_confidences_and_hits() -> None:
    bins = calibration.reliability_bins(np.array([0.2, 0.25, 0.5, 0.51, 1.0]), np.array([1, 0, 1, 0, 1]) == 1, bins=4)
    np.testing.assert_allclose(bins, [[2, 0.45, 1], [1, 0.5, 1], [1, 0.51, 0], [1, 1, 1]])  # (low, high]


def test_errors_are_those_of_a_plain_loop_and_sums_of_bins_are_bins_of_all() -> None:
    rng = np.random.default_rng(0)
    confidences, right = rng.uniform(0.2, 1, 200), rng.uniform(size=200) < 0.6
    expected = 0.0
    for low in range(15):
        inside = [i for i, c in enumerate(confidences) if low / 15 < c <= (low + 1) / 15]
        if inside:
            expected += len(inside) / 200 * abs(np.mean(right[inside]) - np.mean(confidences[inside]))
    bins = calibration.reliability_bins(confidences, right)
    assert calibration.calibration_error(bins) == pytest.approx(expected)
    halves = [calibration.reliability_bins(confidences[part], right[part]) for part in (slice(80), slice(80, None))]
    np.testing.assert_allclose(halves[0] + halves[1], bins)


def test_nothing_to_judge_is_refused() -> None:
    empty = calibration.reliability_bins(np.zeros(0), np.zeros(0, dtype=bool))
    assert empty.shape == (15, 3) and not empty.any()
    with pytest.raises(ValueError, match="at least one answer, got 0"):
        calibration.calibration_error(empty)
    with pytest.raises(ValueError, match="at least one bin, got 0"):
        calibration.reliability_bins(np.ones(1), np.ones(1, dtype=bool), bins=0)


def test_likelihoods_of_large_logits_stay_finite() -> None:
    log_p = calibration.log_probabilities(np.array([[1000.0, 0.0], [0.0, 0.0]]))
    likelihoods = calibration.negative_log_likelihood(log_p, np.array([1, 0]))
    np.testing.assert_allclose(likelihoods, [1000.0, math.log(2)])
