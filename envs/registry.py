"""The distributions by id."""

import difflib

from metarl.envs.cheetah import cheetah_direction, cheetah_velocity, cheetah_velocity_2
from metarl.envs.distribution import EnvDistribution
from metarl.envs.metaworld import CUSTOM, IDS, PREFIX, metaworld
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
    """The ids of all distributions, but for those that an id can be made up for (`metaworld-custom:TRAIN/TEST`)."""
    return tuple(sorted((*_MAKERS, *IDS)))


def make(id: str) -> EnvDistribution:
    """The distribution of this id."""
    if id.startswith(PREFIX):
        return metaworld(id)
    if id not in _MAKERS:
        near = difflib.get_close_matches(id, ids(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(_summary())}"
        raise ValueError(f"unknown distribution {id!r}; {hint}")
    return _MAKERS[id]()


def _summary() -> list[str]:
    """The ids, with those of Meta-World's single classes as one."""
    single = f"{PREFIX}ml1-"
    classes = sum(id.startswith(single) for id in ids())
    others = [id for id in ids() if not id.startswith(single)]
    return [*others, f"{single}CLASS (one of {classes} classes)", f"{CUSTOM}:TRAIN/TEST"]
