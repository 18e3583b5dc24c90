# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""The Ant, and the distributions that vary where it is to go.

It starts and moves bit for bit as Gymnasium's Ant-v5.
"""

import dataclasses
import functools
import math
from typing import final

import mujoco
import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from metarl.envs.body_models import body_model
from metarl.envs.distribution import EnvDistribution
from metarl.envs.locomotion import LocomotionSimulator, State, View, action_space, observation_space, physics_spec
from metarl.envs.objectives import DIRECTION, GOAL, HEADING, Objective
from metarl.tasks import Choice, Family, Json, MaxDistance, TaskSpace, Uniform

HORIZON = 200  # environment steps of 0.05 s, as in ProMP, PEARL and VariBAD
GOAL_RADIUS = 3.0  # m
NQ, NV, BODIES = 15, 14, 14
INITIAL_QPOS = np.array((0.0, 0.0, 0.75, 1.0, *[0.0] * 11))
HEALTHY_HEIGHT = (0.2, 1.0)  # m of the torso
NOISE_SCALE = 0.1
ARENA_BYTES = 262144  # 8 times what was seen to be taken


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
    frame_skip = 5
    forward_reward_weight = 1.0
    axes = 2
    readings = ("xpos", "cfrc_ext")
    view = View(distance=6.0, height=0.4, elevation=-35.0)

    @property
    def model(self) -> mujoco.MjModel:
        return body_model("ant.xml", ARENA_BYTES)

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

    def spec(self) -> dict[str, Json]:
        return {"arguments": dict(dataclasses.asdict(self))}


def _distribution(space: TaskSpace, body: Ant, objective: Objective) -> EnvDistribution:
    simulator = functools.partial(LocomotionSimulator, body=body, objective=objective)
    spaces = observation_space(body), action_space(body)
    return EnvDistribution(space, HORIZON, simulator, physics_spec(body, objective), *spaces)


def ant_direction() -> EnvDistribution:
    """Run forwards or backwards (Finn et al. 2017, section 5.3): two tasks, so nothing can be held out.

    Reward, costs and termination are Ant-v5's, which are also those of PEARL's and VariBAD's Ant-Dir.
    """
    families = (Family("direction", {"direction": Choice((-1.0, 1.0), "1 along +x, -1 along -x")}),)
    space = TaskSpace("ant-direction", families, families, families, held_out=False)
    return _distribution(space, Ant(), DIRECTION)


def ant_angle() -> EnvDistribution:
    """Run in a direction of U[−π, π] in the plane, as in ProMP (AntRandDirec2D): here tasks can be held out."""
    families = (Family("angle", {"angle": Uniform(-math.pi, math.pi, 0.001, "rad from +x towards +y")}),)
    return _distribution(TaskSpace("ant-angle", families, families, families), Ant(), HEADING)


def ant_goal() -> EnvDistribution:
    """Walk to a goal, uniform on a disc of radius 3 m, and stay there (PEARL's and VariBAD's Ant-Goal).

    Its position is observed. Control costs 0.1 ‖a‖², there is no reward for surviving, and no episode ends early, as
    in the literature: all rewards are negative, so an ending would pay the robot for falling.
    """
    coordinate = Uniform(-GOAL_RADIUS, GOAL_RADIUS, 0.001, "m")
    disc = MaxDistance(("goal_x", "goal_y"), (0.0, 0.0), GOAL_RADIUS, "m")
    families = (Family("goal", {"goal_x": coordinate, "goal_y": coordinate}, (disc,)),)
    body = Ant(
        0.1, healthy_reward=0.0, terminate_when_unhealthy=False, exclude_current_positions_from_observation=False
    )
    return _distribution(TaskSpace("ant-goal", families, families, families), body, GOAL)
