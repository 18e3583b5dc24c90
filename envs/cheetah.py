"""HalfCheetahs that run in a direction, or at a velocity, that they are not told.

The body starts and moves bit for bit as Gymnasium's HalfCheetah-v5, so that figures compare with published ones. Its
integrator (Euler, 0.01 s; see `integration.py`) makes momentum out of nothing: weights trained to do so gather 23 m/s
in 10 s on frictionless ground, where nothing can get anywhere. Gaits here owe part of their speed to it. A distribution
whose ground matters needs a better one, as `cheetah-terrain` has.
"""

from metarl.envs.distribution import EnvDistribution
from metarl.envs.locomotion import locomotion
from metarl.envs.objectives import DIRECTION, VELOCITY
from metarl.envs.planar import HALF_CHEETAH
from metarl.tasks import Choice, Family, TaskSpace, Uniform


def cheetah_direction() -> EnvDistribution:
    """Run forwards or backwards: two tasks, so nothing can be held out."""
    families = (Family("direction", {"direction": Choice((-1.0, 1.0), "1 along +x, -1 along -x")}),)
    space = TaskSpace("cheetah-direction", families, families, families, held_out=False)
    return locomotion(space, 100, HALF_CHEETAH, DIRECTION)


def _cheetah_velocity(id: str, fastest: float) -> EnvDistribution:
    families = (Family("velocity", {"velocity": Uniform(0.0, fastest, 0.001, "m/s")}),)
    return locomotion(TaskSpace(id, families, families, families), 200, HALF_CHEETAH, VELOCITY)


def cheetah_velocity() -> EnvDistribution:
    """Run at a velocity of U[0, 3] m/s, as in ProMP, PEARL and VariBAD."""
    return _cheetah_velocity("cheetah-velocity", 3.0)


def cheetah_velocity_2() -> EnvDistribution:
    """Run at a velocity of U[0, 2] m/s, as in MAML and garage."""
    return _cheetah_velocity("cheetah-velocity-2", 2.0)
