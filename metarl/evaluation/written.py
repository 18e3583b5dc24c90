"""An evaluation as a file of `evaluations/`: JSON of the raw scores, and of the figures for whoever reads it."""

import dataclasses
import math
from collections.abc import Mapping
from typing import TypeVar, cast

import msgspec
import numpy as np

from metarl.evaluation.records import COUNTS, CheckpointRef, EvaluationConfig, Point, Yardstick
from metarl.evaluation.results import Evaluation
from metarl.maths.statistics import Estimate
from metarl.tasks import Json, Task

FORMAT = 3

Record = TypeVar("Record")


def to_json(evaluation: Evaluation) -> dict[str, Json]:
    """What a file of `evaluations/` holds: the raw scores, and the figures for whoever reads it."""
    families = evaluation.families if len(evaluation.families) > 1 else ()
    parts = {"all": evaluation} | {family: evaluation.only(family) for family in families}
    figures: dict[str, Json] = {}
    for name, part in parts.items():
        figures[name] = _figures(part)
    return {
        "format": FORMAT,
        "config": _to_json(evaluation.config),
        "sources": [_to_json(source) for source in evaluation.sources],
        "figures": figures,
        "tasks": [task.to_json() for task in evaluation.tasks],
        "metrics": {name: values.tolist() for name, values in evaluation.metrics.items()},
        "calibration": None if evaluation.calibration is None else evaluation.calibration.tolist(),
        "first_episode": None if evaluation.first_episode is None else evaluation.first_episode.tolist(),
        "yardsticks": {
            name: {
                "sources": [_to_json(source) for source in yardstick.sources],
                "scores": [[None if math.isnan(x) else x for x in row] for row in yardstick.scores.tolist()],
            }
            for name, yardstick in evaluation.yardsticks.items()
        },
    }


def from_json(value: Mapping[str, object]) -> Evaluation:
    """Reads `to_json`'s value; the figures are made anew from the scores.

    Raises:
        ValueError: it is not one; the message says where.
    """
    if value.get("format") != FORMAT:
        raise ValueError(f"need an evaluation of format {FORMAT}, got {value.get('format')!r}: evaluate again")
    written = _record(_Written, value, "the evaluation")
    calibration, windows = written.calibration, written.first_episode
    return Evaluation(
        config=_record(EvaluationConfig, written.config, "config"),
        tasks=tuple(Task.from_json(cast(Mapping[str, Json], task)) for task in written.tasks),
        sources=tuple(_record(CheckpointRef, source, "sources") for source in written.sources),
        metrics={name: _array(values, f"metrics.{name}", axes=4) for name, values in written.metrics.items()},
        calibration=None if calibration is None else _array(calibration, "calibration"),
        first_episode=None if windows is None else _array(windows, "first_episode", axes=4),
        yardsticks={
            name: Yardstick(
                tuple(_record(CheckpointRef, source, f"yardsticks.{name}") for source in yardstick.sources),
                _array([[math.nan if x is None else x for x in row] for row in yardstick.scores], name),
            )
            for name, yardstick in written.yardsticks.items()
        },
    )


@dataclasses.dataclass(frozen=True)
class _WrittenYardstick:
    sources: list[dict[str, object]]
    scores: list[list[float | None]]


@dataclasses.dataclass(frozen=True)
class _Written:
    """A file of `evaluations/`, before its parts are looked at."""

    format: int
    config: dict[str, object]
    sources: list[dict[str, object]]
    figures: dict[str, object]
    tasks: list[dict[str, object]]
    metrics: dict[str, list[object]]
    calibration: list[object] | None
    yardsticks: dict[str, _WrittenYardstick]
    first_episode: list[object] | None = None


def _figures(evaluation: Evaluation) -> Json:
    specific = evaluation.specific_gain()
    others: dict[str, Json] = {
        name: _estimate_json(evaluation.estimate(name)) for name in evaluation.metrics if name not in COUNTS
    }
    return {
        "seeds": len(evaluation.sources),
        "tasks": len(evaluation.tasks),
        "resampled": evaluation.resampled,
        "caveat": evaluation.caveat,
        "curve": [_point_json(point) for point in evaluation.curve()],
        "gain": _point_json(evaluation.gain()),
        "specific_gain": None if specific is None else _point_json(specific),
        "worst_tenth": evaluation.worst_tenth(),
        "within_first_episode": [
            {"step": step, "reward": _estimate_json(reward)} for step, reward in evaluation.within_episode()
        ],
        "after": others,
        "yardsticks": {name: _optional(evaluation.yardstick(name)) for name in evaluation.yardsticks},
        "above": {name: _optional(evaluation.above(name)) for name in evaluation.yardsticks},
        "normalised": _optional(evaluation.normalised()),
    }


def _optional(estimate: Estimate | None) -> Json:
    return None if estimate is None else _estimate_json(estimate)


def _point_json(point: Point) -> Json:
    return {
        "adaptations": point.adaptations,
        "amount": point.amount,
        "mean": _estimate_json(point.mean),
        "interquartile_mean": _estimate_json(point.interquartile_mean),
    }


def _estimate_json(estimate: Estimate) -> Json:
    """NaN is no JSON: an interval that is not there is null."""
    low, high = (None if math.isnan(end) else end for end in (estimate.low, estimate.high))
    return {"value": estimate.value, "low": low, "high": high}


def _to_json(record: EvaluationConfig | CheckpointRef) -> dict[str, Json]:
    return msgspec.to_builtins(record)


def _record(kind: type[Record], value: Mapping[str, object], where: str) -> Record:
    """A record from its JSON: every field of its type, and no other fields.

    Raises:
        ValueError: something differs; the message says what.
    """
    names = {field.name for field in dataclasses.fields(kind)}  # pyright: ignore[reportArgumentType]  # a dataclass
    if unknown := sorted(value.keys() - names):
        raise ValueError(f"{where} has the unknown fields {', '.join(unknown)}")
    try:
        return msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError as error:
        raise ValueError(f"{where}: {error}") from error


def _array(values: list[object], where: str, axes: int | None = None) -> np.ndarray:
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where} is not an array of numbers: {' '.join(str(error).split())}") from error
    if axes is not None and array.ndim != axes:
        raise ValueError(f"{where} has {axes} axes, not the shape {array.shape}")
    return array
