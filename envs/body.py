# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""What a walking robot is to the simulator that plays it: functions of arrays over a batch.

A `Body` is one of Gymnasium's MuJoCo robots: how an episode starts, what is observed, what costs, when it has fallen.
On its own level floor it starts and moves bit for bit as Gymnasium's v5 environment.
"""

import dataclasses
from collections.abc import Mapping
from typing import Protocol, final, runtime_checkable

import mujoco
import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Bool, Float
from numpy import ndarray

from metarl.envs.body_models import body_model
from metarl.envs.integration import Integration
from metarl.tasks import Json


@final
@dataclasses.dataclass(frozen=True)
class State:
    """A batch's states, as the pool reads them."""

    qpos: Float[ndarray, "env nq"]
    qvel: Float[ndarray, "env nv"]
    readings: Mapping[str, Float[ndarray, "env _"]]
    """By the names of `MjData`'s arrays, see `MujocoPool`."""
    body_mass: Float[ndarray, "env body"]
    """kg."""


@final
@dataclasses.dataclass(frozen=True)
class View:
    """From where a robot is filmed; the camera goes along with it."""

    distance: float
    """m."""
    height: float
    """m above the ground of the point that is looked at."""
    elevation: float = -15.0
    """degrees; negative looks down."""


@runtime_checkable  # for the tests, which check every annotation
class Body(Protocol):
    """One of Gymnasium's robots."""

    @property
    def name(self) -> str:
        """Gymnasium's id."""
        ...

    @property
    def asset(self) -> str:
        """Gymnasium's MJCF file."""
        ...

    @property
    def arena_bytes(self) -> int:
        """Scratch memory of a simulation."""
        ...

    @property
    def integration(self) -> Integration:
        """Gymnasium's."""
        ...

    @property
    def axes(self) -> int:
        """1 for a body that moves in the plane of x and z, 2 for one that moves in space; qpos begins with them."""
        ...

    @property
    def readings(self) -> tuple[str, ...]:
        """The arrays of `MjData` that it needs beside qpos and qvel."""
        ...

    @property
    def observation_size(self) -> int: ...

    @property
    def forward_reward_weight(self) -> float:
        """Of the objective, in the sum that is the reward."""
        ...

    @property
    def healthy_reward(self) -> float:
        """Reward for each step after which the robot has not fallen."""
        ...

    @property
    def terminate_when_unhealthy(self) -> bool:
        """Whether an episode ends when the robot falls."""
        ...

    @property
    def view(self) -> View: ...

    def initial_state(self, rng: np.random.Generator) -> tuple[Float[ndarray, "nq"], Float[ndarray, "nv"]]:
        """The start of an episode, by the draws of Gymnasium's `reset_model` in its order."""
        ...

    def position(self, state: State) -> Float[ndarray, "env axis"]:
        """The point (m) whose difference quotient is the velocity that is rewarded."""
        ...

    def healthy(self, state: State) -> Bool[ndarray, "env"]:
        """Whether each robot has not fallen."""
        ...

    def costs(self, state: State, actions: Float[ndarray, "env action"]) -> dict[str, Float[ndarray, "env"]]:
        """What is subtracted from the reward: `ctrl`, and `contact` for some."""
        ...

    def observe(self, state: State, out: Float[ndarray, "env observation"]) -> None:
        """Writes the observations."""
        ...

    def tilt(self, state: State, angle: Float[ndarray, "env"]) -> State:
        """The same postures and motions, turned about the world's y axis by `angle` (rad) from x towards z.

        Readings that `observe` and `healthy` do not use may stay as they are.
        """
        ...

    def spec(self) -> dict[str, Json]:
        """All of its numbers that decide a score, beside Gymnasium's."""
        ...


def default_model(body: Body) -> mujoco.MjModel:
    """The body on Gymnasium's level floor. It is shared: make a copy to change it."""
    return body_model(body.asset, body.arena_bytes)


def observation_space(body: Body) -> Box:
    """Of one robot."""
    return Box(-np.inf, np.inf, (body.observation_size,), np.float64)


def action_space(body: Body) -> Box:
    """Of one robot: the range of its motors, as Gymnasium has it."""
    low, high = default_model(body).actuator_ctrlrange.astype(np.float32).T
    return Box(low, high, dtype=np.float32)


def turned(vectors: Float[ndarray, "*batch 3"], angle: Float[ndarray, "*#batch"]) -> Float[ndarray, "*batch 3"]:
    """(x, y, z) turned by `angle` (rad) from x towards z."""
    cosine, sine = np.cos(angle), np.sin(angle)
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    return np.stack((cosine * x - sine * z, y, sine * x + cosine * z), -1)
