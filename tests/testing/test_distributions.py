"""`check_distribution` lets a good distribution pass, and finds what is wrong with bad ones."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gymnasium.spaces import Box
from jaxtyping import Bool, Float
from numpy import ndarray

from metarl import envs
from metarl.envs import EnvDistribution, Outcome, SimulatorError
from metarl.tasks import Family, Task, TaskSpace, Uniform
from metarl.testing import ContractError, check_distribution

SPACE = Box(-np.inf, np.inf, (2,), np.float64)
ACTION = Box(-1.0, 1.0, (1,), np.float32)
FAMILY = Family("spring", {"stiffness": Uniform(1.0, 2.0, 0.001, "1/s²")})
BARE = Family("spring", {"stiffness": Uniform(1.0, 2.0, 0.001, "")})


class Springs:
    """A batch of masses on springs, with chance in every step. The subclasses below each spoil one thing."""

    observation_space = SPACE
    action_space = ACTION

    def __init__(self, num_envs: int, threads: int) -> None:
        self.num_envs = num_envs
        self.threads = threads
        self.stiffness = np.ones(num_envs)
        self.state = np.zeros((num_envs, 2))
        self.generators = [np.random.default_rng(0)] * num_envs

    def set_task(self, index: int, task: Task) -> None:
        self.stiffness[index] = float(task["stiffness"])

    def reset(self, index: int, rng: np.random.Generator) -> None:
        self.generators[index] = rng
        self.state[index] = rng.normal(size=2)

    def step(self, actions: Float[ndarray, "env action"], active: Bool[ndarray, " env"]) -> Outcome:
        for index in np.flatnonzero(active):
            x, v = self.state[index]
            v += 0.1 * (actions[index, 0] - self.stiffness[index] * x) + 0.01 * self.generators[index].normal()
            self.state[index] = x + 0.1 * v, v
        never = np.zeros(self.num_envs, bool)
        return Outcome(-(self.state[:, 0] ** 2), never, never, {"speed": self.state[:, 1].copy()})

    def observe(self, out: Float[ndarray, "env observation"]) -> None:
        out[:] = self.state

    def render(self, index: int, width: int, height: int) -> ndarray:
        picture = np.zeros((height, width, 3), np.uint8)
        picture[: int(height * (0.5 + 0.4 * np.tanh(self.state[index, 0])))] = 200
        return picture

    def close(self) -> None:
        """Holds nothing."""


class OneStream(Springs):
    def reset(self, index: int, rng: np.random.Generator) -> None:
        super().reset(index, rng)
        self.generators[:] = [rng] * self.num_envs


class OwnChance(Springs):
    def reset(self, index: int, rng: np.random.Generator) -> None:
        super().reset(index, np.random.default_rng())


class KeepsVelocity(Springs):
    def reset(self, index: int, rng: np.random.Generator) -> None:
        velocity = self.state[index, 1]
        super().reset(index, rng)
        self.state[index, 1] += velocity


class FeelsOthers(Springs):
    def step(self, actions: Float[ndarray, "env action"], active: Bool[ndarray, " env"]) -> Outcome:
        return super().step(actions + 0.001 * self.state.mean(), active)


class MovesAll(Springs):
    def step(self, actions: Float[ndarray, "env action"], active: Bool[ndarray, " env"]) -> Outcome:
        return super().step(actions, np.ones(self.num_envs, bool))


class DependsOnThreads(Springs):
    def step(self, actions: Float[ndarray, "env action"], active: Bool[ndarray, " env"]) -> Outcome:
        return super().step(actions * (1.0 + 1e-3 * self.threads), active)


class ShowsHalf(Springs):
    def observe(self, out: Float[ndarray, "env observation"]) -> None:
        out[:, 0] = self.state[:, 0]


class MovesWhenLookedAt(Springs):
    def observe(self, out: Float[ndarray, "env observation"]) -> None:
        self.state *= 0.99
        super().observe(out)


class TakesTasksAtOnce(Springs):
    """A new task for one, before its reset, is felt by its neighbour."""

    def set_task(self, index: int, task: Task) -> None:
        self.stiffness[:] = float(task["stiffness"])


class Still(Springs):
    def render(self, index: int, width: int, height: int) -> ndarray:
        return np.zeros((height, width, 3), np.uint8)


class Turned(Springs):
    def render(self, index: int, width: int, height: int) -> ndarray:
        return super().render(index, height, width)


class Elsewhere(Springs):
    observation_space = Box(-0.1, 0.1, (2,), np.float64)


def springs(simulator: type[Springs] = Springs) -> EnvDistribution:
    return EnvDistribution(
        TaskSpace("springs", (FAMILY,), (FAMILY,), (FAMILY,)),
        30,
        simulator,
        {"body": "mass on a spring"},
        simulator.observation_space,
        ACTION,
        about="Keep a mass in place.",
    )


def test_good_distributions_pass() -> None:
    check_distribution(springs())
    check_distribution(dataclasses.replace(springs(Still), renders=False))
    path = Path(__file__).parent.parent / "external" / "hidden_corner.py"
    check_distribution(envs.make(f"{path}:hidden_corner"))


@pytest.mark.parametrize(
    ("simulator", "message"),
    [
        (OneStream, "depends on"),
        (OwnChance, "the same seeds give other episodes"),
        (KeepsVelocity, "depends on what was played before"),
        (FeelsOthers, "depends on"),
        (MovesAll, "moves a sub-simulation that is not active"),
        (DependsOnThreads, "threads changes what happens"),
        (ShowsHalf, "unwritten"),
        (MovesWhenLookedAt, "changes what it looks at"),
        (TakesTasksAtOnce, "depends on|changes an episode"),
        (Still, "the picture stays the same"),
        (Turned, "must be uint8 of shape"),
        (Elsewhere, "is not in Box"),
    ],
)
def test_spoiled_simulators_are_found(simulator: type[Springs], message: str) -> None:
    with pytest.raises((ContractError, SimulatorError), match=message):
        check_distribution(springs(simulator))


def with_space(dist: EnvDistribution, **changes: object) -> EnvDistribution:
    return dataclasses.replace(dist, space=dataclasses.replace(dist.space, **changes))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda dist: dataclasses.replace(dist, about=""), "`about` must be one line"),
        (lambda dist: dataclasses.replace(dist, physics={"body": "x", "size": (1, 2)}), "spec changes in JSON"),
        (lambda dist: dataclasses.replace(dist, score="success"), "which infos do not tell"),
        (lambda dist: dataclasses.replace(dist, action_space=Box(-2.0, 2.0, (1,))), "the simulator acts otherwise"),
        (lambda dist: with_space(dist, train=(BARE,), validation=(BARE,), test=(BARE,)), "no unit"),
    ],
)
def test_spoiled_distributions_are_found(spoil: Callable[[EnvDistribution], EnvDistribution], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_distribution(spoil(springs()))


def test_a_held_out_task_in_training_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metarl.tasks.space._draw_outside", lambda family, reserved, rng: family.draw(rng))
    with pytest.raises(ContractError, match="come up in training|stand in validation and in the test|twice"):
        check_distribution(springs())
