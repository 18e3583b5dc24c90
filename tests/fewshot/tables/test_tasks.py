"""Tasks of tables, the learner of columns, scikit-learn's beside it, and their ranks."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from metarl.evaluation.judge import EvaluationSettings
from metarl.fewshot.centroid import CentroidConfig
from metarl.fewshot.classical import ClassicalConfig, Model
from metarl.fewshot.columns import ColumnsConfig, described, logistic, without_empty_columns
from metarl.fewshot.episode_options import EpisodeOptions
from metarl.fewshot.examples import Examples, TaskSignature
from metarl.fewshot.maml import MamlConfig
from metarl.fewshot.metric import Embedded
from metarl.fewshot.tables.benchmark import TableBenchmark
from metarl.fewshot.tables.collection import TableCollection
from metarl.fewshot.tables.table import Table, from_rows
from metarl.fewshot.tables.tasks import TableSource, standardised
from metarl.maths.ranks import rank_test
from tests import programs


def made(name: str, ways: int, columns: int, rows: int = 40, useful: int = 1) -> Table:
    """A table of which the first `useful` columns tell the classes apart and the others are noise."""
    rng = np.random.default_rng([ways, columns, sum(map(ord, name))])
    labels = np.repeat(np.arange(ways), rows)
    values = rng.normal(size=(len(labels), columns)) * rng.uniform(0.1, 100, columns)
    values[:, :useful] = rng.normal(size=(ways, useful))[labels] * 8 + rng.normal(size=(len(labels), useful))
    columns_in_order = rng.permutation(columns)
    names = [f"c{number}" for number in range(columns)]
    return from_rows(name, name, names, values[:, columns_in_order].tolist(), [str(label) for label in labels])


@pytest.fixture(scope="module")
def collection() -> TableCollection:
    tables = tuple(made(f"t{number}", 2 + number % 3, 6 + number % 5) for number in range(12))
    return TableCollection("made", tables, {"train": tuple(range(8)), "validation": (8, 9), "test": (10, 11)})


@pytest.fixture(scope="module")
def benchmark(collection: TableCollection) -> TableBenchmark:
    return TableBenchmark(collection)


def test_rows_are_in_the_units_of_the_support_alone() -> None:
    support = np.array([[1.0, 5, 2], [3, 5, 4]])
    rows = np.array([[2.0, 9, 6], [1e6, 5, 3]])
    np.testing.assert_allclose(standardised(support, support, 4), [[-1, 0, -1, 0], [1, 0, 1, 0]])
    np.testing.assert_allclose(standardised(support, rows, 4), [[0, 0, 3, 0], [10, 0, 0, 0]])
    with pytest.raises(ValueError, match="at most 2 columns, got 3"):
        standardised(support, rows, 2)


def test_a_task_is_of_its_tables_classes_and_shares_no_row(benchmark: TableBenchmark) -> None:
    tasks = benchmark.tasks(EvaluationSettings(num_tasks=6))
    assert [task.family for task in tasks] == ["t10", "t11"] * 3
    assert len(benchmark.tasks(EvaluationSettings())) == 60
    for task in tasks:
        table = next(each for each in benchmark.collection.tables if each.name == task.family)
        assert set(str(task["classes"]).split(" | ")) == set(table.classes)
        batch = benchmark.examples(task, 3)
        ways = len(table.classes)
        assert np.bincount(batch.support.targets[0]).tolist() == [5] * ways
        assert np.bincount(batch.query.targets[0]).tolist() == [15] * ways
        both = torch.cat([batch.support.inputs[0], batch.query.inputs[0]])
        assert len(torch.unique(both, dim=0)) == len(both)
        again = benchmark.examples(task, 3)
        assert torch.equal(again.query.inputs, batch.query.inputs)
    few = TableBenchmark(benchmark.collection, EpisodeOptions(ways=2))
    assert {len(str(task["classes"]).split(" | ")) for task in few.tasks(EvaluationSettings(num_tasks=9))} == {2}


def test_training_meets_training_tables_only(collection: TableCollection) -> None:
    learner = ColumnsConfig(meta_batch=6).build(TaskSignature("classification", (collection.width,), 4, 5, 4, 4))
    source = TableSource(collection, (2, 4), (1, 3))
    known = {float(value) for n in collection.splits["train"] for value in collection.tables[n].values[:, 0]}
    seen_ways = set[int]()
    for step in range(20):
        batch = source.collect(learner, learner.init(0), 0, step)
        assert batch.support.inputs.shape[2] == collection.width and len(batch.support.inputs) == 6
        seen_ways.add(int(batch.query.targets.max()) + 1)
        assert all(np.bincount(row).min() == np.bincount(row).max() for row in batch.support.targets.numpy())
    assert seen_ways == {2, 3, 4} and known
    only = TableCollection("one", collection.tables, {**collection.splits, "train": (1,)})  # t1: three classes
    with pytest.raises(ValueError, match="no training table of one has 4 classes of 8 rows"):
        TableSource(only, (2, 4), (1, 3))


def test_learners_of_a_fixed_number_of_ways_are_refused(benchmark: TableBenchmark) -> None:
    learner = MamlConfig().build(benchmark.record.signature)
    with pytest.raises(ValueError, match="tasks of 2 to 10 classes; this learner has a fixed number"):
        benchmark.source(learner.training)


# The learner


def one_task(benchmark: TableBenchmark, index: int = 1) -> tuple[Examples, Examples]:
    batch = benchmark.examples(benchmark.tasks(EvaluationSettings(num_tasks=index + 1))[index], 0)
    return batch.support, batch.query


def some_state(benchmark: TableBenchmark):  # noqa: ANN201
    """Of a learner whose every parameter matters."""
    learner = ColumnsConfig(width=8).build(benchmark.record.signature)
    state = learner.init(0)
    generator = torch.Generator().manual_seed(1)
    parameters = {k: 0.3 * torch.randn(v.shape, generator=generator) for k, v in state.parameters.items()}
    return learner, type(state)(parameters, state.optimizer)


def test_neither_the_order_of_columns_nor_of_rows_nor_their_number_of_zeros_matters(benchmark: TableBenchmark) -> None:
    learner, state = some_state(benchmark)
    support, query = one_task(benchmark)
    predicted = learner.start(state, 1).adapt(support).predict(query.inputs)
    rng = np.random.default_rng(0)
    columns, rows = rng.permutation(support.inputs.shape[2]), rng.permutation(support.inputs.shape[1])
    moved = Examples(support.inputs[:, rows][..., columns], support.targets[:, rows])
    found = learner.start(state, 1).adapt(moved).predict(query.inputs[..., columns])
    torch.testing.assert_close(found, predicted, rtol=1e-3, atol=1e-4)
    wider = [torch.nn.functional.pad(each, (3, 4)) for each in (support.inputs, query.inputs)]
    found = learner.start(state, 1).adapt(support._replace(inputs=wider[0])).predict(wider[1])
    torch.testing.assert_close(found, predicted, rtol=1e-3, atol=1e-4)


def test_classes_are_told_apart_by_their_rows_not_by_their_numbers(benchmark: TableBenchmark) -> None:
    learner, state = some_state(benchmark)
    support, query = one_task(benchmark)
    predicted = learner.start(state, 1).adapt(support).predict(query.inputs)
    ways = predicted.shape[-1]
    turned = support._replace(targets=(support.targets + 1) % ways)
    found = learner.start(state, 1).adapt(turned).predict(query.inputs)
    torch.testing.assert_close(found, predicted.roll(1, -1), rtol=1e-3, atol=1e-4)


def test_what_a_column_shows_is_its_share_of_variance_between_classes() -> None:
    z = torch.tensor([[[1.0, 1, 0], [1, -1, 0], [-1, 1, 0], [-1, -1, 0]]])
    tasks = Embedded(z, torch.tensor([[0, 0, 1, 1]]), z)
    seen = (z != 0).any(1)
    found = described(tasks, seen)[0]
    np.testing.assert_allclose(found[:2, 0], [1, 0], atol=1e-6)  # all of it, none of it
    np.testing.assert_allclose(found[:2, 1], [1 - 1 / 3, -1 / 3], atol=1e-6)
    np.testing.assert_allclose(found[:, 7], np.log(2) / 3, rtol=1e-5)  # two columns: the empty one does not count
    assert without_empty_columns(tasks).support.shape[-1] == 2


@pytest.mark.parametrize("ways", [2, 4])
def test_its_logistic_regression_is_scikit_learns(ways: int) -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(ways), 5)
    x = rng.normal(size=(len(labels), 6)) + labels[:, None] * 0.7
    queries = rng.normal(size=(9, 6))
    own = LogisticRegression(fit_intercept=False, C=0.5, tol=1e-10, max_iter=1000).fit(x, labels)
    tasks = Embedded(torch.from_numpy(x)[None], torch.from_numpy(labels)[None], torch.from_numpy(queries)[None])
    share = 0.5 if ways > 2 else 0.25  # scikit-learn has one weight for two classes, the difference of these two
    found = torch.softmax(logistic(tasks, torch.full((1, 1, 1), share, dtype=torch.float64), 400)[0], -1)
    np.testing.assert_allclose(found.numpy(), own.predict_proba(queries), atol=1e-5)


def test_it_learns_which_columns_matter_on_tables_that_it_never_met(benchmark: TableBenchmark) -> None:
    """One column in many tells the classes apart: centroids drown in the noise of the others."""
    learner = ColumnsConfig(learning_rate=1e-2).build(benchmark.record.signature)
    source, state = benchmark.source(learner.training), learner.init(0)
    for step in range(60):
        state, _ = learner.meta_step(state, source.collect(learner, state, 0, step), np.random.default_rng(step))
    settings = EvaluationSettings(num_tasks=40)
    tasks = benchmark.tasks(settings)

    def score(config: ColumnsConfig | CentroidConfig, state: object) -> float:
        built = config.build(benchmark.record.signature)
        state = built.init(0) if state is None else state
        found = benchmark.measure(built, state, tasks, settings, 0, lambda share: None)  # pyright: ignore[reportArgumentType]
        np.testing.assert_allclose(found.metrics["accuracy"][0].mean(), 1 / 3, atol=0.15)  # before: by chance
        return float(found.metrics["accuracy"][-1].mean())

    trained, fresh, centroid = score(learner.config, state), score(learner.config, None), score(CentroidConfig(), None)
    assert trained > max(fresh, centroid) + 0.02


# scikit-learn


@pytest.mark.parametrize("model", ["logistic", "neighbours", "boosting"])
def test_a_classical_model_is_fitted_to_the_support_of_each_task(model: Model, benchmark: TableBenchmark) -> None:
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    own = {
        "logistic": LogisticRegression(max_iter=200),
        "neighbours": KNeighborsClassifier(5, weights="distance"),
        "boosting": GradientBoostingClassifier(random_state=0),
    }[model]
    support, query = one_task(benchmark)
    learner = ClassicalConfig(model).build(benchmark.record.signature)
    start = learner.start(learner.init(0), 1)
    assert (start.predict(query.inputs) == 0).all()
    found = torch.softmax(start.adapt(support).predict(query.inputs)[0].double(), -1)
    own.fit(support.inputs[0].numpy().astype(np.float64), support.targets[0].numpy())
    expected = own.predict_proba(query.inputs[0].numpy().astype(np.float64))
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-3)


# Ranks


def test_ranks_are_demsars_and_the_test_is_scipys() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(20, 4)) + [0, 0, 0.2, 2.0]
    found = rank_test(scores)
    assert found.mean_ranks.argmin() == 3 and found.mean_ranks.sum() == pytest.approx(10)
    assert found.p_value == pytest.approx(stats.friedmanchisquare(*scores.T).pvalue)
    assert found.critical_difference == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 20)), rel=1e-3)  # table 5a: q of 4
    assert found.differ(3, 0) and not found.differ(0, 1)
    ties = rank_test(np.array([[1.0, 1.0, 0.0], [2.0, 2.0, 1.0]]))
    np.testing.assert_allclose(ties.mean_ranks, [1.5, 1.5, 3])
    assert rank_test(np.ones((3, 3))).p_value == 1
    with pytest.raises(ValueError, match="at least 3 learners on 2 data sets, got 2 on 5"):
        rank_test(np.ones((5, 2)))


# The programs


def call(*arguments: str | Path, program: str = "fewshot") -> int:
    return programs.call(program, *arguments)


def evaluate(*arguments: str | Path) -> int:
    return call(*arguments, program="evaluate")


def write(path: Path, table: Table) -> None:
    lines = [",".join([*table.columns, "target"])]
    for row, label in zip(table.values.tolist(), table.labels, strict=True):
        lines.append(",".join([*map(repr, row), table.classes[label]]))
    path.write_text("\n".join(lines))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tables")
    for number in range(9):
        write(root / f"t{number}.csv", made(f"t{number}", 2 + number % 2, 4 + number, 20 + number))
    return root


def test_ones_own_tables_are_trained_on_and_learners_ranked(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    sizes = ("--steps", "3", "--tasks", "6", "--validation-tasks", "4", "--train-ways", "2", "--train-shots", "1", "3")
    assert call("columns", "--data", folder, "--run", run, *sizes) == 0
    printed = capsys.readouterr().out
    assert "train tables (" in printed and "test tables (" in printed
    assert call("ranks", run, "--tasks", "6", "--output", tmp_path / "ranks.json") == 0
    printed = capsys.readouterr().out
    assert "Friedman: p = " in printed and "boosting is best on" in printed
    content = json.loads((tmp_path / "ranks.json").read_text())
    assert [each["name"] for each in content["learners"]] == [
        "columns (run)", "logistic", "neighbours", "boosting", "centroid",
    ]  # fmt: skip
    assert set(content["by_table"]) == set(content["tables"]["test"])
    assert sum(each["mean_rank"] for each in content["learners"]) == pytest.approx(15)
    assert evaluate(run, "--shots", "3", "--num-tasks", "6") == 0
    assert list((run / "evaluations").glob("test-3s-*"))
    assert evaluate(run, "--test-classes", "1") == 2
    assert "tables are split by table" in capsys.readouterr().err
    assert call("ranks", run, "--baselines", "logistic") == 2
    assert "at least three learners" in capsys.readouterr().err


Broken = Callable[[Path], None]


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ("a,target\n1,x\n2,x\n,y\n3,y\n", (), "t3.csv, line 4: column 'a' has no value"),
        ("a,target\nred,x\n2,x\n1,y\n3,y\n", (), "t3.csv, line 2: column 'a' holds 'red', which is no number"),
        ("a,target\n1,x\n2,x\n1,y\n", (), "t3.csv: class 'y' has one example (row 3)"),
        (None, ("--shots", "40"), "no train table has two classes of 45 rows"),
        (None, ("--test-classes", "1"), "tables are split by table, not by class"),
        (None, ("--image-size", "8"), "leave the options of files out, but for --split-seed"),
        (None, ("--data-root", "."), "leave the options of files out, but for --split-seed"),
    ],
)
def test_bad_tables_are_one_line_before_training_starts(
    content: str | None,
    arguments: tuple[str, ...],
    message: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tables = tmp_path / "tables"
    tables.mkdir()
    for path in folder.iterdir():
        (tables / path.name).write_text(path.read_text())
    if content is not None:
        (tables / "t3.csv").write_text(content)
    assert call("columns", "--data", tables, "--run", tmp_path / "run", *arguments) == 2
    printed = capsys.readouterr().err
    assert message in " ".join(printed.split()) and "Traceback" not in printed
    assert not (tmp_path / "run").exists()
