"""Stable-Baselines3's PPO as it collects: from our vector environment, and from its own with a process for each.

Both play HalfCheetah with episodes of 1000 steps in as many sub-environments. What counts is the time of its rollouts,
its policy's and its buffer's share in them included; its gradient steps do not.
"""

import contextlib
import dataclasses
import functools
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv

from metarl import envs
from metarl.commands.timing import Rates, Stepper, in_turns

OURS, THEIRS = "metarl", "SubprocVecEnv"
ENVS = 8  # for each thread
_STEPS = 50  # of each sub-environment in a rollout


def rates(threads: int, rounds: int, seconds: float) -> Rates:
    """Environment steps a second that it collects from each, in each round."""
    num_envs = ENVS * threads
    dist = dataclasses.replace(envs.make("cheetah-direction"), horizon=1000)
    makers: list[Callable[[], gym.Env[Any, Any]]] = [functools.partial(gym.make, "HalfCheetah-v5")] * num_envs
    peers = {
        OURS: _collecting(functools.partial(dist.sb3_env, "train", num_envs, threads=threads)),
        THEIRS: _collecting(functools.partial(SubprocVecEnv, makers)),
    }
    return in_turns(peers, rounds, seconds, steps=_STEPS)


@contextlib.contextmanager
def _collecting(make: functools.partial[VecEnv]) -> Iterator[Stepper]:
    with contextlib.closing(make()) as venv:
        batch = _STEPS * venv.num_envs
        model = PPO("MlpPolicy", venv, n_steps=_STEPS, batch_size=batch, n_epochs=1, seed=0, device="cpu")
        clock = _Clock()

        def stepper(count: int) -> float:
            clock.seconds, clock.steps = 0.0, 0
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.learn(count * venv.num_envs, callback=clock, reset_num_timesteps=False)
            return clock.steps / clock.seconds

        yield stepper


class _Clock(BaseCallback):
    """The time of rollouts."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds, self.steps, self._began = 0.0, 0, 0.0

    def _on_rollout_start(self) -> None:
        self._began = time.perf_counter()

    def _on_step(self) -> bool:
        self.steps += self.training_env.num_envs
        return True

    def _on_rollout_end(self) -> None:
        self.seconds += time.perf_counter() - self._began
