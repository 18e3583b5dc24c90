"""Charts of figures with their intervals, as matplotlib figures and as SVG that keeps its text as text.

The colours are Okabe and Ito's (2008, "Color Universal Design"), which people with any kind of colour vision tell
apart; markers and dashes say the same once more. In SVG each is a CSS variable with that colour as its default
(`--series-0`, `--ink`, `--grid`): a page with another background gives it another value.
"""

import dataclasses
import html
import io
import re
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
_MARKERS, _DASHES = "osD^vPX", ("-", "--", ":", "-.")
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif", "font.size": 10, "svg.fonttype": "none", "svg.hashsalt": "metarl",
    "text.color": _INK, "axes.labelcolor": _INK, "axes.edgecolor": _INK, "xtick.color": _INK, "ytick.color": _INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": _GRID, "grid.linewidth": 0.6,
    "axes.axisbelow": True, "legend.frameon": False, "legend.labelcolor": _INK, "axes.titlesize": 11,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
}  # fmt: skip
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

    def svg(self, prefix: str = "chart") -> str:
        """The figure as an `<svg>` element, to be put into a page.

        Args:
            prefix: what its ids begin with; another one for each chart of a page.
        """
        text = io.StringIO()
        with mpl.rc_context(_STYLE):
            self.figure.savefig(text, format="svg", metadata={"Date": None})
        return _embedded(text.getvalue(), html.escape(self.about), prefix)

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


def line_chart(panels: Sequence[Panel], x: str, y: str, about: str, *, columns: int = 3, counts: bool = False) -> Chart:
    """Panels side by side with the same vertical axis.

    Args:
        panels: what is drawn, from left to right; at least one.
        x: what the horizontal axes show, with the unit.
        y: what the vertical axes show, with the unit.
        about: what the chart shows, in words.
        columns: panels in a row, at most.
        counts: whether x is counted, so that only whole numbers are labelled.
    """
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    with mpl.rc_context(_STYLE):
        size = _PANEL[0] * columns, _PANEL[1] * rows + 0.5
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False).reshape(-1).tolist()
        for axes, panel in zip(grid, panels, strict=False):
            for series in panel.series:
                _draw(axes, series)
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
    return Chart(figure, about)


def _draw(axes: Axes, series: Series) -> None:
    colour = COLOURS[series.colour % len(COLOURS)]
    if series.low is not None and series.high is not None:
        step = "post" if series.steps else None
        axes.fill_between(series.x, series.low, series.high, color=colour, alpha=0.18, linewidth=0, step=step)
    few = len(series.x) <= 30
    axes.plot(
        series.x,
        series.y,
        label=series.label,
        color=colour,
        linestyle=_DASHES[1] if series.dashed else _DASHES[0],
        drawstyle="steps-post" if series.steps else "default",
        marker=_MARKERS[series.colour % len(_MARKERS)] if few and not series.steps else "",
        markersize=4,
        linewidth=1.6,
    )


def _legend(figure: Figure, grid: Sequence[Axes]) -> None:
    """One legend for all panels, each label once."""
    entries = {}
    for axes in grid:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=min(3, len(entries)))


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

    With `references`, the curves that stand in an evaluation beside its own score are drawn too, dashed.
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
    return lines


def _embedded(document: str, about: str, prefix: str) -> str:
    """matplotlib's SVG document as an element of a page: ids of its own, CSS variables, and a description."""
    text = document[document.index("<svg") :]
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{prefix}-", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable}, {colour})")
    # A fixed width would be kept on a narrow screen; the view box has the proportions.
    width = re.search(r'<svg[^>]* width="([\d.]+pt)"', text)
    assert width is not None, "matplotlib writes a width"
    text = re.sub(r' (?:width|height)="[^"]*pt"', "", text, count=2)
    label = f'<svg role="img" aria-label="{about}" style="width: {width[1]}; max-width: 100%; height: auto"'
    return re.sub(r"<metadata>.*?</metadata>\s*", "", text.replace("<svg", label, 1), flags=re.DOTALL)
