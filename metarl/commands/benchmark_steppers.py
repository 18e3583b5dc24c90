"""Vector environments of HalfCheetah and other robots that a benchmark steps with random actions: ours and peers'."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator

import gymnasium as gym
import numpy as np
from numpy import ndarray

from metarl import envs
from metarl.commands.timing import Stepper, random_steps


@contextlib.contextmanager
def ours(id: str, num_envs: int, threads: int, clock: Callable[[], float] = time.perf_counter) -> Iterator[Stepper]:
    """A distribution's, with the peers' 1000 steps an episode."""
    dist = dataclasses.replace(envs.make(id), horizon=1000)
    venv = dist.vector_env(num_envs, threads)
    venv.reset(seed=0)

    def step(actions: ndarray) -> None:
        _, _, terminated, truncated, _ = venv.step(actions)
        ended = terminated | truncated
        if ended.any():
            venv.reset(options={"reset_mask": ended})

    with contextlib.closing(venv):
        yield random_steps(step, num_envs, dist.spaces.action_size, np.float64, clock)


@contextlib.contextmanager
def gymnasium_async(processes: int) -> Iterator[Stepper]:
    """HalfCheetah-v5 in processes of Gymnasium's."""
    venv = gym.vector.AsyncVectorEnv([lambda: gym.make("HalfCheetah-v5") for _ in range(processes)])
    venv.reset(seed=0)
    with contextlib.closing(venv):
        yield random_steps(venv.step, processes, 6)


@contextlib.contextmanager
def envpool_pool(robot: str, actions: int, threads: int) -> Iterator[Stepper]:
    """A robot in EnvPool's threads."""
    import envpool  # pyright: ignore[reportMissingImports]  # a peer, not a dependency

    num_envs = 8 * threads
    pool = envpool.make(robot, env_type="gymnasium", num_envs=num_envs, num_threads=threads, seed=0)
    pool.reset()
    with contextlib.closing(pool):
        yield random_steps(pool.step, num_envs, actions, np.float64)
