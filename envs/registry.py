"""The distributions by id."""

import difflib

from metarl.envs.ant import ant_angle, ant_direction, ant_goal
from metarl.envs.cheetah import cheetah_direction, cheetah_velocity, cheetah_velocity_2
from metarl.envs.distribution import EnvDistribution
from metarl.envs.dynamics import hopper_dynamics, humanoid_dynamics, walker_dynamics
from metarl.envs.faults import cheetah_faults
from metarl.envs.metaworld import CUSTOM, IDS, PREFIX, metaworld
from metarl.envs.point import point_navigation, point_navigation_sparse
from metarl.envs.terrain import ant_terrain, cheetah_terrain, walker_terrain

_MAKERS = {
    "ant-angle": ant_angle,
    "ant-direction": ant_direction,
    "ant-goal": ant_goal,
    "ant-terrain": ant_terrain,
    "cheetah-direction": cheetah_direction,
    "cheetah-faults": cheetah_faults,
    "cheetah-terrain": cheetah_terrain,
    "cheetah-velocity": cheetah_velocity,
    "cheetah-velocity-2": cheetah_velocity_2,
    "hopper-dynamics": hopper_dynamics,
    "humanoid-dynamics": humanoid_dynamics,
    "point-navigation": point_navigation,
    "point-navigation-sparse": point_navigation_sparse,
    "walker-dynamics": walker_dynamics,
    "walker-terrain": walker_terrain,
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
