# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""Pictures of Gymnasium's environments that need no window: MuJoCo's by its renderer, classic control drawn by us.

Gymnasium draws classic control with pygame, which is no requirement of ours.
"""

import math
from collections.abc import Callable
from typing import Protocol, final, runtime_checkable

import mujoco
import numpy as np
from gymnasium.envs.classic_control import (
    AcrobotEnv,
    CartPoleEnv,
    Continuous_MountainCarEnv,
    MountainCarEnv,
    PendulumEnv,
)
from gymnasium.error import DependencyNotInstalled
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageDraw

from metarl.envs import rendering
from metarl.envs.parameters import Env, is_mujoco

_PAPER, _INK, _BODY, _MARK = (250, 250, 248), (60, 62, 66), (38, 94, 200), (46, 160, 87)
Point = tuple[float, float]


@runtime_checkable
class Drawer(Protocol):
    """Draws environments of one kind."""

    def draw(self, env: Env, width: int, height: int) -> UInt8[ndarray, "height width 3"]:
        """A picture; sizes in pixels."""
        ...

    def close(self) -> None: ...


def drawer_for(env: Env) -> Drawer | None:
    """What draws an environment; None if nothing does."""
    if is_mujoco(env):
        return MujocoDrawer()
    drawn = next((draw for kind, draw in _CLASSIC.items() if isinstance(env.unwrapped, kind)), None)
    if drawn is not None:
        return ClassicDrawer(drawn)
    return OwnDrawer() if env.render_mode == "rgb_array" else None


@final
class OwnDrawer:
    """The environment's own picture, brought to size."""

    def draw(self, env: Env, width: int, height: int) -> UInt8[ndarray, "height width 3"]:
        try:
            picture = env.render()
        except DependencyNotInstalled as error:
            raise rendering.RenderingUnavailableError(f"{env} cannot draw itself: {error}") from error
        assert isinstance(picture, ndarray), "render_mode='rgb_array' gives arrays"
        if picture.shape[:2] == (height, width):
            return picture
        scale = min(width / picture.shape[1], height / picture.shape[0])
        size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
        frame = Image.new("RGB", (width, height), _PAPER)
        frame.paste(Image.fromarray(picture).resize(size), ((width - size[0]) // 2, (height - size[1]) // 2))
        return np.asarray(frame)

    def close(self) -> None:
        """The environment holds what there is."""


@final
class MujocoDrawer:
    """MuJoCo's picture, from the environment's own camera; the drawing context is kept while model and size stay."""

    def __init__(self) -> None:
        self._renderer: mujoco.Renderer | None = None

    def draw(self, env: Env, width: int, height: int) -> UInt8[ndarray, "height width 3"]:
        model, data = env.get_wrapper_attr("model"), env.get_wrapper_attr("data")
        held = self._renderer
        if held is None or held.model is not model or (held.width, held.height) != (width, height):
            self.close()
            held = self._renderer = rendering.open_renderer(model, width, height)
        held.update_scene(data, _camera(env, model))
        return held.render()

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def _camera(env: Env, model: mujoco.MjModel) -> mujoco.MjvCamera:
    camera = mujoco.MjvCamera()
    mujoco.mjv_defaultFreeCamera(model, camera)
    if model.nbody > 1:
        camera.type, camera.trackbodyid = mujoco.mjtCamera.mjCAMERA_TRACKING, 1
        camera.distance = 4.0
    config = (
        env.get_wrapper_attr("mujoco_renderer").default_cam_config if env.has_wrapper_attr("mujoco_renderer") else None
    )
    for name, value in (config or {}).items():
        if isinstance(value, ndarray):
            getattr(camera, name)[:] = value
        else:
            setattr(camera, name, value)
    return camera


@final
class Canvas:
    """A sheet of paper in the units of what is drawn, y upwards."""

    def __init__(self, width: int, height: int, center: Point, span: Point) -> None:
        """`span` is what must fit, around `center`."""
        self._picture = Image.new("RGB", (width, height), _PAPER)
        self._draw = ImageDraw.Draw(self._picture)
        self._size, self._center = (width, height), center
        self._scale = min(width / span[0], height / span[1])

    def line(self, points: list[Point], width: float, colour: tuple[int, int, int]) -> None:
        pixels = [self._pixel(point) for point in points]
        self._draw.line(pixels, fill=colour, width=max(1, round(width * self._scale)), joint="curve")

    def disc(self, center: Point, radius: float, colour: tuple[int, int, int]) -> None:
        x, y = self._pixel(center)
        r = max(1.0, radius * self._scale)
        self._draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)

    def box(self, center: Point, width: float, height: float, colour: tuple[int, int, int]) -> None:
        x, y = self._pixel(center)
        half = width / 2 * self._scale, height / 2 * self._scale
        self._draw.rectangle((x - half[0], y - half[1], x + half[0], y + half[1]), fill=colour)

    def array(self) -> UInt8[ndarray, "height width 3"]:
        return np.asarray(self._picture)

    def _pixel(self, point: Point) -> Point:
        width, height = self._size
        (x, y), (middle_x, middle_y) = point, self._center
        return width / 2 + (x - middle_x) * self._scale, height / 2 - (y - middle_y) * self._scale


Draw = Callable[[Env, int, int], Canvas]


@final
class ClassicDrawer:
    """Our drawing of an environment of classic control."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw

    def draw(self, env: Env, width: int, height: int) -> UInt8[ndarray, "height width 3"]:
        return self._draw(env, width, height).array()

    def close(self) -> None:
        """Holds nothing."""


def _cart_pole(env: Env, width: int, height: int) -> Canvas:
    cart_pole = env.unwrapped
    assert isinstance(cart_pole, CartPoleEnv) and cart_pole.state is not None
    x, _, angle, _ = map(float, cart_pole.state)
    canvas = Canvas(width, height, (0.0, 0.6), (2.2 * cart_pole.x_threshold, 3.0))
    canvas.line([(-9.0, 0.0), (9.0, 0.0)], 0.02, _INK)
    for limit in (-cart_pole.x_threshold, cart_pole.x_threshold):
        canvas.line([(limit, -0.15), (limit, 0.15)], 0.03, _MARK)
    canvas.box((x, 0.0), 0.5, 0.25 * math.sqrt(cart_pole.masscart), _INK)
    tip = x + 2 * cart_pole.length * math.sin(angle), 2 * cart_pole.length * math.cos(angle)
    canvas.line([(x, 0.0), tip], 0.06 + 0.2 * cart_pole.masspole, _BODY)
    return canvas


def _pendulum(env: Env, width: int, height: int) -> Canvas:
    pendulum = env.unwrapped
    assert isinstance(pendulum, PendulumEnv)
    angle, reach = float(pendulum.state[0]), float(pendulum.l)
    canvas = Canvas(width, height, (0.0, 0.0), (2.4 * max(reach, 1.5), 2.4 * max(reach, 1.5)))
    tip = -reach * math.sin(angle), reach * math.cos(angle)
    canvas.line([(0.0, 0.0), (0.0, 0.2)], 0.02, _MARK)
    canvas.line([(0.0, 0.0), tip], 0.08 * math.sqrt(pendulum.m), _BODY)
    canvas.disc((0.0, 0.0), 0.06, _INK)
    return canvas


def _acrobot(env: Env, width: int, height: int) -> Canvas:
    acrobot = env.unwrapped
    assert isinstance(acrobot, AcrobotEnv) and acrobot.state is not None
    first, second = float(acrobot.state[0]), float(acrobot.state[0] + acrobot.state[1])
    upper, lower = acrobot.LINK_LENGTH_1, acrobot.LINK_LENGTH_2
    span = 2.2 * (upper + lower)
    canvas = Canvas(width, height, (0.0, 0.0), (span, span))
    elbow = upper * math.sin(first), -upper * math.cos(first)
    hand = elbow[0] + lower * math.sin(second), elbow[1] - lower * math.cos(second)
    goal = (upper + lower) / 2  # which the environment tells by angles alone
    canvas.line([(-9.0, goal), (9.0, goal)], 0.02, _MARK)
    canvas.line([(0.0, 0.0), elbow], 0.12 * math.sqrt(acrobot.LINK_MASS_1), _BODY)
    canvas.line([elbow, hand], 0.12 * math.sqrt(acrobot.LINK_MASS_2), (90, 140, 230))
    for joint in ((0.0, 0.0), elbow):
        canvas.disc(joint, 0.08, _INK)
    return canvas


def _mountain_car(env: Env, width: int, height: int) -> Canvas:
    car = env.unwrapped
    assert isinstance(car, MountainCarEnv | Continuous_MountainCarEnv)
    canvas = Canvas(width, height, (-0.3, 0.45), (2.0, 1.3))

    def hill(x: float) -> Point:
        return x, 0.45 * math.sin(3 * x) + 0.55

    places = np.linspace(car.min_position, car.max_position, 100)
    canvas.line([hill(float(x)) for x in places], 0.01, _INK)
    x, y = hill(car.goal_position)
    canvas.line([(x, y), (x, y + 0.15)], 0.01, _MARK)
    x, y = hill(float(car.state[0]))
    canvas.disc((x, y + 0.04), 0.04, _BODY)
    return canvas


_CLASSIC: dict[type[Env], Draw] = {
    CartPoleEnv: _cart_pole,
    PendulumEnv: _pendulum,
    AcrobotEnv: _acrobot,
    MountainCarEnv: _mountain_car,
    Continuous_MountainCarEnv: _mountain_car,
}
