# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""Metaworld's own functions, bound to faster helpers that are equal to them in every bit, and its models made lean.

Why: metaworld shapes its rewards by functions written for arrays and calls them with numbers, a dozen times a step, and
looks up every body, site and geom by name at every use. That is most of the time of a step; with what is here, it is
less than the physics'. What is here does the same operations in the same order on Python's floats, which are the same
IEEE 754 doubles, and looks names up once. Whatever it was not written for goes to the original. A few classes' steps
are written out as a whole, see `known_classes.py`.

How it is checked: `tests/envs/metaworld/test_exactness.py` plays all 50 classes beside the installed metaworld and
compares observations, rewards and infos bit by bit (but for quaternions, whose last bits are free; `--exhaustive` plays
whole episodes with both reward functions), and every helper with its original.

How to do without: `METARL_METAWORLD_STOCK=1` in the environment (or `stock=True` for `SimulationOptions`) plays
metaworld's classes as they are. Nothing but the speed changes.
"""

import functools
import math
import os
import sys
import types
from collections.abc import Callable, Mapping
from typing import final

import mujoco
import numpy as np
from numpy import ndarray

from metarl.envs.metaworld import known_classes, scalars
from metarl.envs.metaworld.arm import Arm, find_arm
from metarl.envs.metaworld.scalar_rewards import caging_by_sides, caging_with_grip
from metarl.envs.metaworld.scalars import Number

Tolerance = Callable[..., float]
OBSERVATION_SIZE = 39
STOCK_VARIABLE = "METARL_METAWORLD_STOCK"


def stock_wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment asks for metaworld as it is.

    Raises:
        ValueError: the variable is neither 0 nor 1.
    """
    value = environment.get(STOCK_VARIABLE, "")
    if value not in ("", "0", "1"):
        raise ValueError(f"{STOCK_VARIABLE} can be 0 (bound to faster helpers) or 1 (as it is), got {value!r}")
    return value == "1"


# Arithmetic


def tolerance(original: Tolerance) -> Tolerance:
    """A faster `reward_utils.tolerance`: 1 within the bounds, less outside."""

    def fast(
        x: float,
        bounds: tuple[float | int, float | int] = (0.0, 0.0),
        margin: float | int = 0.0,
        sigmoid: str = "gaussian",
        value_at_margin: float = 0.1,
    ) -> float:
        if sigmoid != "long_tail" or not isinstance(x, float) or not margin > 0 or not 0 < value_at_margin < 1:
            return original(x, bounds=bounds, margin=margin, sigmoid=sigmoid, value_at_margin=value_at_margin)
        lower, upper = bounds
        if lower > upper:
            raise ValueError("Lower bound must be <= upper bound.")
        if lower <= x <= upper:
            return 1.0
        distance = float((lower - x if x < lower else x - upper) / margin)
        scale = math.sqrt(1 / value_at_margin - 1)
        return 1 / ((distance * scale) ** 2 + 1)

    return fast


def norm(x: ndarray | np.floating | float, *rest: object, **named: object) -> np.floating | ndarray:
    """`np.linalg.norm`, faster for vectors of doubles: √(x · x)."""
    if not rest and not named and type(x) is ndarray and x.strides == (8,) and x.dtype == np.float64:
        return np.sqrt(x.dot(x))
    return np.linalg.norm(x, *rest, **named)  # pyright: ignore[reportArgumentType, reportCallIssue]


def numpy_with_fast_norm() -> types.SimpleNamespace:
    """NumPy with `norm` in place of its own."""
    linalg = types.SimpleNamespace(**{**vars(np.linalg), "norm": norm})
    return types.SimpleNamespace(**{**vars(np), "linalg": linalg})


@final
class Rotation:
    """The part of SciPy's `Rotation` that metaworld uses: the quaternion of a rotation matrix."""

    def __init__(self, quaternion: tuple[float, float, float, float]) -> None:
        self._quaternion = quaternion

    @classmethod
    def from_matrix(cls, matrix: ndarray) -> "Rotation":
        return cls(scalars.quaternion(matrix.ravel().tolist()))

    def as_quat(self) -> ndarray:
        return np.array(self._quaternion)


# Looking up by name, and binding


@final
class NamedParts:
    """An `MjData` whose bodies, sites, geoms and joints are looked up by name once."""

    def __init__(self, data: mujoco.MjData) -> None:
        self._data = data
        self.body, self.site = functools.cache(data.body), functools.cache(data.site)
        self.geom, self.joint = functools.cache(data.geom), functools.cache(data.joint)
        self.qpos, self.qvel, self.site_xpos = data.qpos, data.qvel, data.site_xpos

    def __getattr__(self, name: str) -> object:
        return getattr(self._data, name)


def lean_model(path: str) -> mujoco.MjModel:
    """A model without what cannot be touched, has no name and so cannot be asked for: it moves the same.

    The robot is drawn by meshes, for whose bounding boxes MuJoCo clears 100 kB of marks in every one of its steps.
    """
    spec = mujoco.MjSpec.from_file(path)
    for geom in spec.geoms:
        if geom.name:  # what a sensor refers to is kept
            spec.add_sensor(type=mujoco.mjtSensor.mjSENS_FRAMEPOS, objtype=mujoco.mjtObj.mjOBJ_GEOM, objname=geom.name)
    spec.compiler.discardvisual = True
    model = spec.compile()
    model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_SENSOR)
    return model


