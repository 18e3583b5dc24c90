# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""Vector environments of HalfCheetah and other robots that a benchmark steps with random actions: ours and peers'.

Beside them what MuJoCo alone does.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gymnasium as gym
import mujoco
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


_ALONE = 8  # simulations that a thread takes in turns, as a peer's has


@contextlib.contextmanager
def physics_alone(robot: str, threads: int) -> Iterator[Stepper]:
    """`mj_step` of one of Gymnasium's robots on so many threads, in a plain loop on each.

    A simulation begins again after as many steps as the robot stands up to random actions on average: lying about, it
    has other contacts.
    """
    with contextlib.closing(gym.make(robot)) as env:
        body: Any = env.unwrapped
        model, skip, length = body.model, int(body.frame_skip), _mean_length(env)
    datas = [[mujoco.MjData(model) for _ in range(_ALONE)] for _ in range(threads)]
    rng, taken = np.random.default_rng(0), 0

    def play(mine: list[Any], controls: ndarray, before: int) -> None:
        for number, each in enumerate(controls, before):
            for data, control in zip(mine, each, strict=True):
                if number % length == 0:
                    mujoco.mj_resetData(model, data)
                data.ctrl[:] = control
                mujoco.mj_step(model, data, skip)

    with ThreadPoolExecutor(threads) as pool:

        def step(count: int) -> float:
            nonlocal taken
            drawn = rng.uniform(-1.0, 1.0, (threads, count, _ALONE, model.nu))
            began = time.perf_counter()
            list(pool.map(play, datas, drawn, [taken] * threads))
            seconds, taken = time.perf_counter() - began, taken + count
            return threads * count * _ALONE / seconds

        yield step


def _mean_length(env: gym.Env[Any, Any], episodes: int = 20) -> int:
    """Of episodes of random actions, in environment steps."""
    env.action_space.seed(0)
    lengths = list[int]()
    for episode in range(episodes):
        env.reset(seed=episode)
        length, over = 0, False
        while not over:
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            length, over = length + 1, terminated or truncated
        lengths.append(length)
        if length >= 1000:
            break  # it stands for as long as an episode lasts
    return round(sum(lengths) / len(lengths))
