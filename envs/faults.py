# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""A HalfCheetah with a joint that has failed: its motor gives no torque, whatever the action.

Nagabandi et al. (2019, section 6), "disabled joint": training disables some joints, the test others. The robot is not
told which; it still pays for what it asks of the dead motor. Training also has the intact robot, which moves bit for
bit as HalfCheetah-v5. The horizon is the 200 steps of the literature's other cheetahs (there 1000), and no episode
ends early, as in HalfCheetah-v5.
"""

import copy
import functools

import mujoco

from metarl.envs.distribution import EnvDistribution
from metarl.envs.locomotion import Body, LocomotionSimulator, action_space, observation_space, physics_spec
from metarl.envs.objectives import FORWARD
from metarl.envs.planar import HALF_CHEETAH
from metarl.tasks import Family, Task, TaskSpace

HORIZON = 200  # environment steps
INTACT = "intact"
TRAIN, VALIDATION, TEST = (INTACT, "bthigh", "bfoot", "fthigh"), ("fshin",), ("bshin", "ffoot")


@functools.cache
def broken_model(body: Body, task: Task) -> mujoco.MjModel:
    """The body's model with the motor of the joint that the task's family names switched off."""
    model = copy.copy(body.model)
    if task.family != INTACT:
        model.actuator(task.family).gear[:] = 0.0
        mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


def cheetah_faults() -> EnvDistribution:
    """Run forwards although one joint has failed: a thigh or the hind foot in training, other joints in the test."""
    train, validation, test = (tuple(Family(name, {}) for name in names) for names in (TRAIN, VALIDATION, TEST))
    sizes = len(TRAIN), len(VALIDATION), len(TEST)
    space = TaskSpace("cheetah-faults", train, validation, test, split_sizes=sizes)
    simulator = functools.partial(LocomotionSimulator, body=HALF_CHEETAH, objective=FORWARD, model=broken_model)
    spaces = observation_space(HALF_CHEETAH), action_space(HALF_CHEETAH)
    return EnvDistribution(space, HORIZON, simulator, physics_spec(HALF_CHEETAH, FORWARD), *spaces)
