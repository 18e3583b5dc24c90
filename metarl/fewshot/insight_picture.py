"""What a few-shot learner does on one task, as a picture: influence, embeddings, layers, weights."""

import io

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # without pyplot: no global state, no screen
from PIL import Image

from metarl.evaluation import stills
from metarl.evaluation.charts import COLOURS
from metarl.fewshot.insight import AnswerWeights, Insight

_MARKERS = "osD^vPX"
_PANEL = (4.2, 3.4)  # inches


def picture(found: Insight, title: str) -> bytes:
    """A PNG with a panel for each kind of insight that there is; its description says in words what it shows."""
    panels = [name for name, given in _PANELS.items() if given(found)]
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        columns = min(3, len(panels))
        rows = -(-len(panels) // columns)
        size = (_PANEL[0] * columns, _PANEL[1] * rows)
        figure = Figure(figsize=size, layout="constrained", dpi=110)
        figure.suptitle(title)
        grid = np.ravel(figure.subplots(rows, columns, squeeze=False))
        for axes, name in zip(grid, panels, strict=False):
            _DRAWN[name](axes, found)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        content = io.BytesIO()
        figure.savefig(content, format="png")
    with Image.open(content) as drawn:
        return stills.png(drawn.convert("RGB"), f"{title}. {about(found)}")


def about(found: Insight) -> str:
    """What was found, in a sentence or two."""
    right = int((found.log_probabilities.argmax(1) == found.query_targets).sum())
    parts = [f"{right} of {len(found.query_targets)} queries are answered right"]
    if found.influence is not None:
        mean = found.influence.mean(1)
        best, worst = int(mean.argmax()), int(mean.argmin())
        parts.append(
            f"leaving support example {best} out costs {mean[best]:.2f} nats a query, the most; example {worst} "
            f"{mean[worst]:.2f}, the least"
        )
    if found.changes:
        name = max(found.changes, key=lambda each: found.changes[each])
        parts.append(f"adaptation changes {name} most, by {found.changes[name]:.3f} of its norm")
    if found.similarities:
        name = min(found.similarities, key=lambda each: found.similarities[each])
        parts.append(f"the layer {name} is changed most (CKA {found.similarities[name]:.3f})")
    return "; ".join(parts) + "."


def _influence(axes: Axes, found: Insight) -> None:
    assert found.influence is not None
    rows, columns = (np.argsort(each, kind="stable") for each in (found.support_targets, found.query_targets))
    values = found.influence[rows][:, columns]
    most = max(float(np.abs(values).max()), 1e-9)
    _heat_map(axes, values, "RdBu", most)
    _class_lines(axes, found.query_targets[columns], found.support_targets[rows])
    axes.set(title="influence on the right answer, nats", xlabel="query, by class", ylabel="support example, by class")


def _before(axes: Axes, found: Insight) -> None:
    assert found.embeddings is not None
    _scatter(axes, found, found.embeddings.before)
    axes.set_title("embedding" if not found.changes else "embedding before adaptation")


def _after(axes: Axes, found: Insight) -> None:
    assert found.embeddings is not None
    _scatter(axes, found, found.embeddings.after)
    axes.set_title(f"after adaptation ({found.embeddings.explained:.0%} of the variance)")


def _scatter(axes: Axes, found: Insight, points: Float[np.ndarray, "example 2"]) -> None:
    shown = len(found.support_targets)
    for way in range(found.log_probabilities.shape[1]):
        support, query = (np.flatnonzero(part == way) for part in (found.support_targets, found.query_targets))
        colour, marker = COLOURS[way % len(COLOURS)], _MARKERS[way % len(_MARKERS)]
        axes.scatter(
            *points[support].T,
            s=60,
            c=colour,
            marker=marker,
            edgecolors="black",
            linewidths=0.8,
            label=f"class {way + 1}",
        )
        axes.scatter(*points[shown + query].T, s=14, c=colour, marker=marker, alpha=0.5, linewidths=0)
    axes.set(xlabel="support outlined, queries small", xticks=[], yticks=[])
    axes.legend(frameon=False, fontsize=7)


def _changes(axes: Axes, found: Insight) -> None:
    names = list(found.changes)
    axes.barh(names, list(found.changes.values()), color=COLOURS[0])
    axes.invert_yaxis()
    axes.set(title="how far adaptation moves parameters", xlabel="‖θ' − θ‖ / ‖θ‖")
    axes.tick_params(axis="y", labelsize=7)


def _similarities(axes: Axes, found: Insight) -> None:
    axes.barh(list(found.similarities), list(found.similarities.values()), color=COLOURS[2])
    axes.invert_yaxis()
    axes.set(title="layers' values, before and after", xlabel="linear CKA", xlim=(0, 1))


def _weights(axes: Axes, found: Insight) -> None:
    name, weights = next(iter(found.weights.items()))
    values, classes = by_class(found, weights)
    if weights.over != "slot":
        _class_lines(axes, np.sort(found.query_targets), classes)
    _heat_map(axes, values, "viridis")
    shown = "support example, by class" if weights.over == "example" else weights.over
    axes.set(title=name, xlabel="query, by class", ylabel=shown)


def by_class(
    found: Insight, weights: AnswerWeights
) -> tuple[Float[np.ndarray, "weight query"], Int[np.ndarray, " weight"]]:
    """Weights with queries, and examples of the support, in the order of their classes; and the class of each row.

    Of several heads it is their mean. Slots of a memory have no class: their numbers stand for it.
    """
    values = weights.values.reshape(len(weights.values), -1, weights.values.shape[-1]).mean(1)
    values, rows = values[np.argsort(found.query_targets, kind="stable")].T, np.arange(weights.values.shape[-1])
    if weights.over == "example":
        order = np.argsort(found.support_targets, kind="stable")
        return values[order], found.support_targets[order]
    return values, rows


def _heat_map(axes: Axes, values: Float[np.ndarray, "row column"], colours: str, most: float | None = None) -> None:
    """With colours from −most to most, or over all values."""
    low = None if most is None else -most
    image = axes.imshow(values, aspect="auto", cmap=colours, interpolation="nearest", vmin=low, vmax=most)
    assert axes.figure is not None
    axes.figure.colorbar(image, ax=axes)


def _class_lines(axes: Axes, columns: Int[np.ndarray, " column"], rows: Int[np.ndarray, " row"]) -> None:
    """Between the classes."""
    for place in np.flatnonzero(np.diff(columns)):
        axes.axvline(place + 0.5, color="black", linewidth=0.5)
    for place in np.flatnonzero(np.diff(rows)):
        axes.axhline(place + 0.5, color="black", linewidth=0.5)


_PANELS = {
    "influence": lambda found: found.influence is not None,
    "before": lambda found: found.embeddings is not None,
    "after": lambda found: found.embeddings is not None and bool(found.changes),
    "changes": lambda found: bool(found.changes),
    "similarities": lambda found: bool(found.similarities),
    "weights": lambda found: bool(found.weights),
}
"""Whether there is something to draw, by panel."""
_DRAWN = {
    "influence": _influence,
    "before": _before,
    "after": _after,
    "changes": _changes,
    "similarities": _similarities,
    "weights": _weights,
}
