"""The charts of a report: learning curves, calibration."""

from collections.abc import Sequence
from typing import cast

import numpy as np
from jaxtyping import Float

from metarl.evaluation.charts import Chart, Panel, Series, line_chart
from metarl.evaluation.report.material import Found, Group
from metarl.evaluation.results import Evaluation
from metarl.maths.calibration import calibration_error

METRICS = ("validation", "return_before", "return_after", "success_before", "success_after", "accuracy", "loss")
"""The metrics of training that are drawn, where there are any of that name."""
_POINTS = 200
"""Points of a learning curve at most; each is the mean of its share of the steps."""


def learning_chart(groups: Sequence[Group]) -> Chart | None:
    """Metrics of training against environment steps (outer steps where there are none), a line for each group.

    Of several seeds the line is their mean at equal outer steps, and the band reaches from the lowest to the highest.
    None where nothing was recorded.
    """
    rows = [row for group in groups for found in group.members for row in found.rows]
    keys = [key for key in METRICS if any(row.get(key) is not None for row in rows)]
    if not keys:
        return None
    against = "env_steps" if all("env_steps" in row for row in rows) else "step"
    panels = []
    for key in keys:
        lines = [_line(group, key, against, number) for number, group in enumerate(groups)]
        panels.append(Panel(key.replace("_", " "), [line for line in lines if line is not None]))
    axis = "environment steps" if against == "env_steps" else "outer steps"
    about = f"Learning curves of {', '.join(group.label for group in groups)}: {', '.join(keys)} against {axis}."
    return line_chart(panels, axis, "", about, share_y=False)


def _line(group: Group, key: str, against: str, colour: int) -> Series | None:
    seeds = [points for found in group.members if len(points := _points(found, key, against))]
    if not seeds:
        return None
    common = sorted(set.intersection(*(set(points) for points in seeds)))
    if not common:
        seeds = seeds[:1]
        common = sorted(seeds[0])
    values = np.array([[points[step] for step in common] for points in seeds])  # [seed, step, (x, y)]
    x, y = _thinned(values[..., 0]).mean(0), _thinned(values[..., 1])
    band = (y.min(0), y.max(0)) if len(seeds) > 1 else (None, None)
    count = f", {len(seeds)} seeds" if len(seeds) > 1 else ""
    return Series(group.label + count, x, y.mean(0), *band, colour)


def _points(found: Found, key: str, against: str) -> dict[int, tuple[float, float]]:
    """By outer step, where it is on the horizontal axis and the metric's value."""
    return {
        int(row["step"] or 0): (float(cast(float, row[against])), float(cast(float, row[key])))
        for row in found.rows
        if row.get(key) is not None and row.get(against) is not None
    }


def _thinned(values: Float[np.ndarray, "seed step"]) -> Float[np.ndarray, "seed point"]:
    parts = np.array_split(values, min(_POINTS, values.shape[1]), axis=1)
    return np.stack([part.mean(1) for part in parts], axis=1)


def calibration_chart(evaluation: Evaluation) -> Chart | None:
    """Reliability before and after adaptation: how often answers of a confidence are right. None for no classifier."""
    if evaluation.calibration is None:
        return None
    diagonal = Series("as it should be", np.array([0.0, 1.0]), np.array([0.0, 1.0]), colour=3, dashed=True)
    lines, errors = [diagonal], list[str]()
    points = {"before": 0, "after": -1} if len(evaluation.config.amounts) > 1 else {"": 0}
    for number, (name, point) in enumerate(points.items()):
        bins = evaluation.calibration[:, point].sum(0)
        full = bins[bins[:, 0] > 0]
        error = calibration_error(bins)
        label = f"{name} adaptation".strip().capitalize() if name else evaluation.label
        lines.append(
            Series(f"{label} (error {error:.3f})", full[:, 1] / full[:, 0], full[:, 2] / full[:, 0], colour=number)
        )
        errors.append(f"{name} {error:.3f}".strip())
    about = f"Calibration: the share of right answers against their confidence; expected error {', '.join(errors)}."
    return line_chart([Panel("calibration", lines)], "confidence", "share of right answers", about)
