# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""Classes of metaworld's whose steps are written out: ML10's training classes with their second reward functions.

Each was written after one text of metaworld's, and stands in for it only where the installed text is that one
(`FINGERPRINTS`): after any change of metaworld's, its own functions are called again, more slowly.
`tests/envs/metaworld/test_known_classes.py` fails where that happens, and `test_exactness.py` compares every number.
"""

import dataclasses
import hashlib
import inspect
import math
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import mujoco
import numpy as np
from numpy import ndarray

from metarl.envs.metaworld import scalar_rewards
from metarl.envs.metaworld.arm import find_arm
from metarl.envs.metaworld.scalar_rewards import Scene, Score
from metarl.envs.metaworld.scalars import distance, quaternion, sums_in_order

Outcome = tuple[ndarray, float, tuple[float, ...]]
"""An observation, a reward and the terms of metaworld's `info`."""
_LAST = "metarl's last observation, without its zeros"  # a name that is no attribute of metaworld's


_SHOWN = 11  # numbers of hand, opening and one object, which observations begin with
_SIZE, _BEFORE, _GOAL = 39, 18, 36  # of an observation, and where its parts begin
_PACK = struct.Struct(f"{_SHOWN}d").pack_into

View = Callable[[mujoco.MjData], ndarray]
"""Finds an array in a simulation, which stays up to date."""


@final
@dataclasses.dataclass(frozen=True)
class Known:
    """What is observed of a class's object, and the reward."""

    place: View
    """Where the object is."""
    score: Score
    offset: tuple[float, float, float] | None = None
    """From there to the point that is observed."""
    turn: View | None = None
    """The object's rotation, a quaternion or a matrix; None where none is observed."""
    held: str | None = None
    """The geom that the reward asks whether it is held."""
    more: tuple[View, ...] = ()
    """What else the reward wants."""


@final
class Player:
    """What metaworld's environment does after a step of the simulation: observes, and computes the reward.

    Of the environment it needs the attributes that it had after the reset. It is one type for all of metaworld's
    classes: Python remembers where an attribute is found for one type at a time.
    """

    __slots__ = "_bounds", "_known", "_place", "_scene", "_turn"

    def __init__(self, known: Known, data: mujoco.MjData, low: ndarray, high: ndarray) -> None:
        """`low` and `high` are where metaworld observes the hand at most."""
        geom = -1 if known.held is None else data.geom(known.held).id
        self._scene = Scene(find_arm(data), geom, tuple(view(data) for view in known.more))
        self._known, self._place = known, known.place(data)
        self._turn = None if known.turn is None else known.turn(data).ravel()
        self._bounds = *low.tolist(), *high.tolist()

    def begin(self, observation: ndarray, kept: dict[str, object]) -> None:
        """Notes in an episode's attributes how its first observation began."""
        now = observation[:_SHOWN].tolist()
        kept[_LAST] = [*self._within(*now[:3]), *now[3:]]

    def outcome(self, low: ndarray, high: ndarray, action: ndarray, kept: dict[str, Any]) -> Outcome | None:
        """See `metaworld_api.SteppedEnv.outcome`; `kept` are the episode's attributes."""
        arm, offset = self._scene.arm, self._known.offset
        x, y, z = self._place.tolist()
        if offset is not None:
            x, y, z = x + offset[0], y + offset[1], z + offset[2]
        opening = min(max(distance(arm.claws[0].tolist(), arm.claws[1].tolist()) / 0.1, 0.0), 1.0)
        now = [*self._within(*arm.hand.tolist()), opening, x, y, z, *self._rotation()]
        if not math.isfinite(sum(now)):
            return None
        observation = np.zeros(_SIZE)
        numbers = observation.data
        _PACK(numbers, 0, *now)
        _PACK(numbers, _BEFORE * observation.itemsize, *kept[_LAST])
        if not kept["_partially_observable"]:
            kept["_target_pos"].clip(low[_GOAL:], high[_GOAL:], out=observation[_GOAL:])
        kept[_LAST] = now
        return observation, *self._known.score(self._scene, kept, now, action)

    def _within(self, x: float, y: float, z: float) -> tuple[float, float, float]:
        low_x, low_y, low_z, high_x, high_y, high_z = self._bounds
        return min(max(x, low_x), high_x), min(max(y, low_y), high_y), min(max(z, low_z), high_z)

    def _rotation(self) -> Sequence[float]:
        if self._turn is None:
            return 0.0, 0.0, 0.0, 0.0
        numbers = self._turn.tolist()
        return numbers if len(numbers) == 4 else quaternion(numbers)


