"""Observations of several environments: the arrays that a simulator fills, and the check that it filled them."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, final

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from gymnasium.vector.utils import create_empty_array
from jaxtyping import Bool, Shaped
from numpy import ndarray

from metarl.envs.simulator import Simulator, SimulatorError

Observations = Any
"""Of several environments, as Gymnasium batches their space: an array, or a dict or tuple of arrays. Which of them
follows from a value, the space, so that no static type can say it."""

_BLANKS: Mapping[str, tuple[type, int]] = {
    "float16": (np.uint16, 0x7E6D),
    "float32": (np.uint32, 0x7FC06D72),
    "float64": (np.uint64, 0x7FF86D657461726C),
}
"""A NaN that no arithmetic gives: what an entry holds that was not written, told from a NaN that was computed."""


@final
class ObservationBuffer:
    """What each sub-environment observed last.

    Args:
        space: of one environment: Box, Discrete, MultiDiscrete, MultiBinary, or Dict and Tuple of them.
        num_envs: how many there are.

    Raises:
        ValueError: another kind of space.
    """

    def __init__(self, space: gym.Space[Any], num_envs: int) -> None:
        self._space = space
        check_observation_space(space)
        kept, fresh = (create_empty_array(space, num_envs, np.zeros) for _ in range(2))
        self._kept, self._fresh = kept, fresh
        columns = zip(_leaves(space, kept), _leaves(space, fresh), strict=True)
        self._leaves = tuple(_Leaf.of(path, part, old, new) for (path, part, old), (_, _, new) in columns)

    def take(self, simulator: Simulator, mask: Bool[ndarray, " env"]) -> Bool[ndarray, " env"]:
        """Takes over the simulator's observations in `mask` where they are finite, and says where that was.

        Raises:
            SimulatorError: it did not fill the arrays that it was given.
        """
        for leaf in self._leaves:
            leaf.blank()
        returned = simulator.observe(self._fresh)
        name = f"{type(simulator).__name__}.observe"
        if returned is not None:
            raise SimulatorError(f"{name} must fill `out` and return nothing, it returned {type(returned).__name__}")
        self._check_places(name)
        for leaf in self._leaves:
            good = leaf.written(name, mask)
            mask = mask if good is None else mask & good
        for leaf in self._leaves:
            leaf.keep(mask)
        return mask

    def copy(self) -> Observations:
        """The observations, for the caller to keep."""
        return _copied(self._kept)

    def _check_places(self, name: str) -> None:
        if isinstance(self._fresh, ndarray):
            return
        try:
            now = [array for _, _, array in _leaves(self._space, self._fresh)]
        except (KeyError, TypeError) as error:
            raise SimulatorError(f"{name} took an entry out of `out`: {error}") from error
        for leaf, array in zip(self._leaves, now, strict=True):
            if array is not leaf.fresh:
                raise SimulatorError(f"{name} put another array in place of out{leaf.path}; write out{leaf.path}[:] =")


@final
@dataclasses.dataclass(frozen=True, eq=False)
class _Leaf:
    """One array of the observations."""

    path: str
    """Where it is: `["position"]`, `[0]`, or nothing for the array itself."""
    kept: Shaped[ndarray, "env *shape"]
    fresh: Shaped[ndarray, "env *shape"]
    rows: Shaped[ndarray, "env entry"]
    """`fresh`, flat."""
    bits: ndarray | None
    """`rows` as unsigned integers, for floats."""
    empty: int
    """What an entry holds before it is written: as bits for floats."""
    limits: tuple[ndarray, ndarray] | None
    """The least and the greatest value of each entry, for integers that cannot have every value of their type."""

    @classmethod
    def of(cls, path: str, space: gym.Space[Any], kept: ndarray, fresh: ndarray) -> "_Leaf":
        rows = fresh.reshape(len(fresh), -1)
        if fresh.dtype.kind == "f":
            unsigned, empty = _BLANKS[fresh.dtype.name]
            return cls(path, kept, fresh, rows, rows.view(unsigned), empty, None)
        low, high = (limit.reshape(-1) for limit in _integer_limits(space))
        possible = np.iinfo(fresh.dtype)
        below, above = int(low.min(initial=0)) - 1, int(high.max(initial=0)) + 1
        if below >= possible.min:
            return cls(path, kept, fresh, rows, None, below, (low, high))
        if above <= possible.max:
            return cls(path, kept, fresh, rows, None, above, (low, high))
        return cls(path, kept, fresh, rows, None, 0, None)  # such as the bytes of a picture: any could be written

    def blank(self) -> None:
        (self.fresh if self.bits is None else self.bits)[:] = self.empty

    def written(self, name: str, mask: Bool[ndarray, " env"]) -> Bool[ndarray, " env"] | None:
        """Where all entries are finite; None where they are everywhere."""
        if self.limits is not None:
            low, high = self.limits
            inside = (self.rows >= low) & (self.rows <= high)
            if not (inside.all() or inside[mask].all()):
                self._fail(name, ~inside, mask, "was left unwritten, or is outside of the observation space")
        if self.bits is None:
            return None
        finite = np.isfinite(self.rows)
        if finite.all():  # quicker than row by row
            return None
        if (self.bits[mask] == self.empty).any():
            self._fail(name, self.bits == self.empty, mask, "was left unwritten")
        return np.asarray(finite.all(1))

    def keep(self, mask: Bool[ndarray, " env"]) -> None:
        np.copyto(self.kept, self.fresh, where=mask.reshape(-1, *[1] * (self.fresh.ndim - 1)))

    def _fail(self, name: str, entries: Bool[ndarray, "env entry"], mask: Bool[ndarray, " env"], what: str) -> None:
        index, entry = np.argwhere(entries & mask[:, None])[0]
        place = ", ".join(map(str, (index, *np.unravel_index(entry, self.fresh.shape[1:]))))
        value = self.rows[index, entry]
        raise SimulatorError(f"{name}: out{self.path}[{place}] = {value} {what}; it must write every entry")


def check_observation_space(space: gym.Space[Any]) -> None:
    """Checks that arrays can hold the observations.

    Raises:
        ValueError: they cannot; the message says which part of the space it is.
    """
    for path, part in _parts(space):
        if not isinstance(part, Box | Discrete | MultiDiscrete | MultiBinary):
            raise ValueError(
                "observations can be Box, Discrete, MultiDiscrete, MultiBinary, or Dict and Tuple of them; "
                f"got {type(part).__name__}{f' in {path}' if path else ''}"
            )
        if isinstance(part, Box) and part.dtype.kind == "f" and part.dtype.name not in _BLANKS:
            raise ValueError(f"observations can be float16, float32 or float64, or integers, got {part.dtype}")


def _parts(space: gym.Space[Any], path: str = "") -> Iterator[tuple[str, gym.Space[Any]]]:
    """The spaces without parts of their own, with their places."""
    if isinstance(space, Dict):
        for key, part in space.spaces.items():
            yield from _parts(part, f"{path}[{key!r}]")
    elif isinstance(space, Tuple):
        for index, part in enumerate(space.spaces):
            yield from _parts(part, f"{path}[{index}]")
    else:
        yield path, space


def _leaves(
    space: gym.Space[Any], observations: Observations, path: str = ""
) -> Iterator[tuple[str, gym.Space[Any], ndarray]]:
    if isinstance(space, Dict):
        for key, part in space.spaces.items():
            yield from _leaves(part, observations[key], f"{path}[{key!r}]")
    elif isinstance(space, Tuple):
        for index, part in enumerate(space.spaces):
            yield from _leaves(part, observations[index], f"{path}[{index}]")
    else:
        yield path, space, observations


def _integer_limits(space: gym.Space[Any]) -> tuple[ndarray, ndarray]:
    """The least and the greatest value of each entry."""
    if isinstance(space, Box):
        return space.low, space.high
    if isinstance(space, Discrete):
        return np.asarray(space.start), np.asarray(space.start + space.n - 1)
    if isinstance(space, MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    assert isinstance(space, MultiBinary)
    return np.zeros(space.shape, np.int8), np.ones(space.shape, np.int8)


def _copied(observations: Observations) -> Observations:
    if isinstance(observations, dict):
        return {key: _copied(part) for key, part in observations.items()}
    if isinstance(observations, tuple):
        return tuple(map(_copied, observations))
    return observations.copy()
