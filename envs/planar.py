# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""Robots that move in the plane of x and z: HalfCheetah, Hopper and Walker2d, bit for bit as Gymnasium's v5."""

import dataclasses
import math
from typing import final

import mujoco
import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from metarl.envs.body import State, View, turned
from metarl.envs.body_models import body_model
from metarl.envs.integration import Integration
from metarl.tasks import Json

Interval = tuple[float, float]
ANYTHING: Interval = (-math.inf, math.inf)


@final
@dataclasses.dataclass(frozen=True)
class PlanarBody:
    """One of the three robots; what Gymnasium's constructors have as arguments has their names."""

    name: str
    asset: str
    """MJCF file."""
    integration: Integration
    view: View
    ctrl_cost_weight: float
    reset_noise_scale: float
    normal_velocities: bool
    """Whether an episode starts with normally distributed velocities, instead of uniform ones."""
    torso_height: float = 0.0
    """m of the torso above the floor where qpos[1] is 0."""
    healthy_reward: float = 0.0
    healthy_z_range: Interval = ANYTHING
    """m, of the torso."""
    healthy_angle_range: Interval = ANYTHING
    """rad, of the torso."""
    healthy_state_range: Interval = ANYTHING
    """Of all positions and velocities but the torso's x and z."""
    velocity_limit: float = math.inf
    """m/s and rad/s, of what is observed."""

    arena_bytes = 262144  # 8 times what the gravest contacts need
    forward_reward_weight = 1.0
    axes = 1
    readings = ()

    @property
    def _model(self) -> mujoco.MjModel:
        return body_model(self.asset, self.arena_bytes)

    @property
    def observation_size(self) -> int:
        return self._model.nq - 1 + self._model.nv

    @property
    def terminate_when_unhealthy(self) -> bool:
        return (self.healthy_z_range, self.healthy_angle_range, self.healthy_state_range) != (ANYTHING,) * 3

    def initial_state(self, rng: np.random.Generator) -> tuple[Float[ndarray, "nq"], Float[ndarray, "nv"]]:
        noise, model = self.reset_noise_scale, self._model
        qpos = model.qpos0 + rng.uniform(-noise, noise, model.nq)
        if self.normal_velocities:
            return qpos, noise * rng.standard_normal(model.nv)
        return qpos, rng.uniform(-noise, noise, model.nv)

    def position(self, state: State) -> Float[ndarray, "env axis"]:
        return state.qpos[:, :1]

    def healthy(self, state: State) -> Bool[ndarray, "env"]:
        qpos, qvel = state.qpos, state.qvel
        healthy = _within(qpos[:, 1], self.healthy_z_range) & _within(qpos[:, 2], self.healthy_angle_range)
        if self.healthy_state_range == ANYTHING:
            return healthy
        positions, velocities = (_within(values, self.healthy_state_range).all(-1) for values in (qpos[:, 2:], qvel))
        return healthy & positions & velocities

    def costs(self, state: State, actions: Float[ndarray, "env action"]) -> dict[str, Float[ndarray, "env"]]:
        # Squared and summed in the actions' precision, as Gymnasium does.
        return {"ctrl": (self.ctrl_cost_weight * np.square(actions).sum(-1)).astype(np.float64)}

    def observe(self, state: State, out: Float[ndarray, "env observation"]) -> None:
        """Positions but for x, and velocities."""
        split = state.qpos.shape[1] - 1
        out[:, :split] = state.qpos[:, 1:]
        np.clip(state.qvel, -self.velocity_limit, self.velocity_limit, out=out[:, split:])

    def tilt(self, state: State, angle: Float[ndarray, "env"]) -> State:
        qpos, qvel, torso = state.qpos.copy(), state.qvel.copy(), np.array((0.0, self.torso_height))
        qpos[:, :2] = _rotated(qpos[:, :2] + torso, angle) - torso
        qpos[:, 2] -= angle  # pitch is positive nose down
        qvel[:, :2] = _rotated(qvel[:, :2], angle)
        return State(qpos, qvel, state.readings, state.body_mass)

    def spec(self) -> dict[str, Json]:
        return {
            "ctrl_cost_weight": self.ctrl_cost_weight,
            "healthy_reward": self.healthy_reward,
            "reset_noise_scale": self.reset_noise_scale,
        }


def _within(values: Float[ndarray, "*shape"], interval: Interval) -> Bool[ndarray, "*shape"]:
    return (interval[0] < values) & (values < interval[1])


def _rotated(vectors: Float[ndarray, "env 2"], angle: Float[ndarray, "env"]) -> Float[ndarray, "env 2"]:
    """(x, z) turned by `angle` (rad) from x towards z."""
    return turned(np.insert(vectors, 1, 0.0, axis=-1), angle)[:, [0, 2]]


HALF_CHEETAH = PlanarBody(
    "HalfCheetah-v5",
    "half_cheetah.xml",
    Integration("Euler", timestep=0.01, frame_skip=5, cone="pyramidal"),
    View(distance=3.5, height=0.5, elevation=-12.0),
    ctrl_cost_weight=0.1,
    reset_noise_scale=0.1,
    normal_velocities=True,
    torso_height=0.7,
)
HOPPER = PlanarBody(
    "Hopper-v5",
    "hopper.xml",
    Integration("RK4", timestep=0.002, frame_skip=4, cone="pyramidal"),
    View(distance=3.5, height=0.8, elevation=-12.0),
    ctrl_cost_weight=1e-3,
    reset_noise_scale=5e-3,
    normal_velocities=False,
    healthy_reward=1.0,
    healthy_z_range=(0.7, math.inf),
    healthy_angle_range=(-0.2, 0.2),
    healthy_state_range=(-100.0, 100.0),
    velocity_limit=10.0,
)
WALKER = PlanarBody(
    "Walker2d-v5",
    "walker2d_v5.xml",
    Integration("RK4", timestep=0.002, frame_skip=4, cone="pyramidal"),
    View(distance=4.0, height=0.8, elevation=-12.0),
    ctrl_cost_weight=1e-3,
    reset_noise_scale=5e-3,
    normal_velocities=False,
    healthy_reward=1.0,
    healthy_z_range=(0.8, 2.0),
    healthy_angle_range=(-1.0, 1.0),
    velocity_limit=10.0,
)
