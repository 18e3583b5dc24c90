"""Judges of few-shot learners against plain loops; the same tasks for everybody, each judged by itself."""

import dataclasses
import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from metarl.evaluation.judge import EvaluationSettings, Judge, Measured
from metarl.evaluation.stills import description
from metarl.fewshot.answers import picture
from metarl.fewshot.benchmarks import Benchmark, ClassificationBenchmark, RegressionBenchmark, Size
from metarl.fewshot.centroid import CentroidConfig
from metarl.fewshot.dataset import FewShotDataset, from_arrays
from metarl.fewshot.encoders import Conv4Config
from metarl.fewshot.episode_options import EpisodeOptions
from metarl.fewshot.examples import Examples, TrainingTasks
from metarl.fewshot.learner import AdaptationName, BatchNorm, FewShotLearner, LearnerConfig
from metarl.fewshot.maml import MamlConfig
from metarl.fewshot.mann import MannConfig
from metarl.fewshot.matching import MatchingConfig
from metarl.fewshot.prototypical import PrototypicalConfig
from metarl.fewshot.reptile import ReptileConfig
from metarl.fewshot.siamese import SiameseConfig
from metarl.fewshot.sources import ClassSource, EpisodeSource
from metarl.fewshot.transfer import TransferConfig
from metarl.learning.protocols import State
from metarl.maths.calibration import calibration_error
from metarl.maths.statistics import t_interval
from metarl.tasks import Task
from tests.fewshot.helpers import blobs, pictures

BLOBS = ClassificationBenchmark(blobs(), EpisodeOptions(ways=5, shots=2, queries=6))
PICTURES = ClassificationBenchmark(pictures(), EpisodeOptions(ways=3, shots=1, queries=4))
NOTHING = State({}, {})
SMALL = Conv4Config(filters=4)


def measure(
    benchmark: Benchmark, learner: FewShotLearner, state: State, tasks: Any = None, trial: int = 0, **settings: Any
) -> Measured:
    options: dict[str, Any] = {"num_tasks": 20, **settings}
    chosen = EvaluationSettings(**options)
    judged = benchmark.tasks(chosen) if tasks is None else tasks
    return benchmark.measure(learner, state, judged, chosen, trial, lambda share: None)


def learner_for(benchmark: Benchmark, config: LearnerConfig) -> FewShotLearner:
    return config.build(benchmark.record.signature, "cpu")


CENTROID = learner_for(BLOBS, CentroidConfig())


# Which tasks


@pytest.mark.parametrize("benchmark", [BLOBS, RegressionBenchmark()])
def test_it_is_a_judge_and_tasks_are_plain_values(benchmark: Benchmark) -> None:
    assert isinstance(benchmark, Judge) and isinstance(benchmark, Benchmark) and benchmark.held_out
    for task in benchmark.tasks(EvaluationSettings(num_tasks=3)):
        assert Task.from_json(task.to_json()) == task
    assert benchmark.tasks(EvaluationSettings(num_tasks=3)) == benchmark.tasks(EvaluationSettings(num_tasks=9))[:3]


def test_tasks_name_their_classes_which_are_those_of_the_split() -> None:
    data = BLOBS.data
    for split in ("validation", "test"):
        tasks = BLOBS.tasks(EvaluationSettings(split=split, num_tasks=200))
        assert tasks[3].family == "5-way 2-shot" and tasks[3]["index"] == 3
        named = [str(task["classes"]).split(" | ") for task in tasks]
        assert all(len(set(names)) == 5 for names in named)
        assert {name for names in named for name in names} == {data.classes[number] for number in data.splits[split]}
        assert len({names[0] for names in named}) == len(data.splits[split])  # any class has any label


def test_a_regression_is_judged_on_the_splits_frozen_list() -> None:
    benchmark = RegressionBenchmark()
    for split in ("validation", "test"):
        assert benchmark.tasks(EvaluationSettings(split=split)) == benchmark.data.tasks(split)


