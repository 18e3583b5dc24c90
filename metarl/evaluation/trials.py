"""Judging agents: trials on held-out tasks, each task with the same quota of episodes at every point of the curve.

The unit is the task instance (one goal, one terrain). A sub-environment whose episode has ended waits for the others,
so quick successes cannot crowd out slow failures.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float

from metarl.errors import DivergedError
from metarl.evaluation.ablations import ablated
from metarl.evaluation.judge import WINDOW, EvaluationSettings, Measured, OnProgress, Points
from metarl.evaluation.records import FOREIGN
from metarl.learning.collect import TrialCollector, point_seeds
from metarl.learning.episodes import Episodes
from metarl.learning.protocols import AdaptationProtocol, AdaptedPolicy, Agent, State
from metarl.learning.random_streams import task_seeds
from metarl.tasks import Score, Task, TaskDistribution


@runtime_checkable
class ScoredTasks(TaskDistribution, Protocol):
    """Tasks, and what an episode on them is judged by: an `EnvDistribution`."""

    @property
    def score(self) -> Score: ...


@final
@dataclasses.dataclass(frozen=True)
class TrialJudge:
    """Judges agents by the episodes of their trials: a `Judge`."""

    dist: ScoredTasks
    collector: TrialCollector

    @property
    def id(self) -> str:
        return self.dist.id

    @property
    def hash(self) -> str:
        return self.dist.hash

    @property
    def held_out(self) -> bool:
        return self.dist.held_out

    @property
    def score(self) -> str:
        return self.dist.score

    def tasks(self, settings: EvaluationSettings) -> tuple[Task, ...]:
        tasks, count = self.dist.tasks(settings.split), settings.num_tasks
        if count is not None and count > len(tasks):
            raise ValueError(f"{self.id} has {len(tasks)} {settings.split} tasks; {count} were asked for")
        return tasks[:count]

    def points(self, learner: Agent, settings: EvaluationSettings) -> Points:
        if settings.batch_norm is not None:
            raise ValueError("batch_norm is a setting of few-shot learners, not of agents")
        protocol = trial_protocol(learner, settings)
        adaptations = tuple(range(protocol.num_adaptations + 1))
        amounts = tuple(count * protocol.episodes_per_adaptation for count in adaptations)
        return Points(adaptations, amounts, "episode", protocol.episodes_per_adaptation)

    def measure(
        self,
        learner: Agent,
        state: State,
        tasks: tuple[Task, ...],
        settings: EvaluationSettings,
        trial: int,
        on_progress: OnProgress,
    ) -> Measured:
        """At each point the agent acts on every task for the protocol's episodes: those are the point's score, and the
        experience that it adapts to next. Each point has resets and noise of its own: on the ones it adapted to, an
        agent could do well by remembering them.
        """
        protocol = trial_protocol(learner, settings)
        count = protocol.episodes_per_adaptation
        seeds = task_seeds(settings.seed, trial + 1, num_tasks=len(tasks))
        start = ablated(learner.start(state, len(tasks)), settings.ablation)
        swap = settings.swap_control and protocol.num_adaptations > 0 and len(set(tasks)) > 1
        shares = 1 + swap + (settings.actions == "mean")
        trials = self.collector.collect_trials(start, tasks, protocol, seeds)
        on_progress(1 / shares)
        scored = trials.episodes
        if settings.actions == "mean":
            scored = self._replay(start, trials.supports, tasks, count, seeds, noise=False)
            on_progress(2 / shares)
        metrics = _by_point(scored, tasks)
        metrics["env_steps"] = _stacked(
            [episodes.lengths.sum(1).double().cpu().numpy() for episodes in trials.episodes]
        )
        if swap:
            foreign = [_chosen(support, foreign_tasks(tasks)) for support in trials.supports]
            after = self._replay(start, foreign, tasks, count, seeds, noise=settings.actions == "sampled")
            metrics[FOREIGN + self.score] = _by_point(after, tasks)[self.score]
            on_progress(1.0)
        return Measured(metrics, first_episode=_by_window(scored[0]))

    def _replay(
        self,
        policy: AdaptedPolicy,
        supports: Sequence[Episodes],
        tasks: Sequence[Task],
        num_episodes: int,
        seeds: Sequence[int],
        *,
        noise: bool,
    ) -> tuple[Episodes, ...]:
        """The episodes of every point where the policy is handed these supports, with the trial's own seeds."""
        points: list[Episodes] = []
        for point in range(len(supports) + 1):
            if point:
                policy = policy.adapt(supports[point - 1])
            points.append(
                self.collector.collect_episodes(policy, tasks, num_episodes, point_seeds(seeds, point), noise=noise)
            )
        return tuple(points)


