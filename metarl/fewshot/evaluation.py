"""How well a few-shot classifier does on held-out classes: many tasks, drawn with a fixed seed, the same for everybody.

A task's figure is the share of its queries that are answered right. Tasks are drawn independently of each other, so
their mean has a t-interval; the worst decile is the mean of the worst tenth of the tasks.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.fewshot import calibration
from metarl.fewshot.examples import Examples
from metarl.fewshot.learner import BatchNorm, FewShotLearner
from metarl.fewshot.sampler import Draw, EpisodeSampler
from metarl.learning.protocols import State
from metarl.maths.statistics import Estimate, t_interval
from metarl.tasks import Json, Split

SEED = 20_160_613
"""Decides the classes and examples of every task."""
TASKS = 1000
NUMBERS = 2**20
"""Pixels and channels that are adapted to and predicted at once, about: a bound on memory, and good for caches."""


@final
@dataclasses.dataclass(frozen=True)
class Scores:
    """What came out with one kind of batch normalisation."""

    batch_norm: BatchNorm
    accuracies: Float[np.ndarray, " task"]
    """The share of right answers in each task's query."""
    losses: Float[np.ndarray, " task"]
    """The mean negative log-likelihood of each task's query, nats."""
    calibration_error: float
    """Over the queries of all tasks."""

    @property
    def accuracy(self) -> Estimate:
        return t_interval(self.accuracies)

    @property
    def loss(self) -> Estimate:
        return t_interval(self.losses)

    @property
    def worst_decile(self) -> float:
        """Mean accuracy of the worst tenth of the tasks."""
        worst = max(1, len(self.accuracies) // 10)
        return float(np.sort(self.accuracies)[:worst].mean())

    def to_json(self) -> dict[str, Json]:
        return {
            "accuracy": estimate_to_json(self.accuracy),
            "worst_decile": self.worst_decile,
            "negative_log_likelihood": estimate_to_json(self.loss),
            "expected_calibration_error": self.calibration_error,
            "accuracies": [round(float(value), 6) for value in self.accuracies],
        }


@runtime_checkable
class SequenceLearner(Protocol):
    """A learner that is told each answer after it has given its own."""

    def predict_in_turn(self, state: State, sequence: Examples) -> Float[Tensor, "task example way"]:
        """Logits for each example, from the examples and targets before it and its own inputs."""
        ...


@final
@dataclasses.dataclass(frozen=True)
class Turns:
    """How well a sequence learner does at the first, second, ... example of a class."""

    accuracies: Float[np.ndarray, "task turn"]
    """The share of right answers among a task's classes."""

    def estimates(self) -> list[Estimate]:
        return [t_interval(column) for column in self.accuracies.T]

    def to_json(self) -> dict[str, Json]:
        return {str(turn): estimate_to_json(found) for turn, found in enumerate(self.estimates(), start=1)}


def evaluate(
    learner: FewShotLearner,
    state: State,
    sampler: EpisodeSampler,
    split: Split = "test",
    *,
    tasks: int = TASKS,
    batch_norm: BatchNorm | None = None,
    seed: int = SEED,
    on_progress: Callable[[int], object] = lambda done: None,
) -> Scores:
    """Adapts to the support of each of `tasks` tasks and predicts its query.

    Args:
        batch_norm: the learner's own kind, if not given.
        on_progress: told how many tasks are done.

    Raises:
        ValueError: fewer than two tasks, or the split is too small for them.
    """
    kind = learner.batch_norms[0] if batch_norm is None else batch_norm
    _need_tasks(tasks)
    draw = sampler.draw(split, tasks, np.random.default_rng(seed))
    log_p: list[Float[np.ndarray, "task query way"]] = []
    for part in _parts(draw, sampler):
        batch = sampler.batch(part)
        logits = learner.adapt(state, batch.support, kind).predict(batch.query.inputs)
        log_p.append(calibration.log_probabilities(_on_cpu(logits)))
        on_progress(sum(map(len, log_p)))
    return score(kind, np.concatenate(log_p), draw.query_targets)


def score(
    batch_norm: BatchNorm, log_p: Float[np.ndarray, "task query way"], targets: Int[np.ndarray, "task query"]
) -> Scores:
    """The figures of answers given as log-probabilities."""
    right = log_p.argmax(axis=-1) == targets
    losses = calibration.negative_log_likelihood(log_p, targets)
    confidences = np.exp(log_p.max(axis=-1))
    error = calibration.calibration_error(confidences.reshape(-1), right.reshape(-1))
    return Scores(batch_norm, right.mean(axis=1), losses.mean(axis=1), error)


def evaluate_in_turn(
    learner: SequenceLearner,
    state: State,
    sampler: EpisodeSampler,
    split: Split = "test",
    *,
    tasks: int = TASKS,
    seed: int = SEED,
) -> Turns:
    """Shows the shuffled supports one example at a time, each answer after its question."""
    _need_tasks(tasks)
    draw = sampler.draw(split, tasks, np.random.default_rng(seed))
    right: list[Float[np.ndarray, "task example"]] = []
    for part in _parts(draw, sampler):
        sequence = sampler.batch(part).support
        answers = _on_cpu(learner.predict_in_turn(state, sequence)).argmax(axis=-1)
        right.append((answers == part.support_targets).astype(np.float64))
    return by_turn(np.concatenate(right), draw.support_targets)


def by_turn(right: Float[np.ndarray, "task example"], targets: Int[np.ndarray, "task example"]) -> Turns:
    """Means over the first examples of all classes of a task, over the second ones, ..."""
    tasks, ways = len(targets), int(targets.max()) + 1
    # A stable sort by class keeps the order within one: the examples of a class by their turn.
    order = np.argsort(targets, axis=1, kind="stable")
    return Turns(np.take_along_axis(right, order, axis=1).reshape(tasks, ways, -1).mean(axis=1))


def estimate_to_json(found: Estimate) -> dict[str, Json]:
    """A mean and its 95 % interval."""
    return {"mean": found.value, "interval": [found.low, found.high]}


def table(found: Sequence[Scores]) -> str:
    """A line for each kind of batch normalisation."""
    lines = [
        f"accuracy over {len(found[0].accuracies)} tasks ± 95 %; worst decile: mean of the worst tenth of the tasks",
        "",
        f"{'batch norm':14}{'accuracy, %':>16}{'worst decile, %':>18}{'NLL, nats':>18}{'ECE, %':>9}",
    ]
    for each in found:
        accuracy, loss = each.accuracy, each.loss
        lines.append(
            f"{each.batch_norm:14}"
            f"{f'{100 * accuracy.value:.2f} ± {50 * (accuracy.high - accuracy.low):.2f}':>16}"
            f"{100 * each.worst_decile:>18.2f}"
            f"{f'{loss.value:.3f} ± {(loss.high - loss.low) / 2:.3f}':>18}"
            f"{100 * each.calibration_error:>9.2f}"
        )
    return "\n".join(lines)


def turns_table(found: Turns) -> str:
    """A line for each turn."""
    lines = [f"{'example':>7}{'accuracy, %':>23}     (each answer is told before the next example)"]
    for turn, each in enumerate(found.estimates(), start=1):
        lines.append(f"{turn:>7}{f'{100 * each.value:.2f} ± {50 * (each.high - each.low):.2f}':>23}")
    return "\n".join(lines)


def _need_tasks(tasks: int) -> None:
    if tasks < 2:
        raise ValueError(f"an interval needs at least 2 tasks, got {tasks}")


def _parts(draw: Draw, sampler: EpisodeSampler) -> list[Draw]:
    """A few tasks at a time."""
    tasks, examples = len(draw.support), draw.support.shape[1] + draw.query.shape[1]
    size = max(1, NUMBERS // (examples * math.prod(sampler.data.shape)))
    return [Draw(*(array[first : first + size] for array in draw)) for first in range(0, tasks, size)]


def _on_cpu(logits: Tensor) -> Float[np.ndarray, "task query way"]:
    return logits.detach().to(device="cpu", dtype=torch.float64).numpy()
