"""Variants of a distribution that say how much adapting to it could bring: `cheetah-terrain+informed`, `+only-ice`.

    ID+informed                 told the task, trained on all families, the test's too: the ceiling of knowing
    ID+only-FAMILY              trained on one family, of whatever split: a specialist
    ID+informed+only-FAMILY     a specialist that is told the task

Their test lists are the distribution's own, so that scores on them can be held against each other, task by task.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, final

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Tuple
from jaxtyping import Bool, Float, Shaped, UInt8
from numpy import ndarray

from metarl.envs.distribution import EnvDistribution
from metarl.envs.simulator import Outcome, Simulator
from metarl.tasks import SPLITS, Choice, Family, Task, TaskSpace, Uniform
from metarl.tasks.ranges import Range

INFORMED, ONLY = "+informed", "+only-"
SPECIALIST_LISTS = (8, 8)
"""Tasks in a specialist's training and validation lists: a single family may have no more that are distinct."""


def split_variant(id: str) -> tuple[str, str]:
    """An id without its variant, and the variant: empty where it names none.

    >>> split_variant("cheetah-terrain+only-icy-slope")
    ('cheetah-terrain', '+only-icy-slope')
    >>> split_variant("metaworld-ml10+fresh")
    ('metaworld-ml10+fresh', '')
    """
    if id.endswith(INFORMED):
        return id.removesuffix(INFORMED), INFORMED
    base, found, family = id.rpartition(ONLY)
    return (base, f"{ONLY}{family}") if found else (id, "")


def base_id(id: str) -> str:
    """An id without any variants.

    >>> base_id("cheetah-terrain+informed+only-ice")
    'cheetah-terrain'
    """
    base, found = split_variant(id)
    return base_id(base) if found else base


def variant(dist: EnvDistribution, name: str) -> EnvDistribution:
    """The variant of a distribution that `split_variant` found.

    Raises:
        ValueError: there is none: no such family, or tasks that are known by a seed alone.
    """
    if name == INFORMED:
        return informed(dist)
    return specialist(dist, name.removeprefix(ONLY))


def specialist(dist: EnvDistribution, family: str) -> EnvDistribution:
    """The distribution with one family in training and validation; the test's list stays as it is.

    Raises:
        ValueError: there is no such family, or nothing is held out.
    """
    chosen = tuple(each for each in _every_family(dist.space) if each.name == family)
    if not chosen:
        raise ValueError(f"{dist.id} has no family {family!r}; there are {', '.join(dist.families)}")
    dist = _with_training(dist, f"{dist.id}{ONLY}{family}", chosen, chosen)
    sizes = (*SPECIALIST_LISTS, dist.space.split_sizes[2])
    return dataclasses.replace(dist, space=dataclasses.replace(dist.space, split_sizes=sizes))


def informed(dist: EnvDistribution) -> EnvDistribution:
    """The distribution with the task among the observations, and all splits' families in training.

    An observation is the tuple of the plain one and the task's `TaskCode`.

    Raises:
        ValueError: training is on a list of tasks that are known by number alone.
    """
    families = _every_family(dist.space)
    code = TaskCode.of(families)
    told = Tuple((dist.observation_space, Box(-1.0, 1.0, (code.size,), np.float32)))
    if dist.held_out:
        dist = _with_training(dist, f"{dist.id}{INFORMED}", families, dist.space.validation)
    else:
        list_seed_id = dist.space.list_seed_id or dist.id
        space = dataclasses.replace(dist.space, id=f"{dist.id}{INFORMED}", list_seed_id=list_seed_id)
        dist = dataclasses.replace(dist, space=space)
    return dataclasses.replace(
        dist,
        make_simulator=MakeInformed(dist.make_simulator, code, told),
        physics={**dist.physics, "task": "observed"},
        observation_space=told,
    )


