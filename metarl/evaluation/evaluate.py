"""Evaluation: one function for every kind of agent.

The unit is the task instance (one goal, one terrain). Each is given the same quota of episodes at every point of the
adaptation curve, whichever of them end first: a sub-environment that has finished waits for the others, so quick
successes cannot crowd out slow failures.
"""

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, final, runtime_checkable

import numpy as np
import torch

from metarl.evaluation.results import Evaluation, Point, Setting, Source
from metarl.learning.collect import Collector, EnvSource, Sampler
from metarl.learning.episodes import Episodes
from metarl.learning.protocols import Agent, Schedule, State
from metarl.tasks import Score, Split, Task, TaskDistribution

__all__ = ["Candidate", "Evaluation", "Point", "Setting", "Source", "Trained", "aggregate", "evaluate"]

SEED = 20_210_830
"""The evaluation's own seed: the same for every run, so that all meet the same resets."""


@runtime_checkable
class Trained(Protocol):
    """A trained agent and where it comes from: what is evaluated."""

    @property
    def agent(self) -> Agent: ...

    @property
    def state(self) -> State: ...

    @property
    def distribution_hash(self) -> str | None:
        """Of the distribution it was trained on; None where it was not trained."""
        ...

    @property
    def source(self) -> "Source": ...


@final
@dataclasses.dataclass(frozen=True)
class Candidate:
    """A `Trained` from its parts."""

    agent: Agent
    state: State
    source: Source
    distribution_hash: str | None = None


@runtime_checkable
class EvaluationSource(TaskDistribution, EnvSource, Protocol):
    """Tasks and the environments that pose them: an `EnvDistribution`."""

    @property
    def score(self) -> Score:
        """What an episode is judged by."""
        ...


