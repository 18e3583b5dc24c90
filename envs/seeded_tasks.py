"""Tasks that are described by a seed, from which their world follows: too many numbers to be parameters of their own.

The worlds are computed from `Generator.random` alone. NumPy promises for none of its distributions that a seed gives
the same numbers in all versions, and here a task's content is its identity; uniform numbers are the least at risk.
"""

import numpy as np

from metarl.tasks import Family, Task, TaskSpace, Uniform

MAX_SEED = 2**32 - 1


def seeded_space(id: str, family: str, list_seed_id: str | None = None) -> TaskSpace:
    """Tasks with a seed each, of one family in all splits. Worlds so small deserve long lists: 1000 tests."""
    families = (Family(family, {"seed": Uniform(0.0, float(MAX_SEED), 1.0, "seed")}),)
    return TaskSpace(id, families, families, families, split_sizes=(100, 100, 1000), list_seed_id=list_seed_id)


def task_generator(task: Task) -> np.random.Generator:
    """The generator from which a task's world is drawn.

    Raises:
        ValueError: the task's seed is not a whole number from 0 to 2³² − 1.
    """
    seed = task["seed"]
    if isinstance(seed, str) or not 0 <= seed <= MAX_SEED or seed != int(seed):
        raise ValueError(f"the seed of a task must be a whole number from 0 to {MAX_SEED}, got {seed!r}")
    return np.random.default_rng(int(seed))
