"""Gymnasium's registry: `gymnasium.make("metarl/CheetahTerrain-v0", task=...)`.

Gymnasium 1 no longer loads plug-ins when it is imported. Importing `metarl.envs` registers the ids, and so does naming
the module in the id: `gymnasium.make("metarl.envs:metarl/CheetahTerrain-v0")`.
"""

import gymnasium

from metarl.envs.registry import ids, make
from metarl.envs.single import TaskEnv
from metarl.tasks import Task

NAMESPACE = "metarl"
VERSION = 0


def gymnasium_id(id: str) -> str:
    """A distribution's id in Gymnasium's spelling.

    >>> gymnasium_id("cheetah-velocity-2")
    'metarl/CheetahVelocity2-v0'
    """
    return f"{NAMESPACE}/{''.join(word.capitalize() for word in id.split('-'))}-v{VERSION}"


def make_env(
    distribution: str, task: Task | None = None, render_mode: str | None = None, width: int = 480, height: int = 360
) -> TaskEnv:
    """What Gymnasium calls: one task of a distribution; the training list's first, if none is given."""
    return make(distribution).env(task, render_mode, width, height)


def register_all() -> None:
    """Registers every distribution, once; the target of the plug-in entry point."""
    for id in ids():
        if gymnasium_id(id) not in gymnasium.registry:
            gymnasium.register(
                gymnasium_id(id), entry_point="metarl.envs.registration:make_env", kwargs={"distribution": id}
            )
