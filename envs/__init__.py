"""Distributions of tasks and the environments that play them.

>>> from metarl import envs
>>> dist = envs.make("point-navigation")
>>> dist.horizon
100
"""

from metarl.envs.distribution import EnvDistribution
from metarl.envs.mujoco_pool import MujocoSimulator
from metarl.envs.registration import gymnasium_id, register_all
from metarl.envs.registry import ids as list
from metarl.envs.registry import make
from metarl.envs.simulator import Outcome, Simulator
from metarl.envs.single import TaskEnv
from metarl.envs.vector import TaskVectorEnv

register_all()

__all__ = [
    "EnvDistribution",
    "MujocoSimulator",
    "Outcome",
    "Simulator",
    "TaskEnv",
    "TaskVectorEnv",
    "gymnasium_id",
    "list",
    "make",
    "register_all",
]
