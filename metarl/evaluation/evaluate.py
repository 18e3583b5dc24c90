"""Evaluation: one function for every kind of learner, and seeds' evaluations summed up together."""

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar, final, overload, runtime_checkable

import numpy as np

from metarl.errors import UsageError
from metarl.evaluation.guests import Policy, guest, name_of
from metarl.evaluation.judge import EvaluationSettings, Judge, Measured
from metarl.evaluation.records import CheckpointRef, EvaluationConfig, Yardstick
from metarl.evaluation.results import Evaluation
from metarl.evaluation.trials import ScoredTasks, TrialJudge
from metarl.learning.collect import CollectorFactory, EnvSource, InProcess
from metarl.learning.protocols import Learner, State
from metarl.runs.files import as_text

AnyLearner = TypeVar("AnyLearner")
Initialised = TypeVar("Initialised", bound=Learner[Any, Any])
Distribution_contra = TypeVar("Distribution_contra", contravariant=True)


@runtime_checkable
class PlayableTasks(ScoredTasks, EnvSource, Protocol):
    """Tasks and the environments that pose them: an `EnvDistribution`."""


@final
@dataclasses.dataclass(frozen=True)
class Candidate(Generic[AnyLearner]):
    """What is evaluated: a learner, what it has learned, and where that comes from."""

    learner: AnyLearner
    state: State
    ref: CheckpointRef
    distribution_hash: str | None = None
    """Of the distribution it was trained on; None where it was not trained."""


@runtime_checkable
class TrainedRun(Protocol[AnyLearner, Distribution_contra]):
    """A trained learner of a run's folder, as `metarl.load` gives it."""

    @property
    def candidate(self) -> Candidate[AnyLearner]: ...

    def judge(self, dist: Distribution_contra | None, collectors: CollectorFactory) -> Judge[AnyLearner]:
        """Who judges it on a distribution; on the one that it was trained on if None."""
        ...


@overload
def evaluate(
    run: TrainedRun[AnyLearner, Distribution_contra],
    dist: Distribution_contra | None = None,
    split: str = "test",
    *,
    settings: EvaluationSettings | None = None,
    num_tasks: int | None = None,
    threads: int = 1,
    collectors: CollectorFactory | None = None,
    on_progress: Callable[[float], object] = lambda share: None,
) -> Evaluation: ...


@overload
def evaluate(
    run: Policy,
    dist: PlayableTasks,
    split: str = "test",
    *,
    settings: EvaluationSettings | None = None,
    num_tasks: int | None = None,
    threads: int = 1,
    collectors: CollectorFactory | None = None,
    on_progress: Callable[[float], object] = lambda share: None,
) -> Evaluation: ...


def evaluate(
    run: TrainedRun[AnyLearner, Distribution_contra] | Policy,
    dist: Distribution_contra | None = None,
    split: str = "test",
    *,
    settings: EvaluationSettings | None = None,
    num_tasks: int | None = None,
    threads: int = 1,
    collectors: CollectorFactory | None = None,
    on_progress: Callable[[float], object] = lambda share: None,
) -> Evaluation:
    """Evaluates a run's learner on a split's frozen list of tasks: `metarl.evaluate(metarl.load("runs/ice"))`.

    Args:
        run: what `metarl.load` gave; or a policy from elsewhere, a model of Stable-Baselines3 or a function of one
            observation: see `metarl.evaluation.guests`.
        dist: the distribution (or few-shot benchmark); the one that the run was trained on if None. Another hash than
            the one trained on is warned about.
        split: `train`, `validation` or `test`; not given with `settings`.
        settings: everything that can be said about an evaluation; the defaults if None.
        num_tasks: only the first tasks of the list; not given with `settings`.
        threads: threads that step the simulators; no score depends on it.
        collectors: who plays the episodes, such as the workers of `metarl.cluster`; this process if None, on `threads`.
        on_progress: told which share of the work is done.

    Raises:
        ValueError: settings that do not fit the learner or the distribution.
        DivergedError: all episodes on a task diverged.
    """
    if settings is None:
        if split not in ("train", "validation", "test"):
            raise ValueError(f"unknown split {split!r}; the splits are train, validation and test")
        settings = EvaluationSettings(split=split, num_tasks=num_tasks)
    elif split != "test" or num_tasks is not None:
        raise ValueError("split and num_tasks are fields of the settings: give them there")
    if collectors is None:
        collectors = InProcess(threads)
    elif threads != 1:
        raise ValueError("threads are those of this process: collectors have their own")
    if isinstance(run, TrainedRun):
        return evaluate_with(run.judge(dist, collectors), run.candidate, settings, on_progress)
    if not isinstance(dist, PlayableTasks):
        raise ValueError(f"a policy from elsewhere is evaluated on a task distribution: give one, not {dist!r}")
    agent = guest(run, dist.spaces, name := name_of(run))
    with contextlib.closing(collectors.open(dist)) as collector:
        return evaluate_with(TrialJudge(dist, collector), candidate_of(agent, name), settings, on_progress)


def candidate_of(learner: Initialised, name: str) -> Candidate[Initialised]:
    """A policy or few-shot learner that was not trained here, and learns nothing."""
    shown = as_text(name)  # it may be a file's
    return Candidate(learner, learner.init(0), CheckpointRef(shown, shown, None, "none", 0))


