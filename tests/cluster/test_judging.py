"""Few-shot learners are judged the same, bit for bit, however their tasks are shared out."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from metarl.cluster.collector import ClusterCollectors
from metarl.cluster.dispatch import Dispatcher
from metarl.cluster.worker import AnyShare, JudgeShare, Result
from metarl.evaluation.judge import EvaluationSettings, JudgeWorkers, Measured
from metarl.fewshot.benchmarks import Benchmark, ClassificationBenchmark, RegressionBenchmark
from metarl.fewshot.encoders import Conv4Config
from metarl.fewshot.episode_options import EpisodeOptions
from metarl.fewshot.learner import LearnerConfig
from metarl.fewshot.maml import MamlConfig
from metarl.fewshot.prototypical import PrototypicalConfig
from tests.fewshot.helpers import pictures

SMALL = Conv4Config(filters=4)
PICTURES = ClassificationBenchmark(pictures(), EpisodeOptions(ways=3, shots=1, queries=4))


class Here:
    """Workers that play at once, in this process, and answer the last first."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self.examinations: list[object] = []

    def start(self) -> tuple[int, tuple[int, Any]]:
        return next(self._numbers), (next(self._numbers), None)

    def play(self, worker: int, share: AnyShare) -> tuple[int, Any]:
        assert isinstance(share, JudgeShare)
        self.examinations.append(share.examination)
        return next(self._numbers), share

    def wait(self, answers: Sequence[Any], seconds: float) -> Sequence[Any]:
        return answers[-1:]

    def first(self, answer: Any) -> None: ...

    def result(self, answer: tuple[int, JudgeShare]) -> Measured:
        share = answer[1]
        return share.examination.measure(share.tasks, share.settings, share.trial)

    def stop(self, worker: int) -> None: ...

    def lacking(self) -> str:
        return ""


@pytest.mark.parametrize(
    ("benchmark", "config", "count"),
    [
        (PICTURES, PrototypicalConfig(encoder=SMALL), 1),  # embeds every image once
        (PICTURES, PrototypicalConfig(encoder=SMALL), 8),
        (PICTURES, MamlConfig(encoder=SMALL, test_steps=2), 3),
        (RegressionBenchmark(), MamlConfig(test_steps=2), 8),
    ],
)
def test_what_is_measured_in_shares_is_what_is_measured_at_once(
    benchmark: Benchmark, config: LearnerConfig, count: int
) -> None:
    learner = config.build(benchmark.record.signature, "cpu")
    state, settings = learner.init(0), EvaluationSettings(num_tasks=70, seed=3)
    tasks = benchmark.tasks(settings)
    whole = benchmark.measure(learner, state, tasks, settings, 1, lambda share: None)
    workers, told = Here(), list[float]()
    collectors = ClusterCollectors(Dispatcher[AnyShare, Result, int, Any](workers, count))
    assert isinstance(collectors, JudgeWorkers)
    judge = collectors.shared(benchmark)
    assert (judge.id, judge.hash, judge.score) == (benchmark.id, benchmark.hash, benchmark.score)
    shared = judge.measure(learner, state, judge.tasks(settings), settings, 1, told.append)
    assert whole.metrics.keys() == shared.metrics.keys()
    for name, values in whole.metrics.items():
        np.testing.assert_array_equal(values, shared.metrics[name])
    assert (whole.calibration is None) == (shared.calibration is None)
    if whole.calibration is not None and shared.calibration is not None:
        np.testing.assert_array_equal(whole.calibration, shared.calibration)
    assert told == [1.0]
    assert len(workers.examinations) == count and len(set(map(id, workers.examinations))) == 1
