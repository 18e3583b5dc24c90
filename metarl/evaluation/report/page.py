"""The page: what was found, brought into sections, headlines in words, charts, tables and videos."""

import base64
import dataclasses
import html
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import final

import jinja2
from markupsafe import Markup

import metarl
from metarl.evaluation import encoding
from metarl.evaluation.charts import Chart, adaptation_chart
from metarl.evaluation.compare import Comparison, compare, winners
from metarl.evaluation.records import LESS_IS_BETTER
from metarl.evaluation.report.figures import calibration_chart, learning_chart
from metarl.evaluation.report.material import Found, Group
from metarl.evaluation.results import Evaluation
from metarl.evaluation.stills import description
from metarl.evaluation.table import counted, decimals, html_table, yardsticks_html
from metarl.maths.statistics import Estimate
from metarl.runs import files
from metarl.runs.command import command
from metarl.runs.run_folder import Run

MEDIA_BYTES = 6_500_000
"""What videos, their first frames and pictures may take together; others are named with their paths. In base64 it is a
third more."""


@final
@dataclasses.dataclass(frozen=True)
class Figure:
    """A chart or a table in a page."""

    caption: str
    content: Markup


@final
@dataclasses.dataclass(frozen=True)
class TaskTable:
    """Scores by task, to be sorted and filtered."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    families: tuple[str, ...]
    worst: int
    """The column that says how well it went; the worst come first."""
    less_is_better: bool


@final
@dataclasses.dataclass(frozen=True)
class Section:
    """One evaluation of one or several groups."""

    title: str
    sentences: tuple[str, ...]
    figures: tuple[Figure, ...]
    tasks: TaskTable


@final
@dataclasses.dataclass(frozen=True)
class Still:
    """A picture in a page."""

    caption: str
    source: str
    """A data URL."""


@final
@dataclasses.dataclass(frozen=True)
class Film:
    """A video in a page: decoded when it comes into view, so that the page opens at once."""

    caption: str
    content: str
    """The MP4 in base64."""
    poster: str
    """Its first frame, a data URL: for readers on paper and without scripts, and until it plays."""


@final
@dataclasses.dataclass(frozen=True)
class About:
    """Where a run comes from."""

    title: str
    command: str
    options: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]


def render(groups: Sequence[Group]) -> str:
    """The page of these groups, as HTML that needs nothing else."""
    charts = _Numbered()
    kinds = ("agent", "fewshot")
    learning = []
    for kind in kinds:
        chosen = [group for group in groups if group.experiment is not None and group.experiment.kind == kind]
        for distribution, part in _by_distribution(chosen).items():
            chart = learning_chart(part)
            if chart is not None:
                seeds = "of several seeds: their mean, and from the lowest to the highest"
                learning.append(charts.figure(f"{distribution}, while training ({seeds})", chart))
    media = _Media()
    stills, films = media.pictures(groups), media.videos(groups)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    parts = resources.files("metarl.evaluation.report")
    template = environment.from_string((parts / "page.html").read_text(encoding="utf-8"))
    return template.render(
        title=_title(groups),
        style=Markup((parts / "style.css").read_text(encoding="utf-8")),
        script=Markup((parts / "script.js").read_text(encoding="utf-8")),
        problems=[line for group in groups for line in (*group.problems, *_of_members(group))],
        left_out=media.left_out,
        sections=[section for part in _comparable(groups).items() for section in _sections(*part, charts)],
        learning=learning,
        films=films,
        stills=stills,
        abouts=[_about(found.run) for group in groups for found in group.members if found.run is not None],
        version=metarl.__version__,
    )


def _of_members(group: Group) -> list[str]:
    return [line for found in group.members for line in found.problems]


def _title(groups: Sequence[Group]) -> str:
    distributions = dict.fromkeys(
        each.config.distribution for group in groups for each in group.evaluations.values()
    ) or dict.fromkeys(group.experiment.distribution for group in groups if group.experiment is not None)
    labels = ", ".join(dict.fromkeys(group.label for group in groups))
    return f"{labels} on {', '.join(distributions)}" if distributions else labels


def _by_distribution(groups: Sequence[Group]) -> dict[str, list[Group]]:
    parts: dict[str, list[Group]] = {}
    for group in groups:
        assert group.experiment is not None
        parts.setdefault(group.experiment.distribution, []).append(group)
    return parts


Key = tuple[str, str, str]
"""A distribution, its hash, and the name of the evaluations."""


def _comparable(groups: Sequence[Group]) -> dict[Key, dict[str, Evaluation]]:
    """Evaluations by what they are of, then by their groups' labels."""
    parts: dict[Key, dict[str, Evaluation]] = {}
    for group in groups:
        for name, each in group.evaluations.items():
            parts.setdefault((each.config.distribution, each.config.distribution_hash, name), {})[group.label] = each
    return parts


