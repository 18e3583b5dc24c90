"""Rows of the results page: each names figures that are there and commands that can be typed; outside is said."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from metarl.commands.main import PROGRAMS
from metarl.commands.reproduce import Row, figure, read_rows
from metarl.errors import UsageError
from tests.programs import call

RESULTS = Path(__file__).parents[2] / "docs" / "results"
ROWS = read_rows(RESULTS)
PLANNER = """[[row]]
name = "planner"
about = "a planner in three mazes"
raw = "planner.json"
figures = ["evaluations/maze-navigation/figures/all/after/length"]
commands = ["metarl evaluate --policy planner --env maze-navigation --num-tasks 3 --threads 1 --output {output}"]
minutes = 1
"""


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.name)
def test_what_a_row_names_is_there(row: Row) -> None:
    recorded = json.loads((RESULTS / row.raw).read_text())
    assert row.figures
    for place in row.figures:
        value, low, high = figure(recorded, place)
        assert low <= value <= high
    commands = [shlex.split(command) for command in row.commands]
    assert all(words[0] == "metarl" and words[1] in PROGRAMS for words in commands)
    assert "{output}" in commands[-1], "the last command writes the raw numbers"
    assert all("{runs}/" in words[words.index("--run") + 1] for words in commands if words[1] == "train")


def results(folder: Path, low: float, high: float) -> Path:
    """A results' folder whose planner took 5 steps, between low and high."""
    content = {"all": {"after": {"length": {"value": 5.0, "low": low, "high": high}}}}
    (folder / "planner.json").write_text(json.dumps({"evaluations": {"maze-navigation": {"figures": content}}}))
    (folder / "rows.toml").write_text(PLANNER)
    return folder


def played_here(command: list[str], *, check: bool) -> "subprocess.CompletedProcess[str]":
    """What a row's command does in a process of its own."""
    words = command[3:]  # after `python -c CODE`
    return subprocess.CompletedProcess(command, call(words[0], *words[1:]))


@pytest.mark.parametrize(("low", "high", "status"), [(2.0, 30.0, 0), (0.5, 1.5, 1), (40.0, 60.0, 1)])
def test_a_figure_is_held_against_the_recorded_interval(
    low: float,
    high: float,
    status: int,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = results(tmp_path, low, high)
    if status:  # once in a process of its own is enough
        monkeypatch.setattr(subprocess, "run", played_here)
    arguments = ("--only", "planner", "--results", folder, "--runs", tmp_path / "new")
    assert call("reproduce", *arguments) == status
    printed = capfd.readouterr()
    assert f"[{low:.4g}, {high:.4g}]" in printed.out
    assert (" within the recorded" in printed.out) == (status == 0)
    assert ("OUTSIDE the recorded" in printed.out) == (status == 1)
    assert ("outside the recorded interval: planner" in printed.err) == (status == 1)


def test_the_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("reproduce", "--list", "--results", results(tmp_path, 0, 9)) == 0
    assert capsys.readouterr().out.split(maxsplit=3) == ["planner", "1", "min", "a planner in three mazes\n"]


def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("reproduce", "--results", tmp_path) == 2
    assert f"there is no {tmp_path / 'rows.toml'}" in capsys.readouterr().err
    folder = results(tmp_path, 0, 9)
    assert call("reproduce", "--results", folder, "--only", "planer") == 2
    assert "has no 'planer'; did you mean planner?" in capsys.readouterr().err
    for old, new, sentence in (
        ("metarl evaluate", "rm evaluate", "planner may run metarl's programs only"),
        ("minutes = 1", "hours = 1", "hours"),
        ("[[row]]", "[[row", "rows.toml"),
    ):
        (folder / "rows.toml").write_text(PLANNER.replace(old, new))
        assert call("reproduce", "--results", folder) == 2
        assert sentence in capsys.readouterr().err
    with pytest.raises(UsageError, match="no figure with an interval at figures/all"):
        figure({"figures": {}}, "figures/all")


def test_an_item_of_a_list_is_found_by_its_own_words() -> None:
    names = ("greedy", "greedy", "RL²")
    rows = [
        {"trial": f"n={number}", "algorithm": name, "reward": {"value": number, "low": 0, "high": 9}}
        for number, name in enumerate(names)
    ]
    assert figure({"rows": rows}, "rows/algorithm: RL²/reward")[0] == 2.0
    assert figure({"rows": rows}, "rows/trial: n=1; algorithm: greedy/reward")[0] == 1.0
    for place in ("rows/algorithm: greedy/reward", "rows/algorithm: UCB/reward", "rows/0/reward", "rows/x: y/reward"):
        with pytest.raises(UsageError, match="no figure"):
            figure({"rows": rows}, place)
