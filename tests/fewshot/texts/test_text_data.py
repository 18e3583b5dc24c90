"""Texts as data sets: groups of classes, published tasks, files of one's own, and the published sets."""

import dataclasses
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metarl.errors import UsageError
from metarl.evaluation.judge import EvaluationSettings
from metarl.fewshot import datasets
from metarl.fewshot.benchmarks import ClassificationBenchmark
from metarl.fewshot.centroid import CentroidConfig
from metarl.fewshot.class_tasks import ClassTasks
from metarl.fewshot.dataset import FewShotDataset
from metarl.fewshot.datasets import arsc, clinc150, storage
from metarl.fewshot.encoders import MlpConfig
from metarl.fewshot.episode_options import EpisodeOptions
from metarl.fewshot.given import GivenTask
from metarl.fewshot.given_tasks import BALANCED, GivenTasks
from metarl.fewshot.maml import MamlConfig
from metarl.fewshot.prototypical import PrototypicalConfig
from metarl.fewshot.registry import LEARNERS
from metarl.fewshot.sampler import EpisodeSampler, EpisodeShape
from metarl.learning.training import outer_steps
from metarl.tasks import Split
from tests.fewshot.texts.sentences import FRAMES, THINGS, csv_of, texts_and_labels

SPLITS: dict[Split, tuple[int, ...]] = {"train": (0, 1, 2, 3, 4, 5), "validation": (6, 7, 8), "test": (9, 10, 11)}
GROUPS = tuple("aabbba" + "ccc" + "ddd")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def vectors(**more: Any) -> FewShotDataset:
    """12 classes of 10 vectors around centres of their own, with these fields changed."""
    rng, labels = np.random.default_rng(0), np.arange(12).repeat(10)
    examples = rng.normal(size=(12, 5))[labels] + 0.3 * rng.normal(size=(120, 5))
    data = FewShotDataset("v", torch.from_numpy(examples).float(), labels, THINGS, SPLITS)
    return dataclasses.replace(data, **more)


# Groups


def test_a_task_has_classes_of_one_group_and_every_group_comes() -> None:
    data = vectors(groups=GROUPS)
    draw = EpisodeSampler(data, EpisodeShape(ways=2, shots=1, queries=3)).draw("train", 200, np.random.default_rng(0))
    met = [{GROUPS[data.labels[number]] for number in row} for row in draw.support]
    assert all(len(groups) == 1 for groups in met) and {min(groups) for groups in met} == {"a", "b"}
    classes = {int(data.labels[number]) for row in draw.support for number in row}
    assert classes == set(SPLITS["train"])
    listed = ClassTasks(data, 2, 1, 3).tasks(EvaluationSettings(split="train", num_tasks=50), "t")
    named = [{GROUPS[THINGS.index(name)] for name in str(task["classes"]).split(" | ")} for task in listed]
    assert all(len(groups) == 1 for groups in named) and len(set.union(*named)) == 2


def test_ways_are_bounded_by_the_smallest_group() -> None:
    data = vectors(groups=GROUPS)
    with pytest.raises(ValueError, match="4 ways need 4 classes; v has 3 train classes in its group 'a'"):
        EpisodeSampler(data, EpisodeShape(ways=4, shots=1, queries=1)).check("train")
    benchmark = ClassificationBenchmark(data, EpisodeOptions(ways=2, queries=3))
    learner = PrototypicalConfig().build(benchmark.record.signature)
    source = benchmark.source(learner.training)  # prototypical networks would like all six classes
    assert source.collect(learner, learner.init(0), 0, 1).support.targets.max() == 2


def test_ordered_classes_have_their_place_in_every_task() -> None:
    pairs = tuple("aabbcc" + "ddd" + "eee")
    for ordered in (True, False):
        data = vectors(groups=pairs, ordered=ordered)
        draw = EpisodeSampler(data, EpisodeShape(2, 1, 2)).draw("train", 40, np.random.default_rng(0))
        by_label = {
            (int(data.labels[n]) % 2, int(way)) for n, way in zip(draw.query.flat, draw.query_targets.flat, strict=True)
        }
        assert by_label == ({(0, 0), (1, 1)} if ordered else {(0, 0), (1, 1), (0, 1), (1, 0)})
        listed = ClassTasks(data, 2, 1, 2).tasks(EvaluationSettings(split="train", num_tasks=40), "t")
        first = {THINGS.index(str(task["classes"]).split(" | ")[0]) % 2 for task in listed}
        assert first == ({0} if ordered else {0, 1})
    assert vectors(groups=pairs).hash != vectors(groups=pairs, ordered=True).hash


def test_groups_that_contradict_the_splits_are_refused() -> None:
    with pytest.raises(ValueError, match="group 'a' is in train and in test"):
        vectors(groups=(*GROUPS[:9], *"aaa"))
    with pytest.raises(ValueError, match="12 classes but 2 groups"):
        vectors(groups=("a", "b"))


