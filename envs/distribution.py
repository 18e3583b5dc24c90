"""A distribution of reinforcement-learning tasks: which tasks there are, and the simulator that plays them."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast, final

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvCreator, EnvSpec

from metarl.envs.gymnasium_ids import gymnasium_id
from metarl.envs.simulator import Simulator
from metarl.envs.single import TaskEnv
from metarl.envs.vector import CONTROL_PERIOD, TaskVectorEnv
from metarl.evaluation.html import table_html
from metarl.learning.spaces import Spaces
from metarl.tasks import SPLITS, Json, Score, Split, Task, TaskSpace, content_hash

if TYPE_CHECKING:  # it is an optional dependency, and slow to import
    from metarl.envs.sb3_env import Sb3Env


@final
@dataclasses.dataclass(frozen=True, repr=False)
class EnvDistribution:
    """Tasks in three splits, and environments that play them."""

    space: TaskSpace
    """Which tasks there are."""
    horizon: int
    """Environment steps in an episode; reaching it is a truncation."""
    make_simulator: Callable[[int, int], Simulator]
    """(num_envs, threads) -> a fresh simulator."""
    physics: Mapping[str, Json]
    """All that decides what a score means, other than tasks and horizon: reward coefficients, simulator version, ...
    `body` names what moves."""
    observation_space: gym.Space[Any]
    """Of one environment."""
    action_space: gym.Space[Any]
    """Of one environment."""
    score: Score = "return"
    """What an episode is judged by."""
    control_period: float = CONTROL_PERIOD
    """s of simulated time in an environment step: videos play at its pace. Worlds without a clock keep the default."""
    about: str = ""
    """One line on what there is to do. Where it is empty, `envs.make` takes the first line of the docstring of the
    function that makes the distribution."""
    renders: bool = True
    """Whether its simulator can draw pictures."""

    def __post_init__(self) -> None:
        if self.horizon < 1:
            raise ValueError(f"{self.id}: an episode needs a horizon of at least one step, got {self.horizon}")
        if not 0 < self.control_period < np.inf:
            raise ValueError(
                f"{self.id}: control_period must be a positive number of seconds, got {self.control_period}"
            )

    def __repr__(self) -> str:
        """One line; `metarl.envs.describe` says more."""
        kind = "held out" if self.held_out else "nothing held out"
        return f"<EnvDistribution {self.id}: {self.body}, horizon {self.horizon}, score {self.score}, {kind}>"

    def _repr_html_(self) -> str:
        """The families of tasks as a table, in notebooks."""
        from metarl.envs.description import describe, table_rows  # it describes distributions

        header, *rows = table_rows(describe(self))
        return table_html(f"{self!r}"[1:-1], header, rows)

    @property
    def id(self) -> str:
        return self.space.id

    @property
    def body(self) -> str:
        """What moves."""
        return str(self.physics.get("body", self.id.partition("-")[0]))

    @property
    def held_out(self) -> bool:
        """Whether validation and test hold tasks that training never sees."""
        return self.space.held_out

    @property
    def families(self) -> dict[str, frozenset[str]]:
        """The names of all families, of whatever split, and of their parameters."""
        families = itertools.chain.from_iterable(self.space.families(split) for split in SPLITS)
        return {family.name: frozenset(family.parameters) for family in families}

    @property
    def units(self) -> dict[str, str]:
        """Each task parameter's unit."""
        families = itertools.chain.from_iterable(self.space.families(split) for split in SPLITS)
        return {name: source.unit for family in families for name, source in family.parameters.items()}

    @property
    def spaces(self) -> Spaces:
        """Of one environment, as agents are built for them."""
        return Spaces(self.observation_space, self.action_space)

    def spec(self) -> dict[str, Json]:
        """Everything that decides what a score means, as JSON."""
        spec: dict[str, Json] = {"tasks": self.space.spec(), "horizon": self.horizon, "physics": dict(self.physics)}
        return spec if self.score == "return" else spec | {"score": self.score}

    @property
    def hash(self) -> str:
        """The content hash of the spec, for runs and evaluations to carry."""
        return content_hash(self.spec())

    def sample(self, split: Split, count: int, rng: np.random.Generator) -> tuple[Task, ...]:
        """Draws `count` tasks of a split."""
        return self.space.sample(split, count, rng)

    def tasks(self, split: Split) -> tuple[Task, ...]:
        """The frozen list of a split: the same for everybody."""
        return self.space.tasks(split)

    def vector_env(self, num_envs: int, threads: int = 1) -> TaskVectorEnv:
        """A vector environment; until `set_tasks`, it plays the frozen training list in turn."""
        return self._vector_env(num_envs, threads, self.horizon)

    def unlimited_vector_env(self, num_envs: int, threads: int = 1) -> TaskVectorEnv:
        """The same without a time limit."""
        return self._vector_env(num_envs, threads, None)

    def sb3_env(
        self, tasks: Split | Sequence[Task] = "train", num_envs: int = 8, seed: int = 0, threads: int = 1
    ) -> "Sb3Env":
        """The batched physics as a vector environment of Stable-Baselines3, which must be installed.

        Args:
            tasks: a split, of which every episode of every sub-environment gets a task drawn anew; or the tasks
                themselves, which the sub-environments play in turn and keep.
            num_envs: how many sub-environments.
            seed: of the tasks and the resets; sub-environment i depends on `seed + i` alone.
            threads: threads or processes that step them; no result depends on it.

        Raises:
            ValueError: more tasks than sub-environments to play them, or spaces that Stable-Baselines3 does not take.
        """
        from metarl.envs.sb3_env import Sb3Env

        if isinstance(tasks, str):
            split = tasks
            self.tasks(split)  # rejects an unknown one
            venv = self.vector_env(num_envs, threads)
            return Sb3Env(venv, lambda rng: self.sample(split, 1, rng)[0], seed, self.renders)
        if not 1 <= len(tasks) <= num_envs:
            raise ValueError(f"{num_envs} sub-environments can keep 1 to {num_envs} tasks, got {len(tasks)}")
        venv = self.vector_env(num_envs, threads)
        venv.set_tasks(tuple(itertools.islice(itertools.cycle(tasks), num_envs)))
        return Sb3Env(venv, None, seed, self.renders)

    def _vector_env(self, num_envs: int, threads: int, horizon: int | None) -> TaskVectorEnv:
        for name, count in (("num_envs", num_envs), ("threads", threads)):
            if count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}")
        tasks = tuple(itertools.islice(itertools.cycle(self.tasks("train")), num_envs))
        simulator = self.make_simulator(num_envs, threads)
        return TaskVectorEnv(simulator, horizon, self.families, tasks, self.control_period)

    def env(
        self, task: Task | None = None, render_mode: str | None = None, width: int = 480, height: int = 360
    ) -> TaskEnv:
        """One task (the training list's first, if none is given) as a plain `gymnasium.Env`; pictures in pixels."""
        env = TaskEnv(self._one(task, self.horizon), self.renders, render_mode, width, height)
        env.spec = EnvSpec(
            gymnasium_id(self.id),
            entry_point=cast(EnvCreator, self.unlimited_env),
            max_episode_steps=self.horizon,
            kwargs={"task": task, "render_mode": render_mode, "width": width, "height": height},
        )
        return env

    def unlimited_env(
        self, task: Task | None = None, render_mode: str | None = None, width: int = 480, height: int = 360
    ) -> TaskEnv:
        """The same without a time limit, for `gymnasium.make` to put its own around."""
        return TaskEnv(self._one(task, None), self.renders, render_mode, width, height)

    def _one(self, task: Task | None, horizon: int | None) -> TaskVectorEnv:
        venv = self._vector_env(1, 1, horizon)
        if task is not None:
            venv.set_tasks([task])
        return venv
