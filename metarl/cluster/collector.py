"""Collectors whose episodes are played by workers: a `CollectorFactory`."""

from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar, final

import torch

from metarl.cluster.dispatch import Dispatcher
from metarl.cluster.executor import ClusterExecutor
from metarl.cluster.judging import ClusterJudge
from metarl.cluster.worker import AnyShare, PlayEpisodes, Result, Share
from metarl.envs import EnvDistribution
from metarl.envs.registry import id_of
from metarl.errors import UsageError
from metarl.evaluation.judge import Judge
from metarl.learning.collect import EnvSource, check_request
from metarl.learning.episodes import Episodes, Trials
from metarl.learning.protocols import AdaptationProtocol, AdaptedPolicy
from metarl.learning.sharding import need_shardable, shares
from metarl.tasks import Task

AnyLearner = TypeVar("AnyLearner")
Worker = TypeVar("Worker")
Answer = TypeVar("Answer", bound=Hashable)
Part = TypeVar("Part", Trials, Episodes)


@final
class ClusterCollectors(Generic[Worker, Answer]):
    """Opens collectors that share one dispatcher's workers: a `CollectorFactory`, and `JudgeWorkers`."""

    def __init__(self, dispatcher: Dispatcher[AnyShare, Result, Worker, Answer]) -> None:
        self._dispatcher = dispatcher

    def open(self, source: EnvSource, device: torch.device | str = "cpu") -> "ClusterCollector[Worker, Answer]":
        """A collector on one distribution.

        Raises:
            UsageError: workers could not make this distribution by an id, or the device is another than the CPU.
        """
        if torch.device(device).type != "cpu":
            raise UsageError(f"workers play on the CPU: --device {device} does not go with --workers and --cluster")
        if not isinstance(source, EnvDistribution):
            raise UsageError(f"workers make a distribution by its id, and {source!r} is no EnvDistribution")
        try:
            id = id_of(source)
        except ValueError as error:
            raise UsageError(str(error)) from error
        return ClusterCollector(id, source.hash, self._dispatcher)

    @property
    def executor(self) -> ClusterExecutor[Worker, Answer]:
        """The same workers, for outer steps whose gradients they compute."""
        return ClusterExecutor(self._dispatcher)

    def shared(self, judge: Judge[AnyLearner]) -> Judge[AnyLearner]:
        """The judge, with its tasks shared out among the workers."""
        return ClusterJudge(judge, self._dispatcher)


@final
class ClusterCollector(Generic[Worker, Answer]):
    """Plays trials on workers: an `OpenCollector`. What comes out is what `Collector` would play."""

    def __init__(self, id: str, hash: str, dispatcher: Dispatcher[AnyShare, Result, Worker, Answer]) -> None:
        self._id, self._hash, self._dispatcher = id, hash, dispatcher

    def collect_trials(
        self, adapted: AdaptedPolicy, tasks: Sequence[Task], protocol: AdaptationProtocol, seeds: Sequence[int]
    ) -> Trials:
        check_request(len(tasks), protocol.episodes_per_adaptation, seeds)
        parts = self._play(adapted, tasks, seeds, protocol)
        return Trials.concatenate(_all_of(Trials, parts))

    def collect_episodes(
        self,
        policy: AdaptedPolicy,
        tasks: Sequence[Task],
        num_episodes: int,
        seeds: Sequence[int],
        *,
        noise: bool = True,
    ) -> Episodes:
        check_request(len(tasks), num_episodes, seeds)
        parts = self._play(policy, tasks, seeds, PlayEpisodes(num_episodes, noise))
        return Episodes.concatenate(_all_of(Episodes, parts))

    def _play(
        self,
        policy: AdaptedPolicy,
        tasks: Sequence[Task],
        seeds: Sequence[int],
        what: AdaptationProtocol | PlayEpisodes,
    ) -> list[Result]:
        """One share for each worker: a vector environment is the faster the more it steps at once."""
        whole, tasks, seeds = need_shardable(policy), tuple(tasks), tuple(seeds)
        cut = shares(len(tasks), self._dispatcher.count)
        made = [Share(self._id, self._hash, whole.shard(part), tasks[part], seeds[part], what) for part in cut]
        return self._dispatcher.play(made)

    def close(self) -> None:
        """Nothing: the workers are the factory's, and keep their simulators until they play another distribution."""


def _all_of(kind: type[Part], parts: Sequence[Result]) -> list[Part]:
    """The parts, each of which is of this kind: a share says whether trials or episodes are to be played."""
    found = [part for part in parts if isinstance(part, kind)]
    assert len(found) == len(parts), "a worker played another thing than was asked for"
    return found
