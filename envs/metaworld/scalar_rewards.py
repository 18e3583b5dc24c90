# pyright: reportPrivateUsage=false
# (Rewards read what metaworld's environments keep to themselves.)
"""Rewards of metaworld's that are written out for numbers: the same operations in the same order, without arrays.

Why: of a step's Python most was small arrays: a norm of three numbers takes NumPy ten times as long as they take to
square, add and root. What is here are the second reward functions of ML10's training classes, and the caging reward
that other classes share.

Why it can be trusted: each was written after one text of metaworld's, and stands in for it only where the installed
text is that one (`FINGERPRINTS`); after any change of metaworld's, its own function is called again, more slowly.
`tests/envs/metaworld/test_scalar_rewards.py` fails where that happens, and `test_exactness.py` compares every bit. What
a function reads of an environment it reads anew in every step, as metaworld does: some of it are views into the
simulation.

Numbers are Python's floats, which are the same IEEE 754 doubles as NumPy's, with one exception. `effort`, what the
gripper is told, keeps the type of the actions: metaworld's arithmetic with it is in single precision where they are.
"""

import functools
import hashlib
import inspect
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy import ndarray

Scores = tuple[float, tuple[float, ...]]
"""The reward, and what metaworld's `info` holds beside it, in the order of `metaworld_api.TERMS`."""
Vector = Sequence[float]
Number = float | np.floating
"""Of the actions' precision, where it comes of `effort`."""

_LONG_TAIL = math.sqrt(1 / 0.1 - 1)  # a tolerance's value at its margin is 0.1
_GAUSSIAN = float(np.sqrt(-2 * np.log(0.1)))


@runtime_checkable
class Scored(Protocol):
    """What rewards read of an environment."""

    TARGET_RADIUS: float
    _target_pos: ndarray
    obj_init_pos: ndarray
    hand_init_pos: ndarray
    init_tcp: ndarray
    init_left_pad: ndarray
    init_right_pad: ndarray
    pads: tuple[ndarray, ndarray]
    """Where the left and the right one are."""

    def tcp(self) -> tuple[float, float, float]:
        """The point between the fingertips."""
        ...

    def place(self, site: str) -> list[float]:
        """Where a site is."""
        ...

    def joint_position(self, name: str) -> float:
        """Of a joint of one degree of freedom."""
        ...

    def touching_object(self, object_geom_id: int) -> bool:
        """Whether both pads press on it."""
        ...

    def _get_id_main_object(self) -> int: ...


@runtime_checkable
class Button(Scored, Protocol):
    """... of one with a button."""

    _obj_to_target_init: float


@runtime_checkable
class Peg(Scored, Protocol):
    """... of one with a peg."""

    peg_head_pos_init: ndarray


@runtime_checkable
class Window(Scored, Protocol):
    """... of one with a window."""

    window_handle_pos_init: ndarray


@runtime_checkable
class Swept(Scored, Protocol):
    """... of one with a block to sweep."""

    OBJ_RADIUS: float


Score = Callable[[Any, ndarray, ndarray], Scores]
"""From an environment, an observation and an action."""


# Arithmetic


@functools.cache
def sums_in_order() -> bool:
    """Whether NumPy's inner product of a few doubles is their products' sum from left to right, each rounded.

    With fused multiplications and additions, which other processors' libraries use, last bits are others: then nothing
    of this module is to be used.
    """
    vectors = np.random.default_rng(0).normal(size=(500, 3)) * np.array([1.0, 0.1, 3.0])
    return all(
        float(vector[:size].dot(vector[:size])) == sum_of_squares(vector[:size].tolist())
        for vector in vectors
        for size in (1, 2, 3)
    )


def sum_of_squares(numbers: Sequence[float]) -> float:
    """From left to right; Python's own `sum` is more exact than NumPy in its newer versions."""
    total = 0.0
    for number in numbers:
        total += number * number
    return total


def length(x: float, y: float, z: float) -> float:
    """`np.linalg.norm` of a vector."""
    return math.sqrt(x * x + y * y + z * z)


def distance(one: Vector, other: Vector) -> float:
    """Between two points."""
    x, y, z = one[0] - other[0], one[1] - other[1], one[2] - other[2]
    return math.sqrt(x * x + y * y + z * z)


