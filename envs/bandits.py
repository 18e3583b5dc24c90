"""Bernoulli bandits, the first world of the RL² paper (Duan et al. 2016, arXiv:1611.02779, section 3.1).

k arms, pᵢ ~ U[0, 1] drawn once a task; pulling arm i pays 1 with probability pᵢ, otherwise 0. A trial is n pulls.

The paper counts each pull as an episode of one step. Here the n pulls are one episode of n steps, with an observation
that never changes. To an agent with a memory that is the same trial: what it is told is the arm that it pulled and what
it was paid. But it costs one reset instead of n, and what one adaptation learns from is the whole trial.
"""

import functools
import re
from typing import final

import numpy as np
from gymnasium.spaces import Discrete
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray
from PIL import Image, ImageDraw

from metarl.envs.batch_random import BatchRandom
from metarl.envs.distribution import EnvDistribution
from metarl.envs.seeded_tasks import seeded_space, task_generator
from metarl.envs.simulator import Outcome
from metarl.tasks import Task

ID = "bernoulli-bandit"
PREFIX = f"{ID}-"
ARMS = (5, 10, 50)
PULLS = (10, 100, 500)
IDS = tuple(f"{PREFIX}k{arms}-n{pulls}" for arms in ARMS for pulls in PULLS)
"""The setups of the paper's table 1."""
HINT = f"{PREFIX}kARMS-nPULLS (such as {IDS[4]})"
OBSERVATION_SPACE = Discrete(1)

_PAPER, _COLUMN, _EARNED, _TRUTH, _INK = (250, 250, 248), (228, 228, 224), (38, 94, 200), (46, 160, 87), (60, 60, 60)


def arm_probabilities(task: Task, arms: int) -> Float[ndarray, " {arms}"]:
    """pᵢ ~ U[0, 1], i = 1 … k: what the agent is not told. Tasks of one seed share the arms that both have."""
    return task_generator(task).random(arms)


@final
class BanditSimulator:
    """A batch of bandits; a few array operations a step, so threads would not help."""

    observation_space = OBSERVATION_SPACE

    def __init__(self, num_envs: int, threads: int, arms: int) -> None:
        self.num_envs = num_envs
        self.action_space = Discrete(arms)
        self._envs = np.arange(num_envs)
        self._random = BatchRandom(num_envs)
        self._probabilities = np.zeros((num_envs, arms))
        self._pulls = np.zeros((num_envs, arms), np.int64)
        self._successes = np.zeros((num_envs, arms), np.int64)
        self._last = np.full(num_envs, -1)  # the arm pulled last; none yet

    def set_task(self, index: int, task: Task) -> None:
        self._probabilities[index] = arm_probabilities(task, self._probabilities.shape[1])

    def reset(self, index: int, rng: np.random.Generator) -> None:
        self._random.restart(index, rng)
        self._pulls[index], self._successes[index], self._last[index] = 0, 0, -1

    def step(self, actions: Int[ndarray, " env"], active: Bool[ndarray, " env"]) -> Outcome:
        """r ~ Bernoulli(p_a)."""
        probabilities = self._probabilities[self._envs, actions]
        success = active & (self._random.uniform(active) < probabilities)
        self._pulls[self._envs, actions] += active
        self._successes[self._envs, actions] += success
        self._last = np.where(active, actions, self._last)
        never = np.zeros(self.num_envs, bool)
        regret = self._probabilities.max(-1) - probabilities
        return Outcome(success.astype(np.float64), never, never, {"regret": regret})

    def observe(self, out: Int[ndarray, " env"]) -> None:
        out[:] = 0

    def render(self, index: int, width: int, height: int) -> UInt8[ndarray, "height width 3"]:
        """A column for each arm: its probability (green), the mean paid so far (blue) and the pulls (below)."""
        picture = Image.new("RGB", (width, height), _PAPER)
        draw = ImageDraw.Draw(picture)
        pulls, successes = self._pulls[index], self._successes[index]
        top, column = 30.0, max(width - 20.0, 1.0) / len(pulls)
        bottom = max(height - 26.0, top + 1)
        bar = bottom - top
        figures = f"pull {pulls.sum()}   reward {successes.sum()}   green: p   blue: mean so far   below: pulls"
        draw.text((10, 8), figures, fill=_INK)
        for arm, probability in enumerate(self._probabilities[index]):
            left = 10 + column * arm
            right = left + max(column * 0.8, 1.0)
            draw.rectangle((left, top, right, bottom), fill=_COLUMN)
            if pulls[arm]:
                draw.rectangle((left, bottom - bar * successes[arm] / pulls[arm], right, bottom), fill=_EARNED)
            level = bottom - bar * probability
            draw.line((left, level, right, level), fill=_TRUTH, width=3)
            if arm == self._last[index]:
                draw.rectangle((left, top, right, bottom), outline=_INK, width=2)
            if column >= 24:  # where the number fits
                draw.text(((left + right) / 2, bottom + 6), str(pulls[arm]), fill=_INK, anchor="ma")
        return np.asarray(picture)

    def close(self) -> None:
        """Holds nothing."""


def bernoulli_bandit(arms: int = 5, pulls: int = 10, id: str | None = None) -> EnvDistribution:
    """Find the arm that pays most often: k arms, n pulls in all.

    Args:
        arms: k.
        pulls: n, the steps of the one episode that is a trial.
        id: what the distribution is called; `bernoulli-bandit-kK-nN` if None.

    Raises:
        ValueError: fewer than two arms, or no pull.
    """
    if arms < 2 or pulls < 1:
        raise ValueError(f"a bandit needs at least 2 arms and 1 pull, got {arms} arms and {pulls} pulls")
    space = seeded_space(id or f"{PREFIX}k{arms}-n{pulls}", "bandit", list_seed_id=ID)
    physics = {"body": "bandit", "arms": arms, "p": "U[0, 1]", "reward": "Bernoulli(p)", "version": 1}
    simulator = functools.partial(BanditSimulator, arms=arms)
    about = f"Find the arm that pays most often: {arms} arms, {pulls} pulls in all."
    return EnvDistribution(space, pulls, simulator, physics, OBSERVATION_SPACE, Discrete(arms), about=about)


def bernoulli_bandit_5_10() -> EnvDistribution:
    """Find the arm that pays most often: 5 arms, 10 pulls in all."""
    return bernoulli_bandit(5, 10, ID)


def named_bandit(id: str) -> EnvDistribution:
    """The bandit that an id such as `bernoulli-bandit-k10-n100` spells out.

    Raises:
        ValueError: the id is none.
    """
    match = re.fullmatch(rf"{PREFIX}k([1-9]\d*)-n([1-9]\d*)", id)
    if match is None:
        raise ValueError(f"unknown distribution {id!r}; bandits are called {HINT}")
    return bernoulli_bandit(int(match[1]), int(match[2]))
