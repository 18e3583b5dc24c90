"""Metaworld's arithmetic on Python's floats: the same operations in the same order, without arrays.

They are the same IEEE 754 doubles as NumPy's. Whether an inner product of NumPy's adds up in the same order, and rounds
in between, is up to the processor's library: `sums_in_order` says so.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np

Vector = Sequence[float]
Number = float | np.floating
"""Of the actions' precision, where it comes of what the gripper is told."""

_LONG_TAIL = math.sqrt(1 / 0.1 - 1)  # a tolerance's value at its margin is 0.1
_GAUSSIAN = float(np.sqrt(-2 * np.log(0.1)))


@functools.cache
def sums_in_order() -> bool:
    """Whether NumPy's inner product of a few doubles is their products' sum from left to right, each rounded.

    With fused multiplications and additions, which other processors' libraries use, last bits are others: then norms of
    this module are not NumPy's.
    """
    vectors = np.random.default_rng(0).normal(size=(500, 3)) * np.array([1.0, 0.1, 3.0])
    return all(
        float(vector[:size].dot(vector[:size])) == sum_of_squares(vector[:size].tolist())
        for vector in vectors
        for size in (1, 2, 3)
    )


def sum_of_squares(numbers: Sequence[float]) -> float:
    """From left to right; Python's own `sum` is more exact than NumPy in its newer versions."""
    total = 0.0
    for number in numbers:
        total += number * number
    return total


def norm(x: float, y: float, z: float) -> float:
    """`np.linalg.norm` of a vector."""
    return math.sqrt(x * x + y * y + z * z)


def distance(one: Vector, other: Vector) -> float:
    """Between two points."""
    x, y, z = one[0] - other[0], one[1] - other[1], one[2] - other[2]
    return math.sqrt(x * x + y * y + z * z)


def distance_xz(one: Vector, other: Vector) -> float:
    """Between two points seen along the y axis."""
    x, z = one[0] - other[0], one[2] - other[2]
    return math.sqrt(x * x + z * z)


def long_tail(x: float, lower: float | int, upper: float | int, margin: float) -> float:
    """`reward_utils.tolerance` with the sigmoid `long_tail`: 1 within the bounds, less outside."""
    if margin < 0:
        raise ValueError(f"`margin` must be non-negative. Current value: {margin}")
    if lower <= x <= upper:
        return 1.0
    if margin == 0:
        return 0.0
    return 1 / (((lower - x if x < lower else x - upper) / margin * _LONG_TAIL) ** 2 + 1)


def gaussian(x: float, upper: float, margin: float) -> float:
    """`reward_utils.tolerance` of a distance with the sigmoid `gaussian`."""
    if margin < 0:
        raise ValueError(f"`margin` must be non-negative. Current value: {margin}")
    if x <= upper:
        return 1.0
    if margin == 0:
        return 0.0
    # NumPy's exponential: the standard library's has other last bits.
    return float(np.exp(-0.5 * ((x - upper) / margin * _GAUSSIAN) ** 2))


def hamacher_product(a: Number, b: Number) -> Number:
    """`reward_utils.hamacher_product`; 0 where both are."""
    if not (0.0 <= a <= 1.0 and 0.0 <= b <= 1.0):
        raise ValueError(f"{a} and {b} must range between 0 and 1")
    denominator = a + b - a * b
    return a * b / denominator if denominator > 0 else 0.0


def in_prism(point: Vector, zero: Vector, one: Vector) -> float:
    """`reward_utils.rect_prism_tolerance`: grows from one corner of a prism to the other; 1 outside."""
    scale = 1.0
    for x, low, high in zip(point, zero, one, strict=True):
        if not (low <= x <= high if high >= low else high <= x <= low):
            return 1.0
        scale *= (x - low) / (high - low)
    return scale


def closing(effort: Number) -> Number:
    """How much the gripper is told to close, from 0 to 1, in the actions' precision."""
    return min(max(0.0, effort), 1.0)


def weighted_distance(one: Vector, other: Vector, y: float, z: float) -> float:
    """A distance in which errors along two axes count more."""
    return norm(one[0] - other[0], (one[1] - other[1]) * y, (one[2] - other[2]) * z)


def quaternion(matrix: Sequence[float]) -> tuple[float, float, float, float]:
    """Of a rotation matrix (its nine numbers), as SciPy's `Rotation` gives it: (x, y, z, w).

    Of the four ways to write it the one with the largest first term is taken (Markley 2008), as SciPy does, so that
    the sign is the same too; the last bit need not be.
    """
    xx, xy, xz, yx, yy, yz, zx, zy, zz = matrix
    trace = xx + yy + zz
    largest = max(xx, yy, zz, trace)
    if xx == largest:
        x, y, z, w = 1 - trace + 2 * xx, yx + xy, zx + xz, zy - yz
    elif yy == largest:
        x, y, z, w = yx + xy, 1 - trace + 2 * yy, zy + yz, xz - zx
    elif zz == largest:
        x, y, z, w = zx + xz, zy + yz, 1 - trace + 2 * zz, yx - xy
    else:
        x, y, z, w = zy - yz, xz - zx, yx - xy, 1 + trace
    length = math.sqrt(x * x + y * y + z * z + w * w)
    return x / length, y / length, z / length, w / length
