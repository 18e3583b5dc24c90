"""A trained few-shot learner in its user's hands."""

import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest

from metarl.fewshot.benchmarks import ClassificationBenchmark, RegressionBenchmark
from metarl.fewshot.encoders import Conv4Config
from metarl.fewshot.episode_options import EpisodeOptions
from metarl.fewshot.examples import TaskRecord, TaskSignature
from metarl.fewshot.maml import MamlConfig
from metarl.fewshot.prototypical import PrototypicalConfig
from metarl.fewshot.trained import TrainedLearner
from metarl.learning.training import outer_steps
from tests.fewshot.helpers import pictures

BENCHMARK = ClassificationBenchmark(pictures(), EpisodeOptions(ways=3, shots=1, queries=4, train_queries=2))


@pytest.fixture(scope="module")
def trained() -> TrainedLearner:
    """A prototypical network after a few steps on noisy pictures."""
    learner = PrototypicalConfig(encoder=Conv4Config(filters=8)).build(BENCHMARK.record.signature)
    source = BENCHMARK.source(learner.training)
    *_, last = outer_steps(learner, source, learner.init(0), seed=0, start=0, stop=20)
    return TrainedLearner(learner, last.state, BENCHMARK.record)


def new_classes(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Two images of each of `count` classes that nobody has seen."""
    rng = np.random.default_rng(1)
    means = rng.integers(0, 256, size=(count, 8, 8))
    known, asked = (np.clip(means + rng.normal(0, 5, size=means.shape), 0, 255).astype(np.uint8) for _ in range(2))
    return known, asked


def test_it_tells_new_classes_apart(trained: TrainedLearner) -> None:
    """Four of them, where it was evaluated with three; by names, too."""
    known, asked = new_classes(4)
    order = [2, 0, 1, 3, 3]
    adapted = trained.adapt(known, np.arange(4))
    probabilities = adapted.predict(asked[order])
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert adapted.classes == (0, 1, 2, 3) and probabilities.argmax(1).tolist() == order
    named = trained.adapt(known, ["owl", "hen", "cat", "ant"])
    assert [named.classes[i] for i in named.predict(asked).argmax(1)] == ["owl", "hen", "cat", "ant"]
    np.testing.assert_allclose(trained.adapt(known, np.arange(4)).predict(asked[[2]]), probabilities[:1], rtol=1e-5)


def test_it_is_shown_in_a_line_and_can_be_sent_away(trained: TrainedLearner) -> None:
    assert repr(trained) == "<Prototypical for 3-way 1-shot of 1×8×8, 1,928 parameters>"
    known, asked = new_classes(4)
    adapted = trained.adapt(known, np.arange(4))
    assert len(repr(adapted)) < 120 and "\n" not in repr(adapted)
    again = pickle.loads(pickle.dumps(adapted))
    np.testing.assert_array_equal(again.predict(asked), adapted.predict(asked))


def test_it_refuses_what_it_was_not_trained_for(trained: TrainedLearner) -> None:
    images = np.zeros((3, 8, 8), dtype=np.uint8)
    with pytest.raises(ValueError, match="trained on"):
        trained.adapt(np.zeros((3, 64)), np.arange(3))
    with pytest.raises(ValueError, match="3 examples but 2 labels"):
        trained.adapt(images, np.arange(2))
    with pytest.raises(ValueError, match="at least two classes, got 1 alone"):
        trained.adapt(images, [1, 1, 1])
    with pytest.raises(ValueError, match="adapts to a support 1 times, not 2"):
        trained.adapt(images, np.arange(3), num_adaptations=2)
    with pytest.raises(ValueError, match="batch norm must be one of running, transductive, support, got none"):
        trained.adapt(images, np.arange(3), batch_norm="none")


def test_batch_norm_and_the_number_of_adaptations_are_the_users_choice(trained: TrainedLearner) -> None:
    known, asked = new_classes(4)
    chosen = [trained.adapt(known, np.arange(4), batch_norm=mode) for mode in ("running", "support")]
    assert not np.allclose(chosen[0].predict(asked), chosen[1].predict(asked))
    chance = trained.adapt(known[:3], np.arange(3), num_adaptations=0)
    np.testing.assert_allclose(chance.predict(asked), 1 / 3)


def test_a_learner_with_outputs_refuses_another_number_of_classes() -> None:
    learner = MamlConfig(encoder=Conv4Config(filters=4)).build(BENCHMARK.record.signature)
    trained = TrainedLearner(learner, learner.init(0), BENCHMARK.record)
    known, asked = new_classes(4)
    assert trained.adapt(known[:3], np.arange(3)).predict(asked).shape == (4, 3)
    with pytest.raises(ValueError, match="an output for each of its 3 ways, got 4 classes"):
        trained.adapt(known, np.arange(4))


def test_a_regression_predicts_values_that_follow_its_support() -> None:
    benchmark = RegressionBenchmark()
    learner = MamlConfig().build(benchmark.record.signature)
    trained = TrainedLearner(learner, learner.init(0), benchmark.record)
    x = np.linspace(-3, 3, 9)[:, None]
    errors = [
        float(((trained.adapt(x, np.sin(x), num_adaptations=steps).predict(x) - np.sin(x)) ** 2).mean())
        for steps in (0, 20)
    ]
    assert errors[1] < errors[0] and trained.adapt(x, np.sin(x[:, 0])).predict(x[:2]).shape == (2, 1)
    with pytest.raises(ValueError, match="this learner predicts 1 values an example"):
        trained.adapt(x, np.zeros((9, 2)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"shape": ()}, {"shape": (1, 0, 5)}, {"shape": (2**31,)}, {"shape": (-1, -1)}, {"ways": -1}, {"shots": 10**9},
        {"outputs": 0}, {"classes": 10**9},
    ],
)  # fmt: skip
def test_a_signature_that_no_data_have_is_refused(wrong: dict[str, Any]) -> None:
    good = TaskSignature("classification", (1, 5, 5), 3, 2, 3)
    with pytest.raises(ValueError, match="|".join([*wrong, "shape"])):
        dataclasses.replace(good, **wrong)
    for mean, std in (((0.5,), ()), ((0.5, 0.5), (1.0, 1.0)), ((0.5,), (0.0,))):
        with pytest.raises(ValueError, match="mean and std must be empty or have 1 numbers"):
            TaskRecord(good, mean, std)
