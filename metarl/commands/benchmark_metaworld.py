# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""Meta-World's peers for the benchmark, each stepping ML10's ten training classes with random actions.

Metaworld's own vector environment has two sub-environments of each class, as `make_ml_envs_train` makes them. EnvPool
(which cannot choose goals) has a pool for each class, played one after the other, and ours has as many sub-environments
as those pools together. All rates include resets. Ours has met each of the 500 training goals before, as in all but the
first steps of a training: the start on a goal is computed once and kept. The limit of what Python could reach is MuJoCo
alone: the five steps of an environment step, nothing read and nothing computed.
"""

import contextlib
import importlib.util
import statistics
import time
import warnings
from collections.abc import Iterator

import numpy as np
from numpy import ndarray

from metarl import envs
from metarl.commands.timing import Rates, Stepper, in_turns, random_steps
from metarl.envs.metaworld.goals import BENCHMARKS

OURS, STOCK, ENVPOOL = "metarl", "metaworld async", "envpool"
ONE, PHYSICS = "metarl, one process", "mj_step alone, one thread"
_STOCK_ENVS = 20
_ENVS = 4  # of each class, for each thread; ours and EnvPool's


def metaworld_rates(threads: int, rounds: int, seconds: float) -> Rates:
    """Environment steps a second of each peer in each round."""
    peers = {OURS: _ours(threads), STOCK: _stock(), ONE: _ours(1), PHYSICS: _physics()}
    if importlib.util.find_spec("envpool") is not None:
        peers[ENVPOOL] = _envpool(threads)
    return in_turns(peers, rounds, seconds, steps=10)


def startup_seconds(benchmark: str, threads: int) -> float:
    """Seconds until a sub-environment of every training class is built, set to a goal and reset; imports aside."""
    began = time.perf_counter()
    dist = envs.make(f"metaworld-{benchmark}")
    first = {task.family: task for task in reversed(dist.tasks("train"))}
    assert set(first) == set(BENCHMARKS[benchmark].train)
    with contextlib.closing(dist.vector_env(len(first), threads)) as venv:
        venv.set_tasks(list(first.values()))
        venv.reset(seed=0)
        return time.perf_counter() - began


@contextlib.contextmanager
def _ours(threads: int) -> Iterator[Stepper]:
    """Every episode is on a goal drawn anew, as in training."""
    dist, rng = envs.make("metaworld-ml10"), np.random.default_rng(0)
    goals, num_envs = dist.tasks("train"), _ENVS * threads * len(BENCHMARKS["ml10"].train)
    venv = dist.vector_env(num_envs, threads)
    for start in range(0, len(goals), num_envs // threads):
        # Neighbours are in different processes, and each process meets every goal.
        some = [goals[(start + index // threads) % len(goals)] for index in range(num_envs)]
        venv.set_tasks(some)
        venv.reset(seed=0)

    def step(actions: ndarray) -> None:
        _, _, _, truncated, _ = venv.step(actions)
        if truncated.any():
            venv.set_tasks(dist.sample("train", num_envs, rng))
            venv.reset()

    with contextlib.closing(venv):
        yield random_steps(step, num_envs, 4)


@contextlib.contextmanager
def _stock() -> Iterator[Stepper]:
    from metarl.envs.metaworld import metaworld_api

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        venv = metaworld_api.official_train_envs("ML10", _STOCK_ENVS, seed=0)
    with contextlib.closing(venv):
        yield random_steps(venv.step, _STOCK_ENVS, 4)


@contextlib.contextmanager
def _envpool(threads: int) -> Iterator[Stepper]:
    import envpool  # pyright: ignore[reportMissingImports]  # a peer, not a dependency

    num_envs, steppers = _ENVS * threads, list[Stepper]()
    with contextlib.ExitStack() as stack:
        for name in BENCHMARKS["ml10"].train:
            id = "".join(word.capitalize() for word in name.removesuffix("-v3").split("-"))
            pool = envpool.make(
                f"MetaWorld/{id}-v3", env_type="gymnasium", num_envs=num_envs, num_threads=threads, seed=0
            )
            stack.enter_context(contextlib.closing(pool))
            pool.reset()
            steppers.append(random_steps(pool.step, num_envs, 4))
        # One after the other, equally many steps each: the rate of all is the harmonic mean.
        yield lambda count: statistics.harmonic_mean([step(count) for step in steppers])


@contextlib.contextmanager
def _physics() -> Iterator[Stepper]:
    import mujoco

    from metarl.envs.metaworld import metaworld_api

    made = [metaworld_api.make(name, "v2", stock=False) for name in BENCHMARKS["ml10"].train]
    rng = np.random.default_rng(0)

    def step(count: int) -> float:
        began = time.perf_counter()
        for env in made:
            mujoco.mj_resetData(env.model, env.data)
            for _ in range(count):
                env.data.ctrl[:] = rng.uniform(-1.0, 1.0)
                mujoco.mj_step(env.model, env.data, 5)
        return count * len(made) / (time.perf_counter() - began)

    yield step
