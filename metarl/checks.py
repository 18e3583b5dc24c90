"""Checks of options; each error names the option, the range and the number. NaN and infinities are in no range."""

import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

ADDED: Mapping[str, bool] = MappingProxyType({"added": True})
"""Metadata of a dataclass's field that runs of earlier revisions do not have: they are read, and resumed, with its
default, which is not written down. `gradient_parts: int = added(1)`."""


def added(default: Any) -> Any:  # noqa: ANN401  # as `dataclasses.field`
    """A field with `ADDED`."""
    return dataclasses.field(default=default, metadata=ADDED)


def finite(**options: float | int) -> None:
    """Raises ValueError for the first option that is NaN or infinite."""
    for name, value in options.items():
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value}")


def at_least(minimum: int, **options: float | int) -> None:
    """Raises ValueError for the first option below the minimum."""
    for name, value in options.items():
        if not value >= minimum:
            raise ValueError(f"{name} must be at least {minimum}, got {value}")
    finite(**options)


def between(minimum: int, maximum: int, **options: float | int) -> None:
    """Raises ValueError for the first option below the minimum or above the maximum."""
    for name, value in options.items():
        if not minimum <= value <= maximum:
            raise ValueError(f"{name} must be between {minimum} and {maximum}, got {value}")


MOST = 1_000_000
"""The most of what memory and time grow with: tasks, episodes, steps of adaptation. More is a slip of the keyboard."""
WIDEST = 8192
"""The widest layer."""


def at_most(maximum: int, **options: float | int) -> None:
    """Raises ValueError for the first option above the maximum."""
    for name, value in options.items():
        if not value <= maximum:
            raise ValueError(f"{name} must be at most {maximum}, got {value}")


def count(**options: int) -> None:
    """Raises ValueError for the first option below 1 or above `MOST`."""
    at_least(1, **options)
    at_most(MOST, **options)


def positive(**options: float | int) -> None:
    """Raises ValueError for the first option that is not above 0."""
    for name, value in options.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")
    finite(**options)


def fraction(**options: float | int) -> None:
    """Raises ValueError for the first option outside (0, 1]."""
    for name, value in options.items():
        if not 0 < value <= 1:
            raise ValueError(f"{name} must be in (0, 1], got {value}")


def log_std(**options: float) -> None:
    """Raises ValueError for the first log σ of actions that nobody acts by: beyond ±20, where σ is 2e-9 or 5e8."""
    between(-20, 20, **options)


def seed(value: int) -> None:
    """Raises ValueError for a number that is no seed: PyTorch and NumPy take those from 0 to 2⁶³ − 1."""
    if not 0 <= value < 1 << 63:
        raise ValueError(f"seed must be between 0 and 2**63 - 1, got {value}")


def layers(hidden: tuple[int, ...]) -> None:
    """Raises ValueError unless there is a hidden layer, and each is at least 1 and at most `WIDEST` wide."""
    if not hidden or min(hidden) < 1 or max(hidden) > WIDEST:
        raise ValueError(f"hidden needs at least one layer, each at least 1 and at most {WIDEST} wide, got {hidden}")
