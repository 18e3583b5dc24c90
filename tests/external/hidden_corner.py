"""A distribution from outside of the package: walk on a grid to a goal that is not shown.

Discrete actions, observations in a dict, chance in every step, and episodes that end by themselves.
"""

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete
from jaxtyping import Bool, Int, UInt8
from numpy import ndarray

from metarl.envs import EnvDistribution, Outcome
from metarl.tasks import Choice, Family, Task, TaskSpace

SIZE = 5  # cells in each direction
SLIP = 0.1  # probability of staying
MOVES = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]])
OBSERVATION_SPACE = Dict({"cell": MultiDiscrete([SIZE, SIZE]), "paid": Box(0.0, 1.0, (1,), np.float32)})
ACTION_SPACE = Discrete(4, start=1)


class GridSimulator:
    """A batch of walkers."""

    observation_space = OBSERVATION_SPACE
    action_space = ACTION_SPACE

    def __init__(self, num_envs: int, threads: int) -> None:
        self.num_envs = num_envs
        self._goals = np.zeros((num_envs, 2), np.int64)
        self._cells = np.zeros((num_envs, 2), np.int64)
        self._paid = np.zeros(num_envs, np.float32)
        self._generators = [np.random.default_rng(0)] * num_envs

    def set_task(self, index: int, task: Task) -> None:
        self._goals[index] = int(task["row"]), int(task["column"])

    def reset(self, index: int, rng: np.random.Generator) -> None:
        self._generators[index] = rng
        self._cells[index] = SIZE // 2
        self._paid[index] = 0.0

    def step(self, actions: Int[ndarray, " env"], active: Bool[ndarray, " env"]) -> Outcome:
        for index in np.flatnonzero(active):
            if self._generators[index].random() >= SLIP:
                moved = self._cells[index] + MOVES[actions[index] - ACTION_SPACE.start]
                self._cells[index] = np.clip(moved, 0, SIZE - 1)
        solved = (self._cells == self._goals).all(-1)
        self._paid[active] = solved[active]
        return Outcome(
            rewards=solved.astype(np.float64),
            terminated=solved,
            diverged=np.zeros(self.num_envs, bool),
            terms={"success": solved},
        )

    def observe(self, out: dict[str, ndarray]) -> None:
        out["cell"][:] = self._cells
        out["paid"][:, 0] = self._paid

    def render(self, index: int, width: int, height: int) -> UInt8[ndarray, "height width 3"]:
        rows, columns = (np.arange(pixels) * SIZE // pixels for pixels in (height, width))
        picture = np.full((height, width, 3), 230, np.uint8)
        for (row, column), colour in ((self._goals[index], (60, 160, 90)), (self._cells[index], (40, 90, 200))):
            picture[np.ix_(rows == row, columns == column)] = colour
        return picture

    def close(self) -> None:
        """Holds nothing."""


def hidden_corner() -> EnvDistribution:
    """Walk to a goal that is not shown, on a grid where every tenth step slips."""
    places = Choice((0.0, 1.0, 3.0, 4.0), "cells")
    families = (Family("goal", {"row": places, "column": places}),)
    return EnvDistribution(
        TaskSpace("hidden-corner", families, families, families, True, (8, 3, 5)),
        horizon=20,
        make_simulator=GridSimulator,
        physics={"body": "walker on a grid", "size": SIZE, "slip": SLIP, "reward": "1 at the goal, which ends it"},
        observation_space=OBSERVATION_SPACE,
        action_space=ACTION_SPACE,
        score="success",
    )
