"""Path planning: a point robot finds a hidden goal in a maze that it has never seen, and then goes there again.

The walls and the goal stay over the episodes of a trial, and each episode starts in the middle of the maze. So the
first one is for searching, the later ones for the shortest way (the task of Duan et al. 2016, arXiv:1611.02779, section
3.3, seen by range finders instead of a camera). The robot is never shown the goal. The reward is sparse, MiniGrid's
(Chevalier-Boisvert et al. 2023, arXiv:2306.13831): 0, and in the goal's cell, where the episode ends,

    r = max(0.1, 1 − 0.9 t / T)        after t steps, T being the horizon

Training has mazes of 3 × 3 and 5 × 5 cells, the test of 5 × 5 and 7 × 7; no layout is in two splits
(`maze_layouts.py`).
"""

from typing import final

import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from metarl.envs.distribution import EnvDistribution
from metarl.envs.maze_layouts import LAYOUTS, MAX_SIZE, LayoutOfSplit, PathLength, goal_of, maze_of
from metarl.envs.pictures import Canvas
from metarl.envs.seeded_tasks import MAX_SEED
from metarl.envs.simulator import Outcome
from metarl.tasks import Choice, Family, Split, Task, TaskSpace, Uniform

ID = "maze-navigation"
HORIZON = 60  # environment steps
CONTROL_PERIOD = 0.2  # s
ACTION_LIMIT = 1.0  # m along each axis in a step
PARTS = 5  # of a step's motion: within a part the robot moves along x, then along y
RADIUS = 0.125  # m along each axis that the robot keeps away from walls; its sums with whole numbers are exact
SENSOR_RANGE = 3.0  # m
SIZES: dict[Split, tuple[int, ...]] = {"train": (3, 5), "validation": (5,), "test": (5, 7)}  # cells along a side
SHORTEST, LONGEST = 2, 30  # cells from the start to the goal, one a step: half the horizon is left for searching
SPLIT_SIZES = (100, 40, 200)  # tasks in the frozen lists

_EDGE = MAX_SIZE / 2  # m from the start
OBSERVATION_SPACE = Box(
    np.array([-_EDGE, -_EDGE, 0.0, 0.0, 0.0, 0.0]), np.array([_EDGE, _EDGE, *[SENSOR_RANGE] * 4]), dtype=np.float64
)
ACTION_SPACE = Box(-ACTION_LIMIT, ACTION_LIMIT, (2,), np.float32)

_WALL, _PATH, _GOAL, _START, _ROBOT = (60, 62, 66), (150, 180, 235), (46, 160, 87), (205, 205, 200), (38, 94, 200)


def slide(
    positions: Float[ndarray, "env 2"], moves: Float[ndarray, "env 2"], lines: Float[ndarray, "env x y 4"]
) -> Float[ndarray, "env 2"]:
    """Where moves end, m: straight on, along a wall where one is in the way. No move is long enough to cross one.

    A move is made in `PARTS`, each along x, then along y. Along an axis the robot gets as far as the walls across that
    axis let it, `Maze.lines`, less its radius. While it stands between two rows, in a doorway of the other axis, it
    gets no farther than the posts of that doorway.
    """
    envs, positions, part = np.arange(len(positions)), positions.copy(), moves / PARTS
    for _ in range(PARTS):
        for axis in (0, 1):
            cells = positions.astype(np.int64)
            walls = lines[envs, cells[:, 0], cells[:, 1]]
            own, across = cells[:, axis], positions[:, 1 - axis] - cells[:, 1 - axis]
            between = np.minimum(across, 1.0 - across) < RADIUS
            low = np.where(between, own, walls[:, 2 * axis]) + RADIUS
            high = np.where(between, own + 1, walls[:, 2 * axis + 1]) - RADIUS
            positions[:, axis] = np.minimum(np.maximum(positions[:, axis] + part[:, axis], low), high)
    return positions


