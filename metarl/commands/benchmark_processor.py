"""Ratios of processor time to peers on one thread of one process: what continuous integration guards.

Other programs on the machine take time from a clock, and not the same from one process as from four; of processor time
they change only what caches and clock rates do. And nothing is needed here but what the tests install.
"""

import contextlib
import time
from collections.abc import Iterator

import gymnasium as gym
import numpy as np

from metarl.commands import benchmark_fewshot
from metarl.commands.benchmark_steppers import ours
from metarl.commands.timing import Rates, Stepper, in_turns, random_steps

OURS, SYNC = "metarl", "gymnasium sync"
_OUR_ENVS, _THEIR_ENVS = 64, 8


def rates(rounds: int, seconds: float) -> Rates:
    """Environment steps of HalfCheetah-v5 for each second of processor time, in each round."""
    peers = {OURS: ours("cheetah-direction", _OUR_ENVS, 1, time.process_time), SYNC: _sync()}
    return in_turns(peers, rounds, seconds, clock=time.process_time)


def update_seconds(rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of processor time of few-shot MAML's meta-updates, ours and the peer's."""
    return {
        case.name: benchmark_fewshot.update_seconds(case, rounds, time.process_time) for case in benchmark_fewshot.CASES
    }


@contextlib.contextmanager
def _sync() -> Iterator[Stepper]:
    venv = gym.vector.SyncVectorEnv([lambda: gym.make("HalfCheetah-v5") for _ in range(_THEIR_ENVS)])
    venv.reset(seed=0)
    with contextlib.closing(venv):
        yield random_steps(venv.step, _THEIR_ENVS, 6, np.float32, time.process_time)
