"""Rewards of metaworld's that are written out for numbers: the same operations in the same order, without arrays.

Why: of a step's Python most was small arrays: a norm of three numbers takes NumPy ten times as long as they take to
square, add and root. What is here are the second reward functions of ML10's training classes, and the caging reward
that other classes share; `known_classes.py` says where they stand in for metaworld's. What a function reads of an
environment it reads anew in every step, as metaworld does: some of it are views into the simulation.

Numbers are Python's floats, with one exception: what the gripper is told, the last number of an action, keeps the type
of the actions. Metaworld's arithmetic with it is in single precision where they are.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, final

import numpy as np
from numpy import ndarray

from metarl.envs.metaworld.arm import Arm
from metarl.envs.metaworld.scalars import (
    Number,
    Vector,
    closing,
    distance,
    distance_xz,
    gaussian,
    hamacher_product,
    in_prism,
    long_tail,
    norm,
    weighted_distance,
)

Scores = tuple[float, tuple[float, ...]]
"""The reward, and what metaworld's `info` holds beside it, in the order of `metaworld_api.TERMS`."""


@final
@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """The robot, and what else of a simulation a reward depends on."""

    arm: Arm
    geom: int
    """What is to be held; -1 where no reward asks."""
    more: tuple[ndarray, ...]
    """Views into the simulation, which stay up to date: what each reward says that it wants."""


Kept = Mapping[str, Any]
"""What metaworld's environment keeps of an episode, by its own names."""
Score = Callable[[Scene, Kept, list[float], ndarray], Scores]
"""From a scene, what the episode keeps, the first numbers of an observation (hand, opening, object's place) and an
action.
"""


# Caging: how far the object is between the gripper's pads


def caging_by_sides(
    arm: Arm,
    obj: Vector,
    tcp: Vector,
    starts: tuple[Vector, Vector],
    radius: float | int,
    pad_thresh: float | int,
    xz_thresh: float | int,
) -> float:
    """What `SawyerXYZEnv._gripper_caging_reward` calls caging; `starts` are the object's and the fingertips'."""
    (start, tcp_start), sides = starts, list[float]()
    for pad in arm.pads:
        y = pad.item(1)
        sides.append(long_tail(abs(y - obj[1]), radius, pad_thresh, abs(abs(y - start[1]) - pad_thresh)))
    along_xz = long_tail(distance_xz(tcp, obj), 0.0, xz_thresh, distance_xz(start, tcp_start) - xz_thresh)
    return float(hamacher_product(hamacher_product(sides[0], sides[1]), along_xz))


def caging_with_grip(caging: float, effort: Number, desired_effort: float | int = 1.0) -> Number:
    """The same with the gripper's closing, which counts where the object is caged."""
    gripping = min(max(0.0, effort), desired_effort) / desired_effort if caging > 0.97 else 0.0
    return hamacher_product(caging, gripping)


def _grasped(scene: Scene, kept: Kept, action: ndarray, obj: Vector, tcp: Vector, radius: float, pads: float) -> Number:
    """`SawyerXYZEnv._gripper_caging_reward` as several classes call it, with a high density."""
    starts = kept["obj_init_pos"].tolist(), kept["init_tcp"].tolist()
    caging = caging_by_sides(scene.arm, obj, tcp, starts, radius, pads, 0.005)
    return (caging_with_grip(caging, action[-1]) + caging) / 2


def _pads_apart(arm: Arm, kept: Kept, obj: Vector) -> tuple[float, float, float, float]:
    """Of classes with caging rewards of their own: the object's way to the pads, and their margins; right, left."""
    y, (left, right) = obj[1], arm.pads
    margins = [abs(abs(y - start.item(1)) - 0.05) for start in (kept["init_right_pad"], kept["init_left_pad"])]
    return y - right.item(1), left.item(1) - y, margins[0], margins[1]


def _along_xz(kept: Kept, obj: Vector, tcp: Vector) -> float:
    margin = distance_xz(kept["obj_init_pos"].tolist(), kept["init_tcp"].tolist()) - 0.005
    return long_tail(distance_xz(tcp, obj), 0.0, 0.005, margin)


# The classes


def reach(scene: Scene, kept: Kept, now: list[float], action: ndarray) -> Scores:
    """`reach-v3`."""
    target = kept["_target_pos"].tolist()
    away = distance(scene.arm.tcp(), target)
    in_place = long_tail(away, 0.0, 0.05, distance(kept["hand_init_pos"].tolist(), target))
    return 10 * in_place, (float(away <= 0.05), away, 1.0, away, in_place, away)