@final
class MazeSimulator:
    """A batch of mazes; a few array operations a step, so threads would not help."""

    observation_space = OBSERVATION_SPACE
    action_space = ACTION_SPACE

    def __init__(self, num_envs: int, threads: int) -> None:
        self.num_envs = num_envs
        self._envs = np.arange(num_envs)
        self._tasks: list[Task | None] = [None] * num_envs  # for pictures
        self._lines = np.zeros((num_envs, MAX_SIZE, MAX_SIZE, 4))  # `Maze.lines`
        self._starts = np.zeros(num_envs)  # m; both coordinates
        self._goals = np.zeros((num_envs, 2), np.int64)  # cells
        self._positions = np.zeros((num_envs, 2))
        self._steps = np.zeros(num_envs, np.int64)
        self._paths = np.zeros((num_envs, HORIZON + 1, 2))  # the positions of each episode so far

    def set_task(self, index: int, task: Task) -> None:
        maze, goal = maze_of(task), goal_of(task)
        self._tasks[index] = task
        self._lines[index, : maze.size, : maze.size] = maze.lines
        self._starts[index] = maze.size / 2
        self._goals[index] = goal

    def reset(self, index: int, rng: np.random.Generator) -> None:
        """Puts the robot in the middle; nothing is left to chance."""
        self._positions[index] = self._starts[index]
        self._steps[index] = 0
        self._paths[index, 0] = self._positions[index]

    def step(self, actions: Float[ndarray, "env 2"], active: Bool[ndarray, " env"]) -> Outcome:
        """r = max(0.1, 1 − 0.9 t / T) in the goal's cell, where the episode ends; 0 elsewhere."""
        moves = np.clip(actions, -ACTION_LIMIT, ACTION_LIMIT)
        self._positions = np.where(active[:, None], slide(self._positions, moves, self._lines), self._positions)
        self._steps += active
        self._remember_paths()
        arrived = (self._positions.astype(np.int64) == self._goals).all(-1)
        rewards = np.where(arrived, np.maximum(0.1, 1.0 - 0.9 * self._steps / HORIZON), 0.0)
        never = np.zeros(self.num_envs, bool)
        return Outcome(rewards, terminated=arrived, diverged=never, terms={"success": arrived.astype(np.float64)})

    def _remember_paths(self) -> None:
        if self._steps.max() >= self._paths.shape[1]:  # without a time limit
            self._paths = np.concatenate([self._paths, np.zeros_like(self._paths)], axis=1)
        self._paths[self._envs, self._steps] = self._positions

    def observe(self, out: Float[ndarray, "env 6"]) -> None:
        """[position from the start, distances to the walls left, right, below and above, up to the sensor's range]."""
        x, y = self._positions.astype(np.int64).T
        lines = self._lines[self._envs, x, y]
        out[:, :2] = self._positions - self._starts[:, None]
        out[:, 2:] = np.minimum(np.abs(lines - self._positions.repeat(2, axis=1)), SENSOR_RANGE)

    def render(self, index: int, width: int, height: int) -> UInt8[ndarray, "height width 3"]:
        """The walls, the start (grey), the goal (green), the robot and its path in this episode, from above."""
        size = 2 * float(self._starts[index])
        canvas = Canvas(width, height, (size / 2, size / 2), (size + 0.5, size + 0.5))
        canvas.box((size / 2, size / 2), 0.6, 0.6, _START)
        goal_x, goal_y = (float(cell) + 0.5 for cell in self._goals[index])
        canvas.box((goal_x, goal_y), 0.8, 0.8, _GOAL)
        path = [(float(x), float(y)) for x, y in self._paths[index, : self._steps[index] + 1]]
        if len(path) > 1:
            canvas.line(path, 0.08, _PATH)
        for wall in self._walls(index):
            canvas.line(wall, 0.06, _WALL)
        canvas.disc(path[-1], RADIUS, _ROBOT)
        return canvas.array()

    def _walls(self, index: int) -> list[list[tuple[float, float]]]:
        """The walls of a maze as lines from cell to cell, m."""
        task = self._tasks[index]
        assert task is not None
        maze, size = maze_of(task), maze_of(task).size
        outline = [[(0.0, 0.0), (0.0, 1.0 * size)], [(0.0, 0.0), (1.0 * size, 0.0)]]
        across = [[(x + 1.0, y + 0.0), (x + 1.0, y + 1.0)] for x, y in np.argwhere(maze.right)]
        along = [[(x + 0.0, y + 1.0), (x + 1.0, y + 1.0)] for x, y in np.argwhere(maze.up)]
        return [*outline, *across, *along]

    def close(self) -> None:
        """Holds nothing."""


def _families(split: Split) -> tuple[Family, ...]:
    """The tasks of a split, a family for each size of maze."""
    return tuple(_family(split, size) for size in SIZES[split])


def _family(split: Split, size: int) -> Family:
    cell = Choice(tuple(range(size)), "cell")
    parameters = {
        "seed": Uniform(0.0, float(MAX_SEED), 1.0, "seed"),
        "size": Choice((size,), "cells"),
        "goal_x": cell,
        "goal_y": cell,
    }
    return Family(f"maze-{size}x{size}", parameters, (LayoutOfSplit(split), PathLength(SHORTEST, LONGEST)))


def maze_navigation() -> EnvDistribution:
    """Find a hidden goal in an unknown maze, then take the shortest way to it."""
    physics = {
        "body": "point",
        "cell": 1.0,
        "walls": "depth-first search",
        "layouts": list(LAYOUTS),
        "start": "middle",
        "radius": RADIUS,
        "action_limit": ACTION_LIMIT,
        "parts": PARTS,
        "sensor_range": SENSOR_RANGE,
        "reward": "max(0.1, 1 - 0.9 t / horizon) in the goal's cell",
        "ends_at_goal": True,
        "version": 1,
    }
    space = TaskSpace(
        ID,
        train=_families("train"),
        validation=_families("validation"),
        test=_families("test"),
        split_sizes=SPLIT_SIZES,
    )
    return EnvDistribution(
        space, HORIZON, MazeSimulator, physics, OBSERVATION_SPACE, ACTION_SPACE, control_period=CONTROL_PERIOD
    )
