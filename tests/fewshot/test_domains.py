"""Held-out domains: Meta-Dataset's rule against a plain reference and its stated bounds, sources joined and judged."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from metarl.commands.fewshot_domains import columns_of
from metarl.evaluation.judge import EvaluationSettings
from metarl.fewshot.benchmarks import ClassificationBenchmark
from metarl.fewshot.centroid import CentroidConfig
from metarl.fewshot.composition import CompositionRule
from metarl.fewshot.dataset import FewShotDataset
from metarl.fewshot.datasets import image_domains
from metarl.fewshot.datasets.image_domains import Source, joined, source_of
from metarl.fewshot.datasets.tiny_imagenet import quartered
from metarl.fewshot.domains import DomainBenchmark
from metarl.fewshot.encoders import Conv4Config, MlpConfig
from metarl.fewshot.episode_options import EpisodeOptions
from metarl.fewshot.maml import MamlConfig
from metarl.fewshot.prototypical import PrototypicalConfig
from metarl.fewshot.sampler import EpisodeSampler, EpisodeShape
from metarl.fewshot.transfer import TransferConfig
from tests import programs
from tests.fewshot.helpers import blobs

RNG = np.random.default_rng(0)


def plainly(counts: list[int], rng: np.random.Generator) -> tuple[list[int], int]:
    """Shots and queries as the paper's appendix has them, class by class, with the same draws in the same order."""
    queries = min([10] + [count // 2 for count in counts])
    beta = 1 - rng.random()
    size = 0
    for count in counts:
        size += math.ceil(beta * min(100, count - queries))
    size = min(500, size)
    alphas = [math.log(0.5) + (math.log(2) - math.log(0.5)) * rng.random() for _ in counts]
    weights = [count * math.exp(alpha) for count, alpha in zip(counts, alphas, strict=True)]
    shots = []
    for count, weight in zip(counts, weights, strict=True):
        shots.append(min(math.floor(weight / sum(weights) * (size - len(counts))) + 1, count - queries))
    return shots, queries


def test_compositions_are_those_of_a_plain_reference() -> None:
    rule, sizes = CompositionRule(), np.random.default_rng(1)
    for seed in range(300):
        most = 400 if seed % 2 else 12  # of small classes a large share can be more than there are
        counts = sizes.integers(2, most, size=int(sizes.integers(2, 51)))
        found = rule.compose(counts, np.random.default_rng(seed))
        shots, queries = plainly(counts.tolist(), np.random.default_rng(seed))
        assert found.shots.tolist() == shots and found.queries == queries


def test_compositions_keep_the_rules_bounds_and_reach_them() -> None:
    rule, rng, totals = CompositionRule(), np.random.default_rng(0), list[int]()
    for _ in range(500):
        counts = rng.integers(2, 300, size=rule.ways(60, rng))
        shots, queries = rule.compose(counts, rng)
        assert shots.min() >= 1 and (shots + queries <= counts).all()
        assert 1 <= queries <= 10 and queries <= counts.min() / 2
        assert shots.sum() <= 500
        totals.append(int(shots.sum()))
    assert min(totals) < 60 and max(totals) > 400


def test_large_classes_have_larger_supports() -> None:
    rng = np.random.default_rng(0)
    shots = np.mean([CompositionRule().compose(np.array([40, 400]), rng).shots for _ in range(400)], axis=0)
    assert shots[1] > 2 * shots[0]


def test_ways_are_uniform_between_five_and_fifty_or_all_classes_of_a_small_source() -> None:
    rule, rng = CompositionRule(), np.random.default_rng(0)
    drawn = [rule.ways(423, rng) for _ in range(5000)]
    assert (min(drawn), max(drawn)) == (5, 50)
    assert np.mean(drawn) == pytest.approx(27.5, abs=0.8)
    assert {rule.ways(8, rng) for _ in range(200)} == {5, 6, 7, 8}
    assert {rule.ways(2, rng) for _ in range(20)} == {2}


def test_a_class_of_one_example_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 examples, got one with 1"):
        CompositionRule().compose(np.array([5, 1]), np.random.default_rng(0))


def sources() -> dict[str, Source]:
    """Two that are trained on and one that is only tested, of other sizes and channels."""
    rng = np.random.default_rng(0)

    def source(classes: int, side: int, channels: int, splits: tuple[int, int, int]) -> Source:
        labels = np.repeat(np.arange(classes), 12)
        means = rng.integers(30, 226, size=(classes, channels, side, side))
        pixels = np.clip(means[labels] + rng.normal(0, 30, size=(len(labels), channels, side, side)), 0, 255)
        ends = np.cumsum([0, *splits])
        parts = [tuple(range(ends[place], ends[place + 1])) for place in range(3)]
        names = tuple(f"class {number}" for number in range(classes))
        homes = {"train": parts[0], "validation": parts[1], "test": parts[2]}
        return Source(torch.from_numpy(pixels.astype(np.uint8)), labels, names, homes)  # pyright: ignore[reportArgumentType]

    return {
        "grey": source(24, 8, 1, (10, 6, 8)),
        "colour": source(21, 6, 3, (9, 5, 7)),
        "only tested": source(3, 8, 1, (0, 0, 3)),
    }


def made() -> FewShotDataset:
    """What `my_file.py:name` names."""
    return joined("joined", sources(), 8)


def test_joined_sources_share_no_task_and_no_split() -> None:
    data = made()
    assert data.shape == (3, 8, 8) and len(data.classes) == 48 and len(data.labels) == 576
    assert data.classes[24] == "colour: class 0"
    assert {data.groups[pool[0]] for pool in data.pools["test"]} == {
        "grey (test)",
        "colour (test)",
        "only tested (test)",
    }
    assert {source_of(data.groups[number]) for number in data.splits["train"]} == {"grey", "colour"}
    grey = sources()["grey"].images
    np.testing.assert_array_equal(data.examples[5].numpy(), grey[5].expand(3, 8, 8).numpy())
    with pytest.raises(ValueError, match="no source has a class to train on"):
        joined("untrained", {"only tested": sources()["only tested"]}, 8)


def test_a_quartered_pixel_is_the_mean_of_four_rounded_half_up() -> None:
    images = np.random.default_rng(0).integers(0, 256, size=(3, 2, 8, 6), dtype=np.uint8)
    expected = np.floor(images.reshape(3, 2, 4, 2, 3, 2).mean((3, 5)) + 0.5)
    np.testing.assert_array_equal(quartered(images), expected.astype(np.uint8))


def test_tasks_are_of_one_source_each_and_show_no_query() -> None:
    benchmark = DomainBenchmark(made())
    settings = EvaluationSettings(num_tasks=30)
    tasks = benchmark.tasks(settings)
    assert [task.family for task in tasks[:3]] == list(benchmark.sources("test"))
    for task in tasks:
        composed = benchmark.compose(task, settings.seed)
        assert not set(composed.support) & set(composed.query)
        assert len(set(composed.support)) == len(composed.support)
        classes = [int(number) for number in str(task["classes"]).split()]
        for part, targets in (
            (composed.support, composed.support_targets),
            (composed.query, composed.query_targets),
        ):
            assert [classes[target] for target in targets] == benchmark.data.labels[part].tolist()
        assert {source_of(benchmark.data.groups[number]) for number in classes} == {task.family}
        assert len(set(np.bincount(composed.query_targets))) == 1
        if task.family == "only tested":
            assert len(classes) == 3


def test_a_tasks_accuracy_is_that_of_its_support_alone() -> None:
    """Embedded once or each by itself, and whatever tasks stand beside it."""
    data = made()
    benchmark, settings = DomainBenchmark(data), EvaluationSettings(num_tasks=9)
    tasks = benchmark.tasks(settings)
    learner = PrototypicalConfig(encoder=Conv4Config(filters=4)).build(data.signature(5, 1))
    state = learner.init(0)
    measured = benchmark.measure(learner, state, tasks, settings, 0, lambda _: None).metrics["accuracy"][-1]
    for number in (0, 4, 8):
        composed = benchmark.compose(tasks[number], settings.seed)
        with torch.no_grad():
            x = learner.embed(state, _normalised(data, composed.support))
            y = learner.embed(state, _normalised(data, composed.query))
        ways = int(composed.query_targets.max()) + 1
        centres = torch.stack([x[composed.support_targets == way].mean(0) for way in range(ways)])
        right = torch.cdist(y, centres).argmin(1).numpy() == composed.query_targets
        assert measured[number] == pytest.approx(right.mean())
    alone = benchmark.measure(learner, state, tasks[4:5], settings, 0, lambda _: None).metrics["accuracy"][-1]
    assert alone[0] == measured[4]


def _normalised(data: FewShotDataset, numbers: np.ndarray) -> torch.Tensor:
    mean, std = (torch.tensor(each)[:, None, None] for each in (data.mean, data.std))
    return (data.examples[torch.from_numpy(numbers)].float() / 255 - mean) / std


@pytest.mark.parametrize("fit", ["probe", "finetune"])
def test_transfer_fits_tasks_of_any_number_of_classes(fit: Literal["probe", "finetune"]) -> None:
    data = blobs()
    learner = TransferConfig(fit=fit, encoder=MlpConfig((16,))).build(data.signature(5, 1))
    for ways in (3, 8):
        batch = EpisodeSampler(data, EpisodeShape(ways, 4, 5)).sample("test" if ways == 3 else "train", 2, RNG)
        predictor = learner.start(learner.init(0), 2).adapt(batch.support)
        assert predictor.predict(batch.query.inputs).shape == (2, 5 * ways, ways)
        shown = predictor.predict(batch.support.inputs).argmax(-1)
        assert (shown == batch.support.targets).float().mean() > 0.8


def test_tasks_of_more_ways_than_a_source_has_classes_are_of_the_other_sources() -> None:
    """A learner of five ways is trained on all sources, though one that is only tested has three classes."""
    benchmark = ClassificationBenchmark(made(), EpisodeOptions(ways=5, shots=2, queries=3))
    assert benchmark.left_out == ("only tested (test)",)
    tasks = benchmark.tasks(EvaluationSettings(num_tasks=40))
    sources = [{name.split(":")[0] for name in str(task["classes"]).split(" | ")} for task in tasks]
    assert all(len(found) == 1 for found in sources) and set.union(*sources) == {"grey", "colour"}
    assert ClassificationBenchmark(made(), EpisodeOptions(ways=3, queries=3)).left_out == ()
    with pytest.raises(ValueError, match=r"9 ways need 9 classes; joined has 6 validation classes in its group 'grey"):
        ClassificationBenchmark(made(), EpisodeOptions(ways=9, queries=3))


def test_sources_of_training_stand_first_and_can_be_named() -> None:
    data = made()
    found = {column.name: column.sources for column in columns_of(data)}
    assert list(found) == ["colour", "grey", "only tested", "in-domain", "out-of-domain"]
    assert found["in-domain"] == ("colour", "grey") and found["out-of-domain"] == ("only tested",)
    named = {column.name: column.sources for column in columns_of(data, ["grey"])}
    assert named["in-domain"] == ("grey",) and named["out-of-domain"] == ("colour", "only tested")
    with pytest.raises(ValueError, match="--in-domain green: joined tests colour, grey, only tested"):
        columns_of(data, ["green"])


def test_learners_with_an_output_for_each_way_are_refused() -> None:
    benchmark = DomainBenchmark(made())
    learner = MamlConfig(encoder=Conv4Config(filters=4)).build(benchmark.data.signature(5, 1))
    with pytest.raises(ValueError, match="an output for each of its ways"):
        benchmark.points(learner, EvaluationSettings())


def test_data_without_groups_or_with_a_group_of_one_class_have_no_sources() -> None:
    data = made()
    with pytest.raises(ValueError, match="no groups of classes"):
        DomainBenchmark(dataclasses.replace(data, groups=()))
    groups = tuple("alone" if number == 47 else group for number, group in enumerate(data.groups))
    with pytest.raises(ValueError, match="'alone' has one class"):
        DomainBenchmark(dataclasses.replace(data, groups=groups))


def test_the_centroid_of_pixels_answers_tasks_of_every_size() -> None:
    benchmark, settings = DomainBenchmark(made()), EvaluationSettings(num_tasks=12)
    learner = CentroidConfig().build(benchmark.data.signature(2, 1))
    found = benchmark.measure(learner, learner.init(0), benchmark.tasks(settings), settings, 0, lambda _: None).metrics[
        "accuracy"
    ]
    assert found[-1].mean() > 0.8


def test_the_program_prints_and_writes_every_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    id = f"{__file__}:made"
    runs = [tmp_path / "one", tmp_path / "two"]
    sizes = ["--ways", "3", "--steps", "3", "--tasks", "5", "--validation-tasks", "5", "--queries", "3"]
    for run, learner in zip(runs, ("prototypical", "siamese"), strict=True):
        assert programs.call("fewshot", learner, "conv4", "--filters", "4", "--data", id, *sizes, "--run", run) == 0
    output = tmp_path / "domains.json"
    assert programs.call("fewshot", "domains", *runs, "--trust-code", "--tasks", "4", "--output", output) == 0
    printed = capsys.readouterr().out
    assert "in-domain" in printed and "out-of-domain" in printed and "Friedman" in printed
    found = json.loads(output.read_text())
    assert found["columns"]["in-domain"] == ["colour", "grey"]
    assert found["columns"]["out-of-domain"] == ["only tested"]
    for learner in found["learners"]:
        counts = {name: len(each) for name, each in learner["accuracies"].items()}
        assert counts == {"colour": 4, "grey": 4, "only tested": 4}
        both = np.mean([learner["accuracies"][name] for name in ("colour", "grey")])
        assert learner["columns"]["in-domain"]["mean"] == pytest.approx(both, abs=1e-5)


def test_the_program_says_of_data_without_sources_what_to_give_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = np.random.default_rng(0).integers(256, size=(200, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "photos.npz", images=images, labels=np.arange(200) % 20)
    sizes = ["--ways", "3", "--steps", "1", "--tasks", "5", "--validation-tasks", "5", "--queries", "3"]
    arguments = ["--data", tmp_path / "photos.npz", "--train-ways", "3", *sizes, "--run", tmp_path / "run"]
    assert programs.call("fewshot", "prototypical", "conv4", "--filters", "4", *arguments) == 0
    capsys.readouterr()
    assert programs.call("fewshot", "domains", tmp_path / "run", "--tasks", "4") == 2
    assert "has no groups of classes" in capsys.readouterr().err


def test_the_published_sources_are_registered() -> None:
    from metarl.fewshot.datasets import DATASETS

    assert image_domains.NAME in DATASETS and "tiny-imagenet-32" in DATASETS