def evaluate(
    trained: Trained,
    dist: EvaluationSource,
    split: Split = "test",
    *,
    schedule: Schedule | None = None,
    trials: int = 1,
    num_tasks: int | None = None,
    seed: int = SEED,
    sampler: Collector | None = None,
    threads: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Evaluates an agent on a split's frozen list of tasks.

    At each point of the curve it acts on every task for the schedule's episodes; those are the point's score, and the
    experience it adapts to next. Each point has resets and noise of its own: on the ones it adapted to, an agent could
    do well by remembering them.

    Trials run one after the other, each over all tasks: memory does not grow with their number, and a trial's scores
    do not depend on how many follow. They do depend on the list of tasks, which share one stream of action noise.

    Args:
        trained: the agent, its state and where they come from.
        dist: the tasks; a hash other than the one trained on is warned about.
        split: which of the distribution's frozen lists.
        schedule: rounds and episodes; as the agent was trained if None.
        trials: whole trials on each task. Take many where a point is one episode.
        num_tasks: only the first of the list (families take turns in it); all if None.
        seed: decides every reset and every action's noise.
        sampler: runs the episodes; one of `threads` threads, where the parameters are, if None.
        threads: threads of that sampler; no score depends on it.
        on_progress: called with (collections done, collections in all).

    Raises:
        ValueError: a count that is not positive, or more tasks than the list has.
    """
    tasks, schedule = _first_tasks(dist, split, num_tasks), schedule or trained.agent.schedule
    if trials < 1 or schedule.rounds < 0 or schedule.episodes < 1:
        raise ValueError(f"need trials >= 1, rounds >= 0 and episodes >= 1, got {trials} trials and {schedule}")
    _warn_if_other_distribution(trained, dist)
    sampler = sampler or Sampler(dist, threads, device_of(trained.state))
    points = schedule.rounds + 1
    scores, returns = np.zeros((trials, points, len(tasks))), np.zeros((trials, points, len(tasks)))
    diverged = np.zeros((trials, points, len(tasks)), dtype=np.int64)
    env_steps = np.zeros_like(diverged)
    for trial in range(trials):
        for point, episodes in enumerate(_trial(trained, tasks, schedule, sampler, seed, trial)):
            scores[trial, point] = episodes.judged(dist.score).double().mean(1).cpu().numpy()
            returns[trial, point] = episodes.scores.double().mean(1).cpu().numpy()
            diverged[trial, point] = episodes.diverged.sum(1).cpu().numpy()
            env_steps[trial, point] = episodes.lengths.sum(1).cpu().numpy()
            if on_progress is not None:
                on_progress(trial * points + point + 1, trials * points)
    setting = Setting(
        distribution=dist.id,
        distribution_hash=dist.hash,
        split=split,
        held_out=dist.held_out,
        rounds=schedule.rounds,
        episodes=schedule.episodes,
        trials=trials,
        seed=seed,
        score=dist.score,
    )
    beside = None if dist.score == "return" else returns[None]
    counts = diverged.sum(0)[None], env_steps.sum(0)[None]
    return Evaluation(setting, tasks, (trained.source,), scores[None], *counts, beside)


def _trial(
    trained: Trained, tasks: tuple[Task, ...], schedule: Schedule, sampler: Collector, seed: int, trial: int
) -> Iterator[Episodes]:
    """The episodes of each point of one trial's curve; the agent adapts between them."""
    adapted = trained.agent.start(trained.state, len(tasks))
    for point in range(schedule.rounds + 1):
        episodes = sampler.collect(adapted, tasks, schedule.episodes, collection_seed(seed, trial, point))
        assert episodes.scores.shape == (len(tasks), schedule.episodes), "a sampler must keep to the quota"
        yield episodes
        if point < schedule.rounds:
            adapted = adapted.adapt(episodes)


def device_of(state: State) -> torch.device:
    """Where the learner's parameters are, and so where it computes."""
    return next((value.device for value in state.parameters.values()), torch.device("cpu"))


def collection_seed(seed: int, trial: int, point: int) -> int:
    """The sampler's seed for one point of one trial."""
    return int(np.random.SeedSequence([seed, trial, point]).generate_state(1)[0])


def aggregate(evaluations: Sequence[Evaluation]) -> Evaluation:
    """One evaluation of several seeds' runs, with intervals over seeds × tasks.

    Raises:
        ValueError: none given; another setting, other tasks, another agent or kind of checkpoint; or a run twice.
    """
    if not evaluations:
        raise ValueError("need at least one evaluation to aggregate, got none")
    first = evaluations[0]
    for other in evaluations[1:]:
        _check_comparable(first, other)
    sources = tuple(source for evaluation in evaluations for source in evaluation.sources)
    kinds = sorted({f"{source.agent} ({source.checkpoint})" for source in sources})
    if len(kinds) > 1:
        raise ValueError(f"seeds of one agent and one kind of checkpoint make a figure, got {', '.join(kinds)}")
    twice = sorted({source.run for source in sources if sources.count(source) > 1})
    if twice:
        raise ValueError(f"each run counts once; given twice: {', '.join(twice)}")
    returns = [evaluation.returns for evaluation in evaluations if evaluation.returns is not None]
    return dataclasses.replace(
        first,
        sources=sources,
        scores=np.concatenate([evaluation.scores for evaluation in evaluations]),
        diverged=np.concatenate([evaluation.diverged for evaluation in evaluations]),
        env_steps=np.concatenate([evaluation.env_steps for evaluation in evaluations]),
        returns=None if not returns else np.concatenate(returns),
    )


def _check_comparable(first: Evaluation, other: Evaluation) -> None:
    names = f"{first.sources[0].run} and {other.sources[0].run}"
    for field in dataclasses.fields(Setting):
        one, two = getattr(first.setting, field.name), getattr(other.setting, field.name)
        if one != two:
            raise ValueError(f"{names} were evaluated differently: {field.name} is {one!r} and {two!r}")
    if first.tasks != other.tasks:
        shared = len(set(first.tasks) & set(other.tasks))
        raise ValueError(
            f"{names} were evaluated on other tasks: lists of {len(first.tasks)} and {len(other.tasks)} "
            f"with {shared} in common; evaluate both on the same list"
        )


def _first_tasks(dist: TaskDistribution, split: Split, num_tasks: int | None) -> tuple[Task, ...]:
    tasks = dist.tasks(split)
    if num_tasks is None:
        return tasks
    if not 1 <= num_tasks <= len(tasks):
        raise ValueError(f"{dist.id} has {len(tasks)} {split} tasks; {num_tasks} were asked for")
    return tasks[:num_tasks]


def _warn_if_other_distribution(trained: Trained, dist: TaskDistribution) -> None:
    if trained.distribution_hash not in (None, dist.hash):
        warnings.warn(
            f"{trained.source.run} was trained on a distribution of hash {trained.distribution_hash}; "
            f"{dist.id} has {dist.hash}: its tasks, rewards or simulator differ, so its scores mean something else",
            stacklevel=3,
        )
