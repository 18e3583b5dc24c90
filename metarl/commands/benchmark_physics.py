"""Which share of outer steps is physics, which the rest of sampling, and which the update."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping
from typing import final

import gymnasium as gym
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from metarl import envs
from metarl.agents import AgentConfig, MamlTrpoConfig, Rl2PpoConfig
from metarl.envs import Outcome, Simulator
from metarl.learning.collect import Collector
from metarl.learning.sources import TrialSource
from metarl.tasks import Task

AGENTS: Mapping[str, tuple[str, AgentConfig]] = {
    "MAML-TRPO on cheetah-direction": ("cheetah-direction", MamlTrpoConfig()),
    "RL² on cheetah-terrain": ("cheetah-terrain", Rl2PpoConfig(meta_batch=16)),
}
"""By what they are called, where they act and what they are."""


@final
@dataclasses.dataclass(frozen=True)
class Shares:
    """Where an outer step's time goes, s of processor time: other programs on the machine do not count."""

    physics: float
    """In the simulator, of all its threads."""
    sampling: float
    """Of all sampling, the physics included."""
    update: float

    @property
    def of_physics(self) -> float:
        """The share of the whole step that is physics."""
        return self.physics / (self.sampling + self.update)


def shares(id: str, config: AgentConfig, threads: int, steps: int) -> Shares:
    """The means of so many outer steps; one before them builds simulators and traces."""
    clock, dist = _Clock(), envs.make(id)
    timed = dataclasses.replace(dist, make_simulator=lambda count, n: _Timed(dist.make_simulator(count, n), clock))
    agent, sampling, update = config.build(timed.spaces), 0.0, 0.0
    state = agent.init(0)
    with contextlib.closing(Collector(timed, threads)) as collector:
        source = TrialSource(timed, collector)
        for step in range(steps + 1):
            if step == 1:
                clock.seconds = sampling = update = 0.0
            began = time.process_time()
            trials = source.collect(agent, state, 0, step)
            sampled = time.process_time()
            state, _ = agent.meta_step(state, trials, np.random.default_rng([0, step]))
            sampling, update = sampling + sampled - began, update + time.process_time() - sampled
    return Shares(clock.seconds / steps, sampling / steps, update / steps)


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
        began = time.process_time()
        try:
            yield
        finally:
            self._clock.seconds += time.process_time() - began
