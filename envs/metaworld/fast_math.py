"""Metaworld's arithmetic on single numbers without the cost of arrays of one, equal to it in every bit.

Metaworld shapes its rewards by functions written for arrays and calls them with numbers, a dozen times a step. What is
here does the same operations in the same order on Python's floats, which are the same IEEE 754 doubles; whatever it
was not written for goes to the original.
"""

import math
import types
from collections.abc import Callable
from typing import final

import numpy as np
from numpy import ndarray

Tolerance = Callable[..., float]


def tolerance(original: Tolerance) -> Tolerance:
    """A quicker `reward_utils.tolerance`: 1 within the bounds, less outside."""

    def quick(
        x: float,
        bounds: tuple[float | int, float | int] = (0.0, 0.0),
        margin: float | int = 0.0,
        sigmoid: str = "gaussian",
        value_at_margin: float = 0.1,
    ) -> float:
        if sigmoid != "long_tail" or not isinstance(x, float) or not margin > 0 or not 0 < value_at_margin < 1:
            return original(x, bounds=bounds, margin=margin, sigmoid=sigmoid, value_at_margin=value_at_margin)
        lower, upper = bounds
        if lower > upper:
            raise ValueError("Lower bound must be <= upper bound.")
        if lower <= x <= upper:
            return 1.0
        distance = float((lower - x if x < lower else x - upper) / margin)
        scale = math.sqrt(1 / value_at_margin - 1)
        return 1 / ((distance * scale) ** 2 + 1)

    return quick


def norm(x: ndarray | np.floating | float, *rest: object, **named: object) -> np.floating | ndarray:
    """`np.linalg.norm`, quicker for vectors of doubles: √(x · x)."""
    if not rest and not named and type(x) is ndarray and x.strides == (8,) and x.dtype == np.float64:
        return np.sqrt(x.dot(x))
    return np.linalg.norm(x, *rest, **named)  # pyright: ignore[reportArgumentType, reportCallIssue]


def numpy_with_quick_norm() -> types.SimpleNamespace:
    """NumPy with `norm` in place of its own."""
    linalg = types.SimpleNamespace(**{**vars(np.linalg), "norm": norm})
    return types.SimpleNamespace(**{**vars(np), "linalg": linalg})


@final
class Rotation:
    """The part of SciPy's `Rotation` that metaworld uses: a quaternion (x, y, z, w) of a rotation matrix.

    Of the four ways to write it the one with the largest first term is taken (Markley 2008), as SciPy does, so that
    the sign is the same too; the last bit need not be.
    """

    def __init__(self, quaternion: tuple[float, float, float, float]) -> None:
        self._quaternion = quaternion

    @classmethod
    def from_matrix(cls, matrix: ndarray) -> "Rotation":
        (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = matrix.tolist()
        trace = xx + yy + zz
        largest = max(xx, yy, zz, trace)
        if xx == largest:
            return cls((1 - trace + 2 * xx, yx + xy, zx + xz, zy - yz))
        if yy == largest:
            return cls((yx + xy, 1 - trace + 2 * yy, zy + yz, xz - zx))
        if zz == largest:
            return cls((zx + xz, zy + yz, 1 - trace + 2 * zz, yx - xy))
        return cls((zy - yz, xz - zx, yx - xy, 1 + trace))

    def as_quat(self) -> ndarray:
        x, y, z, w = self._quaternion
        length = math.sqrt(x * x + y * y + z * z + w * w)
        return np.array((x / length, y / length, z / length, w / length))
