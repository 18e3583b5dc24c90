"""The MAML paper's point robot (Finn et al. 2017, section 5.3): reach a goal that is not shown.

The observation is the position; an action is a displacement. The paper ends an episode within 0.01 of the goal. Here
every episode lasts the whole horizon, as in ProMP and garage: all rewards are negative, so ending early would pay the
robot for the ending rather than for the way, and episodes of one length keep tasks comparable.
"""

import functools
from typing import final

import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from PIL import Image, ImageDraw

from metarl.envs.distribution import EnvDistribution
from metarl.envs.simulator import Outcome
from metarl.tasks import Family, Task, TaskSpace, Uniform

HORIZON = 100  # environment steps
ACTION_LIMIT = 0.1  # m in each direction and step
GOAL_LIMIT = 0.5  # m in each direction
SPARSE_RADIUS = 0.2  # m
PICTURE_LIMIT = 0.8  # m from the origin to the picture's edge
OBSERVATION_SPACE = Box(-np.inf, np.inf, (2,), np.float64)
ACTION_SPACE = Box(-ACTION_LIMIT, ACTION_LIMIT, (2,), np.float32)


@final
class PointSimulator:
    """A batch of points in a plane; a few array operations a step, so threads would not help."""

    observation_space = OBSERVATION_SPACE
    action_space = ACTION_SPACE

    def __init__(self, num_envs: int, threads: int, sparse: bool) -> None:
        self.num_envs = num_envs
        self._sparse = sparse
        self._goals = np.zeros((num_envs, 2))
        self._positions = np.zeros((num_envs, 2))
        self._trails: list[list[ndarray]] = [[] for _ in range(num_envs)]

    def set_task(self, index: int, task: Task) -> None:
        self._goals[index] = task.number("goal_x"), task.number("goal_y")

    def reset(self, index: int, rng: np.random.Generator) -> None:
        self._positions[index] = 0.0
        self._trails[index] = [np.zeros(2)]

    def step(self, actions: Float[ndarray, "env action"], active: Bool[ndarray, "env"]) -> Outcome:
        """r = −‖p − g‖; sparse: r = max(0, 1 − ‖p − g‖ / radius)."""
        moves = np.clip(actions, ACTION_SPACE.low, ACTION_SPACE.high)
        self._positions = np.where(active[:, None], self._positions + moves, self._positions)
        distance = np.linalg.norm(self._positions - self._goals, axis=-1)
        rewards = np.maximum(0.0, 1.0 - distance / SPARSE_RADIUS) if self._sparse else -distance
        for index in np.flatnonzero(active):
            self._trails[index].append(self._positions[index])
        never = np.zeros(self.num_envs, bool)
        return Outcome(rewards, never, never, {"distance": distance})

    def observe(self, out: Float[ndarray, "env observation"]) -> None:
        out[:] = self._positions

    def render(self, index: int, width: int, height: int) -> UInt8[ndarray, "height width 3"]:
        """The goal (green), the trail (grey) and the point (blue), from above."""
        picture = Image.new("RGB", (width, height), (250, 250, 248))
        draw = ImageDraw.Draw(picture)
        scale = min(width, height) / (2 * PICTURE_LIMIT)  # pixels in a metre

        def pixel(position: ndarray) -> tuple[float, float]:
            return width / 2 + scale * float(position[0]), height / 2 - scale * float(position[1])

        def disc(position: ndarray, radius: float, colour: tuple[int, int, int]) -> None:
            x, y = pixel(position)
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

        low, high = pixel(np.array([-GOAL_LIMIT, GOAL_LIMIT])), pixel(np.array([GOAL_LIMIT, -GOAL_LIMIT]))
        draw.rectangle((*low, *high), outline=(205, 205, 200))
        if self._sparse:
            disc(self._goals[index], SPARSE_RADIUS * scale, (216, 240, 220))
        disc(self._goals[index], 0.03 * scale, (46, 160, 87))
        draw.line([pixel(position) for position in self._trails[index]], fill=(150, 150, 150), width=2)
        disc(self._positions[index], 0.025 * scale, (38, 94, 200))
        return np.asarray(picture)

    def close(self) -> None:
        """Holds nothing."""


def _point_navigation(id: str, sparse: bool) -> EnvDistribution:
    goal = Uniform(-GOAL_LIMIT, GOAL_LIMIT, 0.001, "m")
    families = (Family("goal", {"goal_x": goal, "goal_y": goal}),)
    physics = {
        "body": "point",
        "reward": "max(0, 1 - distance / radius)" if sparse else "-distance",
        "radius": SPARSE_RADIUS if sparse else None,
        "action_limit": ACTION_LIMIT,
        "ends_at_goal": False,
    }
    simulator = functools.partial(PointSimulator, sparse=sparse)
    space = TaskSpace(id, families, families, families)
    return EnvDistribution(space, HORIZON, simulator, physics, OBSERVATION_SPACE, ACTION_SPACE)


def point_navigation() -> EnvDistribution:
    """The reward is the negative distance to the goal."""
    return _point_navigation("point-navigation", sparse=False)


def point_navigation_sparse() -> EnvDistribution:
    """There is a reward near the goal only."""
    return _point_navigation("point-navigation-sparse", sparse=True)
