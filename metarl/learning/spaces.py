"""What agents see of an environment's spaces: observations as flat vectors, actions in units of their range.

Observations may be Box, Discrete, MultiDiscrete, MultiBinary, or Dict and Tuple of them, actions Box or Discrete.
"""

import dataclasses
from typing import final

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from jaxtyping import Float, Shaped
from numpy import ndarray

BatchedObservations = ndarray | dict[str, "BatchedObservations"] | tuple["BatchedObservations", ...]
"""Observations of several environments, as Gymnasium's vector environments batch them."""


@final
@dataclasses.dataclass(frozen=True)
class Spaces:
    """The spaces of one environment, as an agent's architecture follows from them."""

    observation: gym.Space[object]
    action: gym.Space[object]

    def __post_init__(self) -> None:
        if not self.observation.is_np_flattenable:
            raise ValueError(f"agents take observations that flatten to a vector of fixed size, got {self.observation}")
        if isinstance(self.action, spaces.Discrete):
            return
        if not isinstance(self.action, spaces.Box) or len(self.action.shape) != 1:
            raise ValueError(f"agents take actions of a Box with one axis, or of Discrete, got {self.action}")
        if not self.action.is_bounded():
            raise ValueError(f"agents act in units of the action space's range, which must be bounded: {self.action}")

    @property
    def observation_size(self) -> int:
        """Numbers in a flattened observation."""
        return spaces.flatdim(self.observation)

    @property
    def discrete(self) -> bool:
        """Whether an action is one of a few, rather than a vector."""
        return isinstance(self.action, spaces.Discrete)

    @property
    def action_size(self) -> int:
        """Numbers in an action vector, or discrete actions to choose from."""
        return int(self.action.n) if isinstance(self.action, spaces.Discrete) else int(np.prod(self.action.shape or 1))

    def flatten(self, observations: BatchedObservations) -> Float[ndarray, "env feature"]:
        """A batch of observations as vectors, float32: each row as `gymnasium.spaces.flatten` makes it."""
        return flatten_batch(self.observation, observations)

    def clip(self, actions: Shaped[ndarray, "env *action"]) -> Shaped[ndarray, "env *action"]:
        """A policy's actions as they are executed: vectors clipped to ±1."""
        return actions if self.discrete else np.clip(actions, -1.0, 1.0)

    def to_action_space(self, actions: Shaped[ndarray, "env *action"]) -> Shaped[ndarray, "env *action"]:
        """Maps executed actions to the environment's: from [−1, 1] to the Box's range, from 0, 1, … to Discrete's.

        Agents work in units of the range, so that one noise level means the same in every environment.
        """
        if isinstance(self.action, spaces.Discrete):
            return actions + self.action.start
        assert isinstance(self.action, spaces.Box)
        low, high = self.action.low.astype(np.float64), self.action.high.astype(np.float64)
        return low + (actions + 1.0) * (0.5 * (high - low))

    def from_action_space(self, actions: Shaped[ndarray, "env *action"]) -> Shaped[ndarray, "env *action"]:
        """The inverse of `to_action_space`."""
        if isinstance(self.action, spaces.Discrete):
            return actions - self.action.start
        assert isinstance(self.action, spaces.Box)
        low, high = self.action.low.astype(np.float64), self.action.high.astype(np.float64)
        return (actions - low) / (0.5 * (high - low)) - 1.0


def flatten_batch(space: gym.Space[object], observations: BatchedObservations) -> Float[ndarray, "env feature"]:
    """Every row as `gymnasium.spaces.flatten(space, row)`, but float32 and without a loop over rows."""
    if isinstance(space, spaces.Dict):
        assert isinstance(observations, dict)
        return np.concatenate([flatten_batch(part, observations[name]) for name, part in space.spaces.items()], axis=-1)
    if isinstance(space, spaces.Tuple):
        assert isinstance(observations, tuple)
        parts = zip(space.spaces, observations, strict=True)
        return np.concatenate([flatten_batch(part, values) for part, values in parts], axis=-1)
    assert isinstance(observations, ndarray)
    if isinstance(space, spaces.Discrete):
        return one_hot(observations - space.start, int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        numbers = (observations - space.start).reshape(len(observations), -1)
        columns = zip(numbers.T, space.nvec.reshape(-1), strict=True)
        return np.concatenate([one_hot(column, int(count)) for column, count in columns], axis=-1)
    return observations.reshape(len(observations), -1).astype(np.float32)


def unflatten_batch(space: gym.Space[object], rows: Float[ndarray, "env feature"]) -> BatchedObservations:
    """The inverse of `flatten_batch`, up to its rounding to float32."""
    if isinstance(space, spaces.Dict):
        return dict(zip(space.spaces, _unflatten_parts(tuple(space.spaces.values()), rows), strict=True))
    if isinstance(space, spaces.Tuple):
        return _unflatten_parts(space.spaces, rows)
    if isinstance(space, spaces.Discrete):
        return rows.argmax(1) + space.start
    if isinstance(space, spaces.MultiDiscrete):
        ends = np.cumsum(space.nvec.reshape(-1))
        numbers = np.stack([part.argmax(1) for part in np.split(rows, ends[:-1], axis=1)], axis=1)
        return (numbers.reshape(len(rows), *space.shape) + space.start).astype(space.dtype)
    assert space.shape is not None, "spaces with a fixed size have a shape"
    return rows.reshape(len(rows), *space.shape).astype(space.dtype)


def _unflatten_parts(
    parts: tuple[gym.Space[object], ...], rows: Float[ndarray, "env feature"]
) -> tuple[BatchedObservations, ...]:
    ends = np.cumsum([spaces.flatdim(part) for part in parts])
    columns = np.split(rows, ends[:-1], axis=1)
    return tuple(unflatten_batch(part, own) for part, own in zip(parts, columns, strict=True))


def row(observations: BatchedObservations, index: int) -> object:
    """One environment's observation."""
    if isinstance(observations, dict):
        return {key: row(part, index) for key, part in observations.items()}
    if isinstance(observations, tuple):
        return tuple(row(part, index) for part in observations)
    return observations[index]


def one_hot(numbers: Shaped[ndarray, " env"], count: int) -> Float[ndarray, "env {count}"]:
    """1 in the column of each row's number, 0 elsewhere."""
    return (numbers[:, None] == np.arange(count)).astype(np.float32)
