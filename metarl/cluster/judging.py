"""Evaluations whose tasks are shared out among workers: few-shot learners on many tasks.

A task's part of what a judge measures depends on that task alone. So the tasks can be cut anywhere, measured anywhere,
and put together in their order with the same result.
"""

import dataclasses
from collections.abc import Hashable
from typing import Generic, TypeVar, final

from metarl.cluster.dispatch import Dispatcher
from metarl.cluster.worker import AnyShare, JudgeShare, Result
from metarl.evaluation.judge import EvaluationSettings, Judge, Measured, OnProgress, Points
from metarl.learning.protocols import State
from metarl.learning.sharding import shares
from metarl.tasks import Task

AnyLearner = TypeVar("AnyLearner")
Worker = TypeVar("Worker")
Answer = TypeVar("Answer", bound=Hashable)


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Examined(Generic[AnyLearner]):
    """What all shares of a measurement have in common: an `Examination`. It is sent with its data set."""

    judge: Judge[AnyLearner]
    learner: AnyLearner
    state: State

    def measure(self, tasks: tuple[Task, ...], settings: EvaluationSettings, trial: int) -> Measured:
        return self.judge.measure(self.learner, self.state, tasks, settings, trial, lambda share: None)


@final
@dataclasses.dataclass(frozen=True, eq=False)
class ClusterJudge(Generic[AnyLearner, Worker, Answer]):
    """A judge whose tasks are measured by workers: a `Judge`. What comes out is what the judge itself would measure."""

    judge: Judge[AnyLearner]
    dispatcher: Dispatcher[AnyShare, Result, Worker, Answer]

    @property
    def id(self) -> str:
        return self.judge.id

    @property
    def hash(self) -> str:
        return self.judge.hash

    @property
    def held_out(self) -> bool:
        return self.judge.held_out

    @property
    def score(self) -> str:
        return self.judge.score

    def tasks(self, settings: EvaluationSettings) -> tuple[Task, ...]:
        return self.judge.tasks(settings)

    def points(self, learner: AnyLearner, settings: EvaluationSettings) -> Points:
        return self.judge.points(learner, settings)

    def measure(
        self,
        learner: AnyLearner,
        state: State,
        tasks: tuple[Task, ...],
        settings: EvaluationSettings,
        trial: int,
        on_progress: OnProgress,
    ) -> Measured:
        """One share for each worker: a learner that embeds every image once does so in every share."""
        examined = Examined(self.judge, learner, state)
        cut = shares(len(tasks), self.dispatcher.count)
        parts = self.dispatcher.play([JudgeShare(examined, tasks[part], settings, trial) for part in cut])
        on_progress(1.0)
        measured = [part for part in parts if isinstance(part, Measured)]
        assert len(measured) == len(parts), "a worker did another thing than was asked for"
        return Measured.concatenate(measured)
