"""Which share of MAML-TRPO's outer steps is physics."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from typing import final

import gymnasium as gym
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from metarl import envs
from metarl.agents import MamlTrpoConfig
from metarl.envs import Outcome, Simulator
from metarl.learning.collect import Collector
from metarl.learning.sources import TrialSource
from metarl.learning.training import outer_steps
from metarl.tasks import Task


def physics_share(threads: int, steps: int = 3) -> tuple[float, float]:
    """The share of a MAML-TRPO outer step that the simulator takes, and the outer step's seconds."""
    clock = _Clock()
    dist = envs.make("cheetah-direction")
    timed = dataclasses.replace(dist, make_simulator=lambda count, n: _Timed(dist.make_simulator(count, n), clock))
    agent = MamlTrpoConfig().build(timed.spaces)
    total = 0.0
    with contextlib.closing(Collector(timed, threads)) as collector:
        source = TrialSource(timed, collector)
        for done in outer_steps(agent, source, agent.init(0), seed=0, start=0, stop=steps + 1):
            if done.step == 1:  # the first one builds simulators and traces
                clock.seconds = 0.0
            else:
                total += done.seconds
    return clock.seconds / total, total / steps


@dataclasses.dataclass
class _Clock:
    seconds: float = 0.0


@final
class _Timed:
    """A simulator that adds the time it takes to a clock."""

    def __init__(self, simulator: Simulator, clock: _Clock) -> None:
        self._simulator = simulator
        self._clock = clock

    @property
    def num_envs(self) -> int:
        return self._simulator.num_envs

    @property
    def observation_space(self) -> gym.Space[object]:
        return self._simulator.observation_space

    @property
    def action_space(self) -> gym.Space[object]:
        return self._simulator.action_space

    def set_task(self, index: int, task: Task) -> None:
        self._simulator.set_task(index, task)

    def reset(self, index: int, rng: np.random.Generator) -> None:
        with self._timing():
            self._simulator.reset(index, rng)

    def step(self, actions: Float[ndarray, "env action"], active: Bool[ndarray, "env"]) -> Outcome:
        with self._timing():
            return self._simulator.step(actions, active)

    def observe(self, out: Float[ndarray, "env observation"]) -> None:
        self._simulator.observe(out)

    def render(self, index: int, width: int, height: int) -> UInt8[ndarray, "height width 3"]:
        return self._simulator.render(index, width, height)

    def close(self) -> None:
        self._simulator.close()

    @contextlib.contextmanager
    def _timing(self) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._clock.seconds += time.perf_counter() - began