class FastMethods:
    """Methods that stand before metaworld's own; `fast_class` puts them there."""

    data: mujoco.MjData
    _prev_obs: ndarray
    _partially_observable: bool
    _get_pos_objects: Callable[[], ndarray]
    _get_quat_objects: Callable[[], ndarray]
    _get_pos_goal: Callable[[], ndarray]
    fullpath: str
    obj_init_pos: ndarray
    init_tcp: ndarray
    arm: Arm

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """Gymnasium's, without what is only to be seen."""
        model = lean_model(self.fullpath)
        return model, mujoco.MjData(model)

    def look_up(self) -> None:
        """Called once, when the simulation is there: finds what every step needs."""
        self.arm = find_arm(self.data)

    def get_endeff_pos(self) -> ndarray:
        return self.data.body("hand").xpos

    def observe(self, low: ndarray, high: ndarray) -> ndarray:
        """The observation after a step, within its bounds: [now (18), before (18), goal or zeros (3)]."""
        now = np.zeros(18)
        now[:3] = self.arm.hand
        right, left = self.arm.claws
        apart = right - left
        now[3] = min(max(math.sqrt(apart.dot(apart)) / 0.1, 0.0), 1.0)
        positions, quaternions = self._get_pos_objects(), self._get_quat_objects()
        if len(positions) == 3:
            now[4:7], now[7:11] = positions, quaternions
        else:
            for index in range(len(positions) // 3):
                start = 4 + 7 * index
                now[start : start + 3] = positions[3 * index : 3 * index + 3]
                now[start + 3 : start + 7] = quaternions[4 * index : 4 * index + 4]
        observation = np.empty(OBSERVATION_SIZE)
        observation[:18], observation[18:36] = now, self._prev_obs
        observation[36:] = 0.0 if self._partially_observable else self._get_pos_goal()
        self._prev_obs = now
        np.maximum(observation, low, out=observation)
        return np.minimum(observation, high, out=observation)

    @property
    def tcp_center(self) -> ndarray:
        right, left = self.arm.tips
        return (right + left) / 2.0

    def touching_object(self, object_geom_id: int) -> bool:
        """Whether both pads press on the object, from the contacts of the last `mj_forward`."""
        return self.arm.holds(object_geom_id)


def gripper_caging_reward(
    self: FastMethods,
    action: ndarray,
    obj_pos: ndarray,
    obj_radius: float | int,
    pad_success_thresh: float | int,
    object_reach_radius: float | int,
    xz_thresh: float | int,
    desired_gripper_effort: float | int = 1.0,
    high_density: bool = False,
    medium_density: bool = False,
) -> Number:
    """`SawyerXYZEnv._gripper_caging_reward` on numbers."""
    if high_density and medium_density:
        raise ValueError("Can only be either high_density or medium_density")
    obj, tcp = obj_pos.tolist(), self.arm.tcp()
    starts = self.obj_init_pos.tolist(), self.init_tcp.tolist()
    caging = caging_by_sides(self.arm, obj, tcp, starts, obj_radius, pad_success_thresh, xz_thresh)
    both = caging_with_grip(caging, action[-1], desired_gripper_effort)
    if high_density:
        both = (both + caging) / 2
    if medium_density:
        margin = abs(scalars.distance(*starts) - object_reach_radius)
        reached = scalars.long_tail(scalars.distance(obj, tcp), 0.0, object_reach_radius, margin)
        both = (both + reached) / 2
    return both


def fast_class(official: type, before: type, base: type, reward_utils: types.ModuleType) -> type:
    """A class of metaworld's with its methods bound to the helpers above.

    Args:
        official: the class.
        before: what stands before it in the method resolution order, behind `FastMethods`.
        base: `SawyerXYZEnv`, whose caging reward is bound as well.
        reward_utils: metaworld's module of reward functions.
    """
    fast_tolerance = tolerance(reward_utils.tolerance)
    helpers = {
        "np": numpy_with_fast_norm(),
        "Rotation": Rotation,
        "tolerance": fast_tolerance,
        "reward_utils": types.SimpleNamespace(**{**vars(reward_utils), "tolerance": fast_tolerance}),
    }
    names = {**vars(sys.modules[official.__module__]), **helpers}
    if known_classes.as_known(base.__module__, reward_utils.__name__):
        caging = gripper_caging_reward
    else:
        caging = _with_names(vars(base)["_gripper_caging_reward"], {**vars(sys.modules[base.__module__]), **helpers})
    methods: dict[str, object] = {"_gripper_caging_reward": caging}
    for attribute, value in vars(official).items():
        if isinstance(value, types.FunctionType) and attribute not in ("__init__", "reset_model"):
            methods[attribute] = _with_names(_undecorated(value), names)
        elif isinstance(value, staticmethod):
            methods[attribute] = staticmethod(_with_names(value.__func__, names))
    fast = type(f"Fast{official.__name__}", (FastMethods, before, official), methods)
    names[official.__name__] = fast  # static methods are called by the class's name
    return fast


def _undecorated(function: types.FunctionType) -> types.FunctionType:
    """The function under metaworld's check that a task is set."""
    if function.__closure__ is None or function.__name__ != "inner":
        return function
    inside = [cell.cell_contents for cell in function.__closure__]
    return next(content for content in inside if isinstance(content, types.FunctionType))


def _with_names(function: Callable[..., object], names: dict[str, object]) -> types.FunctionType:
    """The same function with its module's names taken from `names`."""
    assert isinstance(function, types.FunctionType)
    bound = types.FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    bound.__kwdefaults__ = function.__kwdefaults__
    return bound
