"""Accuracy, likelihood and calibration against independent computations; the same tasks for every learner."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.fewshot import calibration, evaluation
from metarl.fewshot.dataset import FewShotDataset, from_arrays
from metarl.fewshot.examples import Batch, Examples, TrainingTasks
from metarl.fewshot.learner import BatchNorm, FewShotLearner
from metarl.fewshot.sampler import EpisodeSampler, EpisodeShape
from metarl.learning.protocols import Figures, State

STATE = State({}, {})


@dataclasses.dataclass(frozen=True)
class Nearest:
    """Answers by the nearest mean of the support, times a temperature; it learns nothing."""

    sharpness: float = 1.0
    meta_batch: int = 1
    shown: tuple[str, ...] = ()
    batch_norms: tuple[BatchNorm, ...] = ("none", "running")
    training: TrainingTasks = TrainingTasks()

    def init(self, seed: int) -> State:
        return STATE

    def meta_step(self, state: State, batch: Batch, rng: np.random.Generator) -> tuple[State, Figures]:
        return state, {}

    def adapt(self, state: State, support: Examples, batch_norm: BatchNorm) -> "Means":
        one_hot = torch.nn.functional.one_hot(support.targets).float()
        means = (one_hot / one_hot.sum(1, keepdim=True)).mT @ support.inputs
        return Means(means, self.sharpness if batch_norm == "none" else 0.0)

    def predict_in_turn(self, state: State, sequence: Examples) -> Float[Tensor, "task example way"]:
        """Right from the second example of a class on; never at the first."""
        one_hot = torch.nn.functional.one_hot(sequence.targets)
        seen = (one_hot.cumsum(1) * one_hot).sum(-1) > 1
        answers = torch.where(seen, sequence.targets, (sequence.targets + 1) % one_hot.shape[-1])
        return torch.nn.functional.one_hot(answers).float()


@dataclasses.dataclass(frozen=True)
class Means:
    means: Tensor
    sharpness: float

    def predict(self, inputs: Float[Tensor, "task query ..."]) -> Float[Tensor, "task query output"]:
        return -self.sharpness * torch.cdist(inputs, self.means) ** 2


def blobs() -> FewShotDataset:
    """30 classes of vectors around centres of their own."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(30), 25)
    return from_arrays("blobs", rng.normal(size=(30, 4))[labels] + 0.6 * rng.normal(size=(750, 4)), labels)


SAMPLER = EpisodeSampler(blobs(), EpisodeShape(5, 2, 6))


def test_figures_are_those_of_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "NUMBERS", 400)  # two tasks at a time
    learner = Nearest()
    assert isinstance(learner, FewShotLearner)
    done: list[int] = []
    found = evaluation.evaluate(learner, STATE, SAMPLER, "test", tasks=31, on_progress=done.append)
    assert done == [*range(2, 31, 2), 31]
    draw = SAMPLER.draw("test", 31, np.random.default_rng(evaluation.SEED))
    x = SAMPLER.data.examples.numpy().astype(np.float64)
    confidences, hits, losses = [], [], []
    for support, ways, query, answers in zip(*draw, strict=True):
        means = [x[support[ways == way]].mean(0) for way in range(5)]
        for number, answer in zip(query, answers, strict=True):
            weights = [math.exp(-((x[number] - mean) ** 2).sum()) for mean in means]
            p = [weight / sum(weights) for weight in weights]
            confidences.append(max(p))
            hits.append(p.index(max(p)) == answer)
            losses.append(-math.log(p[answer]))
    accuracies = np.array(hits).reshape(31, -1).mean(1)
    np.testing.assert_allclose(found.accuracies, accuracies)
    np.testing.assert_allclose(found.losses, np.array(losses).reshape(31, -1).mean(1), rtol=1e-4)
    assert 0.5 < found.accuracy.value < 0.99
    assert found.worst_decile == pytest.approx(sorted(accuracies)[:3] @ np.full(3, 1 / 3))
    error = 0.0
    for low in range(15):
        inside = [i for i, c in enumerate(confidences) if low / 15 < c <= (low + 1) / 15]
        if inside:
            gap = np.mean([hits[i] for i in inside]) - np.mean([confidences[i] for i in inside])
            error += len(inside) / len(hits) * abs(gap)
    assert found.calibration_error == pytest.approx(error, abs=1e-6) and error > 0.01


