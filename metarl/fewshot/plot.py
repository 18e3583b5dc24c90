"""The curve of a training run: losses or errors, and the score on validation tasks, by outer step."""

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure  # without pyplot: no global state, no screen

_POINTS = 200
"""Points of a curve at the most; each is the mean of its share of the steps."""


def training_curve(rows: Sequence[Mapping[str, float | int | None]], keys: Sequence[str]) -> bytes:
    """A PNG of the metrics with these names, a panel each, from a run's rows of metrics, each with its `step`."""
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(4 * len(keys), 3), layout="constrained", dpi=110)
        for axes, name in zip(np.ravel(figure.subplots(1, len(keys))), keys, strict=True):
            points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
            steps, values = _thinned(np.array(points, dtype=np.float64).reshape(-1, 2))
            axes.plot(steps, values, linewidth=1, marker="." if len(steps) < 30 else "")
            axes.set(title=name.replace("_", " "), xlabel="outer step")
            axes.grid(alpha=0.3)
        content = io.BytesIO()
        figure.savefig(content, format="png")
    return content.getvalue()


def _thinned(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    parts = np.array_split(points, min(_POINTS, max(1, len(points))))
    means = np.array([part.mean(axis=0) for part in parts if len(part)]).reshape(-1, 2)
    return means[:, 0], means[:, 1]
