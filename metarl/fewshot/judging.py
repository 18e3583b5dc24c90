"""How few-shot learners are measured: supports and queries in, predictions at every point of the adaptation curve out.

Tasks are computed a few at a time. Every such chunk has the same shape, filled up where there are too few: some kernels
round differently for batches of other sizes, and so no task's result depends on how many others there are.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.evaluation.judge import EvaluationSettings, Measured, Points
from metarl.fewshot.examples import Examples
from metarl.fewshot.learner import AdaptedPredictor, BatchNorm, FewShotLearner, need_batch_norm
from metarl.maths import calibration

_NUMBERS = 2**20  # pixels and channels that are computed with at once, about: a bound on memory, and good for caches
_MOST_TASKS = 64


def chunk_size(numbers: int, most: int = _MOST_TASKS) -> int:
    """How many tasks are computed at once whose examples are so many pixels and channels together."""
    return max(1, min(most, _NUMBERS // numbers))


def chunks(count: int, size: int) -> Iterator[Int[np.ndarray, " {size}"]]:
    """The numbers 0 … count − 1, `size` at a time; the last chunk is filled up from the first number on."""
    for first in range(0, count, size):
        yield np.arange(first, first + size) % count


def batch_norm_of(learner: FewShotLearner, settings: EvaluationSettings) -> BatchNorm:
    """The batch-norm mode that a learner is judged in: the first of its own, if the settings do not say.

    Raises:
        ValueError: it cannot be judged in this one.
    """
    if settings.batch_norm is None:
        return learner.batch_norms[0]
    return need_batch_norm(settings.batch_norm, learner.batch_norms)


def points(learner: FewShotLearner, settings: EvaluationSettings, between: tuple[int, ...] = ()) -> Points:
    """The points at which a learner is measured: before and after all adaptations, and at those between.

    Raises:
        ValueError: a setting that is not for this learner.
    """
    need_no_episodes(settings)
    mode = batch_norm_of(learner, settings)
    asked, name = settings.num_adaptations, learner.adaptation_name
    last = learner.num_adaptations if asked is None else asked
    if name == "support":
        if last > learner.num_adaptations:
            raise ValueError(f"this learner takes its support in at once, it cannot adapt {last} times")
        between = ()
    counts = tuple(sorted({0, last, *(count for count in between if asked is None or count < asked)}))
    return Points(counts, counts, name, batch_norm=None if mode == "none" else mode)


def need_no_episodes(settings: EvaluationSettings) -> None:
    """Raises ValueError for a setting that only agents have."""
    if settings.episodes_per_adaptation is not None or settings.actions != "sampled":
        raise ValueError("a few-shot learner plays no episodes: leave their number and the kind of actions out")
    if settings.ablation != "none":
        raise ValueError("ablations are of agents: they take a memory or rewards away")


def predictions(
    predictor: AdaptedPredictor, support: Examples, inputs: Float[Tensor, "task query ..."], points: Points
) -> Iterator[Tensor]:
    """What is predicted at each point, adapting to the same support again and again."""
    before = 0
    for adaptations in points.adaptations:
        for _ in range(adaptations - before):
            predictor = predictor.adapt(support)
        before = adaptations
        yield predictor.predict(inputs)


def of_all_ways(
    learner: FewShotLearner, logits: Float[Tensor, "task query output"], ways: int, adaptations: int
) -> Float[Tensor, "task query way"]:
    """The logits; of a learner of any ways that has met no class yet, zeros for as many as the task has.

    Raises:
        ValueError: the learner has another number of outputs than the task has ways.
    """
    if logits.shape[-1] == ways:
        return logits
    if adaptations == 0 and learner.training.any_ways:
        return logits.new_zeros(*logits.shape[:-1], ways)
    raise ValueError(f"the learner has {logits.shape[-1]} outputs, the task has {ways} ways")


class ClassifierScore(NamedTuple):
    """How good answers are."""

    accuracy: Float[np.ndarray, " task"]
    """The share of a task's queries whose most probable way is the right one."""
    negative_log_likelihood: Float[np.ndarray, " task"]
    """Its mean over a task's queries, nats."""
    reliability: Float[np.ndarray, "task bin 3"]
    """Of each task's queries; see `calibration.reliability_bins`."""


def score(logits: Float[Tensor, "task query way"], targets: Int[np.ndarray, "task query"]) -> ClassifierScore:
    """The figures of answers given as logits, in float64."""
    log_p = calibration.log_probabilities(logits.detach().to(device="cpu", dtype=torch.float64).numpy())
    right = log_p.argmax(axis=-1) == targets
    confidences = np.exp(log_p.max(axis=-1))
    reliability = np.stack([calibration.reliability_bins(*task) for task in zip(confidences, right, strict=True)])
    losses = calibration.negative_log_likelihood(log_p, targets)
    return ClassifierScore(right.mean(axis=1), losses.mean(axis=1), reliability)


def scored(
    learner: FewShotLearner,
    by_point: Iterable[Float[Tensor, "task query output"]],
    points: Points,
    ways: int,
    answers: Int[np.ndarray, "kept query"],
) -> list[ClassifierScore]:
    """The figures of a chunk of tasks at every point; tasks behind the last that has answers are left out."""
    return [
        score(of_all_ways(learner, logits, ways, adaptations)[: len(answers)], answers)
        for adaptations, logits in zip(points.adaptations, by_point, strict=True)
    ]


def gathered(scores: Sequence[Sequence[ClassifierScore]]) -> Measured:
    """The scores of every point's chunks of tasks as one."""
    accuracy, likelihood, reliability = (
        np.stack([np.concatenate([chunk[part] for chunk in point]) for point in scores]) for part in range(3)
    )
    return Measured({"accuracy": accuracy, "negative_log_likelihood": likelihood}, reliability)