def test_the_hash_knows_groups_and_published_tasks_and_is_otherwise_as_before() -> None:
    task = GivenTask("t", (9, 10), (90, 100), (91, 101))
    hashes = [vectors().hash, vectors(groups=GROUPS).hash, vectors(given=(task,)).hash, vectors(source_hash="x").hash]
    assert len(set(hashes)) == 4


# Published tasks


def test_published_tasks_are_judged_whole() -> None:
    support, query = (90, 91, 100, 101), (92, 93, 94, 95, 96, 97, 102)
    data = vectors(given=(GivenTask("one", (10, 9), support, query), GivenTask("two", (9, 11), (90, 110), (91, 111))))
    learner, judge = CentroidConfig().build(data.signature(2, 2)), GivenTasks(data)
    tasks = judge.tasks(EvaluationSettings())
    assert [task["name"] for task in tasks] == ["one", "two"]
    found = judge.measure(learner, learner.init(0), tasks, EvaluationSettings(), 0, lambda share: None)
    x, labels = data.examples.numpy(), data.labels
    centroids = np.stack([x[[100, 101]].mean(0), x[[90, 91]].mean(0)])
    guess = ((x[list(query), None] - centroids) ** 2).sum(-1).argmin(1)
    right = guess == (labels[list(query)] == 9)
    np.testing.assert_allclose(found.metrics["accuracy"][:, 0], [1 / 7, right.mean()])  # before: the first way
    np.testing.assert_allclose(found.metrics[BALANCED][:, 0], [0.5, (right[:6].mean() + right[6]) / 2])
    with pytest.raises(ValueError, match="taken whole"):
        judge.tasks(EvaluationSettings(num_tasks=1))
    with pytest.raises(ValueError, match="has no published tasks"):
        GivenTasks(vectors())


def test_a_published_task_that_leaks_its_queries_is_refused() -> None:
    with pytest.raises(ValueError, match="has example 3 in its support and in its query"):
        GivenTask("t", (0, 1), (1, 3), (3, 4))
    with pytest.raises(ValueError, match="has examples beyond the 120"):
        vectors(given=(GivenTask("t", (0, 1), (1,), (120,)),))
    with pytest.raises(ValueError, match=f"example 119 of the given task 't' is of '{THINGS[11]}', no class of it"):
        vectors(given=(GivenTask("t", (0, 1), (1, 11), (2, 119)),))
    with pytest.raises(ValueError, match=f"the given task 't' has no support of '{THINGS[1]}'"):
        vectors(given=(GivenTask("t", (0, 1), (1, 2), (3, 13)),))


def test_a_learner_of_other_ways_than_a_published_task_is_refused() -> None:
    """Zeros in place of its answers would be judged as chance, which nobody would see."""
    data = vectors(given=(GivenTask("one", (9, 10, 11), (90, 100, 110), (91, 101, 111)),))
    learner, judge = MamlConfig(encoder=MlpConfig((4,)), test_steps=1).build(data.signature(2, 1)), GivenTasks(data)
    settings = EvaluationSettings()
    with pytest.raises(ValueError, match="the learner has 2 outputs, the task has 3 ways"):
        judge.measure(learner, learner.init(0), judge.tasks(settings), settings, 0, lambda share: None)


# One's own texts


