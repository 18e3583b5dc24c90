"""Accuracy at the first, second, ... example of a class."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.evaluation.judge import EvaluationSettings, Judge
from metarl.fewshot.examples import Examples
from metarl.fewshot.instance_accuracy import InstanceAccuracy, by_instance
from metarl.fewshot.learner import SequenceLearner
from metarl.fewshot.mann import MannConfig
from metarl.learning.protocols import State
from tests.fewshot.helpers import blobs
from tests.fewshot.test_benchmarks import Recorder

JUDGE = InstanceAccuracy(blobs(), ways=4, instances=6)


class Recaller(Recorder):
    """Right from the second example of a class on; never at the first."""

    def predict_in_turn(self, state: State, sequence: Examples) -> Float[Tensor, "task example way"]:
        one_hot = torch.nn.functional.one_hot(sequence.targets)
        seen = (one_hot.cumsum(1) * one_hot).sum(-1) > 1
        answers = torch.where(seen, sequence.targets, (sequence.targets + 1) % one_hot.shape[-1])
        return 9 * torch.nn.functional.one_hot(answers).float()


def measure(learner: Any, state: State, **settings: Any) -> Any:
    options: dict[str, Any] = {"num_tasks": 5, **settings}
    chosen = EvaluationSettings(**options)
    return JUDGE.measure(learner, state, JUDGE.tasks(chosen), chosen, 0, lambda share: None)


def test_a_curve_in_examples_a_class() -> None:
    learner = Recaller()
    assert isinstance(JUDGE, Judge) and isinstance(learner, SequenceLearner)
    points = JUDGE.points(learner, EvaluationSettings())
    assert points.adaptations == points.amounts == (0, 1, 2, 3, 4, 5) and points.unit == "example a class"
    found = measure(learner, State({}, {}))
    assert found.metrics["accuracy"].shape == (6, 5)
    np.testing.assert_array_equal(found.metrics["accuracy"].mean(1), [0, 1, 1, 1, 1, 1])
    np.testing.assert_array_equal(found.calibration.sum(1)[:, :, 0].sum(1), [20] * 6)


def test_logits_are_sorted_by_class_and_instance() -> None:
    targets = np.array([[0, 1, 1, 0], [1, 1, 0, 0]])
    logits = torch.arange(8).reshape(2, 4, 1).float()
    assert by_instance(logits, targets)[..., 0].tolist() == [[[0, 3], [1, 2]], [[6, 7], [4, 5]]]


def test_each_sequence_is_judged_by_itself() -> None:
    learner = MannConfig(slots=8, width=8, controller=16, heads=1).build(JUDGE.data.signature(4, 1))
    state = learner.init(0)
    whole, part = (measure(learner, state, num_tasks=count).metrics for count in (70, 3))
    for name, values in whole.items():
        np.testing.assert_array_equal(values[:, :3], part[name])


def test_settings_that_do_not_fit_are_refused() -> None:
    learner = Recaller()
    assert JUDGE.points(learner, EvaluationSettings(num_adaptations=2)).adaptations == (0, 1, 2)
    with pytest.raises(ValueError, match="a sequence has 6 examples a class, so none comes after 6"):
        JUDGE.points(learner, EvaluationSettings(num_adaptations=6))
    with pytest.raises(ValueError, match="plays no episodes"):
        JUDGE.points(learner, EvaluationSettings(actions="mean"))
    with pytest.raises(ValueError, match="batch norm must be none, got running"):
        JUDGE.points(learner, EvaluationSettings(batch_norm="running"))
    with pytest.raises(ValueError, match="at least 2, got 1"):
        dataclasses.replace(JUDGE, instances=1)
    with pytest.raises(ValueError, match="need 26 examples a class"):
        dataclasses.replace(JUDGE, instances=26)