def _sections(key: Key, evaluations: Mapping[str, Evaluation], charts: "_Numbered") -> list[Section]:
    """One section; where evaluations of one name cannot be compared, one for each with the reason."""
    distribution, _, name = key
    if len(evaluations) == 1:
        return [_section(f"{distribution}: {name}", evaluations, None, (), charts)]
    try:
        found = compare(evaluations)
    except ValueError as error:
        return [
            _section(f"{distribution}: {name}, {label}", {label: each}, None, (str(error),), charts)
            for label, each in evaluations.items()
        ]
    return [_section(f"{distribution}: {name}", found.evaluations, found, (*winners(found), *found.notes), charts)]


def _section(
    title: str,
    evaluations: Mapping[str, Evaluation],
    comparison: Comparison | None,
    more: tuple[str, ...],
    charts: "_Numbered",
) -> Section:
    sentences = [sentence for label, each in evaluations.items() for sentence in headline(label, each)]
    figures: list[Figure] = []
    first = next(iter(evaluations.values()))
    if len(first.config.amounts) > 1:
        spent = f"{first.config.score} after so many {first.config.unit}s, with 95 % intervals"
        figures.append(charts.figure(f"Adaptation curves: {spent}; dashed: what it is held against",
                                     adaptation_chart(evaluations)))  # fmt: skip
    for label, each in evaluations.items():
        figures.append(Figure(f"{label}: {_counts(each)}", Markup(html_table(each))))
        if each.yardsticks:
            figures.append(Figure(f"{label}: what it is held against", Markup(yardsticks_html(each))))
        calibration = calibration_chart(each)
        if calibration is not None:
            figures.append(charts.figure(f"{label}: does it know how sure it may be?", calibration))
    if comparison is not None:
        figures.append(Figure("Side by side, with 95 % intervals", _duels(comparison)))
        figures.append(charts.figure("Performance profiles", comparison.profiles(comparison.amounts[-1])))
    return Section(title, (*sentences, *more), tuple(figures), _task_table(evaluations))


def headline(label: str, evaluation: Evaluation) -> list[str]:
    """What an evaluation found, in sentences."""
    config, curve = evaluation.config, evaluation.curve()
    number = f".{decimals(max(abs(point.mean.value) for point in curve))}f"
    tasks = (
        f"{len(evaluation.tasks)} {'held-out ' if config.held_out else ''}{config.split} tasks of {config.distribution}"
    )
    seeds = counted(len(evaluation.sources), "seed")
    first, last = curve[0], curve[-1]
    score = f"{'an' if config.score[0] in 'aeiou' else 'a'} {config.score}"
    if len(curve) == 1:
        return [f"{label} ({seeds}) has {score} of {first.mean:{number}} on {tasks}."]
    spent = counted(last.amount, config.unit)
    ends = f"from {score} of {first.mean:{number}} to {last.mean:{number}}"
    sentences = [
        f"{label} ({seeds}) goes {ends} after {spent} on {tasks}.",
        f"Adaptation brings {evaluation.gain().mean:{number}}{_verdict(evaluation.gain().mean, config.score)}.",
    ]
    for name, metric in evaluation.reference_metrics().items():
        beyond, there = evaluation.beyond(metric), evaluation.estimate(metric)
        what = "the same after another task’s experience" if name == "foreign" else name
        sentences.append(
            f"Beside {what} ({there:{number}}) it is {beyond.mean:{number}}{_verdict(beyond.mean, config.score)}."
        )
    for name in evaluation.yardsticks:
        level, above = evaluation.yardstick(name), evaluation.above(name)
        if level is not None and above is not None:
            sentences.append(f"Beside {name} ({level:{number}}) it is {above:{number}}{_verdict(above, config.score)}.")
    if evaluation.caveat:
        sentences.append(f"{evaluation.caveat[0].upper()}{evaluation.caveat[1:]}.")
    return sentences


def _verdict(difference: Estimate, score: str) -> str:
    low, high = difference.low, difference.high
    if score in LESS_IS_BETTER:
        low, high = -high, -low
    if low > 0:
        return ", better beyond chance"
    if high < 0:
        return ", worse beyond chance"
    return ", which cannot be told from nothing"


def _counts(evaluation: Evaluation) -> str:
    config = evaluation.config
    checkpoints = ", ".join(
        sorted({f"{source.checkpoint} (outer step {source.step})" for source in evaluation.sources})
    )
    parts = [f"checkpoint {checkpoints}", f"intervals resample {evaluation.resampled}"]
    parts += [f"actions {config.actions}"] * (config.actions is not None)
    parts += [f"batch norm {config.batch_norm}"] * (config.batch_norm is not None)
    return "; ".join(parts)


