# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""What a task asks for, drawn into MuJoCo's scene: for pictures only."""

import mujoco
import numpy as np
from jaxtyping import Float
from numpy import ndarray

_GREEN = np.array((0.18, 0.63, 0.34, 1.0), np.float32)
_WHITE, _RED = (np.array(colour, np.float32) for colour in ((0.95, 0.95, 0.92, 1.0), (0.84, 0.24, 0.16, 1.0)))
_GHOST = np.array((0.25, 0.30, 0.45, 0.35), np.float32)
_SHADE = np.array((0.07, 0.08, 0.10, 1.0), np.float32)
_METRES, _TALL = 6, 5  # m, how far around a body the ground is marked, and from one tall post to the next
_LEVEL = np.eye(3).ravel()
_BESIDE = 1.2  # m from the track, on the far side of it


def draw_goal(scene: mujoco.MjvScene, goal: Float[ndarray, "2"], radius: float = 0.3) -> None:
    """A disc on the ground around (x, y), and a pole in its middle; lengths in m."""
    disc = _add(scene, mujoco.mjtGeom.mjGEOM_CYLINDER, (radius, 0.01, 0.0), (*goal, 0.01))
    disc.rgba[3] = 0.6
    _add(scene, mujoco.mjtGeom.mjGEOM_CYLINDER, (0.03, 0.6, 0.0), (*goal, 0.6))


def draw_target(scene: mujoco.MjvScene, target: Float[ndarray, "3"]) -> None:
    """A ball at (x, y, z), and a pin that rises from it: it is seen where the ball is inside of something; in m."""
    x, y, z = map(float, target)
    _add(scene, mujoco.mjtGeom.mjGEOM_SPHERE, (0.025, 0.0, 0.0), (x, y, z)).rgba[3] = 0.7
    _add(scene, mujoco.mjtGeom.mjGEOM_CYLINDER, (0.004, 0.15, 0.0), (x, y, z + 0.15))


def draw_heading(scene: mujoco.MjvScene, start: Float[ndarray, "2"], heading: Float[ndarray, "2"]) -> None:
    """An arrow on the ground from `start` (m) a metre and a half along the unit vector `heading`."""
    arrow = _add(scene, mujoco.mjtGeom.mjGEOM_ARROW, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    near, far = (np.array((*(start + length * heading), 0.05)) for length in (0.9, 2.4))
    mujoco.mjv_connector(arrow, mujoco.mjtGeom.mjGEOM_ARROW, 0.06, near, far)


def draw_metres(scene: mujoco.MjvScene, position: Float[ndarray, "2"], slope: float, axes: int) -> None:
    """Marks every metre of the ground around a position (m), so that speed and distance can be seen.

    Where a body runs along x (`axes` 1), a post beside the track, and every fifth metre a taller red one with its
    number; on a plane a disc. `slope` in rad, about −y.
    """
    middle = [round(float(place)) for place in position]
    if axes == 1:
        for x in range(middle[0] - _METRES, middle[0] + _METRES + 1):
            tall = x % _TALL == 0
            height, colour = (0.3, _RED) if tall else (0.12, _WHITE)
            base = x * float(np.tan(slope))
            size = (0.025, height, 0.0)
            post = _add(scene, mujoco.mjtGeom.mjGEOM_CYLINDER, size, (float(x), _BESIDE, base + height), colour)
            if tall:
                post.label = f"{x} m"
        return
    for x in range(middle[0] - _METRES, middle[0] + _METRES + 1):
        for y in range(middle[1] - _METRES, middle[1] + _METRES + 1):
            colour = _RED if x % _TALL == 0 and y % _TALL == 0 else _WHITE
            place = (float(x), float(y), x * float(np.tan(slope)) + 0.01)
            _add(scene, mujoco.mjtGeom.mjGEOM_CYLINDER, (0.05, 0.005, 0.0), place, colour)


def draw_ghost(scene: mujoco.MjvScene, model: mujoco.MjModel, pose: Float[ndarray, " coordinate"]) -> None:
    """The model's body once more, translucent, with its joints at `pose` (qpos)."""
    data, first = mujoco.MjData(model), scene.ngeom
    data.qpos[:] = pose
    mujoco.mj_kinematics(model, data)
    moving = mujoco.mjtCatBit.mjCAT_DYNAMIC.value
    mujoco.mjv_addGeoms(model, data, mujoco.MjvOption(), mujoco.MjvPerturb(), moving, scene)
    for geom in scene.geoms[first : scene.ngeom]:
        geom.rgba[:], geom.matid = _GHOST, -1


def draw_shadow(scene: mujoco.MjvScene, slope: float, light: Float[ndarray, "3"]) -> None:
    """A body's shadow on a plane through the origin, in the place of the renderer's.

    The capsules and spheres of the scene so far, projected along `light` onto the plane that rises by `slope` (rad)
    along x, as flat shapes. OpenGL's shadow map draws the whole scene a second time, which took more than half of a
    software renderer's time for a picture.
    """
    scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
    normal = np.array((-np.sin(slope), 0.0, np.cos(slope)))
    bodies = [geom for geom in scene.geoms[: scene.ngeom] if geom.category == mujoco.mjtCatBit.mjCAT_DYNAMIC]
    for geom in bodies:
        if geom.type not in (mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_SPHERE):
            continue
        radius, half = float(geom.size[0]), float(geom.size[2]) * (geom.type == mujoco.mjtGeom.mjGEOM_CAPSULE)
        axis = np.array(geom.mat, float).reshape(3, 3)[:, 2]
        ends = [np.array(geom.pos, float) + sign * half * axis for sign in (-1, 1)]
        ends = [end - light * (end @ normal) / (light @ normal) + 0.01 * normal for end in ends]
        along = ends[1] - ends[0]
        length = float(np.linalg.norm(along))
        along = along / length if length > 1e-6 else np.array((np.cos(slope), 0.0, np.sin(slope)))
        across = normal[[1, 2, 0]] * along[[2, 0, 1]] - normal[[2, 0, 1]] * along[[1, 2, 0]]
        frame = np.array((along, across, normal)).T
        if half:
            size = (length / 2, radius, 0.001)
            _add(scene, mujoco.mjtGeom.mjGEOM_BOX, size, tuple((ends[0] + ends[1]) / 2), _SHADE, frame)
        for end in ends[: 2 if half else 1]:
            _add(scene, mujoco.mjtGeom.mjGEOM_CYLINDER, (radius, 0.001, 0.0), tuple(end), _SHADE, frame)


def _add(
    scene: mujoco.MjvScene,
    shape: mujoco.mjtGeom,
    size: tuple[float, ...],
    position: tuple[float, ...],
    colour: Float[ndarray, "4"] = _GREEN,
    frame: Float[ndarray, "3 3"] | None = None,
) -> mujoco.MjvGeom:
    geom = scene.geoms[scene.ngeom]
    turned = _LEVEL if frame is None else frame.ravel()
    mujoco.mjv_initGeom(geom, shape, np.array(size), np.array(position), turned, colour)
    scene.ngeom += 1
    return geom
