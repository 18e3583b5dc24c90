from metarl.envs import EnvDistribution, from_gymnasium
from metarl.tasks import Uniform


def pendulum() -> EnvDistribution:
    """Swing up a pendulum whose mass and length are not shown."""
    ranges = {"m": Uniform(0.5, 2.0, 0.01, "kg"), "l": Uniform(0.5, 1.5, 0.01, "m")}
    longer = {"l": Uniform(1.5, 2.0, 0.01, "m")}
    return from_gymnasium("Pendulum-v1", id="my-pendulum", parameters=ranges, test=longer)