def _view(kind: str, name: str, what: str = "xpos") -> View:
    """Of a `body`, a `geom`, a `site` or a `joint`: `xpos`, `xquat`, `xmat` or `qpos`."""
    return lambda data: getattr(getattr(data, kind)(name), what)


_OBJ, _OBJ_GEOM = _view("body", "obj"), _view("geom", "objGeom", "xmat")
_BOXES = [f"{corner}_corner_collision_box_{box}" for box in (1, 2) for corner in ("bottom_right", "top_left")]
KNOWN: Mapping[str, Known] = {
    "sawyer_reach_v3": Known(_OBJ, scalar_rewards.reach, turn=_OBJ_GEOM),
    "sawyer_push_v3": Known(_OBJ, scalar_rewards.push, turn=_OBJ_GEOM, held="objGeom"),
    "sawyer_pick_place_v3": Known(_OBJ, scalar_rewards.pick_place, turn=_OBJ_GEOM, held="objGeom"),
    "sawyer_door_v3": Known(
        _view("geom", "handle"),
        scalar_rewards.door_open,
        turn=_view("geom", "handle", "xmat"),
        more=(_view("joint", "doorjoint", "qpos"),),
    ),
    "sawyer_drawer_close_v3": Known(
        _view("body", "drawer_link"), scalar_rewards.drawer_close, offset=(0.0, -0.16, 0.05)
    ),
    "sawyer_button_press_topdown_v3": Known(
        _view("body", "button"),
        scalar_rewards.button_press_topdown,
        offset=(0.0, 0.0, 0.193),
        turn=_view("body", "button", "xquat"),
    ),
    "sawyer_peg_insertion_side_v3": Known(
        _view("site", "pegGrasp"),
        scalar_rewards.peg_insert_side,
        turn=_view("site", "pegGrasp", "xmat"),
        more=tuple(_view("site", name) for name in ("pegHead", *_BOXES)),
    ),
    "sawyer_window_open_v3": Known(_view("site", "handleOpenStart"), scalar_rewards.window_open),
    "sawyer_sweep_v3": Known(_OBJ, scalar_rewards.sweep, turn=_view("body", "obj", "xquat"), held="objGeom"),
    "sawyer_basketball_v3": Known(
        _view("body", "bsktball"), scalar_rewards.basketball, turn=_view("body", "bsktball", "xquat")
    ),
}
"""By the file of metaworld's that a class stands in."""
FINGERPRINTS: Mapping[str, str] = {
    "sawyer_xyz_env": "4282580b80befc55",
    "reward_utils": "46478c0139f923f0",
    "sawyer_reach_v3": "6403bb039f0627c3",
    "sawyer_push_v3": "17aa389f1e77f2ed",
    "sawyer_pick_place_v3": "1504b7b5bbfae371",
    "sawyer_door_v3": "8169e20d95a476d7",
    "sawyer_drawer_close_v3": "5219b0c3f87fd843",
    "sawyer_button_press_topdown_v3": "5f6f7f06c0d6d121",
    "sawyer_peg_insertion_side_v3": "27aae3fc1adb8944",
    "sawyer_window_open_v3": "efdf8cd4a1a83ffb",
    "sawyer_sweep_v3": "540b406ac8296689",
    "sawyer_basketball_v3": "d2f5f2e6db82f6b4",
}
"""Of the texts that they were written after, metaworld 3.1.1's; the first two are what all classes share."""


def fingerprint(module: str) -> str:
    """Of a loaded module's text; empty where there is none."""
    try:
        return hashlib.sha256(inspect.getsource(sys.modules[module]).encode()).hexdigest()[:16]
    except OSError:
        return ""


def as_known(*modules: str) -> bool:
    """Whether metaworld's modules have the texts that these were written after, and NumPy adds up as expected."""
    return sums_in_order() and all(fingerprint(name) == FINGERPRINTS.get(name.rpartition(".")[2]) for name in modules)


def known_class(official: type, reward: str, *shared: str) -> Known | None:
    """What is written out of a class; None where metaworld's own functions are to be called.

    Args:
        official: the class.
        reward: which of its reward functions.
        shared: modules of metaworld's that all classes share.
    """
    known = KNOWN.get(official.__module__.rpartition(".")[2])
    return known if known is not None and reward == "v2" and as_known(*shared, official.__module__) else None
