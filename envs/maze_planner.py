"""A planner that is told the maze and the goal, which agents are not: the ceiling of `maze-navigation`.

It plans in a graph whose nodes are the points of a lattice and whose edges are the moves between them that nothing is
in the way of. Breadth-first search from the goal's cell gives every node its fewest steps, and so the node to go to
next. The robot starts on a node and is steered from one to the next.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from metarl.envs.distribution import EnvDistribution
from metarl.envs.maze import ACTION_LIMIT, ID, slide
from metarl.envs.maze_layouts import MAX_SIZE, Maze, goal_of, maze_of
from metarl.learning.fixed import FixedPolicy
from metarl.learning.random_streams import TaskRandom
from metarl.tasks import Task

PER_CELL = 4  # nodes along a cell of 1 m; even, so that the start is one of them
_REACH = round(ACTION_LIMIT * PER_CELL)  # nodes along each axis that a move can go
_MOVES = np.array(list(itertools.product(range(-_REACH, _REACH + 1), repeat=2)))  # in nodes


def plan(task: Task) -> Int[ndarray, "x y 2"]:
    """The node to go to next from each node of a task's maze; from one in the goal's cell, itself.

    Node (i, j) is the point ((i + 1), (j + 1)) / PER_CELL, so that none is on the wall around the maze.
    """
    maze, goal = maze_of(task), goal_of(task)
    axis = np.arange(PER_CELL * maze.size - 1)
    nodes = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    ends = _ends(nodes, maze)
    cells, on_edge = (nodes + 1) // PER_CELL, (nodes + 1) % PER_CELL == 0  # rounding may miss an edge
    steps = np.where(((cells == goal) & ~on_edge).all(-1), 0.0, np.inf)  # to the goal
    following = nodes
    while True:
        after = steps[ends[..., 0], ends[..., 1]]  # [x, y, move]
        shorter = after.min(-1) + 1.0 < steps
        if not shorter.any():
            return following
        steps = np.where(shorter, after.min(-1) + 1.0, steps)
        best = np.take_along_axis(ends, after.argmin(-1)[..., None, None], axis=2)[:, :, 0]
        following = np.where(shorter[..., None], best, following)


def _ends(nodes: Int[ndarray, "x y 2"], maze: Maze) -> Int[ndarray, "x y move 2"]:
    """The nodes that the moves lead to from each node; where something is in a move's way, the node itself."""
    points = np.broadcast_to(((nodes + 1) / PER_CELL)[:, :, None], (*nodes.shape[:2], *_MOVES.shape))
    moves = np.broadcast_to(_MOVES / PER_CELL, points.shape)
    lines = np.broadcast_to(maze.lines, (points[..., 0].size, *maze.lines.shape))
    moved = slide(points.reshape(-1, 2), moves.reshape(-1, 2), lines).reshape(points.shape)
    free = np.isclose(moved, points + moves).all(-1, keepdims=True)
    return nodes[:, :, None] + np.where(free, _MOVES, 0)


@final
@dataclasses.dataclass(frozen=True, eq=False)
class PlannedActions:
    """Steers each task's robot to the next node of its plan; plain data, so that it pickles."""

    targets: Float[Tensor, "task x y 2"]
    """Of each node, by its place from the start, the point to go to, m from the start; zero outside of the maze."""

    def __call__(
        self, observations: Float[Tensor, "task episode observation"], random: TaskRandom | None
    ) -> Float[Tensor, "task episode 2"]:
        positions = observations[..., :2]
        x, y = ((positions * PER_CELL).round().long() + self.targets.shape[1] // 2).unbind(-1)
        tasks = torch.arange(len(positions), device=positions.device)[:, None]
        return (self.targets[tasks, x, y] - positions) / ACTION_LIMIT


def planned_actions(tasks: Sequence[Task]) -> PlannedActions:
    """The plans of these tasks."""
    side = PER_CELL * MAX_SIZE - 1
    targets = torch.zeros(len(tasks), side, side, 2)
    for table, task in zip(targets, tasks, strict=True):
        nodes = plan(task)
        edge, middle = (side - len(nodes)) // 2, len(nodes) // 2
        points = torch.from_numpy((nodes - middle) / PER_CELL)
        table[edge : edge + len(nodes), edge : edge + len(nodes)] = points
    return PlannedActions(targets)


def planner_reference(dist: EnvDistribution, tasks: Sequence[Task]) -> tuple[EnvDistribution, FixedPolicy]:
    """The reference policy `planner`: told the mazes and goals of its tasks.

    Raises:
        ValueError: the distribution's tasks are no mazes.
    """
    if dist.id != ID:
        raise ValueError(f"there are plans for {ID} only, not for {dist.id}")
    return dist, FixedPolicy(planned_actions(tasks))