@final
@dataclasses.dataclass(frozen=True)
class TaskCode:
    """A task as numbers from −1 to 1: which family, and each of its parameters within its range.

    Every family has columns of its own, which are 0 for tasks of the others. A number takes one, a choice one for
    each of its values.
    """

    families: tuple[str, ...]
    columns: tuple[tuple[str, str, Uniform | Choice], ...]
    """(family, parameter, range)."""

    @classmethod
    def of(cls, families: Iterable[Family]) -> "TaskCode":
        """The code of these families; of ranges of the same parameter, the smallest that holds them all."""
        ranges: dict[tuple[str, str], Range] = {}
        names: dict[str, None] = {}
        for family in families:
            names[family.name] = None
            for parameter, found in family.parameters.items():
                key = family.name, parameter
                ranges[key] = _union(ranges[key], found) if key in ranges else found
        return cls(tuple(names), tuple((*key, found) for key, found in ranges.items()))

    @property
    def size(self) -> int:
        return len(self.families) + sum(_width(found) for _, _, found in self.columns)

    def encode(self, task: Task) -> Float[ndarray, " column"]:
        parts = [np.array([name == task.family for name in self.families], np.float32)]
        for family, parameter, found in self.columns:
            inside = family == task.family
            parts.append(_encoded(task, parameter, found) if inside else np.zeros(_width(found), np.float32))
        return np.concatenate(parts)


@final
@dataclasses.dataclass(frozen=True)
class MakeInformed:
    """(num_envs, threads) -> a simulator that shows its tasks."""

    make: Callable[[int, int], Simulator]
    code: TaskCode
    space: gym.Space[Any]

    def __call__(self, num_envs: int, threads: int) -> "InformedSimulator":
        return InformedSimulator(self.make(num_envs, threads), self.code, self.space)


@final
class InformedSimulator:
    """A simulator whose observations are followed by the task's code."""

    def __init__(self, simulator: Simulator, code: TaskCode, space: gym.Space[Any]) -> None:
        self._simulator = simulator
        self._code = code
        self._codes = np.zeros((simulator.num_envs, code.size), np.float32)
        self.observation_space = space

    @property
    def num_envs(self) -> int:
        return self._simulator.num_envs

    @property
    def action_space(self) -> gym.Space[Any]:
        return self._simulator.action_space

    def set_task(self, index: int, task: Task) -> None:
        self._simulator.set_task(index, task)
        self._codes[index] = self._code.encode(task)

    def reset(self, index: int, rng: np.random.Generator) -> None:
        self._simulator.reset(index, rng)

    def step(self, actions: Shaped[ndarray, "env *action"], active: Bool[ndarray, " env"]) -> Outcome:
        return self._simulator.step(actions, active)

    def observe(self, out: Any) -> None:  # noqa: ANN401  # a type that follows from a value, the space
        observations, codes = out
        self._simulator.observe(observations)
        codes[:] = self._codes

    def render(self, index: int, width: int, height: int) -> UInt8[ndarray, "height width 3"]:
        return self._simulator.render(index, width, height)

    def close(self) -> None:
        self._simulator.close()


def _every_family(space: TaskSpace) -> tuple[Family, ...]:
    """Those of all splits, each once."""
    families: list[Family] = []
    for split in SPLITS:
        families += [family for family in space.families(split) if family not in families]
    return tuple(families)


def _with_training(
    dist: EnvDistribution, id: str, train: tuple[Family, ...], validation: tuple[Family, ...]
) -> EnvDistribution:
    """The distribution with other training tasks, and its own test list, which they stay out of."""
    space = dist.space
    if space.fixed_training_list:
        raise ValueError(f"{dist.id} trains on a published list of tasks: it has no {id.removeprefix(dist.id)}")
    if not space.held_out:
        raise ValueError(f"{dist.id} has a few tasks, which are all trained on: it has no {id.removeprefix(dist.id)}")
    list_seed_id = space.list_seed_id or space.id
    changed = dataclasses.replace(space, id=id, train=train, validation=validation, list_seed_id=list_seed_id)
    return dataclasses.replace(dist, space=changed)


def _width(found: Range) -> int:
    return len(found.values) if isinstance(found, Choice) else 1


def _union(one: Range, other: Range) -> Range:
    if isinstance(one, Choice) and isinstance(other, Choice):
        return Choice(tuple(dict.fromkeys((*one.values, *other.values))), one.unit)
    if isinstance(one, Uniform) and isinstance(other, Uniform):
        return Uniform(min(one.low, other.low), max(one.high, other.high), one.resolution, one.unit)
    raise ValueError(f"one parameter is drawn from ranges of two kinds, {one} and {other}: it has no code")


def _encoded(task: Task, parameter: str, found: Range) -> Float[ndarray, " column"]:
    if isinstance(found, Choice):
        return np.array([task[parameter] == value for value in found.values], np.float32)
    position = 2 * (task.number(parameter) - found.low) / (found.high - found.low) - 1
    return np.array([position], np.float32)
