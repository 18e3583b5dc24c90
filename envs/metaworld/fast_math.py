# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""Metaworld's own functions, bound to faster helpers that are equal to them in every bit. THE place where that is done.

Why: metaworld shapes its rewards by functions written for arrays and calls them with numbers, a dozen times a step, and
looks up every body, site and geom by name at every use. That is most of the time of a step; with what is here, it is
less than the physics'. What is here does the same operations in the same order on Python's floats, which are the same
IEEE 754 doubles, and looks names up once. Whatever it was not written for goes to the original.

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

from metarl.envs.metaworld import scalar_rewards

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
    """The part of SciPy's `Rotation` that metaworld uses: a quaternion (x, y, z, w) of a rotation matrix.

    Of the four ways to write it the one with the largest first term is taken (Markley 2008), as SciPy does, so that
    the sign is the same too; the last bit need not be.
    """

    def __init__(self, quaternion: tuple[float, float, float, float]) -> None:
        self._quaternion = quaternion

    @classmethod
    def from_matrix(cls, matrix: ndarray) -> "Rotation":
        (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = matrix.tolist()
        trace = xx + yy + zz
        largest = max(xx, yy, zz, trace)
        if xx == largest:
            return cls((1 - trace + 2 * xx, yx + xy, zx + xz, zy - yz))
        if yy == largest:
            return cls((yx + xy, 1 - trace + 2 * yy, zy + yz, xz - zx))
        if zz == largest:
            return cls((zx + xz, zy + yz, 1 - trace + 2 * zz, yx - xy))
        return cls((zy - yz, xz - zx, yx - xy, 1 + trace))

    def as_quat(self) -> ndarray:
        x, y, z, w = self._quaternion
        length = math.sqrt(x * x + y * y + z * z + w * w)
        return np.array((x / length, y / length, z / length, w / length))


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


class FastMethods:
    """Methods that stand before metaworld's own; `fast_class` puts them there."""

    data: mujoco.MjData
    _prev_obs: ndarray
    _partially_observable: bool
    _get_pos_objects: Callable[[], ndarray]
    _get_quat_objects: Callable[[], ndarray]
    _get_pos_goal: Callable[[], ndarray]
    _hand: ndarray
    _claws: tuple[ndarray, ndarray]
    _tips: tuple[ndarray, ndarray]
    _pad_geoms: tuple[int, int]
    pads: tuple[ndarray, ndarray]
    """Where the left and the right one are."""

    def look_up(self) -> None:
        """Called once, when the simulation is there: finds what every step needs."""
        data = self.data
        self._hand = data.body("hand").xpos
        self._claws = data.body("rightclaw").xpos, data.body("leftclaw").xpos
        self._tips = data.site("rightEndEffector").xpos, data.site("leftEndEffector").xpos
        self._pad_geoms = data.geom("leftpad_geom").id, data.geom("rightpad_geom").id
        self.pads = data.body("leftpad").xpos, data.body("rightpad").xpos

    def get_endeff_pos(self) -> ndarray:
        return self.data.body("hand").xpos

    def observe(self, low: ndarray, high: ndarray) -> ndarray:
        """The observation after a step, within its bounds: [now (18), before (18), goal or zeros (3)]."""
        now = np.zeros(18)
        now[:3] = self._hand
        right, left = self._claws
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
        right, left = self._tips
        return (right + left) / 2.0

    def tcp(self) -> tuple[float, float, float]:
        """The same as numbers."""
        (x, y, z), (other_x, other_y, other_z) = self._tips[0].tolist(), self._tips[1].tolist()
        return (x + other_x) / 2.0, (y + other_y) / 2.0, (z + other_z) / 2.0

    def place(self, site: str) -> list[float]:
        """Where a site is."""
        return self.data.site(site).xpos.tolist()

    def joint_position(self, name: str) -> float:
        """Of a joint of one degree of freedom."""
        return self.data.joint(name).qpos.item()

    def touching_object(self, object_geom_id: int) -> bool:
        """Whether both pads press on the object, from the contacts of the last `mj_forward`."""
        contacts = self.data.contact
        pairs = [(index, pair) for index, pair in enumerate(contacts.geom.tolist()) if object_geom_id in pair]
        by_pad = [[index for index, pair in pairs if pad in pair] for pad in self._pad_geoms]
        if not all(by_pad):
            return False
        addresses, forces = contacts.efc_address, self.data.efc_force
        return all(sum(forces[addresses[index]] for index in mine) > 0 for mine in by_pad)


def fast_class(official: type, reward: str, before: type, base: type, reward_utils: types.ModuleType) -> type:
    """A class of metaworld's with its methods bound to the helpers above, and its rewards to `scalar_rewards.py`'s.

    Args:
        official: the class.
        reward: which of its reward functions it will be constructed with.
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
    shared = base.__module__, reward_utils.__name__
    if scalar_rewards.as_known(*shared):
        caging = scalar_rewards.gripper_caging_reward
    else:
        caging = _with_names(vars(base)["_gripper_caging_reward"], {**vars(sys.modules[base.__module__]), **helpers})
    methods: dict[str, object] = {"_gripper_caging_reward": caging}
    for attribute, value in vars(official).items():
        if isinstance(value, types.FunctionType) and attribute not in ("__init__", "reset_model"):
            methods[attribute] = _with_names(_undecorated(value), names)
        elif isinstance(value, staticmethod):
            methods[attribute] = staticmethod(_with_names(value.__func__, names))
    score = scalar_rewards.SCORES.get(official.__module__.rpartition(".")[2])
    if score is not None and reward == "v2" and scalar_rewards.as_known(*shared, official.__module__):
        methods["score"] = score
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
