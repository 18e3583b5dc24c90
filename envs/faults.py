# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""A HalfCheetah with a joint that has failed: its motor gives no torque, whatever the action.

Nagabandi et al. (2019, section 6), "disabled joint": training disables some joints, the test others. The robot is not
told which; it still pays for what it asks of the dead motor. Training also has the intact robot, which moves bit for
bit as HalfCheetah-v5. The horizon is the 200 steps of the literature's other cheetahs (there 1000), and no episode
ends early, as in HalfCheetah-v5.

So is the integrator, which makes momentum out of nothing (see `cheetah.py`): under random actions alone the robot gains
0.33 m/s in 10 s on frictionless ground, and 43 % energy in a second of free flight. `check_physics` refuses it.
"""

import copy
import functools

import mujoco

from metarl.envs.body import Body, default_model
from metarl.envs.distribution import EnvDistribution
from metarl.envs.integration import Integration
from metarl.envs.locomotion import World, locomotion
from metarl.envs.objectives import FORWARD
from metarl.envs.planar import HALF_CHEETAH
from metarl.tasks import Family, Task, TaskSpace

HORIZON = 200  # environment steps
INTACT = "intact"
TRAIN, VALIDATION, TEST = (INTACT, "bthigh", "bfoot", "fthigh"), ("fshin",), ("bshin", "ffoot")


@functools.cache
def broken_world(body: Body, integration: Integration, task: Task) -> World:
    """The body with the motor of the joint that the task's family names switched off, on Gymnasium's floor."""
    assert integration == body.integration
    model = copy.copy(default_model(body))
    if task.family != INTACT:
        model.actuator(task.family).gear[:] = 0.0
        mujoco.mj_setConst(model, mujoco.MjData(model))
    return World(model)


def cheetah_faults() -> EnvDistribution:
    """Run forwards although one joint has failed: a thigh or the hind foot in training, other joints in the test."""
    train, validation, test = (tuple(Family(name, {}) for name in names) for names in (TRAIN, VALIDATION, TEST))
    sizes = len(TRAIN), len(VALIDATION), len(TEST)
    space = TaskSpace("cheetah-faults", train, validation, test, split_sizes=sizes)
    return locomotion(space, HORIZON, HALF_CHEETAH, FORWARD, broken_world)
