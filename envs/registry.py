"""The distributions by id: our own, those of installed packages, and everybody's.

An id is one of

    cheetah-terrain               a name: of `register(...)`, or of an installed package's entry point in `metarl.envs`
    metaworld-ml10+fresh          of a family of ids, which begin alike and are made up of options
    my_package.worlds:pendulum    a function of a module, or a distribution in it
    path/to/my_file.py:pendulum   the same of a Python file

and any of them with `+informed` or `+only-FAMILY` at its end: see `variants.py`.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import final

from metarl.envs import bandits
from metarl.envs.ant import ant_angle, ant_direction, ant_goal
from metarl.envs.cheetah import cheetah_direction, cheetah_velocity, cheetah_velocity_2
from metarl.envs.classic_control import acrobot_physics, cartpole_physics, mountaincar_physics, pendulum_physics
from metarl.envs.distribution import EnvDistribution
from metarl.envs.dynamics import hopper_dynamics, humanoid_dynamics, walker_dynamics
from metarl.envs.faults import cheetah_faults
from metarl.envs.gymnasium_ids import check_gymnasium_id, register_in_gymnasium
from metarl.envs.maze import maze_navigation
from metarl.envs.metaworld import CUSTOM, IDS, PREFIX, metaworld
from metarl.envs.point import point_navigation, point_navigation_sparse
from metarl.envs.tabular_mdp import tabular_mdp
from metarl.envs.terrain import ant_terrain, cheetah_terrain, walker_terrain
from metarl.envs.variants import split_variant, variant
from metarl.errors import did_you_mean
from metarl.registry import Registry, canonical

MakeDistribution = Callable[[], EnvDistribution]
_ALIKE = (f"{PREFIX}ml1-",)  # parts of families whose ids are too many for a list
_LONGEST_LIST = 20  # ids of a family that a message names one by one


def _check(candidate: object) -> Callable[[], object]:
    """What an id names, as a function that makes a distribution."""
    if isinstance(candidate, EnvDistribution):
        return lambda: candidate
    if not callable(candidate):
        raise ValueError(f"it must be a function that returns an EnvDistribution, got {type(candidate).__name__}")
    try:
        inspect.signature(candidate).bind()
    except TypeError as error:
        raise ValueError(f"the function must take no arguments: {error}") from error
    return candidate


@final
@dataclasses.dataclass(frozen=True)
class _Family:
    """Ids that begin alike."""

    make: Callable[[str], EnvDistribution]
    ids: tuple[str, ...]
    hint: str
    """What they look like, for messages."""


_NAMES: Registry[Callable[[], object]] = Registry("distribution", "metarl.envs", _check)
_FAMILIES: dict[str, _Family] = {}
_SEEN: dict[str, tuple[str, str]] = {}
"""Of those from outside, by the id that they call themselves: where from, and their hash."""


def register(name: str, make: MakeDistribution) -> None:
    """Makes a distribution known as `name`, to every program and as `gymnasium.make("metarl/Name-v0")`.

    Args:
        name: what `make` calls it too: `make().id`.
        make: makes it, from no arguments.

    Raises:
        ValueError: the name is taken, or `make` gives something else.
    """
    dist = _made(_check(make), name)
    _check_name(name, dist)
    check_gymnasium_id(name)
    _NAMES.register(name, make)
    register_in_gymnasium(name, dist.horizon)


def register_family(
    prefix: str, make: Callable[[str], EnvDistribution], ids: Iterable[str], hint: str | None = None
) -> None:
    """Makes distributions known whose ids begin with `prefix` and say by their rest what they are.

    Args:
        prefix: `metaworld-`.
        make: makes the distribution of an id; its ValueError says what is wrong with one.
        ids: those to be listed; there may be more.
        hint: what the ids look like, for messages; the listed ones if None.

    Raises:
        ValueError: the prefix is taken.
    """
    ids = tuple(ids)
    if any(prefix.startswith(known) or known.startswith(prefix) for known in _FAMILIES):
        raise ValueError(f"there are distributions already whose ids begin with {prefix!r}; choose another prefix")
    taken = [name for name in _NAMES if name.startswith(prefix)]
    if taken:
        raise ValueError(f"there is a distribution called {taken[0]!r} already; choose another prefix than {prefix!r}")
    _FAMILIES[prefix] = _Family(make, ids, hint or f"{', '.join(ids[:_LONGEST_LIST])}")
    for id in ids:
        register_in_gymnasium(id, make(id).horizon)


def ids() -> tuple[str, ...]:
    """The ids of all distributions, but for those that can be made up (`metaworld-custom:TRAIN/TEST`)."""
    return tuple(sorted({*_NAMES, *(id for family in _FAMILIES.values() for id in family.ids)}))


def family_of(id: str) -> str:
    """What an id has in common with the others of its family, for lists that name a family once; empty for its own.

    >>> family_of("metaworld-ml1-reach-v3"), family_of("metaworld-ml10"), family_of("cheetah-terrain")
    ('metaworld-ml1-', '', '')
    """
    prefix = next((prefix for prefix in (*_ALIKE, *_FAMILIES) if id.startswith(prefix)), "")
    return "" if prefix == PREFIX else prefix


def make(id: str) -> EnvDistribution:
    """The distribution of this id.

    Raises:
        ValueError: there is none, or what the id names is none; the message says why.
    """
    base, name = split_variant(id)
    if name:
        return variant(make(base), name)
    if id in _NAMES:
        dist = _made(_NAMES[id], id)
        _check_name(id, dist)
        register_in_gymnasium(id, dist.horizon)
        return dist
    outside = id.rpartition(":")[0].endswith(".py")
    family = next((family for prefix, family in _FAMILIES.items() if id.startswith(prefix)), None)
    if family is not None and not outside:
        return family.make(id)
    if ":" not in id:
        known = did_you_mean(id, ids(), f"there are {_summary()}.")
        raise ValueError(f"unknown distribution {id!r}; {known} Your own is named my_file.py:name or my_module:name")
    dist = _made(_NAMES[id], id)
    _check_outside(id, dist)
    return dist


def id_of(dist: EnvDistribution) -> str:
    """The id by which `make` gives this distribution, here and in other processes that find the same code.

    Raises:
        ValueError: there is none: it was not made by an id, or changed since.
    """
    base, name = split_variant(dist.id)
    variants = name
    while name:
        base, name = split_variant(base)
        variants = name + variants
    source, _ = _SEEN.get(base, (base, ""))
    id = f"{source}{variants}"
    try:
        found = make(id).hash
    except ValueError:
        found = "nothing"
    if found != dist.hash:
        raise ValueError(
            f"{dist.id} ({dist.hash}) is not what its id makes ({id}: {found}); workers make distributions by their ids"
        )
    return id


def _made(make: Callable[[], object], id: str) -> EnvDistribution:
    dist = make()
    if not isinstance(dist, EnvDistribution):
        raise ValueError(f"{id!r} must make an EnvDistribution, it made {type(dist).__name__}")
    if dist.about:
        return dist
    function = make.func if isinstance(make, functools.partial) else make
    lines = (inspect.getdoc(function) or "").splitlines() if inspect.isroutine(function) else []
    return dataclasses.replace(dist, about=lines[0]) if lines else dist


def _check_name(name: str, dist: EnvDistribution) -> None:
    if dist.id != name:
        raise ValueError(f"the distribution registered as {name!r} calls itself {dist.id!r}; give it one name")


def _check_outside(id: str, dist: EnvDistribution) -> None:
    """Checks that nothing else goes by the name that a distribution from outside gives itself."""
    source, hash = canonical(id), dist.hash
    if dist.id in ids() and make(dist.id).hash != hash:
        raise ValueError(f"{id} calls itself {dist.id!r}, which is another distribution here; give it another name")
    other, known = _SEEN.get(dist.id, (source, hash))
    if other != source and known != hash:
        raise ValueError(f"{id} calls itself {dist.id!r}, as {other} does, which is another one; give it another name")
    _SEEN[dist.id] = source, hash


def _summary() -> str:
    """The ids in short, those of families by their hints."""
    return ", ".join((*_NAMES, *(family.hint for family in _FAMILIES.values())))


# Made when they are asked for: trying out their parameters, or compiling their models, takes a tenth of a second each.
for _name, _make, _horizon in (
    ("acrobot-physics", acrobot_physics, 500),
    ("ant-angle", ant_angle, 200),
    ("ant-direction", ant_direction, 200),
    ("ant-goal", ant_goal, 200),
    ("ant-terrain", ant_terrain, 200),
    ("cartpole-physics", cartpole_physics, 500),
    ("cheetah-faults", cheetah_faults, 200),
    ("hopper-dynamics", hopper_dynamics, 200),
    ("humanoid-dynamics", humanoid_dynamics, 200),
    ("mountaincar-physics", mountaincar_physics, 200),
    ("pendulum-physics", pendulum_physics, 200),
    ("walker-dynamics", walker_dynamics, 200),
    ("walker-terrain", walker_terrain, 500),
):
    _NAMES.register(_name, _make)
    register_in_gymnasium(_name, _horizon)
for _name, _make in {
    bandits.ID: bandits.bernoulli_bandit_5_10,
    "cheetah-direction": cheetah_direction,
    "cheetah-terrain": cheetah_terrain,
    "cheetah-velocity": cheetah_velocity,
    "cheetah-velocity-2": cheetah_velocity_2,
    "maze-navigation": maze_navigation,
    "point-navigation": point_navigation,
    "point-navigation-sparse": point_navigation_sparse,
    "tabular-mdp": tabular_mdp,
}.items():
    register(_name, _make)
register_family(bandits.PREFIX, bandits.named_bandit, bandits.IDS, bandits.HINT)
register_family(
    PREFIX, metaworld, IDS, f"{PREFIX}ml10, -ml25, -ml45, {PREFIX}ml1-CLASS (one of 50 classes), {CUSTOM}:TRAIN/TEST"
)