def push(scene: Scene, kept: Kept, now: list[float], action: ndarray) -> Scores:
    """`push-v3`."""
    opened, obj = now[3], now[4:7]
    target, start, tcp = kept["_target_pos"].tolist(), kept["obj_init_pos"].tolist(), scene.arm.tcp()
    away, to_obj = distance(obj, target), distance(obj, tcp)
    in_place = long_tail(away, 0.0, 0.05, distance(start, target))
    grasped = _grasped(scene, kept, action, obj, tcp, 0.015, 0.05)
    reward = 2 * grasped
    if to_obj < 0.02 and opened > 0:
        reward += 1.0 + reward + 5.0 * in_place
    if away < 0.05:
        reward = 10.0
    lifted = opened > 0 and obj[2] - 0.02 > start[2] and scene.arm.holds(scene.geom)
    success, near = float(away <= 0.05), float(to_obj <= 0.03)
    return float(reward), (success, near, float(lifted), float(grasped), in_place, away)


def pick_place(scene: Scene, kept: Kept, now: list[float], action: ndarray) -> Scores:
    """`pick-place-v3`."""
    opened, obj = now[3], now[4:7]
    target, start, tcp = kept["_target_pos"].tolist(), kept["obj_init_pos"].tolist(), scene.arm.tcp()
    away, to_obj = distance(obj, target), distance(obj, tcp)
    in_place = long_tail(away, 0.0, 0.05, distance(start, target))
    to_right, to_left, right_margin, left_margin = _pads_apart(scene.arm, kept, obj)
    right, left = long_tail(to_right, 0.015, 0.05, right_margin), long_tail(to_left, 0.015, 0.05, left_margin)
    caging = hamacher_product(hamacher_product(left, right), _along_xz(kept, obj, tcp))
    grasped = (caging_with_grip(float(caging), action[-1]) + caging) / 2
    reward = hamacher_product(grasped, in_place)
    if to_obj < 0.02 and opened > 0 and obj[2] - 0.01 > start[2]:
        reward += 1.0 + 5.0 * in_place
    if away < 0.05:
        reward = 10.0
    lifted = opened > 0 and obj[2] - 0.02 > start[2] and scene.arm.holds(scene.geom)
    success, near = float(away <= 0.07), float(to_obj <= 0.03)
    return float(reward), (success, near, float(lifted), float(grasped), in_place, away)


def door_open(scene: Scene, kept: Kept, now: list[float], action: ndarray) -> Scores:
    """`door-open-v3`: wants the position of the door's joint."""
    hand_x, hand_y, hand_z, _, handle_x, handle_y, handle_z = now[:7]
    theta, effort = scene.more[0].item(), action[3]
    grab = float((min(max(effort, -1), 1) + 1.0) / 2.0)
    x, y = hand_x - (handle_x + -0.05), hand_y - handle_y
    radius = math.sqrt(x * x + y * y)
    # NumPy's logarithm: the standard library's may have other last bits.
    floor = 0.0 if radius <= 0.12 else 0.04 * float(np.log(radius - 0.12)) + 0.4
    above = 1.0 if hand_z >= floor else long_tail(floor - hand_z, 0.0, 0.01, floor / 2.0)
    near = long_tail(norm(x - 0.05, y - 0.03, hand_z - handle_z - -0.01), 0.0, 0.12 / 2.0, 0.5)
    ready = float(hamacher_product(above, near))
    turned = long_tail(math.pi / 2.0 + math.pi / 6 - -theta, 0.0, 0.5, math.pi / 3.0)
    opened = 0.2 * float(theta < -math.pi / 90.0) + 0.8 * turned
    success = abs(handle_x - kept["_target_pos"].item(0)) <= 0.08
    reward = 10.0 if success else 2.0 * hamacher_product(ready, grab) + 8.0 * opened
    return float(reward), (float(success), ready, float(grab >= 0.5), grab, opened, 0.0)


def drawer_close(scene: Scene, kept: Kept, now: list[float], action: ndarray) -> Scores:
    """`drawer-close-v3`."""
    obj = now[4:7]
    target, start, tcp = kept["_target_pos"].tolist(), kept["obj_init_pos"].tolist(), scene.arm.tcp()
    away, to_obj, radius = distance(obj, target), distance(obj, tcp), 0.05
    in_place = long_tail(away, 0.0, radius, abs(distance(start, target) - radius))
    near = gaussian(to_obj, 0.005, abs(distance(start, kept["init_tcp"].tolist()) - 0.005))
    grasped = hamacher_product(near, closing(action[-1]))
    closed = away <= radius + 0.015
    reward = 1.0 if closed else hamacher_product(grasped, in_place)
    reward *= 10
    return float(reward), (float(closed), float(to_obj <= 0.01), 1.0, float(grasped), in_place, away)


