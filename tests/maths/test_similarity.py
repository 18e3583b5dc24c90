"""Representations compared: CKA against its definition by HSIC, principal axes against the covariance."""

import math

import numpy as np
import pytest

from metarl.maths.similarity import linear_cka, principal_plane

RNG = np.random.default_rng(0)


def hsic(x: np.ndarray, y: np.ndarray) -> float:
    """tr(K H L H) / (n − 1)², K and L of inner products (Gretton et al. 2005)."""
    n = len(x)
    h = np.eye(n) - np.ones((n, n)) / n
    return float(np.trace(x @ x.T @ h @ y @ y.T @ h)) / (n - 1) ** 2


def test_cka_is_that_of_its_definition() -> None:
    x, y = RNG.normal(2, 1, size=(20, 7)), RNG.normal(size=(20, 3))
    y[:, 0] += x[:, 0]
    assert linear_cka(x, y) == pytest.approx(hsic(x, y) / math.sqrt(hsic(x, x) * hsic(y, y)))
    wide = RNG.normal(size=(20, 300))
    assert linear_cka(x, wide) == pytest.approx(hsic(x, wide) / math.sqrt(hsic(x, x) * hsic(wide, wide)))


def test_cka_is_one_up_to_rotation_scale_and_shift_only() -> None:
    x = RNG.normal(size=(30, 5))
    rotation = np.linalg.qr(RNG.normal(size=(5, 5)))[0]
    assert linear_cka(x, 3 * x @ rotation + 1) == pytest.approx(1)
    assert linear_cka(x, x @ np.diag([1, 1, 1, 1, 20.0])) < 0.9
    assert linear_cka(x, np.eye(30)[:, :1] * 0) != linear_cka(x, x)
    assert math.isnan(linear_cka(x, np.ones((30, 2))))


def test_the_plane_is_spanned_by_the_covariances_greatest_eigenvectors() -> None:
    x = RNG.normal(size=(50, 6)) * [1, 5, 0.1, 3, 0.5, 1] + 4
    plane, share = principal_plane(x)
    values, vectors = np.linalg.eigh(np.cov(x.T))
    expected = (x - x.mean(0)) @ vectors[:, ::-1][:, :2]
    np.testing.assert_allclose(np.abs(plane), np.abs(expected))
    assert share == pytest.approx(values[-2:].sum() / values.sum())
    assert plane.std(0)[0] > plane.std(0)[1]


def test_one_unit_and_no_variance_have_a_plane_too() -> None:
    assert principal_plane(np.arange(4.0)[:, None])[0].shape == (4, 2)
    assert principal_plane(np.ones((4, 3)))[1] == 1.0
