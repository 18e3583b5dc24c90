"""Distributions of tasks and the environments that play them.

>>> from metarl import envs
>>> dist = envs.make("point-navigation")
>>> dist.horizon
100
"""

from metarl.envs.description import Description, describe
from metarl.envs.distribution import EnvDistribution
from metarl.envs.gymnasium_ids import gymnasium_id
from metarl.envs.gymnasium_worlds import from_gymnasium
from metarl.envs.mujoco_pool import MujocoSimulator
from metarl.envs.registration import register_all
from metarl.envs.registry import ids as list
from metarl.envs.registry import make, register, register_family
from metarl.envs.simulator import Outcome, Simulator, SimulatorError
from metarl.envs.single import TaskEnv
from metarl.envs.vector import TaskVectorEnv

__all__ = [
    "Description",
    "EnvDistribution",
    "MujocoSimulator",
    "Outcome",
    "Simulator",
    "SimulatorError",
    "TaskEnv",
    "TaskVectorEnv",
    "describe",
    "from_gymnasium",
    "gymnasium_id",
    "list",
    "make",
    "register",
    "register_all",
    "register_family",
]
