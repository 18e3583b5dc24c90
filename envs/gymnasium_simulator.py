"""Plain Gymnasium environments as a batch: constructed alike, each with a task's parameters set in it."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, final

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Tuple
from gymnasium.vector.utils import create_empty_array
from jaxtyping import Bool, Float, Shaped, UInt8
from numpy import ndarray

from metarl.envs.mujoco_pool import quiet_warnings
from metarl.envs.observations import Observations
from metarl.envs.parameters import Env, Keyword, Parameter, Value, blown_up, settle
from metarl.envs.pictures import Drawer, drawer_for
from metarl.envs.simulator import Outcome, SimulatorError
from metarl.errors import RunError
from metarl.tasks import Task

Constructor = Callable[..., Env]


@final
@dataclasses.dataclass(frozen=True)
class EnvRecipe:
    """How an environment is constructed."""

    env: str | Constructor
    """An id of Gymnasium's registry, or what constructs it."""
    keywords: Mapping[str, Value]
    """The constructor's."""

    def build(self, keywords: Mapping[str, Value]) -> Env:
        """An environment without a time limit of its own, with these keywords too."""
        given = {**self.keywords, **keywords}
        if isinstance(self.env, str):
            return gym.make(self.env, max_episode_steps=-1, disable_env_checker=True, **given)
        return self.env(**given)

    @property
    def name(self) -> str:
        """The id, or the constructor's name."""
        return self.env if isinstance(self.env, str) else getattr(self.env, "__qualname__", type(self.env).__name__)


