"""Mazes drawn from a seed: their walls, the ways through them, and the split that each layout belongs to.

A maze is a square of cells of 1 m with thin walls on some of their edges. Cell (i, j) covers [i, i + 1] × [j, j + 1];
the start is the middle of the middle cell.
"""

import collections
import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import final

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from metarl.envs.seeded_tasks import task_generator
from metarl.tasks import Split, Task, content_hash

MAX_SIZE = 15  # cells along a side
LAYOUTS: tuple[Split, ...] = ("train", "train", "train", "validation", "test")  # by the rest that a hash leaves

Cell = tuple[int, int]


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Maze:
    """The walls. Those around the whole maze are closed."""

    right: Bool[ndarray, "x y"]
    """Whether there is a wall between a cell and its neighbour (x + 1, y)."""
    up: Bool[ndarray, "x y"]
    """Whether there is one between a cell and its neighbour (x, y + 1)."""

    @property
    def size(self) -> int:
        """Cells along a side."""
        return len(self.right)

    @property
    def start(self) -> Cell:
        """The cell in the middle."""
        return self.size // 2, self.size // 2

    @property
    def hash(self) -> str:
        """The content hash of the layout: two seeds may draw the same one."""
        return content_hash({"size": self.size, "walls": np.packbits([self.right, self.up]).tobytes().hex()})

    @property
    def split(self) -> Split:
        """The only split that may hold the layout: by its hash, 3 layouts of 5 train, one validates, one tests."""
        return LAYOUTS[int(self.hash, 16) % len(LAYOUTS)]

    @functools.cached_property
    def lines(self) -> Float[ndarray, "x y 4"]:
        """The first wall to the left, to the right, below and above each cell, as the coordinate of its line, m."""
        left, right = _walls_along_x(self.right)
        below, above = _walls_along_x(self.up.T)
        return np.stack([left, right, below.T, above.T], axis=-1)

    def neighbours(self, cell: Cell) -> Iterator[Cell]:
        """The cells that are next to one without a wall between."""
        x, y = cell
        if not self.right[x, y]:
            yield x + 1, y
        if x and not self.right[x - 1, y]:
            yield x - 1, y
        if not self.up[x, y]:
            yield x, y + 1
        if y and not self.up[x, y - 1]:
            yield x, y - 1

    @functools.cached_property
    def distances(self) -> dict[Cell, int]:
        """Cells from the start to every cell that can be reached, by breadth-first search."""
        found, queue = {self.start: 0}, collections.deque([self.start])
        while queue:
            cell = queue.popleft()
            for neighbour in self.neighbours(cell):
                if neighbour not in found:
                    found[neighbour] = found[cell] + 1
                    queue.append(neighbour)
        return found


def _walls_along_x(right: Bool[ndarray, "x y"]) -> tuple[Float[ndarray, "x y"], Float[ndarray, "x y"]]:
    """The coordinates of the first walls towards smaller and towards larger x."""
    low, high = np.zeros(right.shape), np.zeros(right.shape)
    for x in range(1, len(right)):
        low[x] = np.where(right[x - 1], x, low[x - 1])
    high[-1] = len(right)
    for x in reversed(range(len(right) - 1)):
        high[x] = np.where(right[x], x + 1, high[x + 1])
    return low, high


@functools.cache
def _next_to(size: int) -> dict[Cell, list[Cell]]:
    """The cells to the right, to the left, above and below each cell, whatever walls there are."""

    def inside(cells: Iterable[Cell]) -> list[Cell]:
        return [(x, y) for x, y in cells if x in range(size) and y in range(size)]

    return {(x, y): inside(((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1))) for x, y in np.ndindex(size, size)}


def draw_maze(rng: np.random.Generator, size: int) -> Maze:
    """A maze with exactly one way between any two cells, by randomised depth-first search from a random cell.

    It goes on to a random neighbour that was not visited, taking down the wall, and back where there is none.
    """
    right, up = np.ones((2, size, size), bool)
    around = _next_to(size)
    path: list[Cell] = [(int(rng.random() * size), int(rng.random() * size))]
    visited = {path[0]}
    while path:
        x, y = path[-1]
        fresh = [cell for cell in around[x, y] if cell not in visited]
        if not fresh:
            path.pop()
            continue
        cell = fresh[int(rng.random() * len(fresh))]
        walls = right if cell[1] == y else up
        walls[min(x, cell[0]), min(y, cell[1])] = False
        visited.add(cell)
        path.append(cell)
    return Maze(right, up)


@functools.lru_cache(maxsize=4096)
def _drawn(seed: float, size: int) -> Maze:
    """The maze of a seed; training comes back to a task for every episode."""
    return draw_maze(task_generator(Task.of("maze", seed=seed)), size)


def maze_of(task: Task) -> Maze:
    """The maze of a task.

    Raises:
        ValueError: its seed or its size is none.
    """
    size = task.number("size")
    if size not in range(3, MAX_SIZE + 1, 2):
        raise ValueError(f"the size of a maze must be an odd number of cells from 3 to {MAX_SIZE}, got {size:g}")
    return _drawn(task.number("seed"), int(size))


def goal_of(task: Task) -> Cell:
    """The cell of a task's goal.

    Raises:
        ValueError: it is none of the maze's, or the start.
    """
    maze, x, y = maze_of(task), task.number("goal_x"), task.number("goal_y")
    cells = range(maze.size)
    if x not in cells or y not in cells or (x, y) == maze.start:
        raise ValueError(
            f"the goal must be a cell of the {maze.size} × {maze.size} maze other than the start {maze.start}, "
            f"got ({x:g}, {y:g})"
        )
    return int(x), int(y)


@final
@dataclasses.dataclass(frozen=True)
class LayoutOfSplit:
    """The maze's layout belongs to a split."""

    split: Split

    def holds(self, task: Task) -> bool:
        return maze_of(task).split == self.split


@final
@dataclasses.dataclass(frozen=True)
class PathLength:
    """The way from the start to the goal is neither too short nor too long."""

    low: int
    high: int
    unit: str = "cells"

    def holds(self, task: Task) -> bool:
        goal = task.number("goal_x"), task.number("goal_y")
        return self.low <= maze_of(task).distances[int(goal[0]), int(goal[1])] <= self.high
