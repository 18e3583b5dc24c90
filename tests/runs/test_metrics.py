import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter

from metarl.runs import events, metrics


def ticks() -> Iterator[float]:
    yield from (1000.0 + n for n in range(10_000))


def record(folder: Path, steps: range, value: float = 0.0) -> None:
    clock = ticks()
    with metrics.recording(folder, steps.start, clock=lambda: next(clock)) as log:
        for step in steps:
            log.log(step, {"score": step + value, "time/sampling": 0.5})
        log.sync()


def steps_of(folder: Path) -> list[tuple[float | None, float | None]]:
    return [(row["step"], row["score"]) for row in metrics.read(folder)]


def scalars(folder: Path, tag: str = "learner/score") -> list[tuple[int, float]]:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def test_a_line_a_step_with_all_figures(tmp_path: Path) -> None:
    record(tmp_path, range(3))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[1]) == {"step": 1, "wall_time": 1002.0, "score": 1.0, "time/sampling": 0.5}
    assert steps_of(tmp_path) == [(0, 0.0), (1, 1.0), (2, 2.0)]


def test_a_line_is_in_the_file_when_log_returns(tmp_path: Path) -> None:
    with metrics.recording(tmp_path, 0) as log:
        log.log(0, {"score": 1.0})
        assert steps_of(tmp_path) == [(0, 1.0)] and scalars(tmp_path) == [(0, 1.0)]


def test_figures_that_json_does_not_have_are_null(tmp_path: Path) -> None:
    with metrics.recording(tmp_path, 0) as log:
        log.log(0, {"a": float("nan"), "b": float("inf"), "c": -float("inf"), "d": 1e300})
    row = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail)
    assert (row["a"], row["b"], row["c"], row["d"]) == (None, None, None, 1e300)
    assert scalars(tmp_path, "learner/b") == [(0, float("inf"))] and scalars(tmp_path, "learner/d") == [
        (0, float("inf"))
    ]


def test_resuming_drops_the_steps_that_come_again(tmp_path: Path) -> None:
    record(tmp_path, range(6))
    record(tmp_path, range(4, 8), value=0.5)
    expected = [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0), (4, 4.5), (5, 5.5), (6, 6.5), (7, 7.5)]
    assert steps_of(tmp_path) == expected
    assert (tmp_path / "metrics.jsonl").read_bytes().count(b"\n") == 8
    assert scalars(tmp_path) == expected


def test_starting_from_the_beginning_drops_everything(tmp_path: Path) -> None:
    record(tmp_path, range(3))
    record(tmp_path, range(2), value=0.5)
    assert steps_of(tmp_path) == [(0, 0.5), (1, 1.5)] == scalars(tmp_path)


def test_files_cut_short_anywhere_by_a_kill_are_carried_on(tmp_path: Path) -> None:
    record(tmp_path / "", range(3))
    lines, log = (tmp_path / "metrics.jsonl").read_bytes(), (tmp_path / f"{metrics.EVENTS}000001").read_bytes()
    for cut in range(1, 60, 3):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / "metrics.jsonl").write_bytes(lines[:-cut])
        (folder / f"{metrics.EVENTS}000001").write_bytes(log[:-cut])
        record(folder, range(2, 4))
        assert steps_of(folder) == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0)] == scalars(folder)


@pytest.mark.parametrize(
    "damage",
    [b"\x00" * 40, b"{}", b'{"step": true}', b'{"step": -1}', b'{"step": 1, "x": NaN}', b'{"step": 1, "x": "y"}',
     b'{"step": 1, "x": ' + b"9" * 400 + b"}", b"[" * 100_000],
)  # fmt: skip
def test_damage_in_the_middle_costs_that_line_only(tmp_path: Path, damage: bytes) -> None:
    record(tmp_path, range(4))
    lines = (tmp_path / "metrics.jsonl").read_bytes().split(b"\n")
    lines[1] = damage
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines))
    warnings: list[str] = []
    with metrics.recording(tmp_path, 3, warning=warnings.append) as log:
        log.log(3, {"score": 3.0})
    assert steps_of(tmp_path) == [(0, 0.0), (2, 2.0), (3, 3.0)]
    assert len(warnings) == 1 and "1 damaged lines" in warnings[0]


def test_the_events_are_read_in_order_after_many_resumes(tmp_path: Path) -> None:
    for start in range(12):
        record(tmp_path, range(start, start + 2), value=start / 16)
    assert scalars(tmp_path) == steps_of(tmp_path)
    assert len(scalars(tmp_path)) == 13


def test_a_step_logged_twice_and_reserved_names_are_refused(tmp_path: Path) -> None:
    with metrics.recording(tmp_path, 5) as log:
        log.log(5, {})
        with pytest.raises(ValueError, match="step 5 was logged before; the next is 6"):
            log.log(5, {})
        with pytest.raises(ValueError, match="'wall_time'"):
            log.log(6, {"wall_time": 1.0})


def test_no_metrics_no_rows(tmp_path: Path) -> None:
    assert metrics.read(tmp_path) == ()


def test_events_equal_those_of_tensorboards_own_writer(tmp_path: Path) -> None:
    # The generated modules have no types, hence getattr.
    from tensorboard.compat.proto import event_pb2, summary_pb2

    value = summary_pb2.Summary.Value  # pyright: ignore[reportAttributeAccessIssue]
    event_type, summary_type = event_pb2.Event, summary_pb2.Summary  # pyright: ignore[reportAttributeAccessIssue]
    figures = {"score": 1.5, "näme/with slash": -2.0, "x" * 300: 3.0}
    event = event_type(
        wall_time=12.25,
        step=2**40 + 300,
        summary=summary_type(value=[value(tag=tag, simple_value=figure) for tag, figure in figures.items()]),
    )
    with (tmp_path / "events").open("wb") as file:
        RecordWriter(file).write(event.SerializeToString())
    assert events.scalars(12.25, 2**40 + 300, figures) == (tmp_path / "events").read_bytes()


def test_the_checksum_is_that_of_the_rfc() -> None:
    assert events.crc32c(bytes(32)) == 0x8A9136AA and events.crc32c(b"\xff" * 32) == 0x62A8AB43


def test_the_axis_is_environment_steps_where_there_are_any(tmp_path: Path) -> None:
    def go(start: int, stop: int, value: float) -> None:
        with metrics.recording(tmp_path, start) as log:
            for step in range(start, stop):
                log.log(step, {"env_steps": 100.0 * step, "return_after": value + step, "validation": 1.0, "kl": 0.5})

    go(1, 5, 0.0)
    go(3, 6, 0.5)  # resumed: what was written of steps 3 and 4 is forgotten
    expected = [(100, 1.0), (200, 2.0), (300, 3.5), (400, 4.5), (500, 5.5)]
    assert scalars(tmp_path, "score/return_after") == expected
    assert scalars(tmp_path, "experience/outer_step") == [(100 * step, step) for step in range(1, 6)]
    assert scalars(tmp_path, "learner/kl")[0] == (100, 0.5)
    assert len(scalars(tmp_path, "validation/score")) == 5


def test_notes_are_texts_in_tensorboard(tmp_path: Path) -> None:
    with metrics.recording(tmp_path, 1, notes={"run/command": "metarl train “rl2”", "run/options": "| a |"}):
        pass
    accumulator = EventAccumulator(str(tmp_path))
    accumulator.Reload()
    assert accumulator.PluginTagToContent("text").keys() == {"run/command", "run/options"}
    (event,) = accumulator.Tensors("run/command")
    assert event.tensor_proto.string_val[0].decode() == "metarl train “rl2”"