def button_press_topdown(scene: Scene, kept: Kept, now: list[float], action: ndarray) -> Scores:
    """`button-press-topdown-v3`."""
    opened, obj = now[3], now[4:7]
    to_obj, away = distance(obj, scene.arm.tcp()), abs(kept["_target_pos"].item(2) - obj[2])
    near = long_tail(to_obj, 0.0, 0.01, distance(obj, kept["init_tcp"].tolist()))
    pressed = long_tail(away, 0.0, 0.005, float(kept["_obj_to_target_init"]))
    reward = 5 * hamacher_product(1 - opened, near)
    if to_obj <= 0.03:
        reward += 5 * pressed
    return float(reward), (float(away <= 0.024), float(to_obj <= 0.05), float(opened > 0), near, pressed, away)


def peg_insert_side(scene: Scene, kept: Kept, now: list[float], action: ndarray) -> Scores:
    """`peg-insert-side-v3`: wants the peg's head, and two corners of each of two boxes."""
    opened, obj = now[3], now[4:7]
    target, start, tcp = kept["_target_pos"].tolist(), kept["obj_init_pos"].tolist(), scene.arm.tcp()
    head, *corners = [site.tolist() for site in scene.more]
    to_obj, away = distance(obj, tcp), weighted_distance(head, target, 2.0, 2.0)
    margin = weighted_distance(kept["peg_head_pos_init"].tolist(), target, 2.0, 2.0)
    boxes = hamacher_product(in_prism(head, *corners[2:]), in_prism(head, *corners[:2]))
    in_place = float(hamacher_product(long_tail(away, 0.0, 0.07, margin), boxes))
    lifted = opened > 0 and obj[2] - 0.01 > start[2]
    held = lifted and to_obj < 0.08
    grasped = _grasped(scene, kept, action, obj, tcp, 0.0075, 0.03)
    if held:
        grasped = 1.0
    reward = hamacher_product(grasped, in_place)
    if held:
        reward += 1.0 + 5 * in_place
    if away <= 0.07:
        reward = 10.0
    success, near = float(away <= 0.07), float(to_obj <= 0.03)
    return float(reward), (success, near, float(lifted and to_obj < 0.02), float(grasped), in_place, away)


def window_open(scene: Scene, kept: Kept, now: list[float], action: ndarray) -> Scores:
    """`window-open-v3`."""
    obj, tcp, radius = now[4:7], scene.arm.tcp(), 0.05
    target_x = kept["_target_pos"].item(0)
    away, away_at_first = (math.sqrt((x - target_x) * (x - target_x)) for x in (obj[0], kept["obj_init_pos"].item(0)))
    in_place = long_tail(away, 0.0, radius, abs(away_at_first - radius))
    to_obj, to_obj_at_first = (
        distance(obj, tcp),
        distance(kept["window_handle_pos_init"].tolist(), kept["init_tcp"].tolist()),
    )
    near = long_tail(to_obj, 0.0, 0.02, abs(to_obj_at_first - 0.02))
    reward = 10 * hamacher_product(near, in_place)
    return float(reward), (float(away <= radius), float(to_obj <= 0.05), 1.0, near, in_place, away)


def sweep(scene: Scene, kept: Kept, now: list[float], action: ndarray) -> Scores:
    """`sweep-v3`."""
    opened, obj = now[3], now[4:7]
    target, start, tcp = kept["_target_pos"].tolist(), kept["obj_init_pos"].tolist(), scene.arm.tcp()
    away, to_obj, radius = distance(obj, target), distance(obj, tcp), 0.02
    in_place = long_tail(away, 0.0, 0.05, distance(start, target))
    to_right, to_left, right_margin, left_margin = _pads_apart(scene.arm, kept, obj)
    right, left = long_tail(to_right, radius, 0.05, right_margin), long_tail(to_left, radius, 0.05, left_margin)
    caging = hamacher_product(hamacher_product(right, left), _along_xz(kept, obj, tcp))
    gripping = 0.0
    if caging > 0.95:
        upper = radius + 0.01
        right, left = long_tail(to_right, radius, upper, right_margin), long_tail(to_left, radius, upper, left_margin)
        gripping = hamacher_product(right, left)
    grasped = (caging + gripping) / 2
    reward = 10.0 if away < 0.05 else 2 * grasped + 6 * hamacher_product(grasped, in_place)
    held = opened > 0 and scene.arm.holds(scene.geom)
    return float(reward), (float(away <= 0.05), float(to_obj <= 0.03), float(held), float(grasped), in_place, away)


def basketball(scene: Scene, kept: Kept, now: list[float], action: ndarray) -> Scores:
    """`basketball-v3`."""
    opened, obj = now[3], now[4:7]
    start, tcp, radius = kept["obj_init_pos"].tolist(), scene.arm.tcp(), 0.08
    target = (*kept["_target_pos"][:2].tolist(), 0.3)  # a little above the hoop
    away, to_obj = weighted_distance(obj, target, 1.0, 2.0), distance(obj, tcp)
    in_place = long_tail(away, 0.0, radius, weighted_distance(start, target, 1.0, 2.0))
    grasped = _grasped(scene, kept, action, obj, tcp, 0.025, 0.06)
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
