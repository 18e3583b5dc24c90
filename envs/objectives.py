# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""What a robot is rewarded for, as functions of where it is, how fast it goes and what its task asks for."""

import dataclasses
import math
from collections.abc import Callable
from typing import final

import mujoco
import numpy as np
from jaxtyping import Float
from numpy import ndarray

from metarl.envs import markers
from metarl.tasks import Task

Positions = Float[ndarray, "env axis"]  # m: x, or x and y
Velocities = Float[ndarray, "env axis"]  # m/s: along x, or along x and y
Targets = Float[ndarray, "env number"]


@final
@dataclasses.dataclass(frozen=True)
class Objective:
    """The part of the reward that varies from task to task."""

    formula: str
    """For the distribution's spec: another formula, another hash."""
    target: Callable[[Task], tuple[float, ...]]
    """The numbers of a task that the reward needs."""
    reward: Callable[[Positions, Velocities, Targets], Float[ndarray, "env"]]
    """(positions, velocities, targets of the tasks) -> rewards."""
    draw: Callable[[mujoco.MjvScene, ndarray, ndarray], None] | None = None
    """(scene, position, target): shows the target in a picture."""


def _no_target(_task: Task) -> tuple[float, ...]:
    return ()


def _forward(_positions: Positions, velocities: Velocities, _targets: Targets) -> Float[ndarray, "env"]:
    return velocities[:, 0]


def _direction(task: Task) -> tuple[float, ...]:
    return (task.number("direction"),)


def _along_direction(_positions: Positions, velocities: Velocities, targets: Targets) -> Float[ndarray, "env"]:
    return targets[:, 0] * velocities[:, 0]


def _draw_direction(scene: mujoco.MjvScene, position: ndarray, target: ndarray) -> None:
    _draw_heading(scene, position, np.array((target[0], 0.0)))


def _velocity(task: Task) -> tuple[float, ...]:
    return (task.number("velocity"),)


def _at_velocity(_positions: Positions, velocities: Velocities, targets: Targets) -> Float[ndarray, "env"]:
    return -np.abs(velocities[:, 0] - targets[:, 0])


def _heading(task: Task) -> tuple[float, ...]:
    angle = task.number("angle")
    return math.cos(angle), math.sin(angle)


def _along_heading(_positions: Positions, velocities: Velocities, targets: Targets) -> Float[ndarray, "env"]:
    return velocities[:, 0] * targets[:, 0] + velocities[:, 1] * targets[:, 1]


def _draw_heading(scene: mujoco.MjvScene, position: ndarray, target: ndarray) -> None:
    markers.draw_heading(scene, position, target)


def _goal(task: Task) -> tuple[float, ...]:
    return task.number("goal_x"), task.number("goal_y")


def _near_goal(positions: Positions, _velocities: Velocities, targets: Targets) -> Float[ndarray, "env"]:
    return -np.abs(positions - targets).sum(-1)


def _draw_goal(scene: mujoco.MjvScene, _position: ndarray, target: ndarray) -> None:
    markers.draw_goal(scene, target)


FORWARD = Objective("v_x", _no_target, _forward)
"""r = vₓ, as in Gymnasium's environments."""
DIRECTION = Objective("direction * v_x", _direction, _along_direction, _draw_direction)
"""r = d vₓ with d = ±1 (Finn et al. 2017, section 5.3)."""
VELOCITY = Objective("-abs(v_x - velocity)", _velocity, _at_velocity)
"""r = −|vₓ − v*| (Finn et al. 2017, section 5.3)."""
HEADING = Objective("v_x * cos(angle) + v_y * sin(angle)", _heading, _along_heading, _draw_heading)
"""r = v·u with u = (cos α, sin α) (Rothfuss et al. 2019, section 6)."""
GOAL = Objective("-(abs(x - goal_x) + abs(y - goal_y))", _goal, _near_goal, _draw_goal)
"""r = −‖p − g‖₁, the L1 distance, as in the code of Rothfuss et al. (2019), Rakelly et al. (2019) and VariBAD."""
