"""Random tabular MDPs, the second world of the RL² paper (Duan et al. 2016, arXiv:1611.02779, section 3.2).

10 states, 5 actions, drawn once a task:

    p(· | s, a) ~ Dirichlet(1, …, 1)        r̄(s, a) ~ N(1, 1)

An episode has 10 steps and starts in state 0; the reward of a step is r ~ N(r̄(s, a), 1). A trial is n episodes.
"""

import dataclasses
import math
from typing import final

import numpy as np
from gymnasium.spaces import Discrete
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray
from PIL import Image, ImageDraw
from scipy import special

from metarl.envs.batch_random import BatchRandom
from metarl.envs.distribution import EnvDistribution
from metarl.envs.seeded_tasks import seeded_space, task_generator
from metarl.envs.simulator import Outcome
from metarl.tasks import Task

ID = "tabular-mdp"
STATES, ACTIONS = 10, 5
HORIZON = 10  # environment steps
OBSERVATION_SPACE, ACTION_SPACE = Discrete(STATES), Discrete(ACTIONS)

_PAPER, _VISITED, _HERE, _INK = (250, 250, 248), (150, 180, 235), (214, 106, 44), (60, 60, 60)


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Mdp:
    """What the agent is not told."""

    transitions: Float[ndarray, "state action next_state"]
    """p(s' | s, a)."""
    rewards: Float[ndarray, "state action"]
    """r̄(s, a), the mean rewards."""


def random_mdp(task: Task) -> Mdp:
    """The MDP of a task. Dirichlet(1, …, 1) is eᵢ / Σⱼ eⱼ with eᵢ ~ Exp(1) (Devroye 1986, section XI.4)."""
    rng = task_generator(task)
    exponential = -np.log1p(-rng.random((STATES, ACTIONS, STATES)))
    uniform = np.maximum(rng.random((STATES, ACTIONS)), 2.0**-53)  # Φ⁻¹(0) would be −∞
    rewards = 1.0 + special.ndtri(uniform)
    return Mdp(exponential / exponential.sum(-1, keepdims=True), rewards)


@final
class TabularMdpSimulator:
    """A batch of MDPs; a few array operations a step, so threads would not help."""

    observation_space = OBSERVATION_SPACE
    action_space = ACTION_SPACE

    def __init__(self, num_envs: int, threads: int) -> None:
        self.num_envs = num_envs
        self._envs = np.arange(num_envs)
        self._random = BatchRandom(num_envs)
        self._cumulative = np.ones((num_envs, STATES, ACTIONS, STATES))  # Σ_{j ≤ s'} p(j | s, a)
        self._rewards = np.zeros((num_envs, STATES, ACTIONS))
        self._states = np.zeros(num_envs, np.int64)
        self._previous = np.full(num_envs, -1)  # the state before the last step; none yet
        self._visits = np.zeros((num_envs, STATES), np.int64)
        self._returns = np.zeros(num_envs)

    def set_task(self, index: int, task: Task) -> None:
        mdp = random_mdp(task)
        self._cumulative[index] = mdp.transitions.cumsum(-1)
        self._rewards[index] = mdp.rewards

    def reset(self, index: int, rng: np.random.Generator) -> None:
        self._random.restart(index, rng)
        self._states[index], self._previous[index], self._returns[index] = 0, -1, 0.0
        self._visits[index] = 0
        self._visits[index, 0] = 1

    def step(self, actions: Int[ndarray, " env"], active: Bool[ndarray, " env"]) -> Outcome:
        """r ~ N(r̄(s, a), 1);  s' ~ p(· | s, a)."""
        mean = self._rewards[self._envs, self._states, actions]
        rewards = mean + self._random.normal(active)
        # The last sum, which rounding may leave below 1, is left out.
        cumulative = self._cumulative[self._envs, self._states, actions, :-1]
        following = (cumulative < self._random.uniform(active)[:, None]).sum(-1)
        self._previous = np.where(active, self._states, self._previous)
        self._states = np.where(active, following, self._states)
        self._visits[self._envs, self._states] += active
        self._returns += np.where(active, rewards, 0.0)
        never = np.zeros(self.num_envs, bool)
        return Outcome(rewards, never, never, {"mean_reward": mean})

    def observe(self, out: Int[ndarray, " env"]) -> None:
        out[:] = self._states

    def render(self, index: int, width: int, height: int) -> UInt8[ndarray, "height width 3"]:
        """The states on a circle with the visits in this episode, the present one in orange, and the last step."""
        picture = Image.new("RGB", (width, height), _PAPER)
        draw = ImageDraw.Draw(picture)
        size = min(width, height)
        centre, circle, disc = (width / 2, height / 2 + 8), size * 0.33, size * 0.07
        angles = (2 * math.pi * state / STATES - math.pi / 2 for state in range(STATES))
        places = [(centre[0] + circle * math.cos(angle), centre[1] + circle * math.sin(angle)) for angle in angles]
        visits, state, previous = self._visits[index], int(self._states[index]), int(self._previous[index])
        draw.text((10, 8), f"step {visits.sum() - 1}   return {self._returns[index]:.1f}   visits of states", fill=_INK)
        if previous >= 0:
            draw.line((places[previous], places[state]), fill=_HERE, width=3)
        for number, (x, y) in enumerate(places):
            shade = 1.0 - 0.6 ** visits[number]  # 0 for never, towards 1 for often
            fill = tuple(round(a + shade * (b - a)) for a, b in zip(_PAPER, _VISITED, strict=True))
            outline, line = (_HERE, 4) if number == state else (_INK, 1)
            draw.ellipse((x - disc, y - disc, x + disc, y + disc), fill=fill, outline=outline, width=line)
            draw.text((x, y), f"{visits[number]}", fill=_INK, anchor="mm")
            away = 1 + 1.7 * disc / circle
            x, y = centre[0] + (x - centre[0]) * away, centre[1] + (y - centre[1]) * away
            draw.text((x, y), f"s{number}", fill=_INK, anchor="mm")
        return np.asarray(picture)

    def close(self) -> None:
        """Holds nothing."""


def tabular_mdp() -> EnvDistribution:
    """Random MDPs, in episodes of 10 steps that start in state 0."""
    physics = {
        "body": "mdp",
        "states": STATES,
        "actions": ACTIONS,
        "transitions": "Dirichlet(1)",
        "mean_reward": "N(1, 1)",
        "reward": "N(mean_reward, 1)",
        "start": 0,
        "version": 1,
    }
    space = seeded_space(ID, "mdp")
    about = f"Earn in a random MDP of {STATES} states and {ACTIONS} actions that has to be found out first."
    return EnvDistribution(space, HORIZON, TabularMdpSimulator, physics, OBSERVATION_SPACE, ACTION_SPACE, about=about)
