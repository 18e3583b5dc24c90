"""The nearest centroid with a temperature by leave-one-out."""

import numpy as np
import pytest
from scipy import special

from metarl.fewshot import calibrated
from metarl.maths import calibration

RNG = np.random.default_rng(0)


def few(apart: float, each: int = 3, width: int = 8, rng: np.random.Generator = RNG) -> tuple[np.ndarray, np.ndarray]:
    labels = np.repeat(np.arange(2), each)
    return labels[:, None] * apart / np.sqrt(width) + rng.normal(size=(2 * each, width)), labels


def test_the_temperature_is_the_one_that_a_brute_search_finds() -> None:
    x, labels = few(2.0, each=4)
    model = calibrated.fit(x, labels)
    rest = np.arange(len(x))
    distances = np.array(
        [[((x[i] - x[(labels == k) & (rest != i)].mean(0)) ** 2).sum() for k in range(2)] for i in rest]
    )
    target = np.where(labels[:, None] == np.arange(2), 9 / 10, 1 / 10)

    def loss(temperature: float) -> float:
        return float(-(target * special.log_softmax(-distances / temperature, axis=1)).sum())

    best = loss(model.temperature)
    assert best <= min(loss(model.temperature * factor) for factor in (0.5, 0.8, 1.25, 2.0))
    centroids = np.stack([x[labels == k].mean(0) for k in range(2)])
    query = RNG.normal(size=(5, 8))
    expected = special.softmax(-((query[:, None] - centroids) ** 2).sum(-1) / model.temperature, axis=1)
    np.testing.assert_allclose(model.predict(query), expected)


@pytest.mark.parametrize("apart", [0.5, 2.0, 6.0])
def test_it_knows_how_sure_it_may_be(apart: float) -> None:
    """Over many tasks of six examples: mean confidence and accuracy are near each other."""
    confidences, right = list[float](), list[bool]()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x, labels = few(apart, rng=rng)
        query, answers = few(apart, each=20, rng=rng)
        p = calibrated.fit(x, labels).predict(query)
        confidences += p.max(1).tolist()
        right += (p.argmax(1) == answers).tolist()
    bins = calibration.reliability_bins(np.array(confidences), np.array(right))
    assert calibration.calibration_error(bins) < 0.15


def test_columns_of_other_units_count_alike_and_constant_ones_not_at_all() -> None:
    x, labels = few(6.0, width=2)
    x = np.concatenate([x * [1.0, 1000.0], np.full((6, 1), 7.0)], axis=1)
    model, plain = calibrated.fit(x, labels, standardise=True), calibrated.fit(x / [1, 1000, 1], labels)
    assert (model.predict(x).argmax(1) == labels).all()
    query = np.array([[6.0 / np.sqrt(2), 0.0, 7.0], [0.0, 6000.0 / np.sqrt(2), 7.0]])
    same = calibrated.fit(x / [1, 1000, 1], labels, standardise=True).predict(query / [1, 1000, 1])
    np.testing.assert_allclose(model.predict(query), same)
    assert plain.scale.tolist() == [1, 1, 1]


def test_equal_examples_and_classes_of_one_are_answered_or_refused() -> None:
    p = calibrated.fit(np.array([[0.0], [0.0], [1.0], [1.0]]), np.array([0, 0, 1, 1])).predict(np.array([[0.1]]))
    assert 0.5 < p[0, 0] < 1
    with pytest.raises(ValueError, match="two examples each"):
        calibrated.fit(np.zeros((3, 1)), np.array([0, 0, 1]))