@final
@dataclasses.dataclass(frozen=True)
class TaskParameters:
    """What of an environment a task sets."""

    found: Mapping[str, Parameter]
    derive: Callable[[Env], None] | None
    """Called when they are set, for what the environment has derived from them."""

    def keywords(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Those that the constructor is given."""
        constructed = {name: one for name, one in self.found.items() if isinstance(one, Keyword)}
        return {one.name: one.argument(values[name]) for name, one in constructed.items()}

    def apply(self, env: Env, values: Mapping[str, Value]) -> None:
        """Sets the others; the environment must be reset before it is stepped."""
        for name, parameter in self.found.items():
            parameter.set(env, values[name])
        if self.derive is not None:
            self.derive(env)
        settle(env)


@final
class GymnasiumSimulator:
    """A batch of environments in this process.

    Every episode gets a seed of its own: all its chance comes from the environment's `reset(seed=...)`. MuJoCo's are
    stepped from several threads, since MuJoCo lets go of the interpreter's lock while it computes; others would only
    wait for one another, and are stepped one after the other.

    Args:
        num_envs: how many.
        threads: threads that step MuJoCo's environments; no result depends on it.
        recipe: how they are constructed.
        parameters: what a task sets in them.
        spaces: the observations' and the actions'.
        horizon: environment steps before which no episode may be truncated by the environment.
        terms: which numbers of the environment's info are told, by their names there.
        mujoco: whether the environments are MuJoCo's.
        seen: where their observations are written; memory of its own if None.
    """

    def __init__(
        self,
        num_envs: int,
        threads: int,
        recipe: EnvRecipe,
        parameters: TaskParameters,
        spaces: tuple[gym.Space[Any], gym.Space[Any]],
        horizon: int,
        terms: Sequence[str],
        mujoco: bool,
        seen: Observations | None = None,
    ) -> None:
        self.num_envs = num_envs
        self.observation_space, self.action_space = spaces
        quiet_warnings()
        self._recipe = recipe
        self._parameters = parameters
        self._horizon = horizon
        self._terms = tuple(terms)
        self._mujoco = mujoco
        self._threads = min(threads, num_envs) if mujoco else 1
        self._executor = ThreadPoolExecutor(self._threads, "gymnasium") if self._threads > 1 else None
        self._envs: list[Env | None] = [None] * num_envs
        self._keywords: list[dict[str, Value]] = [{} for _ in range(num_envs)]
        self._tasks: list[Task | None] = [None] * num_envs
        self._steps = np.zeros(num_envs, np.int64)
        self._seen: Observations = (
            create_empty_array(self.observation_space, num_envs, np.zeros) if seen is None else seen
        )
        self._drawer: Drawer | None = None

    def set_task(self, index: int, task: Task) -> None:
        values = dict(task.parameters)
        keywords = self._parameters.keywords(values)
        env = self._envs[index]
        if env is None or keywords != self._keywords[index]:
            if env is not None:
                env.close()
            env = self._envs[index] = self._recipe.build(keywords)
            self._keywords[index] = keywords
            for name, own, wanted in (
                ("observation", env.observation_space, self.observation_space),
                ("action", env.action_space, self.action_space),
            ):
                if own != wanted:
                    raise SimulatorError(
                        f"{self._recipe.name} on {task} has the {name} space {own} instead of {wanted}"
                    )
        self._parameters.apply(env, values)
        self._tasks[index] = task

    def reset(self, index: int, rng: np.random.Generator) -> None:
        self.reset_by_seed(index, int(rng.integers(2**31)))

    def reset_by_seed(self, index: int, seed: int) -> None:
        """`reset` of one whose generator gave this seed."""
        try:
            observation, _ = self._env(index).reset(seed=seed)
        except Exception as error:  # somebody else's code: whatever it is, it is said with the task
            raise self._failed("its reset", index, error) from error
        self._steps[index] = 0
        self._write(self.observation_space, self._seen, index, observation)

    def step(self, actions: Shaped[ndarray, "env *action"], active: Bool[ndarray, " env"]) -> Outcome:
        rewards = np.zeros(self.num_envs)
        terminated, diverged = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        terms = np.full((len(self._terms), self.num_envs), np.nan)
        if isinstance(self.action_space, Box):
            actions = actions.astype(self.action_space.dtype)

        def step_some(indices: Iterable[int]) -> None:
            for index in indices:
                rewards[index], terminated[index], diverged[index], terms[:, index] = self.step_one(
                    index, actions[index]
                )

        running = np.flatnonzero(active).tolist()
        if self._executor is None:
            step_some(running)
        else:
            # One by one, for whoever is free: episodes take unequally long.
            tuple(self._executor.map(step_some, ((index,) for index in running)))
        return Outcome(rewards, terminated, diverged, named_terms(self._terms, terms))

    def step_one(
        self, index: int, action: Shaped[ndarray, "*action"] | np.integer
    ) -> tuple[float, bool, bool, Float[ndarray, " term"]]:
        """Reward, whether the episode terminated, whether the simulation blew up, and the terms."""
        try:
            observation, reward, terminated, truncated, info = self._env(index).step(action)
        except Exception as error:
            raise self._failed(f"step {self._steps[index] + 1}", index, error) from error
        self._steps[index] += 1
        if truncated and self._steps[index] < self._horizon:
            raise SimulatorError(
                f"{self._recipe.name} on {self._tasks[index]} truncates an episode at step {self._steps[index]} of "
                f"{self._horizon}: give horizon={self._steps[index]}, or lift the limit that it has itself"
            )
        self._write(self.observation_space, self._seen, index, observation)
        terms = np.array([float(info.get(name, np.nan)) for name in self._terms])
        return float(reward), terminated, self._mujoco and blown_up(self._env(index)), terms

    def _failed(self, where: str, index: int, error: Exception) -> RunError:
        what = f"{type(error).__name__}: {error}"
        return RunError(f"{self._recipe.name} failed in {where} on {self._tasks[index]}: {what}")

    def observe(self, out: Observations) -> None:
        copy_into(out, self._seen)

    def render(self, index: int, width: int, height: int) -> UInt8[ndarray, "height width 3"]:
        env = self._env(index)
        if self._drawer is None:
            self._drawer = drawer_for(env)
            assert self._drawer is not None, "a distribution without pictures says renders=False"
        return self._drawer.draw(env, width, height)

    def close(self) -> None:
        """Closes the environments and ends the threads."""
        if self._executor is not None:
            self._executor.shutdown()
        for env in self._envs:
            if env is not None:
                env.close()
        if self._drawer is not None:
            self._drawer.close()
            self._drawer = None

    def _env(self, index: int) -> Env:
        env = self._envs[index]
        assert env is not None, "set_task comes first"
        return env

    def _write(self, space: gym.Space[Any], rows: Observations, index: int, observation: object) -> None:
        """Puts an observation into its row."""
        if isinstance(space, Dict):
            assert isinstance(observation, Mapping)
            for key, part in space.spaces.items():
                self._write(part, rows[key], index, observation[key])
        elif isinstance(space, Tuple):
            assert isinstance(observation, Sequence)
            for part, row, value in zip(space.spaces, rows, observation, strict=True):
                self._write(part, row, index, value)
        else:
            value = np.asarray(observation)
            if value.shape != rows.shape[1:]:  # it would be repeated to fit
                name, task = self._recipe.name, self._tasks[index]
                raise SimulatorError(f"{name} on {task} observes {value.shape} numbers instead of {rows.shape[1:]}")
            rows[index] = value


def named_terms(names: Sequence[str], terms: Float[ndarray, "term env"]) -> dict[str, Float[ndarray, " env"]]:
    """The numbers of the environments' infos as an `Outcome` tells them."""
    return {"success" if name == "is_success" else name: terms[row] for row, name in enumerate(names)}


def copy_into(out: Observations, rows: Observations) -> None:
    """Writes observations into arrays of the same structure."""
    if isinstance(rows, dict):
        for key, part in rows.items():
            copy_into(out[key], part)
    elif isinstance(rows, tuple):
        for target, part in zip(out, rows, strict=True):
            copy_into(target, part)
    else:
        out[...] = rows
