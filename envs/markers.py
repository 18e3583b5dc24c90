# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""What a task asks for, drawn into MuJoCo's scene: for pictures only."""

import mujoco
import numpy as np
from jaxtyping import Float
from numpy import ndarray

_GREEN = np.array((0.18, 0.63, 0.34, 1.0), np.float32)


def draw_goal(scene: mujoco.MjvScene, goal: Float[ndarray, "2"], radius: float = 0.3) -> None:
    """A disc on the ground around (x, y), and a pole in its middle; lengths in m."""
    disc = _add(scene, mujoco.mjtGeom.mjGEOM_CYLINDER, (radius, 0.01, 0.0), (*goal, 0.01))
    disc.rgba[3] = 0.6
    _add(scene, mujoco.mjtGeom.mjGEOM_CYLINDER, (0.03, 0.6, 0.0), (*goal, 0.6))


def draw_heading(scene: mujoco.MjvScene, start: Float[ndarray, "2"], heading: Float[ndarray, "2"]) -> None:
    """An arrow on the ground from `start` (m) a metre and a half along the unit vector `heading`."""
    arrow = _add(scene, mujoco.mjtGeom.mjGEOM_ARROW, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    near, far = (np.array((*(start + length * heading), 0.05)) for length in (0.9, 2.4))
    mujoco.mjv_connector(arrow, mujoco.mjtGeom.mjGEOM_ARROW, 0.06, near, far)


def _add(
    scene: mujoco.MjvScene, shape: mujoco.mjtGeom, size: tuple[float, ...], position: tuple[float, ...]
) -> mujoco.MjvGeom:
    geom = scene.geoms[scene.ngeom]
    mujoco.mjv_initGeom(geom, shape, np.array(size), np.array(position), np.eye(3).ravel(), _GREEN)
    scene.ngeom += 1
    return geom