def evaluate_with(
    judge: Judge[AnyLearner],
    candidate: Candidate[AnyLearner],
    settings: EvaluationSettings,
    on_progress: Callable[[float], object] = lambda share: None,
) -> Evaluation:
    """`evaluate` with a judge that is there already.

    Trials run one after the other, each over all tasks: memory does not grow with their number, and a trial's scores
    do not depend on how many follow, nor on which other tasks are on the list.
    """
    _need_finite(candidate)
    _warn_if_other_distribution(candidate, judge)
    tasks, points, count = judge.tasks(settings), judge.points(candidate.learner, settings), settings.trials
    trials: list[Measured] = []
    for trial in range(count):

        def done(share: float, before: int = trial) -> None:
            on_progress((before + share) / count)

        trials.append(judge.measure(candidate.learner, candidate.state, tasks, settings, trial, done))
    metrics = {name: np.stack([found.metrics[name] for found in trials])[None] for name in trials[0].metrics}
    sums = [found.calibration.sum(1) for found in trials if found.calibration is not None]
    config = EvaluationConfig(
        distribution=judge.id,
        distribution_hash=judge.hash,
        split=settings.split,
        held_out=judge.held_out and settings.split != "train",
        fixed_tasks=not judge.held_out,
        score=judge.score,
        adaptations=points.adaptations,
        amounts=points.amounts,
        unit=points.unit,
        episodes_per_adaptation=points.episodes_per_adaptation,
        trials=count,
        seed=settings.seed,
        actions=settings.actions if points.episodes_per_adaptation else None,
        batch_norm=points.batch_norm,
        ablation=settings.ablation,
    )
    windows = [found.first_episode for found in trials if found.first_episode is not None]
    return Evaluation(
        config,
        tasks,
        (candidate.ref,),
        metrics,
        np.sum(sums, axis=0)[None] if sums else None,
        first_episode=np.stack(windows)[None] if windows else None,
    )


def aggregate(evaluations: Sequence[Evaluation]) -> Evaluation:
    """One evaluation of several seeds' runs, with intervals over seeds × tasks.

    Raises:
        ValueError: none given; another configuration, other tasks, another learner or kind of checkpoint; or a run
            that is not a seed of its own: the same parameters, or the same training seed, again.
    """
    if not evaluations:
        raise ValueError("need at least one evaluation to aggregate, got none")
    first = evaluations[0]
    for other in evaluations[1:]:
        _check_comparable(first, other)
    sources = tuple(source for evaluation in evaluations for source in evaluation.sources)
    kinds = sorted({f"{source.learner} ({source.checkpoint})" for source in sources})
    if len(kinds) > 1:
        raise ValueError(f"seeds of one learner and one kind of checkpoint make a figure, got {', '.join(kinds)}")
    _need_distinct(sources)
    sums = [evaluation.calibration for evaluation in evaluations if evaluation.calibration is not None]
    windows = [evaluation.first_episode for evaluation in evaluations if evaluation.first_episode is not None]
    return dataclasses.replace(
        first,
        sources=sources,
        metrics={
            name: np.concatenate([evaluation.metrics[name] for evaluation in evaluations]) for name in first.metrics
        },
        calibration=np.concatenate(sums) if sums else None,
        first_episode=np.concatenate(windows) if windows else None,
        yardsticks=_shared_yardsticks(evaluations),
    )


def _shared_yardsticks(evaluations: Sequence[Evaluation]) -> dict[str, Yardstick]:
    """Those that every evaluation has: they were taken under the same settings, and so with the same scores.

    Raises:
        ValueError: their scores differ.
    """
    first = evaluations[0]
    names = [name for name in first.yardsticks if all(name in each.yardsticks for each in evaluations)]
    for other in evaluations[1:]:
        for name in names:
            one, two = first.yardsticks[name], other.yardsticks[name]
            if not np.array_equal(one.scores, two.scores, equal_nan=True):
                raise ValueError(f"{first.sources[0].run} and {other.sources[0].run} have other {name} yardsticks")
    return {name: first.yardsticks[name] for name in names}


def _need_distinct(sources: Sequence[CheckpointRef]) -> None:
    """Raises ValueError where two sources are one seed: that would make intervals narrower than they are."""
    for index, one in enumerate(sources):
        for other in sources[:index]:
            if one.content and one.content == other.content:
                raise ValueError(f"{other.run} and {one.run} hold the same parameters: each run counts once")
            if one.seed is not None and one.seed == other.seed:
                raise ValueError(f"{other.run} and {one.run} are both of seed {one.seed}: each seed counts once")


def _check_comparable(first: Evaluation, other: Evaluation) -> None:
    names = f"{first.sources[0].run} and {other.sources[0].run}"
    for field in dataclasses.fields(EvaluationConfig):
        one, two = getattr(first.config, field.name), getattr(other.config, field.name)
        if one != two:
            raise ValueError(f"{names} were evaluated differently: {field.name} is {one!r} and {two!r}")
    if first.tasks != other.tasks:
        shared = len(set(first.tasks) & set(other.tasks))
        raise ValueError(
            f"{names} were evaluated on other tasks: lists of {len(first.tasks)} and {len(other.tasks)} "
            f"with {shared} in common; evaluate both on the same list"
        )
    if first.metrics.keys() != other.metrics.keys():
        raise ValueError(f"{names} measured {', '.join(first.metrics)} and {', '.join(other.metrics)}")


def _need_finite(candidate: Candidate[AnyLearner]) -> None:
    for name, value in candidate.state.parameters.items():
        if not bool(value.isfinite().all()):
            raise UsageError(f"{candidate.ref.run} is damaged: its parameter {name} is not finite")


def _warn_if_other_distribution(candidate: Candidate[AnyLearner], judge: Judge[AnyLearner]) -> None:
    if candidate.distribution_hash not in (None, judge.hash):
        warnings.warn(
            f"{candidate.ref.run} was trained on a distribution of hash {candidate.distribution_hash}; "
            f"{judge.id} has {judge.hash}: its tasks, rewards or simulator differ, so its scores mean something else",
            stacklevel=4,
        )