def test_a_csv_file_of_texts_is_a_data_set(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(csv_of())
    data = datasets.load(path, text_encoder="ngrams")
    assert data.shape == (1024,) and data.text_encoder == "ngrams" and len(data.labels) == 12 * len(FRAMES)
    assert data.classes == tuple(sorted(THINGS)) and len(data.splits["train"]) == 8
    again = datasets.load(path, text_encoder="ngrams")
    other = datasets.load(path, text_encoder="universal")
    assert data.hash == again.hash != other.hash


@pytest.mark.parametrize("name", sorted(set(LEARNERS) - {"mann"}))
def test_every_learner_runs_over_features_of_texts(name: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(csv_of())
    data = datasets.load(path, text_encoder="ngrams")
    queries = None if name == "transfer" else 3
    benchmark = ClassificationBenchmark(data, EpisodeOptions(ways=2, shots=2, queries=3, train_queries=queries))
    learner = LEARNERS[name]().build(benchmark.record.signature)
    *_, last = outer_steps(learner, benchmark.source(learner.training), learner.init(0), seed=0, start=0, stop=2)
    settings = EvaluationSettings(num_tasks=5)
    found = benchmark.measure(learner, last.state, benchmark.tasks(settings), settings, 0, lambda share: None)
    assert np.isfinite(found.metrics["accuracy"]).all()


def test_faults_of_a_csv_file_are_refused_or_left_out(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(csv_of() + " ,tea\nsome words,\nlonely,one\n")
    lines = 1 + 12 * len(FRAMES)
    with pytest.raises(ValueError, match=rf"mine.csv: line {lines + 1}: the text is empty \(and 1 more\)"):
        datasets.load(path, text_encoder="ngrams")
    data = datasets.load(path, text_encoder="ngrams", skip_bad=True, min_per_class=2)
    assert len(data.left_out) == 3 and "class 'one' has 1 example" in data.left_out[2]
    path.write_text("words,label\na,b\n")
    with pytest.raises(ValueError, match="no column 'text'; its header has words, label"):
        datasets.load(path)
    path.write_text("text,label\na,b\nc,d\n")
    with pytest.raises(ValueError, match="mine.csv: three splits need at least 3 classes, got 2"):
        datasets.load(path)


def test_an_encoder_of_texts_is_refused_for_pictures(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(256, size=(9, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "p.npz", images=images, labels=np.arange(9) // 3)
    with pytest.raises(ValueError, match="holds no texts: leave --text-encoder out"):
        datasets.load(tmp_path / "p.npz", text_encoder="ngrams")


# The published sets, in small, and the real ones where METARL_DATA names them


def test_clinc_is_split_by_domain() -> None:
    intents = {"home": ["tea", "rain"], "work": ["bread", "trains"], "travel": ["moons"]}
    texts, labels = texts_and_labels(5)
    pairs = [(text, THINGS[label]) for text, label in zip(texts, labels.tolist(), strict=True)]
    parts = {"train": pairs[::3], "val": pairs[1::3], "test": pairs[2::3], "oos_test": [("nothing", "oos")]}
    data = clinc150.assemble(parts, intents, {"train": ("home",), "validation": ("travel",), "test": ("work",)})
    assert data.classes == ("tea", "rain", "moons", "bread", "trains") and len(data.texts) == len(texts)
    assert data.groups == ("home", "home", "travel", "work", "work")
    assert data.splits == {"train": (0, 1), "validation": (2,), "test": (3, 4)}
    assert all(pair in pairs for pair in zip(data.texts, np.array(data.classes)[data.labels], strict=True))


def reviews(count: int, word: str) -> tuple[tuple[str, int], ...]:
    return tuple((f"{word} {number}", number % 2) for number in range(count))


def test_arsc_has_tasks_of_training_products_and_the_published_ones() -> None:
    files = {f"{product}.{t}.train": reviews(60, f"{product}{t}") for product in "ab" for t in arsc.THRESHOLDS}
    files["a.t2.train"] = reviews(30, "few")  # 15 of each
    files["b.t5.train"] = reviews(2 * arsc.MOST_REVIEWS + 50, "many")
    files |= {
        f"c.{t}.{part}": reviews(count, part) for t in arsc.THRESHOLDS for part, count in (("train", 10), ("test", 31))
    }
    data = arsc.assemble(files, {"train": ("a",), "validation": ("b",), "test": ("c",)})
    assert [len(data.splits[split]) for split in ("train", "validation", "test")] == [4, 6, 6]
    assert data.groups[:4] == ("a.t4", "a.t4", "a.t5", "a.t5") and data.classes[1] == "a.t4 positive"
    counts = np.bincount(data.labels)
    assert counts[:4].tolist() == [30] * 4 and counts[8:10].tolist() == [arsc.MOST_REVIEWS] * 2
    assert [task.name for task in data.given] == ["c.t2", "c.t4", "c.t5"]
    signed = arsc.assemble(files, {"train": ("a",), "validation": ("b",), "test": ("c",)}, signed=True)
    assert (data.id, data.ordered, signed.id, signed.ordered) == ("arsc", False, "arsc-signed", True)
    task = data.given[0]
    assert [data.texts[number] for number in task.support] == [f"train {n}" for n in range(10)]
    assert [data.texts[number] for number in task.query] == [f"test {n}" for n in range(31)]
    for number in (*task.support, *task.query):
        assert data.labels[number] == task.classes[int(data.texts[number].split()[1]) % 2]


def test_a_broken_archive_of_arsc_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / arsc.ARCHIVE.path
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w:xz") as archive:
        content = b"good\t1\nbad\t-1\n"
        member = tarfile.TarInfo("Amazon_few_shot/books.t2.train")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    with pytest.raises(UsageError, match="which should be"):
        arsc.load(tmp_path)
    monkeypatch.setattr(storage, "verify", lambda path, accepted: None)
    with pytest.raises(UsageError, match="lacks apparel.t2.train"):
        arsc.load(tmp_path)
    path.write_bytes(b"no archive")
    with pytest.raises(UsageError, match="cannot be read"):
        arsc.load(tmp_path)


@pytest.fixture
def real() -> Path:
    """The data root."""
    root = os.environ.get(storage.ROOT_VARIABLE)
    if not root:
        pytest.skip(f"{storage.ROOT_VARIABLE} does not name a folder of data sets")
    return Path(root)


def test_the_real_sets_are_as_described(real: Path) -> None:
    clinc = clinc150.load(real)
    assert len(clinc.texts) == 22_500 and len(clinc.classes) == 150 and (np.bincount(clinc.labels) == 150).all()
    assert [len(clinc.splits[split]) for split in ("train", "validation", "test")] == [75, 30, 45]
    assert json.loads((real / clinc150.DOMAINS.path).read_text()).keys() == set(clinc.groups)
    reviews = arsc.load(real)
    assert len(reviews.given) == 12 and all(len(task.support) == 10 for task in reviews.given)
    assert len(reviews.given[0].query) == 829 and reviews.given[0].name == "books.t2"
