"""What a benchmark's numbers come to, and when a guard fails: twice below 70 % of what was recorded, never before."""

import json
from pathlib import Path

import pytest

from metarl.commands import benchmark
from metarl.commands.speed_ratios import markdown, ratios, shortfalls, summary
from metarl.errors import RunError, UsageError
from metarl.tasks import Json

RAW: dict[str, Json] = {
    "command": "benchmark.py",
    "steps_per_second": {"metarl": [20.0, 30.0, 40.0], "envpool": [10.0, 10.0, 10.0]},
    "robots_steps_per_second": {"Ant-v5": {"metarl": [6.0], "envpool": [3.0]}},
    "metaworld_steps_per_second": {"metarl": [8.0], "metaworld async": [2.0], "mj_step alone, one thread": [16.0]},
    "meta_update_seconds": {"sinusoids": {"metarl": [0.1], "task loop": [1.2]}},
    "processor_steps_per_second": {"HalfCheetah-v5, one thread": {"metarl": [5.0], "gymnasium sync": [2.0]}},
    "processor_update_seconds": {"sinusoids": {"metarl": [0.1], "task loop": [1.1]}},
}


def test_ratios_are_taken_round_by_round_and_seconds_the_other_way_round() -> None:
    found = ratios(RAW)
    assert found == {
        "HalfCheetah-v5: envpool": [2.0, 3.0, 4.0],
        "Meta-World ML10: metaworld async": [4.0],
        "Ant-v5: envpool": [2.0],
        "MAML's update, sinusoids: task loop": [pytest.approx(12.0)],
        "HalfCheetah-v5, one thread: gymnasium sync": [2.5],
        "MAML's update, sinusoids, processor time: task loop": [pytest.approx(11.0)],
    }
    assert summary(found)["HalfCheetah-v5: envpool"] == {"median": 3.0, "lowest": 2.0, "highest": 4.0}
    assert "| HalfCheetah-v5: envpool | 3.00 (2.00 to 4.00) |" in markdown(found)


def test_what_is_recorded_has_ratios() -> None:
    recorded = json.loads((Path(__file__).parents[2] / "docs" / "results" / "speed.json").read_text())
    assert {"HalfCheetah-v5: envpool", "Meta-World ML10: envpool"} <= set(ratios(recorded))
    guarded = json.loads((Path(__file__).parents[2] / "docs" / "results" / "guard.json").read_text())
    assert len(ratios(guarded)) == 3  # what `make guard` compares


def test_a_shortfall_is_below_seventy_per_cent_of_the_recorded_median() -> None:
    recorded = {"a": [10.0, 1.0, 11.0], "b": [1.0], "only there": [9.0]}
    assert not shortfalls({"a": [7.01], "b": [0.71], "only here": [0.1]}, recorded)
    (short,) = shortfalls({"a": [6.9, 100.0, 0.0], "b": [0.71]}, recorded)
    assert str(short) == "a: 6.90, 69 % of the recorded 10.00"


def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *rates: float) -> int:
    """Runs the program with a guard where ours is measured at these rates, one after the other; how often it was."""
    left, recorded = list(rates), tmp_path / "recorded.json"
    recorded.write_text(json.dumps(RAW))

    def measure(options: benchmark.BenchmarkOptions) -> dict[str, Json]:
        return {"steps_per_second": {"metarl": [left.pop(0)], "envpool": [10.0]}}

    monkeypatch.setitem(benchmark._MEASURES, "cheetah", measure)  # pyright: ignore[reportPrivateUsage]
    benchmark.program(["--subjects", "cheetah", "--guard", str(recorded), "--output", str(tmp_path / "x.json")], "x")
    return len(rates) - len(left)


def test_a_guard_gives_a_second_try_and_no_third(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(tmp_path, monkeypatch, 22.0, 99.0) == 1
    assert guarded(tmp_path, monkeypatch, 20.0, 22.0, 99.0) == 2
    assert "measured once more" in capsys.readouterr().out
    with pytest.raises(RunError, match=r"slower than recorded in .*, twice: HalfCheetah-v5: envpool: 1.90, 63 % of"):
        guarded(tmp_path, monkeypatch, 20.0, 19.0, 99.0)
    assert json.loads((tmp_path / "x.json").read_text())["ratios"]


def test_a_guard_without_figures_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for content, message in (
        (None, "No such file"),
        ("{", "x.json"),
        ("{}", "holds no ratios"),
        ('{"steps_per_second": 3}', "no figures of a benchmark"),
    ):
        if content is not None:
            path.write_text(content)
        with pytest.raises(UsageError, match=message):
            benchmark.program(["--guard", str(path)], "benchmark")
