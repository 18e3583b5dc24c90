"""Collections on workers of a Ray cluster: efficiency, what the parts of an outer step cost, memory over many steps.

What parts cost is processor time, which other programs on the machine change less than they change a clock's.
"""

import contextlib
import os
import pickle
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray

from metarl import envs
from metarl.agents import MamlTrpoConfig
from metarl.cluster.ray_workers import connected, ray_collectors
from metarl.cluster.worker import Player, Share
from metarl.commands.benchmark_training import resident
from metarl.commands.cluster_model import Costs, Line
from metarl.envs import EnvDistribution
from metarl.learning.collect import OpenCollector
from metarl.learning.episodes import Trials
from metarl.learning.protocols import Agent
from metarl.learning.random_streams import task_seeds
from metarl.learning.sources import TrialSource
from metarl.learning.training import outer_steps

WORLD = "cheetah-direction"
CONFIG = MamlTrpoConfig(episodes_per_adaptation=10)
_TASKS = 24  # of a collection whose efficiency is measured
_SIZES = (1, 2, 4, 8)  # tasks of a share or an update whose time is measured
_WARM_UP = 20  # outer steps after which memory counts: everything has been made by then


def efficiencies(workers: int, rounds: int) -> list[float]:
    """Of collecting trials on so many workers, beside one: t(1) / (workers · t(workers)), round by round."""
    dist = envs.make(WORLD)
    found = list[float]()
    with (
        connected("local", workers + 1),
        ray_collectors("local", 1, 1) as one,
        ray_collectors("local", workers, 1) as several,
    ):
        pair = [one.open(dist), several.open(dist)]
        for collector in pair:  # which starts the workers and makes their simulators
            _collect(collector, dist, 0)
        for number in range(rounds):
            alone, together = (_clock(partial(_collect, each, dist, number)) for each in pair)
            found.append(alone / together / workers)
    return found


def limits(workers: int, rounds: int) -> list[float]:
    """What the cores allow: t(one player alone) / t(so many at once), of the same share, without messages.

    Cores that share caches, memory or, as threads of one core, everything are slower together.
    """
    dist = envs.make(WORLD)
    share = _share(dist, _agent(dist, _TASKS // workers), _TASKS // workers)
    with connected("local", workers):
        actor: Any = ray.remote(num_cpus=1)(_Playing)
        players = [actor.remote(share) for _ in range(workers)]
        ray.get([player.seconds.remote() for player in players])  # which makes the simulators
        found = list[float]()
        for _ in range(rounds):
            alone = ray.get(players[0].seconds.remote())
            found.append(alone / max(ray.get([player.seconds.remote() for player in players])))
    return found


class _Playing:
    """A player that says how long it takes to play a share."""

    def __init__(self, share: Share) -> None:
        self._player, self._share = Player(1), share

    def seconds(self) -> float:
        return _clock(partial(self._player.play, self._share))


def costs(rounds: int) -> Costs:
    """What the parts of an outer step of MAML-TRPO cost on this machine; messages are those of a local cluster."""
    dist, player = envs.make(WORLD), Player(1)
    plays, updates, messages = dict[int, list[float]](), dict[int, float](), dict[int, float]()
    sent, taken = dict[int, float](), dict[int, float]()
    with connected("local", 1):
        actor: Any = ray.remote(num_cpus=1)(_Echo)
        echo = actor.remote()
        for size in _SIZES:
            agent = _agent(dist, size)
            share = _share(dist, agent, size)
            trials = player.play(share)  # which makes the simulators
            assert isinstance(trials, Trials)
            plays[size] = [_processor(partial(player.play, share)) for _ in range(rounds)]
            sent[size], taken[size] = float(len(pickle.dumps(share))), float(len(pickle.dumps(trials)))
            ray.get(echo.keep.remote(trials))
            both = [_processor(lambda share=share: ray.get(echo.answer.remote(share))) for _ in range(rounds)]
            messages[int(sent[size] + taken[size])] = statistics.median(both) / 2  # one out, one in
            update = partial(agent.meta_step, agent.init(0), trials)
            updates[size] = statistics.median(
                _processor(partial(update, np.random.default_rng(0))) for _ in range(rounds)
            )
    player.close()
    return Costs(
        play=Line.through({size: statistics.median(values) for size, values in plays.items()}),
        spread=statistics.mean(float(np.std(np.log(values))) for values in plays.values()),
        message=Line.through({size // 2: seconds for size, seconds in messages.items()}),
        share_bytes=Line.through(sent).slope,
        result_bytes=Line.through(taken).slope,
        update=Line.through(updates),
    )


class _Echo:
    """A worker that answers with what it was told before, whatever it is asked."""

    def __init__(self) -> None:
        self._kept: object = None

    def keep(self, kept: object) -> None:
        self._kept = kept

    def answer(self, asked: object) -> object:
        return self._kept


def memory(steps: int, workers: int) -> dict[str, tuple[float, float, float]]:
    """MiB of this process and of each worker at the beginning, at the end and at most, over outer steps of MAML-TRPO.

    Point-navigation with small networks: what grows with steps would show, what is large would hide it.
    """
    dist = envs.make("point-navigation")
    agent = MamlTrpoConfig(hidden=(8,), meta_batch=2 * workers, episodes_per_adaptation=2).build(dist.spaces)
    sizes = dict[str, list[float]]()
    with ray_collectors("local", workers, 1) as collectors, contextlib.closing(collectors.open(dist)) as collector:
        source = TrialSource(dist, collector)
        for step in outer_steps(agent, source, agent.init(0), seed=0, start=0, stop=_WARM_UP + steps):
            if step.step >= _WARM_UP:
                for name, pid in {"driver": None, **_workers()}.items():
                    sizes.setdefault(name, []).append(resident(pid))
    return {name: (values[0], values[-1], max(values)) for name, values in sizes.items()}


def _workers() -> dict[str, int]:
    """The process ids of the players of a cluster that this process started."""
    titles = {pid: Path(f"/proc/{pid}/cmdline") for pid in _descendants(os.getpid())}
    players = sorted(pid for pid, path in titles.items() if path.is_file() and b"ray::Player" in path.read_bytes())
    return {f"worker {number + 1}": pid for number, pid in enumerate(players)}


def _descendants(pid: int) -> list[int]:
    """The processes that a process has made, and those that they have made."""
    try:
        children = [
            int(word) for path in Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()
        ]
    except OSError:  # it has just ended
        return []
    return [*children, *(each for child in children for each in _descendants(child))]


def _agent(dist: EnvDistribution, tasks: int) -> Agent:
    return MamlTrpoConfig(meta_batch=tasks, episodes_per_adaptation=CONFIG.episodes_per_adaptation).build(dist.spaces)


def _share(dist: EnvDistribution, agent: Agent, tasks: int) -> Share:
    drawn = dist.sample("train", tasks, np.random.default_rng(0))
    policy = agent.start(agent.init(0), tasks)
    return Share(WORLD, dist.hash, policy, drawn, task_seeds(0, num_tasks=tasks), agent.protocol)


def _collect(collector: OpenCollector, dist: EnvDistribution, step: int) -> Trials:
    agent = _agent(dist, _TASKS)
    return TrialSource(dist, collector).collect(agent, agent.init(0), 0, step)


def _clock(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _processor(work: Callable[[], object]) -> float:
    """s of this process's threads."""
    began = time.process_time()
    work()
    return time.process_time() - began