def distance_xz(one: Vector, other: Vector) -> float:
    """Between two points seen along the y axis."""
    x, z = one[0] - other[0], one[2] - other[2]
    return math.sqrt(x * x + z * z)


def long_tail(x: float, lower: float | int, upper: float | int, margin: float) -> float:
    """`reward_utils.tolerance` with the sigmoid `long_tail`: 1 within the bounds, less outside."""
    if margin < 0:
        raise ValueError(f"`margin` must be non-negative. Current value: {margin}")
    if lower <= x <= upper:
        return 1.0
    if margin == 0:
        return 0.0
    return 1 / (((lower - x if x < lower else x - upper) / margin * _LONG_TAIL) ** 2 + 1)


def gaussian(x: float, upper: float, margin: float) -> float:
    """`reward_utils.tolerance` of a distance with the sigmoid `gaussian`."""
    if margin < 0:
        raise ValueError(f"`margin` must be non-negative. Current value: {margin}")
    if x <= upper:
        return 1.0
    if margin == 0:
        return 0.0
    # NumPy's exponential: the standard library's has other last bits.
    return float(np.exp(-0.5 * ((x - upper) / margin * _GAUSSIAN) ** 2))


def hamacher_product(a: Number, b: Number) -> Number:
    """`reward_utils.hamacher_product`; 0 where both are."""
    if not (0.0 <= a <= 1.0 and 0.0 <= b <= 1.0):
        raise ValueError(f"{a} and {b} must range between 0 and 1")
    denominator = a + b - a * b
    return a * b / denominator if denominator > 0 else 0.0


def in_prism(point: Vector, zero: Vector, one: Vector) -> float:
    """`reward_utils.rect_prism_tolerance`: grows from one corner of a prism to the other; 1 outside."""
    scale = 1.0
    for x, low, high in zip(point, zero, one, strict=True):
        if not (low <= x <= high if high >= low else high <= x <= low):
            return 1.0
        scale *= (x - low) / (high - low)
    return scale


def closing(effort: Number) -> Number:
    """How much the gripper is told to close, from 0 to 1, in the actions' precision."""
    return min(max(0.0, effort), 1.0)


# Caging: how far the object is between the gripper's pads


