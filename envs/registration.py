"""Gymnasium's registry: `gymnasium.make("metarl/CheetahTerrain-v0", task=...)`, `gymnasium.make_vec(...)`.

Gymnasium 1 no longer loads plug-ins when it is imported. Importing `metarl.envs` registers the ids, and so does naming
the module in the id: `gymnasium.make("metarl.envs:metarl/CheetahTerrain-v0")`.
"""

import dataclasses
from collections.abc import Sequence

from metarl.envs import registry
from metarl.envs.single import TaskEnv
from metarl.envs.vector import TaskVectorEnv
from metarl.tasks import Task


def make_env(
    distribution: str, task: Task | None = None, render_mode: str | None = None, width: int = 480, height: int = 360
) -> TaskEnv:
    """What `gymnasium.make` calls: one task of a distribution; the training list's first, if none is given.

    It has no time limit, since Gymnasium puts one around it: the distribution's horizon, or another that was asked for.
    """
    return registry.make(distribution).unlimited_env(task, render_mode, width, height)


def make_vector_env(
    distribution: str,
    num_envs: int = 1,
    max_episode_steps: int | None = None,
    tasks: Sequence[Task] | None = None,
    threads: int = 1,
    render_mode: str | None = None,
) -> TaskVectorEnv:
    """What `gymnasium.make_vec` calls: `num_envs` tasks of a distribution side by side, without automatic reset.

    Args:
        distribution: its id.
        num_envs: how many sub-environments.
        max_episode_steps: steps after which an episode is truncated; never if negative or None.
        tasks: one for each sub-environment; the training list in turn, if None.
        threads: threads or processes that step them; no result depends on it.
        render_mode: None or `rgb_array`; pictures come when `render` is called.
    """
    if render_mode not in (None, "rgb_array"):
        raise ValueError(f"unknown render_mode {render_mode!r}; it can be None or 'rgb_array'")
    dist = registry.make(distribution)
    if max_episode_steps is None or max_episode_steps < 0:
        venv = dist.unlimited_vector_env(num_envs, threads)
    else:
        venv = dataclasses.replace(dist, horizon=max_episode_steps).vector_env(num_envs, threads)
    if tasks is not None:
        venv.set_tasks(tasks)
    return venv


def register_all() -> None:
    """The target of the plug-in entry point. Importing this module has registered every distribution already."""