def test_the_seed_decides_the_tasks_and_how_many_there_are_if_nobody_says() -> None:
    assert len(BLOBS.tasks(EvaluationSettings())) == 1000
    assert len(BLOBS.tasks(EvaluationSettings(split="validation"))) == 200
    assert len(RegressionBenchmark().tasks(EvaluationSettings())) == 600
    one, other = (BLOBS.tasks(EvaluationSettings(num_tasks=9, seed=seed)) for seed in (0, 1))
    assert one != other
    with pytest.raises(ValueError, match="has 600 test tasks; 601 were asked for"):
        RegressionBenchmark().tasks(EvaluationSettings(num_tasks=601))


def test_queries_are_of_the_splits_own_examples_and_never_in_the_support() -> None:
    """Validation is on validation classes: told by a predictor that keeps what it is shown."""
    data = BLOBS.data
    home = {tuple(row): int(label) for row, label in zip(data.examples.tolist(), data.labels, strict=True)}
    for split in ("validation", "test"):
        seen = Recorder()
        tasks = BLOBS.tasks(EvaluationSettings(split=split, num_tasks=7))
        measure(BLOBS, seen, NOTHING, tasks, split=split)
        support, targets, query = (torch.cat(part)[:7] for part in (seen.supports, seen.targets, seen.queries))
        for task, shown, ways, asked in zip(tasks, support.tolist(), targets.tolist(), query.tolist(), strict=True):
            classes = str(task["classes"]).split(" | ")
            assert [data.classes[home[tuple(row)]] for row in shown] == [classes[way] for way in ways]
            assert {home[tuple(row)] for row in asked} <= set(data.splits[split])
            assert not {tuple(row) for row in shown} & {tuple(row) for row in asked}
            assert len({tuple(row) for row in asked}) == 30


def test_trials_show_other_examples_of_the_same_classes() -> None:
    first, again, other = (measure(BLOBS, CENTROID, NOTHING, trial=trial).metrics["accuracy"] for trial in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first[1] != other[1]).any()
    seeds = (measure(BLOBS, CENTROID, NOTHING, seed=seed).metrics["accuracy"] for seed in (1, 2))
    assert (next(seeds)[1] != next(seeds)[1]).any()


# What is measured


@dataclasses.dataclass
class Recorder:
    """A learner that keeps what it is shown, and answers with the numbers it is told."""

    supports: list[Tensor] = dataclasses.field(default_factory=list)
    targets: list[Tensor] = dataclasses.field(default_factory=list)
    queries: list[Tensor] = dataclasses.field(default_factory=list)
    num_adaptations: int = 1
    adaptation_name: AdaptationName = "support"
    batch_norms: tuple[BatchNorm, ...] = ("none",)
    training: TrainingTasks = TrainingTasks(any_ways=True)
    meta_batch: int = 1
    progress_keys: tuple[str, ...] = ()

    def init(self, seed: int) -> State:
        return NOTHING

    def meta_step(self, state: State, experience: Any, rng: np.random.Generator) -> tuple[State, dict[str, float]]:
        return state, {}

    def start(self, state: State, num_tasks: int) -> "Recorder":
        return self

    def adapt(self, support: Examples) -> "Recorder":
        self.supports.append(support.inputs)
        self.targets.append(support.targets)
        return self

    def predict(self, inputs: Float[Tensor, "task query ..."]) -> Float[Tensor, "task query output"]:
        if len(self.queries) < len(self.supports):
            self.queries.append(inputs)
        return torch.zeros(*inputs.shape[:2], 5)

    def with_batch_norm(self, mode: str) -> "Recorder":
        return self