def _duels(comparison: Comparison) -> Markup:
    config, rows = comparison.config, list[str]()
    for amount in comparison.amounts:
        found = comparison.at(amount)
        number = f".{decimals(max(abs(standing.mean.value) for standing in found.standings))}f"
        for duel in found.duels:
            cells = (f"{duel.difference:{number}}", f"{duel.improvement:.2f}")
            name = html.escape(f"{duel.one} − {duel.other}")
            rows.append(
                f'<tr><th scope="row">{amount}</th><td>{name}</td>' + "".join(f"<td>{c}</td>" for c in cells) + "</tr>"
            )
    head = (f"at most {config.unit}s", "pair", f"difference of the {config.score}", "probability of improvement")
    header = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in head)
    return Markup(f"<table><thead><tr>{header}</tr></thead><tbody>{''.join(rows)}</tbody></table>")


def _task_table(evaluations: Mapping[str, Evaluation]) -> TaskTable:
    first = next(iter(evaluations.values()))
    columns, values = ["task", "family"], []
    for label, each in evaluations.items():
        prefix = f"{label}: " if len(evaluations) > 1 else ""
        by_task = each.scores.mean((0, 1))  # [point, task]
        curve = len(each.config.amounts) > 1
        columns += [f"{prefix}before", f"{prefix}after", f"{prefix}gain"] if curve else [f"{prefix}{each.config.score}"]
        values += [by_task[0], by_task[-1], by_task[-1] - by_task[0]] if curve else [by_task[0]]
    places = decimals(max(abs(float(value)) for column in values for value in column))
    rows = tuple(
        (str(task), task.family, *(f"{column[number]:.{places}f}" for column in values))
        for number, task in enumerate(first.tasks)
    )
    worst = 3 if len(first.config.amounts) > 1 else 2
    return TaskTable(tuple(columns), rows, first.families, worst, first.config.score in LESS_IS_BETTER)


@final
class _Media:
    """Files that are put into the page, as long as there is room; and a sentence for each that is not."""

    def __init__(self) -> None:
        self.left_out: list[str] = []
        self._room = MEDIA_BYTES

    def videos(self, groups: Sequence[Group]) -> list[Film]:
        films: list[Film] = []
        for group in groups:
            for each in group.members:
                for path in each.videos:
                    content = self._read(path, "video")
                    if content is None:
                        continue
                    try:
                        poster = encoding.first_frame(content)
                    except ValueError as error:
                        self.left_out.append(f"the video {path} {error}")
                        continue
                    if self._takes(path, "video", len(content) + len(poster)):
                        name = f"{_name(group, each)}: {path.stem}"
                        films.append(Film(name, _base64(content), _data_url("image/jpeg", poster)))
        return films

    def pictures(self, groups: Sequence[Group]) -> list[Still]:
        """With what each says of itself."""
        stills: list[Still] = []
        for group in groups:
            for each in group.members:
                for path in each.pictures:
                    content = self._read(path, "picture")
                    if content is None:
                        continue
                    try:
                        about = description(content)
                    except ValueError as error:
                        self.left_out.append(f"the picture {path} {error}")
                        continue
                    if self._takes(path, "picture", len(content)):
                        name = f"{_name(group, each)}: {about or path.stem}"
                        stills.append(Still(name, _data_url("image/png", content)))
        return stills

    def _read(self, path: Path, kind: str) -> bytes | None:
        """The file, if there is room for it; it has not taken it yet."""
        content = files.read_bytes(path)
        return content if self._fits(path, kind, len(content)) else None

    def _takes(self, path: Path, kind: str, size: int) -> bool:
        """Takes so many bytes, if there is room for them."""
        fits = self._fits(path, kind, size)
        self._room -= size * fits
        return fits

    def _fits(self, path: Path, kind: str, size: int) -> bool:
        if size > self._room:
            self.left_out.append(f"the {kind} {path} ({size / 1e6:.1f} MB) is not on this page, to keep it small")
        return size <= self._room


def _name(group: Group, found: Found) -> str:
    return group.label if len(group.members) == 1 else f"{group.label}, {files.as_text(found.path.name)}"


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{_base64(content)}"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _about(run: Run) -> About:
    experiment, last = run.config.experiment, run.config.environments[-1] if run.config.environments else None
    options = [
        (f"{group} · {name.replace('_', ' ')}", str(value))
        for group, values in experiment.options.items()
        if isinstance(values, Mapping)
        for name, value in values.items()
    ]
    options += [("distribution hash", experiment.distribution_hash), ("device", experiment.device)]
    versions = [] if last is None else [
        *last.versions.items(),
        ("git revision", f"{last.revision}{' with local changes' if last.dirty else ''}"),
        ("threads", str(last.threads)),
    ]  # fmt: skip
    return About(f"{run.folder.name}, seed {experiment.seed}", command(run), tuple(options), tuple(versions))


@final
class _Numbered:
    """Charts as figures whose ids are their own."""

    def __init__(self) -> None:
        self._count = 0

    def figure(self, caption: str, chart: Chart) -> Figure:
        self._count += 1
        return Figure(caption, Markup(chart.svg(f"chart{self._count}")))
