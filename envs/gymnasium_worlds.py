"""Any Gymnasium environment as a distribution of tasks, by the parameters in it that vary.

    from metarl.envs import from_gymnasium
    from metarl.tasks import Uniform

    def pendulum():
        '''Swing up a pendulum whose mass and length are not shown.'''
        return from_gymnasium(
            "Pendulum-v1",
            id="my-pendulum",
            parameters={"m": Uniform(0.5, 2.0, 0.01, "kg"), "l": Uniform(0.5, 1.5, 0.01, "m")},
            test={"l": Uniform(1.5, 2.0, 0.01, "m")},  # longer than any in training
        )

is all of a file that `--env my_file.py:pendulum` takes. `parameters.py` says how parameters are spelled.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import cast

import gymnasium as gym
import mujoco
from gymnasium.envs.registration import load_env_creator

from metarl.envs.distribution import EnvDistribution
from metarl.envs.gymnasium_probe import check_parameters
from metarl.envs.gymnasium_simulator import Constructor, EnvRecipe, TaskParameters
from metarl.envs.gymnasium_workers import GymnasiumGame, Stepping, make_simulator
from metarl.envs.observations import check_observation_space
from metarl.envs.parameters import Env, Value, control_period, find_parameter, is_mujoco
from metarl.envs.pictures import drawer_for
from metarl.envs.vector import CONTROL_PERIOD
from metarl.learning.spaces import Spaces
from metarl.tasks import Choice, Family, Json, Score, TaskSpace, Uniform, content_hash

Range = Uniform | Choice
FAMILY = "physics"


def from_gymnasium(
    env: str | Constructor,
    *,
    id: str,
    parameters: Mapping[str, Range],
    validation: Mapping[str, Range] | None = None,
    test: Mapping[str, Range] | None = None,
    keywords: Mapping[str, Value] | None = None,
    derive: Callable[[Env], None] | None = None,
    horizon: int | None = None,
    period: float | None = None,
    score: Score = "return",
    about: str = "",
    split_sizes: tuple[int, int, int] = (40, 20, 40),
    rarely_felt: tuple[str, ...] = (),
    stepping: Stepping = "measured",
) -> EnvDistribution:
    """A distribution of tasks that differ in some parameters of an environment.

    Args:
        env: an id of Gymnasium's registry, or what constructs an environment.
        id: what the distribution is called.
        parameters: by name, where each is drawn from in training.
        validation: other ranges for some of them in the validation; training's for the rest.
        test: other ranges for some of them in the test. Within training's ranges, the test asks for interpolation: for
            other instances than any in training; outside, for extrapolation.
        keywords: the constructor's, the same for all tasks.
        derive: called after a task's parameters are set, for what the environment has derived from them.
        horizon: environment steps in an episode; the environment's own limit if None.
        period: s of simulated time in a step; what the environment says, if None.
        score: what an episode is judged by; `success` where the environment's info tells it.
        about: one line on what there is to do.
        split_sizes: tasks in the frozen train, validation and test lists.
        rarely_felt: parameters that need not show in a few dozen random steps.
        stepping: where several are stepped: `here`, in this process, MuJoCo's from threads; in worker `processes`, of
            which there are as many as threads are asked for; or as a short measurement says, which is printed. No
            result depends on it.

    Raises:
        ValueError: a parameter that does not exist or changes nothing, a range that the environment fails in, spaces
            that agents cannot take, no time limit. The message names the distribution and what is near.
    """
    recipe = EnvRecipe(env, dict(keywords or {}))
    space = _space(id, parameters, validation or {}, test or {}, split_sizes)
    try:
        probe = recipe.build({})
        check_observation_space(probe.observation_space)
        spaces = Spaces(probe.observation_space, probe.action_space)
        constructors = {**_keywords(env), **recipe.keywords}
        found = {name: find_parameter(probe, constructors, name) for name in parameters}
        task_parameters = TaskParameters(found, derive)
        limit = horizon or _limit(env, probe)
        if limit is None:
            raise ValueError(f"{recipe.name} has no time limit of its own; give a horizon, in environment steps")
        terms = check_parameters(recipe, task_parameters, space, spaces, rarely_felt)
        if score == "success" and not {"success", "is_success"} & set(terms):
            raise ValueError(f"{recipe.name} does not tell success in its info; judge it by return")
    except (ValueError, TypeError, gym.error.Error) as error:
        raise ValueError(f"{id}: {error}") from error
    drawer = drawer_for(probe)
    draws_itself = "render_mode" in constructors and "rgb_array" in probe.metadata.get("render_modes", [])
    own_pictures = drawer is None and draws_itself
    if own_pictures:
        recipe = EnvRecipe(env, {**recipe.keywords, "render_mode": "rgb_array"})
    period = period or control_period(probe) or CONTROL_PERIOD
    physics = _physics(env, dict(keywords or {}), derive, is_mujoco(probe))
    game = GymnasiumGame(
        recipe=recipe,
        parameters=task_parameters,
        spaces=(spaces.observation, spaces.action),
        horizon=limit,
        terms=terms,
        mujoco=is_mujoco(probe),
        spec=gym.spec(env) if isinstance(env, str) else None,
    )
    probe.close()
    return EnvDistribution(
        space,
        limit,
        functools.partial(make_simulator, game=game, stepping=stepping, tasks=space),
        physics,
        spaces.observation,
        spaces.action,
        score,
        control_period=period,
        about=about,
        renders=own_pictures or drawer is not None,
    )


def _space(
    id: str,
    parameters: Mapping[str, Range],
    validation: Mapping[str, Range],
    test: Mapping[str, Range],
    split_sizes: tuple[int, int, int],
) -> TaskSpace:
    """One family; the splits differ in ranges at most."""
    if not parameters:
        raise ValueError(f"{id}: without parameters that vary all tasks are the same")
    for split, others in (("validation", validation), ("test", test)):
        unknown = sorted(others.keys() - parameters.keys())
        if unknown:
            raise ValueError(
                f"{id}: the {split} has a range for {unknown[0]!r}, which training has not; give it one there"
            )
    train, held_out, last = (Family(FAMILY, {**parameters, **others}) for others in ({}, validation, test))
    return TaskSpace(id, (train,), (held_out,), (last,), True, split_sizes)


def _constructor(env: str | Constructor) -> Constructor:
    if not isinstance(env, str):
        return env
    entry_point = gym.spec(env).entry_point
    assert entry_point is not None
    return cast(Constructor, load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point)


def _keywords(env: str | Constructor) -> dict[str, Value | None]:
    """The constructor's, with their defaults where those are numbers or texts."""
    given = {} if not isinstance(env, str) else gym.spec(env).kwargs
    signature = inspect.signature(_constructor(env))
    defaults = {name: given.get(name, parameter.default) for name, parameter in signature.parameters.items()}
    kinds = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    named = [name for name, parameter in signature.parameters.items() if parameter.kind in kinds]
    return {name: defaults[name] if isinstance(defaults[name], Value) else None for name in named}


def _limit(env: str | Constructor, probe: Env) -> int | None:
    """The environment's own time limit, in steps."""
    limit = gym.spec(env).max_episode_steps if isinstance(env, str) else None
    return limit or (probe.spec.max_episode_steps if probe.spec is not None else None)


def _physics(
    env: str | Constructor, keywords: Mapping[str, Value], derive: Callable[[Env], None] | None, mujoco_body: bool
) -> dict[str, Json]:
    """What decides a score, other than tasks and horizon: the environment's source among it, where there is one."""
    name = env if isinstance(env, str) else EnvRecipe(env, {}).name
    sources = (_constructor(env),) if derive is None else (_constructor(env), derive)
    physics: dict[str, Json] = {
        "body": name,
        "keywords": dict(keywords),
        "sources": [content_hash(_source(part)) for part in sources],
        "gymnasium": gym.__version__,
    }
    return physics | {"mujoco": mujoco.__version__} if mujoco_body else physics


def _source(part: Callable[..., object]) -> str:
    """The text of a function or class; its name where it has none, as what is written in C."""
    try:
        return inspect.getsource(part)
    except (OSError, TypeError):
        return getattr(part, "__qualname__", type(part).__name__)