def test_metrics_are_those_of_a_plain_loop() -> None:
    """The nearest class mean, from the very examples, in float64."""
    seen = Recorder()
    tasks = BLOBS.tasks(EvaluationSettings(num_tasks=31))
    measure(BLOBS, seen, NOTHING, tasks)
    found = measure(BLOBS, CENTROID, NOTHING, tasks)
    support, targets, query = (
        torch.cat(part)[:31].double().numpy() for part in (seen.supports, seen.targets, seen.queries)
    )
    data = BLOBS.data
    home = {tuple(row): int(label) for row, label in zip(data.examples.tolist(), data.labels, strict=True)}
    confidences, hits, losses = [], [], []
    for task, x, ways, asked in zip(tasks, support, targets, query, strict=True):
        classes = str(task["classes"]).split(" | ")
        means = [x[ways == way].mean(0) for way in range(5)]
        for row in asked:
            weights = [math.exp(-((row - mean) ** 2).sum()) for mean in means]
            p, answer = [w / sum(weights) for w in weights], classes.index(data.classes[home[tuple(row.tolist())]])
            confidences.append(max(p))
            hits.append(p.index(max(p)) == answer)
            losses.append(-math.log(p[answer]))
    accuracy, likelihood = (found.metrics[name] for name in ("accuracy", "negative_log_likelihood"))
    np.testing.assert_allclose(accuracy[1], np.array(hits).reshape(31, -1).mean(1))
    np.testing.assert_allclose(likelihood[1], np.array(losses).reshape(31, -1).mean(1), rtol=1e-4)
    np.testing.assert_allclose(likelihood[0], math.log(5))  # by chance before it has seen anything
    assert found.calibration is not None and found.calibration.shape == (2, 31, 15, 3)
    error = 0.0
    for low in range(15):
        inside = [i for i, c in enumerate(confidences) if low / 15 < c <= (low + 1) / 15]
        if inside:
            error += len(inside) / len(hits) * abs(np.mean([hits[i] - confidences[i] for i in inside]))
    assert calibration_error(found.calibration[1].sum(0)) == pytest.approx(error, abs=1e-6) and error > 0.01
    np.testing.assert_allclose(found.calibration[..., 0].sum(2), np.full((2, 31), 30))


def test_reliability_bins_hold_the_queries_of_all_chunks_of_tasks() -> None:
    calibration = measure(BLOBS, CENTROID, NOTHING, num_tasks=150).calibration
    assert calibration is not None
    np.testing.assert_allclose(calibration[..., 0].sum(2), np.full((2, 150), 30))


def test_every_learner_meets_the_same_tasks() -> None:
    seen = [Recorder(), Recorder()]
    for recorder in seen:
        measure(BLOBS, recorder, NOTHING)
    for one, other in zip(seen[0].queries, seen[1].queries, strict=True):
        assert torch.equal(one, other)


def test_points_are_before_and_after_all_steps_unless_told_otherwise() -> None:
    maml = learner_for(BLOBS, MamlConfig(test_steps=3))
    assert BLOBS.points(maml, EvaluationSettings()).adaptations == (0, 3)
    assert BLOBS.points(maml, EvaluationSettings(num_adaptations=7)).amounts == (0, 7)
    assert BLOBS.points(maml, EvaluationSettings(num_adaptations=0)).adaptations == (0,)
    assert BLOBS.points(maml, EvaluationSettings()).unit == "gradient step"
    assert BLOBS.points(CENTROID, EvaluationSettings()).unit == "support"
    with pytest.raises(ValueError, match="cannot adapt 2 times"):
        BLOBS.points(CENTROID, EvaluationSettings(num_adaptations=2))
    for wrong in (EvaluationSettings(episodes_per_adaptation=2), EvaluationSettings(actions="mean")):
        with pytest.raises(ValueError, match="plays no episodes"):
            BLOBS.points(maml, wrong)
    with pytest.raises(ValueError, match="batch norm must be none, got running"):
        BLOBS.points(CENTROID, EvaluationSettings(batch_norm="running"))
    with pytest.raises(ValueError, match="batch norm must be none, got running"):
        measure(BLOBS, CENTROID, NOTHING, batch_norm="running")


