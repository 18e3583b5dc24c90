"""The distributions by id."""

import difflib

from metarl.envs.cheetah import cheetah_direction, cheetah_velocity, cheetah_velocity_2
from metarl.envs.distribution import EnvDistribution
from metarl.envs.point import point_navigation, point_navigation_sparse
from metarl.envs.terrain import cheetah_terrain

_MAKERS = {
    "cheetah-direction": cheetah_direction,
    "cheetah-terrain": cheetah_terrain,
    "cheetah-velocity": cheetah_velocity,
    "cheetah-velocity-2": cheetah_velocity_2,
    "point-navigation": point_navigation,
    "point-navigation-sparse": point_navigation_sparse,
}


def ids() -> tuple[str, ...]:
    """The ids of all distributions."""
    return tuple(sorted(_MAKERS))


def make(id: str) -> EnvDistribution:
    """The distribution of this id."""
    if id not in _MAKERS:
        near = difflib.get_close_matches(id, _MAKERS, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(ids())}"
        raise ValueError(f"unknown distribution {id!r}; {hint}")
    return _MAKERS[id]()
