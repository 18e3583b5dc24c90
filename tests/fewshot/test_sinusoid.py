"""Sinusoids, and that MAML learns to adapt to them."""

import dataclasses

import numpy as np
import pytest
import torch

from metarl.evaluation.judge import EvaluationSettings
from metarl.fewshot.benchmarks import RegressionBenchmark
from metarl.fewshot.maml import MamlConfig
from metarl.fewshot.sinusoid import Sinusoids
from metarl.learning.training import outer_steps
from metarl.maths.statistics import t_interval
from metarl.tasks import Task

DATA = Sinusoids()


def test_examples_lie_on_the_sinusoid() -> None:
    tasks = (Task.of("sinusoid", amplitude=2.0, phase=0.5), Task.of("sinusoid", amplitude=0.1, phase=3.0))
    x, y = DATA.examples(tasks, 50, np.random.default_rng(0))
    assert x.shape == y.shape == (2, 50, 1) and x.dtype == torch.float32
    assert x.min() >= -5 and x.max() <= 5 and x.std() > 2
    torch.testing.assert_close(y[0], 2.0 * torch.sin(x[0] - 0.5), atol=1e-5, rtol=0)
    torch.testing.assert_close(y[1], 0.1 * torch.sin(x[1] - 3.0), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="at least one example"):
        DATA.examples(tasks, 0, np.random.default_rng(0))


def test_the_600_test_tasks_are_never_drawn_in_training() -> None:
    test = set(DATA.tasks("test"))
    assert len(test) == 600 and not test & set(DATA.sample("train", 5000, np.random.default_rng(0)))
    assert not test & set(DATA.tasks("validation"))
    amplitudes = [task.number("amplitude") for task in test]
    assert min(amplitudes) >= 0.1 and max(amplitudes) <= 5.0


def test_the_hash_follows_the_spec() -> None:
    assert DATA.hash == Sinusoids().hash
    smaller = dataclasses.replace(DATA, space=dataclasses.replace(DATA.space, split_sizes=(100, 100, 601)))
    assert DATA.hash != smaller.hash


@pytest.mark.parametrize("kind", ["second order", "first order", "anil"])
def test_maml_learns_to_adapt_to_held_out_sinusoids(kind: str) -> None:
    """Better than its own unadapted self, with an interval; better than it was before training, too."""
    config = MamlConfig(learning_rate=5e-3, first_order=kind == "first order", anil=kind == "anil")
    benchmark = RegressionBenchmark()
    learner = config.build(benchmark.record.signature)
    source, initial = benchmark.source(learner.training), learner.init(0)
    *_, last = outer_steps(learner, source, initial, seed=0, start=0, stop=400)
    settings = EvaluationSettings(num_adaptations=1)
    tasks = benchmark.tasks(settings)
    trained, untrained = (
        benchmark.measure(learner, each, tasks, settings, 0, lambda share: None).metrics["error"]
        for each in (last.state, initial)
    )
    gain = t_interval(trained[0] - trained[1])
    assert gain.low > 0.3, gain
    assert trained[1].mean() < 0.85 * untrained[1].mean()
