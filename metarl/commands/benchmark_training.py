"""Whole training steps, their growth with the work, and their memory; RL² beside sb3-contrib's RecurrentPPO.

Both recurrent learners play HalfCheetah in as many sub-environments with episodes of 200 steps, two of them an update,
and learn from them with an LSTM of 64, as many epochs and minibatches. What counts is everything: sampling and updates.
"""

import contextlib
import dataclasses
import functools
import os
import resource
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import final

import gymnasium as gym

from metarl import envs
from metarl.agents import AgentConfig, MamlTrpoConfig, Rl2PpoConfig, VaribadConfig
from metarl.commands.benchmark_steppers import ours
from metarl.commands.timing import Rates, Stepper, in_turns
from metarl.learning.collect import InProcess
from metarl.learning.episodes import Trials
from metarl.learning.protocols import Learner, State
from metarl.learning.sources import TrialSource
from metarl.learning.training import outer_steps

OURS, VARIBAD, THEIRS = "metarl", "metarl, VariBAD", "RecurrentPPO"
_ENVS, _EPISODES, _HORIZON, _HIDDEN, _EPOCHS, _MINIBATCHES = 16, 2, 200, 64, 4, 4
_STEPS = _EPISODES * _HORIZON  # of each sub-environment in an outer step


def recurrent_rates(threads: int, rounds: int, seconds: float) -> Rates:
    """Environment steps a second of whole outer steps, in each round."""
    shared = {"meta_batch": _ENVS, "episodes_per_trial": _EPISODES}
    rl2 = dataclasses.replace(
        Rl2PpoConfig(cell="lstm", hidden=_HIDDEN, epochs=_EPOCHS, minibatches=_MINIBATCHES), **shared
    )
    peers = {
        OURS: _ours(rl2, threads),
        VARIBAD: _ours(dataclasses.replace(VaribadConfig(), **shared), threads),
        THEIRS: _theirs(threads),
    }
    return in_turns(peers, rounds, seconds, steps=_STEPS, warm_up=_STEPS)


@contextlib.contextmanager
def _ours(config: AgentConfig, threads: int) -> Iterator[Stepper]:
    dist = envs.make("cheetah-direction")
    agent = config.build(dist.spaces)
    with contextlib.closing(InProcess(threads).open(dist)) as collector:
        source, state, done = TrialSource(dist, collector), agent.init(0), 0

        def stepper(count: int) -> float:
            nonlocal state, done
            began, wanted, played = time.perf_counter(), count // _STEPS, 0
            for step in outer_steps(agent, source, state, seed=0, start=done, stop=done + wanted):
                state, played = step.state, played + int(step.metrics["env_steps"])
            done += wanted
            return played / (time.perf_counter() - began)

        yield stepper


@contextlib.contextmanager
def _theirs(threads: int) -> Iterator[Stepper]:
    from sb3_contrib import RecurrentPPO
    from stable_baselines3.common.vec_env import SubprocVecEnv

    make = functools.partial(gym.make, "HalfCheetah-v5", max_episode_steps=_HORIZON)
    with contextlib.closing(SubprocVecEnv([make] * _ENVS)) as venv, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = RecurrentPPO(
            "MlpLstmPolicy",
            venv,
            n_steps=_STEPS,
            batch_size=_ENVS * _STEPS // _MINIBATCHES,
            n_epochs=_EPOCHS,
            policy_kwargs={
                "lstm_hidden_size": _HIDDEN,
                "net_arch": [],
                "shared_lstm": True,
                "enable_critic_lstm": False,
            },
            seed=0,
            device="cpu",
        )

        def stepper(count: int) -> float:
            began, steps = time.perf_counter(), count * _ENVS
            model.learn(steps, reset_num_timesteps=False)
            return steps / (time.perf_counter() - began)

        yield stepper


def growth_with_envs(threads: int, seconds: float, sizes: tuple[int, ...]) -> dict[int, float]:
    """Environment steps a second of cheetah-direction, by sub-environments."""
    found: dict[int, float] = {}
    for size in sizes:
        stepped = in_turns({OURS: ours("cheetah-direction", size, threads)}, 1, seconds, steps=max(2, 256 // size))
        (found[size],) = stepped[OURS]
    return found


def growth_with_tasks(threads: int, sizes: tuple[int, ...]) -> dict[int, tuple[float, float]]:
    """Seconds of sampling and of the update of an outer step of MAML-TRPO on cheetah-direction, by tasks."""
    found: dict[int, tuple[float, float]] = {}
    for size in sizes:
        dist = dataclasses.replace(envs.make("cheetah-direction"), horizon=100)
        agent = MamlTrpoConfig(meta_batch=size, episodes_per_adaptation=4).build(dist.spaces)
        with contextlib.closing(InProcess(threads).open(dist)) as collector:
            source, state = _TimedSource(TrialSource(dist, collector)), agent.init(0)
            steps = [
                (source.seconds, step.seconds) for step in outer_steps(agent, source, state, seed=0, start=0, stop=2)
            ]
        (before, _), (after, whole) = steps  # the first one makes the simulators
        found[size] = after - before, whole - (after - before)
    return found


@final
class _TimedSource:
    """A source of trials that adds up the time it takes: an `ExperienceSource`."""

    def __init__(self, source: TrialSource) -> None:
        self._source, self.seconds = source, 0.0

    def collect(self, learner: Learner[Trials, object], state: State, seed: int, step: int) -> Trials:
        began = time.perf_counter()
        trials = self._source.collect(learner, state, seed, step)
        self.seconds += time.perf_counter() - began
        return trials


def memory_growth(steps: int) -> tuple[float, float, float]:
    """MiB of this process after 20 outer steps of RL² and after so many more, and at the highest."""
    dist = envs.make("point-navigation")
    agent = Rl2PpoConfig(meta_batch=8, hidden=32, epochs=1, minibatches=1).build(dist.spaces)
    sizes = list[float]()
    with contextlib.closing(InProcess().open(dist)) as collector:
        source = TrialSource(dist, collector)
        for step in outer_steps(agent, source, agent.init(0), seed=0, start=0, stop=20 + steps):
            if step.step >= 20:
                sizes.append(resident())
    return sizes[0], sizes[-1], max(sizes)


def resident(pid: int | None = None) -> float:
    """MiB that a process holds, as Linux counts them; this one if not given."""
    pages = int(Path(f"/proc/{pid or os.getpid()}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20
