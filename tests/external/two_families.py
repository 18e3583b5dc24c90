"""The point robot with goals near by in training, and far ones in the test only."""

import functools

from metarl.envs import EnvDistribution
from metarl.envs.point import ACTION_SPACE, OBSERVATION_SPACE, PointSimulator
from metarl.tasks import Family, TaskSpace, Uniform

NEAR, FAR = Uniform(-0.3, 0.3, 0.01, "m"), Uniform(0.4, 0.8, 0.01, "m")


def two_families() -> EnvDistribution:
    """Go to a goal that is not shown: near by in training, near or far in the test."""
    near, far = Family("near", {"goal_x": NEAR, "goal_y": NEAR}), Family("far", {"goal_x": FAR, "goal_y": FAR})
    return EnvDistribution(
        TaskSpace("two-families", (near,), (near,), (near, far), split_sizes=(4, 4, 6)),
        horizon=10,
        make_simulator=functools.partial(PointSimulator, sparse=False),
        physics={"body": "point", "reward": "minus the distance"},
        observation_space=OBSERVATION_SPACE,
        action_space=ACTION_SPACE,
        renders=False,
    )