def trial_protocol(learner: Agent, settings: EvaluationSettings) -> AdaptationProtocol:
    """An agent's own protocol, but for what the settings ask for."""
    own = learner.protocol
    return AdaptationProtocol(
        own.num_adaptations if settings.num_adaptations is None else settings.num_adaptations,
        own.episodes_per_adaptation if settings.episodes_per_adaptation is None else settings.episodes_per_adaptation,
    )


def foreign_tasks(tasks: Sequence[Task]) -> list[int]:
    """For each task the number of another: of another family where there are several, half the list away.

    Raises:
        ValueError: all tasks are the same one.
    """
    count, several = len(tasks), len({task.family for task in tasks}) > 1
    foreign = []
    for own in range(count):
        others = ((own + count // 2 + offset) % count for offset in range(count))
        strange = (
            other
            for other in others
            if (tasks[other].family != tasks[own].family if several else tasks[other] != tasks[own])
        )
        number = next(strange, None)
        if number is None:
            raise ValueError("the swap control needs two different tasks")
        foreign.append(number)
    return foreign


def _chosen(episodes: Episodes, numbers: Sequence[int]) -> Episodes:
    """The episodes of these tasks, in this order."""
    return Episodes(**{name: tensor[list(numbers)] for name, tensor in episodes.tensors().items()})


def _by_point(points: Sequence[Episodes], tasks: Sequence[Task]) -> dict[str, Float[np.ndarray, "point task"]]:
    """Each measure's mean over a task's episodes, and how many diverged: those are left out.

    Raises:
        DivergedError: all episodes of a task diverged at one point, so that it has no score.
    """
    metrics: dict[str, list[Float[np.ndarray, " task"]]] = {}
    for point, episodes in enumerate(points):
        good = (~episodes.diverged).double()
        counts = good.sum(1)
        if not bool(counts.all()):
            worst = tasks[int(counts.argmin())]
            raise DivergedError(f"all {good.shape[1]} episodes on {worst} diverged at point {point}: it has no score")
        for name, values in episodes.measures().items():
            metrics.setdefault(name, []).append(((values.double() * good).sum(1) / counts).cpu().numpy())
        metrics.setdefault("diverged", []).append(episodes.diverged.sum(1).double().cpu().numpy())
    return {name: _stacked(values) for name, values in metrics.items()}


def _by_window(episodes: Episodes) -> Float[np.ndarray, "window task"]:
    """The mean reward of a task's episodes in each `WINDOW` steps, without those that diverged.

    An episode that has ended earns nothing more.
    """
    rewards = torch.nn.functional.pad(episodes.rewards.double(), (0, -episodes.rewards.shape[-1] % WINDOW))
    good = (~episodes.diverged).double()
    sums = rewards.unflatten(-1, (-1, WINDOW)).sum(-1) * good[..., None]  # [task, episode, window]
    return (sums.sum(1) / good.sum(1, keepdim=True)).T.cpu().numpy()


def _stacked(points: Sequence[Float[np.ndarray, " task"]]) -> Float[np.ndarray, "point task"]:
    return np.stack(points)
