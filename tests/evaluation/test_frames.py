"""Evaluations and learning curves as frames, CSV, charts and tables in notebooks."""

import csv
import io
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from metarl import envs
from metarl.errors import UsageError
from metarl.evaluation import charts, frames
from metarl.evaluation.charts import Panel, Series
from metarl.evaluation.evaluate import aggregate
from metarl.evaluation.html import table_html
from metarl.runs import curves
from tests.evaluation.evaluations import TASKS, made_up, write_run


def in_notebook(value: object) -> str:
    """What a notebook shows of a value, found as notebooks find it."""
    return getattr(value, "_repr_html_")()  # noqa: B009  # private to type checkers


def test_a_frame_has_a_row_for_every_score_with_its_task_and_source() -> None:
    evaluation = made_up(seeds=(0, 3))
    frame = evaluation.to_frame()
    assert len(frame) == 2 * 1 * 3 * 8
    (row,) = frame.query(f"seed == 3 and amount == 2 and task == '{TASKS[5].id}'").to_dict("records")
    assert row["return"] == 10 * 5 + 3 + 5 * 2
    assert row["foreign_return"] == 10 * 5 + 3 + 5
    assert row["task.friction"] == 0.1
    assert np.isnan(row["task.slope"])
    # What the frame averages to is what the evaluation says.
    means = [float(frame.query(f"amount == {amount}")["return"].to_numpy().mean()) for amount in (0, 1, 2)]
    assert means == [point.mean.value for point in evaluation.curve()]


def test_csv_holds_the_frame() -> None:
    evaluation = made_up(seeds=(0, 1))
    read = pd.read_csv(io.StringIO(evaluation.to_csv()))
    pd.testing.assert_frame_equal(read, evaluation.to_frame(), check_dtype=False)
    (row, *_) = csv.DictReader(io.StringIO(evaluation.to_csv()))
    assert row["task.friction"] == ""  # a slope has none


def test_without_pandas_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)  # an import of it fails
    with pytest.raises(UsageError, match="pip install pandas"):
        frames.to_frame({"a": [1]})
    assert frames.to_csv({"a": [1, None]}) == 'a\n1\n""\n'


def test_metrics_named_after_the_score_are_references() -> None:
    evaluation = made_up()
    assert list(evaluation.references) == ["foreign"]
    assert evaluation.references["foreign"].curve()[-1].mean.value == evaluation.curve()[-1].mean.value - 5
    assert not made_up(foreign=False).references


def test_a_chart_keeps_its_text_and_says_what_it_shows(tmp_path: Path) -> None:
    evaluation = made_up(run="<ice>")
    chart = evaluation.plot()
    svg = chart.svg("one")
    root = ElementTree.fromstring(svg)
    assert root.attrib["role"] == "img"
    assert "35 [" in root.attrib["aria-label"]
    texts = ["".join(each.itertext()).strip() for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"maml (<ice>)", "foreign", "all tasks", "ice", "slope", "return", "episodes on the task"} <= set(texts)
    assert "var(--series-0, #0072b2)" in svg
    ids = re.findall(r' id="([^"]+)"', svg)
    assert ids
    assert all(name.startswith("one-") for name in ids)
    assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', svg)) <= set(ids)  # nothing points nowhere
    chart.save(tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="ends in .svg"):
        chart.save(tmp_path / "chart.jpeg")


def test_a_chart_draws_the_figures_of_the_evaluation() -> None:
    series = charts.adaptation_series(aggregate([made_up(seeds=(0,)), made_up(run="other", seeds=(4,))]), "both")
    assert series.y.tolist() == [37.0, 42.0, 47.0]
    assert series.low is not None
    assert series.high is not None
    assert (series.low < series.y).all()
    assert (series.y < series.high).all()
    assert np.array_equal(series.x, [0, 1, 2])


def test_tables_in_notebooks_escape_what_strangers_named() -> None:
    page = in_notebook(made_up(run="<script>"))
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
    assert '<th scope="row">mean, slope</th><td>4</td>' in page
    assert table_html("a", ["b"], [["<c>", "<d>"]]).count("&lt;") == 2


def test_reprs_are_short() -> None:
    dist = envs.make("cheetah-terrain")
    assert len(repr(dist)) < 120
    assert len(repr(dist.space)) < 200
    assert "icy-slope" in in_notebook(dist)


def test_learning_curves_have_environment_steps_and_gaps_where_a_metric_is_missing(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", [{"env_steps": 100, "loss": 1.5}, {"env_steps": 200, "loss": float("nan")}])
    second = write_run(tmp_path / "b", [{"env_steps": 50, "validation": 7.0}], seed=1)
    frame = curves.learning_curves(first, second)
    assert frame["env_steps"].tolist() == [100, 200, 50]
    assert frame["step"].tolist() == [1, 2, 1]
    assert frame["run"].tolist() == ["a", "a", "b"]
    assert frame["seed"].tolist() == [0, 0, 1]
    assert frame["loss"].isna().tolist() == [False, True, True]
    few_shot = write_run(tmp_path / "c", [{"loss": 1.0}])
    assert "env_steps" not in curves.learning_curves(few_shot)
    with pytest.raises(UsageError, match="is not a run"):
        curves.learning_curves(tmp_path / "nothing")


def test_learning_curves_read_what_is_whole(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", [{"env_steps": 100}])
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 2, "env_steps": 200})[:-3])  # a torn line: the run is going on
    assert curves.learning_curves(run)["env_steps"].tolist() == [100]


@pytest.mark.parametrize("count", [1, 3])
def test_a_legend_fits_its_chart(count: int) -> None:
    labels = ("before adaptation (error 0.123)", "after adaptation (error 0.456)", "sure of itself")
    series = [Series(label, np.arange(3.0), np.arange(3.0), colour=number) for number, label in enumerate(labels)]
    figure = charts.line_chart([Panel("calibration", series)] * count, "confidence", "share", "").figure
    (legend,) = figure.legends
    figure.draw_without_rendering()
    box = legend.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