def test_regressions_are_measured_after_none_one_five_and_ten_steps() -> None:
    """And after the learner's own number of them."""
    benchmark = RegressionBenchmark()
    for config, counts in ((MamlConfig(), (0, 1, 5, 10)), (ReptileConfig(test_steps=12), (0, 1, 5, 10, 12))):
        learner = learner_for(benchmark, config)
        assert benchmark.points(learner, EvaluationSettings()).adaptations == counts
    maml = learner_for(benchmark, MamlConfig())
    assert benchmark.points(maml, EvaluationSettings(num_adaptations=7)).adaptations == (0, 1, 5, 7)
    transfer = learner_for(benchmark, TransferConfig())
    assert benchmark.points(transfer, EvaluationSettings()).adaptations == (0, 1)


def test_regression_errors_are_mean_squares_at_every_point() -> None:
    benchmark = RegressionBenchmark(EpisodeOptions(shots=5))
    learner = learner_for(benchmark, MamlConfig())
    state, tasks = learner.init(0), benchmark.tasks(EvaluationSettings(num_tasks=3))
    found = measure(benchmark, learner, state, tasks, seed=4, trial=1)
    assert found.metrics.keys() == {"error"} and found.metrics["error"].shape == (4, 3)
    assert found.calibration is None
    for number, task in enumerate(tasks):
        support, query = benchmark._draw([task], 4, 1)  # pyright: ignore[reportPrivateUsage]
        assert support.inputs.shape == (1, 5, 1) and query.inputs.shape == (1, 100, 1)
        expected = task.number("amplitude") * np.sin(query.inputs.double().numpy() - task.number("phase"))
        np.testing.assert_allclose(query.targets.double().numpy(), expected, atol=1e-5)
        predictor, steps = learner.start(state, 1), 0
        for point, count in enumerate((0, 1, 5, 10)):
            while steps < count:
                predictor, steps = predictor.adapt(support), steps + 1
            error = float(((predictor.predict(query.inputs) - query.targets) ** 2).mean())
            assert found.metrics["error"][point, number] == pytest.approx(error, rel=1e-5)


# Each task by itself

JUDGED: dict[str, tuple[Benchmark, LearnerConfig]] = {
    "maml": (PICTURES, MamlConfig(encoder=SMALL)),
    "reptile": (PICTURES, ReptileConfig(encoder=SMALL, test_steps=2)),
    "prototypical": (PICTURES, PrototypicalConfig(encoder=SMALL)),
    "matching": (PICTURES, MatchingConfig(encoder=SMALL)),
    "matching in context": (PICTURES, MatchingConfig(encoder=SMALL, full_context=True)),
    "siamese": (PICTURES, SiameseConfig(encoder=SMALL)),
    "transfer": (PICTURES, TransferConfig(encoder=SMALL, fit_steps=3)),
    "finetune": (PICTURES, TransferConfig(encoder=SMALL, fit="finetune", fit_steps=2)),
    "mann": (PICTURES, MannConfig()),
    "mann with an encoder": (PICTURES, MannConfig(embedding="encoder", encoder=SMALL)),
    "centroid": (PICTURES, CentroidConfig()),
    "regression by maml": (RegressionBenchmark(), MamlConfig()),
    "regression by reptile": (RegressionBenchmark(), ReptileConfig(test_steps=6)),
    "regression by transfer": (RegressionBenchmark(), TransferConfig(fit_steps=3)),
}


@pytest.mark.parametrize("name", JUDGED)
def test_a_task_is_judged_by_itself_bit_for_bit(name: str) -> None:
    """Whatever tasks are beside it, in what order, and how many."""
    benchmark, config = JUDGED[name]
    learner = learner_for(benchmark, config)
    state = learner.init(0)
    for mode in learner.batch_norms:
        tasks = benchmark.tasks(EvaluationSettings(num_tasks=70))
        order = np.random.default_rng(0).permutation(70)[:9]
        whole = measure(benchmark, learner, state, tasks, batch_norm=mode).metrics
        part = measure(benchmark, learner, state, tuple(tasks[i] for i in order), batch_norm=mode).metrics
        for metric, values in whole.items():
            np.testing.assert_array_equal(values[:, order], part[metric], err_msg=f"{mode} {metric}")


