"""Charts of figures with their intervals, as matplotlib figures and as SVG that keeps its text as text.

The colours are Okabe and Ito's (2008, "Color Universal Design"), which people with any kind of colour vision tell
apart; markers and dashes say the same once more. In SVG each is a CSS variable with that colour as its default
(`--series-0`, `--ink`, `--grid`): a page with another background gives it another value.
"""

import dataclasses
import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # without pyplot: no global state, no screen
from matplotlib.ticker import MaxNLocator

from metarl.evaluation.results import Evaluation
from metarl.maths.statistics import Estimate
from metarl.runs.files import write_atomically

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f6a00")
_INK, _GRID = "#1f2328", "#c9ced6"
_VARIABLES = {_INK: "--ink", _GRID: "--grid"} | {hex: f"--series-{index}" for index, hex in enumerate(COLOURS)}
_HANDLE, _LETTER = 0.5, 0.08  # inches; of a legend's line with the space around it, and of a letter
_MARKERS, _DASHES = "osD^vPX", ("-", "--", ":", "-.")
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif", "font.size": 10, "svg.fonttype": "none", "svg.hashsalt": "metarl",
    "text.color": _INK, "axes.labelcolor": _INK, "axes.edgecolor": _INK, "xtick.color": _INK, "ytick.color": _INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": _GRID, "grid.linewidth": 0.6,
    "axes.axisbelow": True, "legend.frameon": False, "legend.labelcolor": _INK, "axes.titlesize": 11,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
}  # fmt: skip
_SVG = "{http://www.w3.org/2000/svg}"
ElementTree.register_namespace("", _SVG[1:-1])
ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
_PANEL = (3.9, 2.9)  # inches, width and height of one panel


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Series:
    """A line with its band of intervals."""

    label: str
    x: Float[np.ndarray, " point"]
    y: Float[np.ndarray, " point"]
    low: Float[np.ndarray, " point"] | None = None
    """Lower ends of the intervals, NaN where there is none; None for a line without a band."""
    high: Float[np.ndarray, " point"] | None = None
    """Upper ends."""
    colour: int = 0
    """Which of the colours (they begin again after the last), and which marker."""
    dashed: bool = False
    """For what the others are held against."""
    steps: bool = False
    """Whether it keeps its height from one point to the next, as a distribution function does."""


@final
@dataclasses.dataclass(frozen=True)
class Panel:
    """A pair of axes with lines."""

    title: str
    series: Sequence[Series]


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Chart:
    """A figure, and what it shows in words, for those who cannot see it. Notebooks show it as SVG."""

    figure: Figure
    about: str
    tips: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    """By the id of a line, what each of its points stands for; a page shows it beside the pointer."""

    def svg(self, prefix: str = "chart") -> str:
        """The figure as an `<svg>` element, to be put into a page.

        Args:
            prefix: what its ids begin with; another one for each chart of a page.
        """
        text = io.StringIO()
        with mpl.rc_context(_STYLE):
            self.figure.savefig(text, format="svg", metadata={"Date": None})
        return _embedded(text.getvalue(), self.about, self.tips, prefix)

    def save(self, path: Path) -> None:
        """Writes it into a file, in the format of the suffix: .svg, .png or .pdf.

        Raises:
            ValueError: another suffix.
            RunError: it cannot be written.
        """
        if path.suffix not in (".svg", ".png", ".pdf"):
            raise ValueError(f"a chart's name ends in .svg, .png or .pdf, got {path.name}")
        content = io.BytesIO()
        with mpl.rc_context(_STYLE):
            self.figure.savefig(content, format=path.suffix[1:], dpi=150, facecolor="white")
        write_atomically(path, content.getvalue())

    def _repr_svg_(self) -> str:
        return self.svg()


def line_chart(
    panels: Sequence[Panel],
    x: str,
    y: str,
    about: str,
    *,
    columns: int = 3,
    counts: bool = False,
    share_y: bool = True,
) -> Chart:
    """Panels side by side.

    Args:
        panels: what is drawn, from left to right; at least one.
        x: what the horizontal axes show, with the unit.
        y: what the vertical axes show, with the unit.
        about: what the chart shows, in words.
        columns: panels in a row, at most.
        counts: whether x is counted, so that only whole numbers are labelled.
        share_y: whether all panels have the same vertical range.
    """
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    with mpl.rc_context(_STYLE):
        size = _PANEL[0] * columns, _PANEL[1] * rows + 0.5
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(rows, columns, sharey=share_y, squeeze=False).reshape(-1).tolist()
        tips: dict[str, Sequence[str]] = {}
        for axes, panel in zip(grid, panels, strict=False):
            for series in panel.series:
                id = f"points{len(tips)}"
                tips[id] = _draw(axes, series, id)
            axes.set(title=panel.title, xlabel=x)
            if counts:
                axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True))
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        for axes in grid[::columns]:
            axes.set_ylabel(y)
        handles = {series.label: None for panel in panels for series in panel.series}
        if len(handles) > 1:
            _legend(figure, grid)
    return Chart(figure, about, tips)


def _draw(axes: Axes, series: Series, id: str) -> Sequence[str]:
    """Draws a line under an id; what each of its points stands for, where points are marked."""
    colour = COLOURS[series.colour % len(COLOURS)]
    if series.low is not None and series.high is not None:
        step = "post" if series.steps else None
        axes.fill_between(series.x, series.low, series.high, color=colour, alpha=0.18, linewidth=0, step=step)
    marked = len(series.x) <= 30 and not series.steps
    axes.plot(
        series.x,
        series.y,
        label=series.label,
        color=colour,
        linestyle=_DASHES[1] if series.dashed else _DASHES[0],
        drawstyle="steps-post" if series.steps else "default",
        marker=_MARKERS[series.colour % len(_MARKERS)] if marked else "",
        markersize=4,
        linewidth=1.6,
        gid=id,
    )
    return [_tip(series, number) for number in range(len(series.x))] if marked else []


