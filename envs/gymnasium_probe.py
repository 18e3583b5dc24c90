"""Trying out an environment's parameters: one that changes nothing or fails is found before any training."""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.spaces.utils import flatten
from numpy import ndarray

from metarl.envs.gymnasium_simulator import EnvRecipe, TaskParameters
from metarl.envs.mujoco_pool import quiet_warnings
from metarl.envs.parameters import Env, Value, blown_up, check_lowest
from metarl.learning.spaces import Spaces
from metarl.tasks import SPLITS, Choice, TaskSpace, Uniform

EPISODES, STEPS = 3, 60  # of the probe, with random actions


class Trace(NamedTuple):
    """What a few episodes showed."""

    numbers: ndarray
    terms: frozenset[str]
    """The numbers in every step's info, by name."""


def check_parameters(
    recipe: EnvRecipe, parameters: TaskParameters, space: TaskSpace, spaces: Spaces, rarely_felt: tuple[str, ...]
) -> tuple[str, ...]:
    """Plays a few steps at both ends of every range of every split, and compares.

    Returns:
        The numbers that every step's info tells, by name.

    Raises:
        ValueError: a parameter changes nothing, or the environment fails with it.
    """
    unknown = set(rarely_felt) - parameters.found.keys()
    if unknown:
        raise ValueError(f"rarely_felt names {', '.join(sorted(unknown))}, which do not vary")
    ranges = {split: space.families(split)[0].parameters for split in SPLITS}
    middle = {name: _ends(source)[2] for name, source in ranges["train"].items()}
    terms: list[frozenset[str]] = []
    env: Env | None = None
    for name in parameters.found:
        ends = {value: None for split in SPLITS for value in _ends(ranges[split][name])[:2]}
        numbers = [value for value in ends if not isinstance(value, str)]
        check_lowest(name, min(numbers, default=0.0))
        traces: list[Trace] = []
        for value in ends:
            values = {**middle, name: value}
            env = _built(recipe, parameters, values, env)
            traces.append(_played(recipe, parameters, spaces, env, name, values))
        terms += [trace.terms for trace in traces]
        felt = any(not np.array_equal(one.numbers, other.numbers) for one, other in itertools.pairwise(traces))
        if not felt and name not in rarely_felt:
            both = " and ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in ends)
            raise ValueError(
                f"{name!r} changes nothing in {recipe.name}: {EPISODES} episodes of {STEPS} random steps are the same "
                f"with {both}. If it is felt later than that, name it in rarely_felt"
            )
    if env is not None:
        env.close()
    return tuple(sorted(frozenset.intersection(*terms)))


def _ends(source: Uniform | Choice) -> tuple[Value, Value, Value]:
    """The ends of a range, and something between."""
    if isinstance(source, Choice):
        return source.values[0], source.values[-1], source.values[len(source.values) // 2]
    return source.low, source.high, (source.low + source.high) / 2


def _built(recipe: EnvRecipe, parameters: TaskParameters, values: Mapping[str, Value], env: Env | None) -> Env:
    """An environment with these keywords: the one at hand, unless keywords vary."""
    keywords = parameters.keywords(values)
    if env is not None and not keywords:
        return env
    if env is not None:
        env.close()
    return recipe.build(keywords)


def _played(
    recipe: EnvRecipe, parameters: TaskParameters, spaces: Spaces, env: Env, name: str, values: Mapping[str, Value]
) -> Trace:
    quiet_warnings()
    what = f"{recipe.name} with {name} = {values[name]}"
    rng = np.random.default_rng(0)
    numbers: list[ndarray] = []
    terms: frozenset[str] | None = None
    try:
        parameters.apply(env, values)
        for episode in range(EPISODES):
            numbers.append(np.asarray(flatten(spaces.observation, env.reset(seed=episode)[0]), np.float64))
            for _ in range(STEPS):
                observation, reward, terminated, truncated, info = env.step(_random_action(spaces, rng))
                told = {key for key, term in info.items() if isinstance(term, int | float | np.number | np.bool_)}
                terms = frozenset(told if terms is None else terms & told)
                numbers += [np.asarray(flatten(spaces.observation, observation), np.float64), np.array([float(reward)])]
                if blown_up(env):
                    raise FloatingPointError("the simulation blows up")
                if terminated or truncated:
                    break
    except Exception as error:  # somebody else's code: whatever it is, it is said with the parameter
        raise ValueError(f"{what} fails: {type(error).__name__}: {error}") from error
    trace = np.concatenate(numbers)
    if not np.isfinite(trace).all():
        raise ValueError(f"{what} gives numbers that are not finite within {EPISODES} episodes of {STEPS} random steps")
    return Trace(trace, terms or frozenset())


def _random_action(spaces: Spaces, rng: np.random.Generator) -> ndarray | np.integer:
    if isinstance(spaces.action, Discrete):
        return spaces.action.start + rng.integers(spaces.action.n)
    assert isinstance(spaces.action, Box)
    return rng.uniform(spaces.action.low, spaces.action.high).astype(spaces.action.dtype)