def gripper_caging_reward(
    env: Scored,
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
    """`SawyerXYZEnv._gripper_caging_reward`."""
    if high_density and medium_density:
        raise ValueError("Can only be either high_density or medium_density")
    obj, tcp = obj_pos.tolist(), env.tcp()
    caging = _shared_caging(env, obj, tcp, obj_radius, pad_success_thresh, xz_thresh)
    gripping = 0.0
    if caging > 0.97:
        gripping = min(max(0.0, action[-1]), desired_gripper_effort) / desired_gripper_effort
    both = hamacher_product(caging, gripping)
    if high_density:
        both = (both + caging) / 2
    if medium_density:
        margin = abs(distance(env.obj_init_pos.tolist(), env.init_tcp.tolist()) - object_reach_radius)
        both = (both + long_tail(distance(obj, tcp), 0.0, object_reach_radius, margin)) / 2
    return both


def _shared_caging(
    env: Scored, obj: Vector, tcp: Vector, radius: float | int, pad_thresh: float | int, xz_thresh: float | int
) -> float:
    start, sides = env.obj_init_pos.tolist(), list[float]()
    for pad in env.pads:
        y = pad.item(1)
        sides.append(long_tail(abs(y - obj[1]), radius, pad_thresh, abs(abs(y - start[1]) - pad_thresh)))
    margin = distance_xz(start, env.init_tcp.tolist()) - xz_thresh
    along_xz = long_tail(distance_xz(tcp, obj), 0.0, xz_thresh, margin)
    return float(hamacher_product(hamacher_product(sides[0], sides[1]), along_xz))


def _dense_caging(env: Scored, action: ndarray, obj: Vector, tcp: Vector, radius: float, pads: float) -> Number:
    """The shared reward as several classes call it."""
    caging = _shared_caging(env, obj, tcp, radius, pads, 0.005)
    # The division by the desired effort, 1, makes no difference but to whole numbers.
    return (hamacher_product(caging, closing(action[-1]) if caging > 0.97 else 0.0) + caging) / 2


def _pads_apart(env: Scored, obj: Vector) -> tuple[float, float, float, float]:
    """Of classes with caging rewards of their own: the object's way to the pads, and their margins; right, left."""
    y, (left, right) = obj[1], env.pads
    margins = [abs(abs(y - start.item(1)) - 0.05) for start in (env.init_right_pad, env.init_left_pad)]
    return y - right.item(1), left.item(1) - y, margins[0], margins[1]


def _along_xz(env: Scored, obj: Vector, tcp: Vector) -> float:
    margin = distance_xz(env.obj_init_pos.tolist(), env.init_tcp.tolist()) - 0.005
    return long_tail(distance_xz(tcp, obj), 0.0, 0.005, margin)


# The classes


def reach(env: Scored, observation: ndarray, action: ndarray) -> Scores:
    """`reach-v3`."""
    target = env._target_pos.tolist()
    away = distance(env.tcp(), target)
    in_place = long_tail(away, 0.0, 0.05, distance(env.hand_init_pos.tolist(), target))
    return 10 * in_place, (float(away <= 0.05), away, 1.0, away, in_place, away)


def push(env: Scored, observation: ndarray, action: ndarray) -> Scores:
    """`push-v3`."""
    opened, *obj = observation[3:7].tolist()
    target, start, tcp = env._target_pos.tolist(), env.obj_init_pos.tolist(), env.tcp()
    away, to_obj = distance(obj, target), distance(obj, tcp)
    in_place = long_tail(away, 0.0, env.TARGET_RADIUS, distance(start, target))
    grasped = _dense_caging(env, action, obj, tcp, 0.015, 0.05)
    reward = 2 * grasped
    if to_obj < 0.02 and opened > 0:
        reward += 1.0 + reward + 5.0 * in_place
    if away < env.TARGET_RADIUS:
        reward = 10.0
    lifted = opened > 0 and obj[2] - 0.02 > start[2] and env.touching_object(env._get_id_main_object())
    success, near = float(away <= env.TARGET_RADIUS), float(to_obj <= 0.03)
    return float(reward), (success, near, float(lifted), float(grasped), in_place, away)


def pick_place(env: Scored, observation: ndarray, action: ndarray) -> Scores:
    """`pick-place-v3`."""
    opened, *obj = observation[3:7].tolist()
    target, start, tcp = env._target_pos.tolist(), env.obj_init_pos.tolist(), env.tcp()
    away, to_obj = distance(obj, target), distance(obj, tcp)
    in_place = long_tail(away, 0.0, 0.05, distance(start, target))
    to_right, to_left, right_margin, left_margin = _pads_apart(env, obj)
    right, left = long_tail(to_right, 0.015, 0.05, right_margin), long_tail(to_left, 0.015, 0.05, left_margin)
    caging = hamacher_product(hamacher_product(left, right), _along_xz(env, obj, tcp))
    grasped = (hamacher_product(caging, closing(action[-1]) if caging > 0.97 else 0.0) + caging) / 2
    reward = hamacher_product(grasped, in_place)
    if to_obj < 0.02 and opened > 0 and obj[2] - 0.01 > start[2]:
        reward += 1.0 + 5.0 * in_place
    if away < 0.05:
        reward = 10.0
    lifted = opened > 0 and obj[2] - 0.02 > start[2] and env.touching_object(env._get_id_main_object())
    success, near = float(away <= 0.07), float(to_obj <= 0.03)
    return float(reward), (success, near, float(lifted), float(grasped), in_place, away)


def door_open(env: Scored, observation: ndarray, action: ndarray) -> Scores:
    """`door-open-v3`."""
    hand_x, hand_y, hand_z, _, handle_x, handle_y, handle_z = observation[:7].tolist()
    theta, effort = env.joint_position("doorjoint"), action[3]
    grab = float((min(max(effort, -1), 1) + 1.0) / 2.0)
    x, y = hand_x - (handle_x + -0.05), hand_y - handle_y
    radius = math.sqrt(x * x + y * y)
    # NumPy's logarithm: the standard library's may have other last bits.
    floor = 0.0 if radius <= 0.12 else 0.04 * float(np.log(radius - 0.12)) + 0.4
    above = 1.0 if hand_z >= floor else long_tail(floor - hand_z, 0.0, 0.01, floor / 2.0)
    near = long_tail(length(x - 0.05, y - 0.03, hand_z - handle_z - -0.01), 0.0, 0.12 / 2.0, 0.5)
    ready = float(hamacher_product(above, near))
    turned = long_tail(math.pi / 2.0 + math.pi / 6 - -theta, 0.0, 0.5, math.pi / 3.0)
    opened = 0.2 * float(theta < -math.pi / 90.0) + 0.8 * turned
    success = abs(handle_x - env._target_pos.item(0)) <= 0.08
    reward = 10.0 if success else 2.0 * hamacher_product(ready, grab) + 8.0 * opened
    return float(reward), (float(success), ready, float(grab >= 0.5), grab, opened, 0.0)


def drawer_close(env: Scored, observation: ndarray, action: ndarray) -> Scores:
    """`drawer-close-v3`."""
    obj = observation[4:7].tolist()
    target, start, tcp = env._target_pos.tolist(), env.obj_init_pos.tolist(), env.tcp()
    away, to_obj, radius = distance(obj, target), distance(obj, tcp), env.TARGET_RADIUS
    in_place = long_tail(away, 0.0, radius, abs(distance(start, target) - radius))
    near = gaussian(to_obj, 0.005, abs(distance(start, env.init_tcp.tolist()) - 0.005))
    grasped = hamacher_product(near, closing(action[-1]))
    closed = away <= radius + 0.015
    reward = 1.0 if closed else hamacher_product(grasped, in_place)
    reward *= 10
    return float(reward), (float(closed), float(to_obj <= 0.01), 1.0, float(grasped), in_place, away)


def button_press_topdown(env: Button, observation: ndarray, action: ndarray) -> Scores:
    """`button-press-topdown-v3`."""
    opened, *obj = observation[3:7].tolist()
    to_obj, away = distance(obj, env.tcp()), abs(env._target_pos.item(2) - obj[2])
    near = long_tail(to_obj, 0.0, 0.01, distance(obj, env.init_tcp.tolist()))
    pressed = long_tail(away, 0.0, 0.005, float(env._obj_to_target_init))
    reward = 5 * hamacher_product(1 - opened, near)
    if to_obj <= 0.03:
        reward += 5 * pressed
    return float(reward), (float(away <= 0.024), float(to_obj <= 0.05), float(opened > 0), near, pressed, away)


def peg_insert_side(env: Peg, observation: ndarray, action: ndarray) -> Scores:
    """`peg-insert-side-v3`."""
    opened, *obj = observation[3:7].tolist()
    target, start, tcp = env._target_pos.tolist(), env.obj_init_pos.tolist(), env.tcp()
    head, head_start = env.place("pegHead"), env.peg_head_pos_init.tolist()
    to_obj, away = distance(obj, tcp), _weighted(head, target, 2.0, 2.0)
    margin = _weighted(head_start, target, 2.0, 2.0)
    boxes = [
        in_prism(
            head,
            env.place(f"bottom_right_corner_collision_box_{box}"),
            env.place(f"top_left_corner_collision_box_{box}"),
        )
        for box in (2, 1)
    ]
    in_place = float(hamacher_product(long_tail(away, 0.0, env.TARGET_RADIUS, margin), hamacher_product(*boxes)))
    lifted = opened > 0 and obj[2] - 0.01 > start[2]
    held = lifted and to_obj < 0.08
    grasped = _dense_caging(env, action, obj, tcp, 0.0075, 0.03)
    if held:
        grasped = 1.0
    reward = hamacher_product(grasped, in_place)
    if held:
        reward += 1.0 + 5 * in_place
    if away <= 0.07:
        reward = 10.0
    success, near = float(away <= 0.07), float(to_obj <= 0.03)
    return float(reward), (success, near, float(lifted and to_obj < 0.02), float(grasped), in_place, away)


def window_open(env: Window, observation: ndarray, action: ndarray) -> Scores:
    """`window-open-v3`."""
    obj, tcp, radius = observation[4:7].tolist(), env.tcp(), env.TARGET_RADIUS
    target_x = env._target_pos.item(0)
    away, away_at_first = (math.sqrt((x - target_x) * (x - target_x)) for x in (obj[0], env.obj_init_pos.item(0)))
    in_place = long_tail(away, 0.0, radius, abs(away_at_first - radius))
    to_obj, to_obj_at_first = distance(obj, tcp), distance(env.window_handle_pos_init.tolist(), env.init_tcp.tolist())
    near = long_tail(to_obj, 0.0, 0.02, abs(to_obj_at_first - 0.02))
    reward = 10 * hamacher_product(near, in_place)
    return float(reward), (float(away <= radius), float(to_obj <= 0.05), 1.0, near, in_place, away)


def sweep(env: Swept, observation: ndarray, action: ndarray) -> Scores:
    """`sweep-v3`."""
    opened, *obj = observation[3:7].tolist()
    target, start, tcp = env._target_pos.tolist(), env.obj_init_pos.tolist(), env.tcp()
    away, to_obj, radius = distance(obj, target), distance(obj, tcp), env.OBJ_RADIUS
    in_place = long_tail(away, 0.0, 0.05, distance(start, target))
    to_right, to_left, right_margin, left_margin = _pads_apart(env, obj)
    right, left = long_tail(to_right, radius, 0.05, right_margin), long_tail(to_left, radius, 0.05, left_margin)
    caging = hamacher_product(hamacher_product(right, left), _along_xz(env, obj, tcp))
    gripping = 0.0
    if caging > 0.95:
        upper = radius + 0.01
        right, left = long_tail(to_right, radius, upper, right_margin), long_tail(to_left, radius, upper, left_margin)
        gripping = hamacher_product(right, left)
    grasped = (caging + gripping) / 2
    reward = 10.0 if away < 0.05 else 2 * grasped + 6 * hamacher_product(grasped, in_place)
    held = opened > 0 and env.touching_object(env._get_id_main_object())
    return float(reward), (float(away <= 0.05), float(to_obj <= 0.03), float(held), float(grasped), in_place, away)


def basketball(env: Scored, observation: ndarray, action: ndarray) -> Scores:
    """`basketball-v3`."""
    opened, *obj = observation[3:7].tolist()
    start, tcp, radius = env.obj_init_pos.tolist(), env.tcp(), env.TARGET_RADIUS
    target = (*env._target_pos[:2].tolist(), 0.3)  # a little above the hoop
    away, to_obj = _weighted(obj, target, 1.0, 2.0), distance(obj, tcp)
    in_place = long_tail(away, 0.0, radius, _weighted(start, target, 1.0, 2.0))
    grasped = _dense_caging(env, action, obj, tcp, 0.025, 0.06)
    held = to_obj < 0.035 and opened > 0 and obj[2] - 0.01 > start[2]
    if held:
        grasped = 1.0
    reward = hamacher_product(grasped, in_place)
    if held:
        reward += 1.0 + 5.0 * in_place
    if away < radius:
        reward = 10.0
    lifted = opened > 0 and obj[2] - 0.03 > start[2]
    success, near = float(away <= radius), float(to_obj <= 0.05)
    return float(reward), (success, near, float(lifted), float(grasped), in_place, away)


def _weighted(one: Vector, other: Vector, y: float, z: float) -> float:
    """A distance in which errors along two axes count more."""
    return length(one[0] - other[0], (one[1] - other[1]) * y, (one[2] - other[2]) * z)


# Where they stand in for metaworld's

SCORES: Mapping[str, Score] = {
    "sawyer_reach_v3": reach,
    "sawyer_push_v3": push,
    "sawyer_pick_place_v3": pick_place,
    "sawyer_door_v3": door_open,
    "sawyer_drawer_close_v3": drawer_close,
    "sawyer_button_press_topdown_v3": button_press_topdown,
    "sawyer_peg_insertion_side_v3": peg_insert_side,
    "sawyer_window_open_v3": window_open,
    "sawyer_sweep_v3": sweep,
    "sawyer_basketball_v3": basketball,
}
"""By the file of metaworld's that a class stands in."""
SHARED = ("sawyer_xyz_env", "reward_utils")
"""Files of metaworld's that all of them follow."""
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
"""Of the texts that they were written after: metaworld 3.1.1's."""


def fingerprint(module: str) -> str:
    """Of a loaded module's text; empty where there is none."""
    try:
        return hashlib.sha256(inspect.getsource(sys.modules[module]).encode()).hexdigest()[:16]
    except OSError:
        return ""


def as_known(*modules: str) -> bool:
    """Whether metaworld's modules have the texts that this one was written after."""
    return sums_in_order() and all(fingerprint(name) == FINGERPRINTS.get(name.rpartition(".")[2]) for name in modules)