def _tip(series: Series, number: int) -> str:
    interval = ""
    if series.low is not None and series.high is not None and np.isfinite(series.low[number]):
        interval = f" [{series.low[number]:.4g}, {series.high[number]:.4g}]"
    return f"{series.label}: {series.y[number]:.4g}{interval} at {series.x[number]:g}"


def _legend(figure: Figure, grid: Sequence[Axes]) -> None:
    """One legend for all panels, each label once, in as many columns as are sure to fit."""
    entries = {}
    for axes in grid:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    widest = _HANDLE + _LETTER * max(map(len, entries))
    columns = min(3, len(entries), int(figure.get_figwidth() / widest))
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=max(1, columns))


def adaptation_series(evaluation: Evaluation, label: str, colour: int = 0, *, dashed: bool = False) -> Series:
    """The score at every point of the adaptation curve, with intervals."""
    score = evaluation.config.score
    estimates = [evaluation.estimate(score, point) for point in range(len(evaluation.config.amounts))]
    return estimated(label, np.array(evaluation.config.amounts, float), estimates, colour, dashed=dashed)


def estimated(
    label: str, x: Float[np.ndarray, " point"], estimates: Sequence[Estimate], colour: int, *, dashed: bool = False
) -> Series:
    """A line of estimates with their intervals; a dashed one, which others are held against, has no band."""
    value, low, high = np.array([(each.value, each.low, each.high) for each in estimates]).T
    band = (None, None) if dashed else (low, high)
    return Series(label, x, value, *band, colour, dashed)


def adaptation_chart(evaluations: Mapping[str, Evaluation], *, references: bool = True) -> Chart:
    """Adaptation curves: a panel for all tasks and one for each family, a line for each evaluation by its label.

    With `references`, what stands in an evaluation beside its own score is drawn too, dashed: other curves, and the
    levels of its yardsticks.
    """
    if not evaluations:
        raise ValueError("need at least one evaluation to draw")
    first = next(iter(evaluations.values()))
    families = list(dict.fromkeys(family for each in evaluations.values() for family in each.families))
    panels = [Panel("all tasks", _lines(evaluations, references))]
    if len(families) > 1:
        for family in families:
            parts = {name: each.only(family) for name, each in evaluations.items() if family in each.families}
            panels.append(Panel(family, _lines(parts, references)))
    config = first.config
    ends = "; ".join(
        f"{name}: {each.estimate(each.config.score, 0):.3g} before, {each.estimate(each.config.score):.3g} after"
        for name, each in evaluations.items()
    )
    about = f"Adaptation curves on {config.distribution}, {config.score} against {config.unit}s spent. {ends}."
    return line_chart(panels, f"{config.unit}s on the task", config.score, about, counts=True)


def _lines(evaluations: Mapping[str, Evaluation], references: bool) -> list[Series]:
    lines = [adaptation_series(each, name, number) for number, (name, each) in enumerate(evaluations.items())]
    if references:
        for name, each in evaluations.items():
            prefix = f"{name}: " if len(evaluations) > 1 else ""
            for reference, curve in each.references.items():
                lines.append(adaptation_series(curve, prefix + reference, len(lines), dashed=True))
        lines += _levels(list(evaluations.values()), len(lines))
    return lines


def _levels(evaluations: Sequence[Evaluation], colour: int) -> list[Series]:
    """What other policies reach on the same tasks, as level lines; the first evaluation that knows one says where."""
    ends = np.array([0.0, max(each.config.amounts[-1] for each in evaluations)])
    levels: dict[str, float] = {}
    for each in evaluations:
        for name in each.yardsticks:
            estimate = each.yardstick(name)
            if estimate is not None:
                levels.setdefault(name, estimate.value)
    return [
        Series(name, ends, np.full(2, value), colour=colour + number, dashed=True)
        for number, (name, value) in enumerate(levels.items())
    ]


def _embedded(document: str, about: str, tips: Mapping[str, Sequence[str]], prefix: str) -> str:
    """matplotlib's SVG document as an element of a page: ids of its own, CSS variables, a description and tips."""
    root = ElementTree.fromstring(document)
    for metadata in root.findall(f"{_SVG}metadata"):
        root.remove(metadata)
    for element in root.iter():
        for mark, tip in zip(element.iter(f"{_SVG}use"), tips.get(element.get("id", ""), ()), strict=False):
            mark.set("data-tip", tip)
    for element in root.iter():
        # Line breaks and indents alone: browsers would keep each as a node of its own.
        element.text, element.tail = (
            (part if part and part.strip() else None) for part in (element.text, element.tail)
        )
        for name, value in element.attrib.items():
            element.set(name, f"{prefix}-{value}" if name == "id" else _adapted(value, prefix))
    # A fixed width would be kept on a narrow screen; the view box has the proportions.
    width = root.attrib.pop("width")
    del root.attrib["height"]
    root.attrib |= {"role": "img", "aria-label": about, "style": f"width: {width}; max-width: 100%; height: auto"}
    return ElementTree.tostring(root, encoding="unicode")


def _adapted(value: str, prefix: str) -> str:
    """An attribute with the ids that it points to, and with variables for our colours."""
    value = re.sub(r"^#|(?<=url\(#)", lambda match: f"{match[0]}{prefix}-", value)
    for colour, variable in _VARIABLES.items():
        value = value.replace(colour, f"var({variable}, {colour})")
    return value
