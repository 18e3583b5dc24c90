"""A world in Python that can take its time, and that fails, hangs or dies when it is told to by an action."""

import os
import time
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

from metarl.envs import from_gymnasium
from metarl.envs.distribution import EnvDistribution
from metarl.envs.gymnasium_workers import Stepping
from metarl.tasks import Uniform

FAIL, HANG, DIE = 0.625, 0.75, 0.875  # the first of two numbers, where the other is 0
LIMIT = 6


class Slow(gym.Env[dict[str, Any], np.ndarray]):
    """Integrates its action; chance comes from its own generator."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.observation_space = Dict({"place": Box(-np.inf, np.inf, (2,), np.float64), "count": Discrete(LIMIT + 1)})
        self.action_space = Box(-1.0, 1.0, (2,), np.float32)
        self.seconds, self.gain = seconds, 1.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.count = self.np_random.normal(size=2), 0
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        time.sleep(self.seconds)
        told = action[0] if action[1] == 0 else None
        if told == DIE:
            os._exit(3)
        if told == HANG:
            time.sleep(1000)
        if told == FAIL:
            raise ArithmeticError("told to fail")
        self.count += 1
        self.place = self.place + self.gain * action + 0.1 * self.np_random.normal(size=2)
        reward = -float(np.abs(self.place).sum())
        return self._observation(), reward, bool(self.place[0] > 1.0), False, {"distance": -reward}

    def _observation(self) -> dict[str, Any]:
        return {"place": self.place.copy(), "count": min(self.count, LIMIT)}


def slow(stepping: Stepping = "measured", seconds: float = 0.0) -> EnvDistribution:
    """Stay near the origin, although nobody says how far an action goes."""
    return from_gymnasium(
        lambda seconds=seconds: Slow(seconds),
        id="slow",
        parameters={"gain": Uniform(0.5, 2.0, 0.01, "1")},
        horizon=LIMIT,
        stepping=stepping,
    )
