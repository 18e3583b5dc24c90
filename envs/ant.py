"""The Ant, and the distributions that vary where it is to go.

It starts and moves bit for bit as Gymnasium's Ant-v5, by RK4 at 0.01 s. Under random actions it gains 0.017 m/s in
10 s on frictionless ground, as if there were friction of 0.0002; no policy has been trained to exploit it yet.
"""

import dataclasses
import math
from typing import final

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from metarl.envs.body import State, View, turned
from metarl.envs.distribution import EnvDistribution
from metarl.envs.integration import Integration
from metarl.envs.locomotion import locomotion
from metarl.envs.objectives import DIRECTION, GOAL, HEADING
from metarl.tasks import Choice, Family, Json, MaxDistance, TaskSpace, Uniform

HORIZON = 200  # environment steps of 0.05 s, as in ProMP, PEARL and VariBAD
GOAL_RADIUS = 3.0  # m
NQ, NV, BODIES = 15, 14, 14
INITIAL_QPOS = np.array((0.0, 0.0, 0.75, 1.0, *[0.0] * 11))
HEALTHY_HEIGHT = (0.2, 1.0)  # m of the torso
NOISE_SCALE = 0.1


@final
@dataclasses.dataclass(frozen=True)
class Ant:
    """Ant-v5 by its constructor's arguments, of the same names and defaults."""

    ctrl_cost_weight: float = 0.5
    contact_cost_weight: float = 5e-4
    healthy_reward: float = 1.0
    terminate_when_unhealthy: bool = True
    exclude_current_positions_from_observation: bool = True

    name = "Ant-v5"
    asset = "ant.xml"
    arena_bytes = 262144  # 8 times what was seen to be taken
    integration = Integration("RK4", timestep=0.01, frame_skip=5, cone="pyramidal")
    view = View(distance=7.0, height=0.4, elevation=-35.0)
    forward_reward_weight = 1.0
    axes = 2
    readings = ("xpos", "cfrc_ext")

    @property
    def observation_size(self) -> int:
        return NQ - self._skipped + NV + 6 * (BODIES - 1)

    @property
    def _skipped(self) -> int:
        return 2 if self.exclude_current_positions_from_observation else 0

    def initial_state(self, rng: np.random.Generator) -> tuple[Float[ndarray, "nq"], Float[ndarray, "nv"]]:
        return INITIAL_QPOS + rng.uniform(-NOISE_SCALE, NOISE_SCALE, NQ), NOISE_SCALE * rng.standard_normal(NV)

    def position(self, state: State) -> Float[ndarray, "env axis"]:
        return state.readings["xpos"][:, 3:5]  # the torso's

    def healthy(self, state: State) -> Bool[ndarray, "env"]:
        height = state.qpos[:, 2]
        finite = np.isfinite(state.qpos).all(-1) & np.isfinite(state.qvel).all(-1)
        return finite & (HEALTHY_HEIGHT[0] <= height) & (height <= HEALTHY_HEIGHT[1])

    def costs(self, state: State, actions: Float[ndarray, "env action"]) -> dict[str, Float[ndarray, "env"]]:
        # Squared and summed in the actions' precision, as Gymnasium does.
        ctrl = (self.ctrl_cost_weight * np.square(actions).sum(-1)).astype(np.float64)
        forces = np.clip(state.readings["cfrc_ext"], -1.0, 1.0)
        return {"ctrl": ctrl, "contact": self.contact_cost_weight * np.square(forces).sum(-1)}

    def observe(self, state: State, out: Float[ndarray, "env observation"]) -> None:
        """Positions and velocities; torques and forces (N m, N, clipped to ±1) from contacts on each part."""
        position = NQ - self._skipped
        out[:, :position] = state.qpos[:, self._skipped :]
        out[:, position : position + NV] = state.qvel
        np.clip(state.readings["cfrc_ext"][:, 6:], -1.0, 1.0, out=out[:, position + NV :])

    def tilt(self, state: State, angle: Float[ndarray, "env"]) -> State:
        qpos, qvel = state.qpos.copy(), state.qvel.copy()
        qpos[:, :3], qvel[:, :3] = turned(qpos[:, :3], angle), turned(qvel[:, :3], angle)
        # The quaternion of a turn about −y times the torso's. (Angular velocity is in the torso's own frame.)
        cosine, sine = np.cos(angle / 2), np.sin(angle / 2)
        w, x, y, z = state.qpos[:, 3:7].T
        turn = (cosine * w + sine * y, cosine * x - sine * z, cosine * y - sine * w, cosine * z + sine * x)
        qpos[:, 3:7] = np.stack(turn, -1)
        readings = dict(state.readings)
        if "cfrc_ext" in readings:
            forces = readings["cfrc_ext"].reshape(len(qpos), -1, 3)
            readings["cfrc_ext"] = turned(forces, angle[:, None]).reshape(len(qpos), -1)
        return State(qpos, qvel, readings, state.body_mass)

    def spec(self) -> dict[str, Json]:
        return {"arguments": dict(dataclasses.asdict(self))}


def ant_direction() -> EnvDistribution:
    """Run forwards or backwards (Finn et al. 2017, section 5.3): two tasks, so nothing can be held out.

    Reward, costs and termination are Ant-v5's, which are also those of PEARL's and VariBAD's Ant-Dir.
    """
    families = (Family("direction", {"direction": Choice((-1.0, 1.0), "1 along +x, -1 along -x")}),)
    space = TaskSpace("ant-direction", families, families, families, held_out=False)
    return locomotion(space, HORIZON, Ant(), DIRECTION)


def ant_angle() -> EnvDistribution:
    """Run in a direction of U[−π, π] in the plane, as in ProMP (AntRandDirec2D): here tasks can be held out."""
    families = (Family("angle", {"angle": Uniform(-math.pi, math.pi, 0.001, "rad from +x towards +y")}),)
    return locomotion(TaskSpace("ant-angle", families, families, families), HORIZON, Ant(), HEADING)


def ant_goal() -> EnvDistribution:
    """Walk to a goal, uniform on a disc of radius 3 m, and stay there (PEARL's and VariBAD's Ant-Goal).

    Its own position is observed. Control costs 0.1 ‖a‖², there is no reward for surviving, and no episode ends early,
    as in the literature: all rewards are negative, so an ending would pay the robot for falling.
    """
    coordinate = Uniform(-GOAL_RADIUS, GOAL_RADIUS, 0.001, "m")
    disc = MaxDistance(("goal_x", "goal_y"), (0.0, 0.0), GOAL_RADIUS, "m")
    families = (Family("goal", {"goal_x": coordinate, "goal_y": coordinate}, (disc,)),)
    body = Ant(
        ctrl_cost_weight=0.1,
        healthy_reward=0.0,
        terminate_when_unhealthy=False,
        exclude_current_positions_from_observation=False,
    )
    return locomotion(TaskSpace("ant-goal", families, families, families), HORIZON, body, GOAL)