@pytest.mark.parametrize("config", [PrototypicalConfig(encoder=SMALL), TransferConfig(encoder=SMALL, fit_steps=3)])
def test_every_image_is_embedded_once_where_batch_norm_allows(
    config: LearnerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With running averages; the result is that of embedding each task's images anew."""
    learner = learner_for(PICTURES, config)
    state, count = learner.init(0), [0]
    embed = type(learner).embed  # pyright: ignore[reportAttributeAccessIssue]

    def counted(self: Any, state: State, inputs: Tensor) -> Tensor:
        count[0] += len(inputs)
        return embed(self, state, inputs)

    monkeypatch.setattr(type(learner), "embed", counted)
    once = measure(PICTURES, learner, state, num_tasks=60, batch_norm="running").metrics
    held_out = len(PICTURES.data.splits["test"]) * 12
    assert 0 < count[0] <= 256 * math.ceil(held_out / 256) < 60 * 15
    monkeypatch.setattr(type(learner), "embeds_alone", lambda self, mode: False)
    anew = measure(PICTURES, learner, state, num_tasks=60, batch_norm="running").metrics
    np.testing.assert_allclose(once["accuracy"], anew["accuracy"])
    np.testing.assert_allclose(once["negative_log_likelihood"], anew["negative_log_likelihood"], rtol=1e-4)
    before = count[0]
    monkeypatch.undo()
    monkeypatch.setattr(type(learner), "embed", counted)
    measure(PICTURES, learner, state, num_tasks=2, batch_norm="support")
    assert count[0] == before


def test_the_batch_norm_mode_changes_the_figures() -> None:
    learner = learner_for(PICTURES, PrototypicalConfig(encoder=SMALL))
    state = learner.init(0)
    found = [measure(PICTURES, learner, state, batch_norm=mode).metrics for mode in learner.batch_norms]
    likelihoods = [metrics["negative_log_likelihood"][1] for metrics in found]
    assert (likelihoods[0] != likelihoods[1]).all() and (likelihoods[1] != likelihoods[2]).all()
    assert PICTURES.points(learner, EvaluationSettings(batch_norm="support")).batch_norm == "support"
    assert PICTURES.points(learner, EvaluationSettings()).batch_norm == "running"
    assert BLOBS.points(CENTROID, EvaluationSettings()).batch_norm is None  # it has none
    default = measure(PICTURES, learner, state).metrics["negative_log_likelihood"][1]
    np.testing.assert_array_equal(default, likelihoods[0])


def test_progress_is_told_up_to_the_end() -> None:
    told: list[float] = []
    settings = EvaluationSettings(num_tasks=150)
    learner = learner_for(PICTURES, PrototypicalConfig(encoder=SMALL))
    PICTURES.measure(learner, learner.init(0), PICTURES.tasks(settings), settings, 0, told.append)
    assert told == sorted(told) and told[-1] == 1.0 and len(told) > 2


# Other sizes, and what does not fit


def test_evaluated_tasks_can_have_another_size() -> None:
    learner = learner_for(BLOBS, CentroidConfig())
    larger = BLOBS.resized(learner, Size(6, 1, 3))
    found = measure(larger, learner, NOTHING)
    np.testing.assert_allclose(found.metrics["negative_log_likelihood"][0], math.log(6))
    assert t_interval(found.metrics["accuracy"][1]).low > 1 / 6
    assert larger.tasks(EvaluationSettings(num_tasks=1))[0].family == "6-way 1-shot"
    assert larger.hash == BLOBS.hash  # the data set's: how large tasks are is told by each
    maml = learner_for(BLOBS, MamlConfig())
    with pytest.raises(ValueError, match="an output for each of its 5 ways, and cannot tell 6 apart"):
        BLOBS.resized(maml, Size(6, 1))
    with pytest.raises(ValueError, match="the learner has 5 outputs, the task has 6 ways"):
        measure(larger, maml, maml.init(0))
    assert RegressionBenchmark().resized(maml, Size(None, 5)).shots == 5
    with pytest.raises(ValueError, match="has no classes: another size is another number of shots"):
        RegressionBenchmark().resized(maml, Size(5, 1))


def test_too_few_classes_or_examples_are_refused_with_the_numbers() -> None:
    for options, message in (
        (EpisodeOptions(ways=7), "7 ways need 7 classes; blobs has 6 validation classes"),
        (EpisodeOptions(ways=5, shots=20, queries=10), r"need 30 examples a class \(20 support \+ 10 query\)"),
    ):
        with pytest.raises(ValueError, match=message):
            ClassificationBenchmark(BLOBS.data, options)
    with pytest.raises(ValueError, match="sinusoid has no classes"):
        RegressionBenchmark(EpisodeOptions(ways=5))


def test_tasks_of_other_classes_are_refused() -> None:
    for task, message in (
        (Task.of("x", index=0, classes="0 | 1 | 2 | 3 | zebra"), "blobs has no class 'zebra'"),
        (Task.of("x", index=0, classes="0 | 1"), "has 2 classes; tasks have 5 ways here"),
    ):
        with pytest.raises(ValueError, match=message):
            measure(BLOBS, CENTROID, NOTHING, (task,))
    data = BLOBS.data
    names = tuple(f"{name} | x" for name in data.classes)
    odd = FewShotDataset("odd", data.examples, data.labels, names, data.splits)
    with pytest.raises(ValueError, match="odd: rename class '0 | x'"):
        ClassificationBenchmark(odd, BLOBS.options)


def test_the_source_is_what_the_learner_is_best_trained_on() -> None:
    source = BLOBS.source(TrainingTasks(ways=10, queries=3, any_ways=True))
    assert isinstance(source, EpisodeSource) and (source.shape.ways, source.shape.queries) == (10, 3)
    assert isinstance(BLOBS.source(TrainingTasks(queries=64, by_class=True)), ClassSource)
    given = dataclasses.replace(BLOBS, options=dataclasses.replace(BLOBS.options, train_ways=(4,)))
    with pytest.raises(ValueError, match="leave --train-... out"):
        given.source(TrainingTasks(by_class=True))
    with pytest.raises(ValueError, match="--train-ways must be the same, got 4"):
        given.source(TrainingTasks())
    with pytest.raises(ValueError, match="40 ways need 40 classes; blobs has 18 train classes"):
        BLOBS.source(TrainingTasks(ways=40, any_ways=True))


def test_a_run_remembers_what_inputs_are_normalised_by() -> None:
    record = PICTURES.record
    assert record.signature == PICTURES.data.signature(3, 1)
    assert (record.mean, record.std) == (PICTURES.data.mean, PICTURES.data.std) and len(record.std) == 1


def test_answers_that_are_shown_are_those_that_are_scored() -> None:
    noise = np.random.default_rng(0).integers(256, size=(24 * 12, 8, 8), dtype=np.uint8)
    data = from_arrays("noise", noise, np.repeat(np.arange(24), 12))
    benchmark = ClassificationBenchmark(data, EpisodeOptions(ways=3, shots=2, queries=3))
    learner = PrototypicalConfig(encoder=SMALL).build(benchmark.record.signature)
    state, settings = learner.init(0), EvaluationSettings(num_tasks=4)
    shown = benchmark.answered(learner, state, settings, queries=9)  # all of them
    measured = benchmark.measure(learner, state, benchmark.tasks(settings), settings, 0, lambda share: None)
    right = [float((task.answers == task.query_targets).mean()) for task in shown]
    assert right == pytest.approx(measured.metrics["accuracy"][-1].tolist())
    assert 0 < np.mean(right) < 1
    assert [len(task.queries) for task in benchmark.answered(learner, state, settings, queries=4)] == [4] * 4
    content = picture(shown)
    assert description(content).startswith(f"test task 0: {round(9 * right[0])} of the 9 queries shown are answered")
    colours = {colour for _, colour in Image.open(io.BytesIO(content)).convert("RGB").getcolors(2**20) or ()}
    assert {(0, 114, 178), (213, 94, 0)} <= colours  # frames of right and of wrong answers