def test_every_learner_meets_the_same_tasks_and_another_seed_draws_others() -> None:
    one, sharper = (evaluation.evaluate(Nearest(sharpness), STATE, SAMPLER, tasks=20) for sharpness in (1.0, 9.0))
    np.testing.assert_array_equal(one.accuracies, sharper.accuracies)  # the same nearest means
    assert sharper.loss.value > one.loss.value and sharper.calibration_error > one.calibration_error
    other = evaluation.evaluate(Nearest(), STATE, SAMPLER, tasks=20, seed=1)
    assert (other.accuracies != one.accuracies).any()


def test_the_kind_of_batch_norm_is_passed_on_and_named() -> None:
    guessing = evaluation.evaluate(Nearest(), STATE, SAMPLER, tasks=20, batch_norm="running")
    assert guessing.loss.value == pytest.approx(math.log(5)) and guessing.batch_norm == "running"
    own = evaluation.evaluate(Nearest(), STATE, SAMPLER, tasks=20)
    assert own.batch_norm == "none"
    shown = evaluation.table([own, guessing])
    assert "20 tasks" in shown and f"{100 * own.accuracy.value:.2f} ±" in shown
    assert [line.split()[0] for line in shown.splitlines()[3:]] == ["none", "running"]


def test_raw_accuracies_are_written_as_strict_json() -> None:
    found = evaluation.evaluate(Nearest(), STATE, SAMPLER, tasks=20)
    written = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert written["accuracies"] == [round(float(value), 6) for value in found.accuracies]
    assert written["accuracy"]["interval"][0] < written["accuracy"]["mean"] < written["accuracy"]["interval"][1]


def test_one_task_has_no_interval() -> None:
    with pytest.raises(ValueError, match="at least 2 tasks, got 1"):
        evaluation.evaluate(Nearest(), STATE, SAMPLER, tasks=1)


def test_turns_are_counted_by_class() -> None:
    right = np.array([[0.0, 1.0, 0.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]])
    targets = np.array([[0, 0, 1, 1, 0, 1], [1, 1, 1, 0, 0, 0]])
    np.testing.assert_allclose(evaluation.by_turn(right, targets).accuracies, [[0, 1, 1], [0.5, 0, 0.5]])


def test_a_sequence_learner_is_judged_by_the_turn() -> None:
    longer = EpisodeSampler(SAMPLER.data, EpisodeShape(5, 10, 1))
    found = evaluation.evaluate_in_turn(Nearest(), STATE, longer, tasks=4)
    assert found.accuracies.mean(0).tolist() == [0.0] + [1.0] * 9
    assert evaluation.turns_table(found).splitlines()[2].split() == ["2", "100.00", "±", "0.00"]
    assert set(found.to_json()) == {str(turn) for turn in range(1, 11)}


def test_calibration_of_extremes() -> None:
    sure, wrong = np.ones(4), np.zeros(4, dtype=bool)
    assert calibration.calibration_error(sure, ~wrong) == 0.0
    assert calibration.calibration_error(sure, wrong) == 1.0
    # Gaps of one bin make up for each other, those of different bins do not.
    assert calibration.calibration_error(np.array([0.5, 0.5]), np.array([True, False])) == 0.0
    assert calibration.calibration_error(np.array([0.25, 0.75]), np.array([True, False])) == pytest.approx(0.75)
    with pytest.raises(ValueError, match="got 0 and 15"):
        calibration.calibration_error(np.zeros(0), np.zeros(0, dtype=bool))


def test_likelihoods_of_large_logits_stay_finite() -> None:
    log_p = calibration.log_probabilities(np.array([[1000.0, 0.0], [0.0, 0.0]]))
    found = calibration.negative_log_likelihood(log_p, np.array([1, 0]))
    np.testing.assert_allclose(found, [1000.0, math.log(2)])
