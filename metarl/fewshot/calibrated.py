"""A nearest centroid that knows how sure it may be, from a few examples alone: for people without a trained learner.

    p(y = k | x) ∝ exp(−‖x − c_k‖² / T),   c_k the mean of the examples of class k

T makes the examples likely, each judged by centroids it is left out of. All of a handful may come out right, and
no probability of theirs would then be too high; so each counts for its class by (N + 1) / (N + K) and for the others by
1 / (N + K), as if each class had been seen once more (Platt 1999, "Probabilistic outputs for support vector machines").
"""

import dataclasses
from typing import final

import numpy as np
from jaxtyping import Float, Int
from scipy import special

_GRID = np.geomspace(1e-3, 1e3, 121)
"""Candidates for T, in units of the mean squared distance between examples and their centroid."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class CalibratedCentroid:
    """Fitted to the examples of one task."""

    centroids: Float[np.ndarray, "class feature"]
    shift: Float[np.ndarray, " feature"]
    """Subtracted from features."""
    scale: Float[np.ndarray, " feature"]
    """What they are then divided by."""
    temperature: float
    """T."""

    def predict(self, examples: Float[np.ndarray, "example feature"]) -> Float[np.ndarray, "example class"]:
        """The probability of each class."""
        x = (examples.astype(np.float64) - self.shift) / self.scale
        distances = ((x[:, None] - self.centroids) ** 2).sum(-1)
        return special.softmax(-distances / self.temperature, axis=-1)


def fit(
    examples: Float[np.ndarray, "example feature"], labels: Int[np.ndarray, " example"], *, standardise: bool = False
) -> CalibratedCentroid:
    """The centroids and the temperature of examples of classes 0, 1, …

    Args:
        standardise: give each feature mean 0 and variance 1 over the examples first, for columns of different units;
            a column that is constant there counts as it is.

    Raises:
        ValueError: fewer than two classes, or a class with one example: it cannot be left out.
    """
    counts = np.bincount(labels)
    if len(counts) < 2 or counts.min() < 2:
        raise ValueError(f"need two classes with two examples each, got {counts.tolist()}")
    x = examples.astype(np.float64)
    shift, scale = np.zeros(x.shape[1]), np.ones(x.shape[1])
    if standardise:
        shift, spread = x.mean(0), x.std(0)
        scale = np.where(spread > 0, spread, 1.0)
    x = (x - shift) / scale
    share = np.eye(len(counts))[labels]  # [example, class]
    sums = share.T @ x
    distances = _left_out_distances(x, labels, sums, counts)
    within = distances[np.arange(len(x)), labels].mean() or 1.0  # 0 where all examples of a class are the same
    total, ways = len(x), len(counts)
    target = (share * total + 1) / (total + ways)  # each row adds up to 1
    losses = [-(target * special.log_softmax(-distances / (within * t), axis=-1)).sum() for t in _GRID]
    return CalibratedCentroid(sums / counts[:, None], shift, scale, float(within * _GRID[int(np.argmin(losses))]))


def _left_out_distances(
    x: Float[np.ndarray, "example feature"],
    labels: Int[np.ndarray, " example"],
    sums: Float[np.ndarray, "class feature"],
    counts: Int[np.ndarray, " class"],
) -> Float[np.ndarray, "example class"]:
    """Squared distances of each example from the centroids of the others."""
    distances = ((x[:, None] - sums / counts[:, None]) ** 2).sum(-1)
    own = (sums[labels] - x) / (counts[labels] - 1)[:, None]
    distances[np.arange(len(x)), labels] = ((x - own) ** 2).sum(-1)
    return distances
