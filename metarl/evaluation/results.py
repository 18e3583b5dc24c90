"""What an evaluation found: the raw scores, the figures made of them, and the table that people read."""

import dataclasses
import types
from collections.abc import Mapping, Sequence
from typing import Never, TypeVar, cast, final

import numpy as np
from jaxtyping import Float, Int

from metarl.maths import statistics
from metarl.maths.statistics import Estimate, Resampling, Statistic
from metarl.tasks import Json, Score, Split, Task

FORMAT = 1

Record = TypeVar("Record", "Source", "Setting")


@final
@dataclasses.dataclass(frozen=True)
class Source:
    """Which training run, and which of its checkpoints, a row of scores is of."""

    agent: str
    """The agent's name: `maml`, `rl2`, ..."""
    run: str
    """The run's name."""
    seed: int | None
    """The training's seed."""
    checkpoint: str
    """Which checkpoint: `last` or `best on validation`."""
    step: int
    """Outer steps it had been trained for."""


@final
@dataclasses.dataclass(frozen=True)
class Setting:
    """How scores were taken. Figures are comparable where this is equal."""

    distribution: str
    """The distribution's id."""
    distribution_hash: str
    """Of everything that decides what a score means."""
    split: Split
    held_out: bool
    """Whether training never saw these tasks."""
    rounds: int
    """Adaptations in a trial; the curve has one point more."""
    episodes: int
    """Episodes on each task at each point of the curve, and in each adaptation."""
    trials: int
    """Whole trials on each task, averaged: they make one episode a point less noisy."""
    seed: int
    """The evaluation's own seed."""
    score: Score = "return"
    """What an episode is judged by."""


@final
@dataclasses.dataclass(frozen=True)
class Point:
    """One point of an adaptation curve, or the gain from its first to its last."""

    rounds: int
    """Adaptations before it."""
    episodes: int
    """Adaptation episodes spent on each task before it."""
    mean: Estimate
    """Over seeds and tasks."""
    interquartile_mean: Estimate
    """Over seeds and tasks."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of one or more runs on a list of tasks, and the figures made of them."""

    setting: Setting
    tasks: tuple[Task, ...]
    sources: tuple[Source, ...]
    """One for each seed."""
    scores: Float[np.ndarray, "seed trial point task"]
    """The mean of the point's episodes: of their undiscounted returns, or the share of them that succeeded."""
    diverged: Int[np.ndarray, "seed point task"]
    """Episodes whose simulation blew up, all trials together. Their return counts as far as it got."""
    env_steps: Int[np.ndarray, "seed point task"]
    """Environment steps, all trials together."""
    returns: Float[np.ndarray, "seed trial point task"] | None = None
    """Where the scores are something else, the undiscounted returns beside them."""

    def __post_init__(self) -> None:
        setting, num_seeds, num_tasks = self.setting, len(self.sources), len(self.tasks)
        points = setting.rounds + 1
        expected = {
            "scores": (num_seeds, setting.trials, points, num_tasks),
            "diverged": (num_seeds, points, num_tasks),
            "env_steps": (num_seeds, points, num_tasks),
        }
        for name, shape in expected.items():
            found = getattr(self, name).shape
            if found != shape or 0 in shape:
                raise ValueError(f"{name} must have the shape {shape} (none of it 0), got {found}")
        if (self.returns is None) != (setting.score == "return"):
            raise ValueError(f"returns go with scores of another kind; the scores are of the kind {setting.score!r}")
        if self.returns is not None and self.returns.shape != self.scores.shape:
            raise ValueError(f"returns must have the shape {self.scores.shape}, got {self.returns.shape}")
        if not np.isfinite(self.scores).all():
            raise ValueError(f"{int((~np.isfinite(self.scores)).sum())} of {self.scores.size} scores are not finite")

    @property
    def families(self) -> tuple[str, ...]:
        """The families of the tasks, in the order of the list."""
        return tuple(dict.fromkeys(task.family for task in self.tasks))

    def only(self, family: str) -> "Evaluation":
        """The part that is about one family of tasks."""
        chosen = [index for index, task in enumerate(self.tasks) if task.family == family]
        if not chosen:
            raise ValueError(f"no task of family {family!r} here; there are {', '.join(self.families)}")
        return dataclasses.replace(
            self,
            tasks=tuple(self.tasks[index] for index in chosen),
            scores=self.scores[..., chosen],
            diverged=self.diverged[..., chosen],
            env_steps=self.env_steps[..., chosen],
            returns=None if self.returns is None else self.returns[..., chosen],
        )

    def of_returns(self) -> "Evaluation":
        """The same evaluation judged by the returns."""
        if self.returns is None:
            return self
        setting = dataclasses.replace(self.setting, score="return")
        return dataclasses.replace(self, setting=setting, scores=self.returns, returns=None)

    @property
    def resampled(self) -> str:
        """What the intervals resample, in words.

        Tasks are resampled where the list is a sample of a distribution. Where the distribution *is* a few tasks, they
        are fixed; one run on fixed tasks leaves only its trials, and an interval that says nothing of other runs.
        """
        if self.setting.held_out:
            return "tasks within families" if len(self.sources) == 1 else "seeds, and tasks within families"
        if len(self.sources) > 1:
            return "seeds (the tasks are all there are)"
        return "the trials of one run" if self.setting.trials > 1 else "nothing (one run, one trial, fixed tasks)"

    def curve(self) -> "tuple[Point, ...]":
        """The adaptation curve: the score after 0, 1, ... rounds of adaptation."""
        rows = self._rows()
        return tuple(
            Point(
                rounds=point,
                episodes=point * self.setting.episodes,
                mean=self._estimate(rows[:, point], statistics.mean),
                interquartile_mean=self._estimate(rows[:, point], statistics.interquartile_mean),
            )
            for point in range(rows.shape[1])
        )

    def gain(self) -> "Point":
        """What adaptation brings: last point − first point, paired by seed and task."""
        rows = self._rows()
        difference = rows[:, -1] - rows[:, 0]
        return Point(
            rounds=self.setting.rounds,
            episodes=self.setting.rounds * self.setting.episodes,
            mean=self._estimate(difference, statistics.mean),
            interquartile_mean=self._estimate(difference, statistics.interquartile_mean),
        )

    def _rows(self) -> Float[np.ndarray, "row point task"]:
        """What is resampled as rows: the seeds, or the trials of a single run on fixed tasks."""
        if len(self.sources) == 1 and not self.setting.held_out:
            return self.scores[0]
        return self.scores.mean(1)

    def _estimate(self, rows: Float[np.ndarray, "row task"], statistic: Statistic) -> Estimate:
        resample: Resampling = "seeds and tasks" if self.setting.held_out else "seeds"
        strata = [task.family for task in self.tasks]
        # A fresh generator for each figure: it does not depend on which others were asked for before.
        rng = np.random.default_rng(self.setting.seed)
        return statistics.bootstrap(rows, statistic, rng, resample=resample, strata=strata)

    def table(self) -> str:
        """The figures as short, aligned text."""
        return _table(self)

    def to_json(self) -> dict[str, Json]:
        """What `evaluation.json` holds: the raw scores, and the figures for whoever reads it."""
        parts = {"all": self} | {family: self.only(family) for family in self.families}
        if self.returns is not None:
            parts["all, returns"] = self.of_returns()
        value: dict[str, Json] = {
            "format": FORMAT,
            "setting": dataclasses.asdict(self.setting),
            "sources": [dataclasses.asdict(source) for source in self.sources],
            "figures": {name: _figures(part) for name, part in parts.items()},
            "tasks": [task.to_json() for task in self.tasks],
            "scores": self.scores.tolist(),
            "diverged": self.diverged.tolist(),
            "env_steps": self.env_steps.tolist(),
        }
        return value if self.returns is None else value | {"returns": self.returns.tolist()}

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "Evaluation":
        """Reads `to_json`'s value; the figures are made anew from the scores."""
        if value.get("format") != FORMAT:
            raise ValueError(f"need an evaluation of format {FORMAT}, got {value.get('format')!r}: evaluate again")
        try:
            return cls(
                setting=_record(Setting, value["setting"]),
                tasks=tuple(Task.from_json(_mapping(task)) for task in _list(value["tasks"])),
                sources=tuple(_record(Source, source) for source in _list(value["sources"])),
                scores=np.asarray(value["scores"], dtype=np.float64),
                diverged=np.asarray(value["diverged"], dtype=np.int64),
                env_steps=np.asarray(value["env_steps"], dtype=np.int64),
                returns=np.asarray(value["returns"], dtype=np.float64) if "returns" in value else None,
            )
        except KeyError as missing:
            raise ValueError(f"the evaluation has no {missing}: the file is not whole; evaluate again") from missing


_MEANING: Mapping[Score, str] = {"return": "undiscounted return", "success": "share of episodes with success"}


def _table(evaluation: Evaluation) -> str:
    setting, curve, steps = evaluation.setting, evaluation.curve(), evaluation.env_steps.sum()
    number = f".{_decimals(max(abs(point.mean.value) for point in curve))}f"
    num_tasks = len(evaluation.tasks)
    episodes = len(evaluation.sources) * setting.trials * setting.episodes * num_tasks
    lines = [
        f"{setting.distribution} ({setting.distribution_hash}) · {_label(setting)}",
        _sources_line(evaluation.sources),
        f"score before adaptation and after {_spent(curve[-1])} of it: {_MEANING[setting.score]} [95 % interval]",
        "",
        *_aligned(_headline(evaluation, number)),
        "",
    ]
    if evaluation.returns is not None:
        returns = evaluation.of_returns()
        ends = (returns.curve()[0].mean, returns.curve()[-1].mean)
        places = f".{_decimals(max(abs(end.value) for end in ends))}f"
        lines += [f"undiscounted return: {ends[0]:{places}} before, {ends[1]:{places}} after", ""]
    if len(curve) > 2:
        points = [["adaptation episodes", *(str(point.episodes) for point in curve)]]
        points.append(["mean score", *(f"{point.mean.value:{number}}" for point in curve)])
        lines += [*_aligned(points), ""]
    quota = f"{_count(setting.trials, 'trial')} × {_count(setting.episodes, 'episode')} = {episodes} episodes a point"
    lines += [
        f"{_count(len(evaluation.sources), 'seed')} × {_count(num_tasks, 'task')} × {quota}",
        f"intervals resample {evaluation.resampled}; evaluation seed {setting.seed}",
        f"{evaluation.diverged.sum()} of {episodes * len(curve)} episodes diverged; {steps:,} environment steps",
    ]
    return "\n".join(lines)


def _headline(evaluation: Evaluation, number: str) -> list[list[str]]:
    """Before, after and gain: of all tasks, then of each family."""
    curve, gain, count = evaluation.curve(), evaluation.gain(), str(len(evaluation.tasks))
    ends = (curve[0], curve[-1], gain)
    rows = [
        ["", "tasks", "before", "after", "gain"],
        ["mean", count, *(f"{point.mean:{number}}" for point in ends)],
        ["interquartile mean", count, *(f"{point.interquartile_mean:{number}}" for point in ends)],
    ]
    for family in evaluation.families if len(evaluation.families) > 1 else ():
        part = evaluation.only(family)
        ends = (part.curve()[0], part.curve()[-1], part.gain())
        rows.append([f"mean, {family}", str(len(part.tasks)), *(f"{point.mean:{number}}" for point in ends)])
    return rows


def _decimals(largest: float) -> int:
    """Digits after the point that leave about three that count."""
    return 0 if largest >= 1000 else 1 if largest >= 10 else 2 if largest >= 1 else 3


def _label(setting: Setting) -> str:
    if not setting.held_out:
        return "training tasks: nothing is held out"
    return "training tasks" if setting.split == "train" else f"held-out {setting.split} tasks"


def _sources_line(sources: Sequence[Source]) -> str:
    steps = sorted({source.step for source in sources})
    shown = str(steps[0]) if len(steps) == 1 else f"{steps[0]}-{steps[-1]}"
    agents = ", ".join(sorted({source.agent for source in sources}))
    checkpoints = ", ".join(sorted({source.checkpoint for source in sources}))
    runs = ", ".join(source.run for source in sources[:3]) + (f" and {len(sources) - 3} more" * (len(sources) > 3))
    return f"{agents} · {runs} · checkpoint: {checkpoints} (outer step {shown})"


def _spent(point: Point) -> str:
    return f"{_count(point.episodes, 'episode')} ({_count(point.rounds, 'round')})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns padded to their widest entry: the first to the left, the others to the right."""
    widths = [max(len(entry) for entry in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            entry.ljust(width) if column == 0 else entry.rjust(width)
            for column, (entry, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _figures(evaluation: Evaluation) -> dict[str, Json]:
    setting = evaluation.setting
    return {
        "seeds": len(evaluation.sources),
        "tasks": len(evaluation.tasks),
        "episodes_per_point": len(evaluation.sources) * len(evaluation.tasks) * setting.trials * setting.episodes,
        "resampled": evaluation.resampled,
        "curve": [_point_json(point) for point in evaluation.curve()],
        "gain": _point_json(evaluation.gain()),
    }


def _point_json(point: Point) -> dict[str, Json]:
    return {
        "rounds": point.rounds,
        "episodes": point.episodes,
        "mean": _estimate_json(point.mean),
        "interquartile_mean": _estimate_json(point.interquartile_mean),
    }


def _estimate_json(estimate: Estimate) -> dict[str, Json]:
    """NaN is no JSON: an interval that is not there is null."""
    missing = bool(np.isnan(estimate.low))
    return {
        "value": estimate.value,
        "low": None if missing else estimate.low,
        "high": None if missing else estimate.high,
    }


def _list(value: Json) -> list[Json]:
    if not isinstance(value, list):
        raise ValueError(f"need a list, got {value!r}")
    return value


def _mapping(value: Json) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise ValueError(f"need an object, got {value!r}")
    return value


def _record(kind: type[Record], value: Json) -> Record:
    """A record from its JSON, every field there and of its type."""
    fields = dataclasses.fields(kind)
    # A field that came later has a default: files from before are read as what they are.
    given = {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}
    given |= _mapping(value)
    if set(given) != {field.name for field in fields}:
        raise ValueError(f"{kind.__name__} has the fields {', '.join(field.name for field in fields)}; got {given}")
    for field in fields:
        expected = str if field.type in (Score, Split) else field.type
        assert isinstance(expected, type | types.UnionType), "records of JSON have plain types"
        if not isinstance(given[field.name], expected):
            raise ValueError(f"{kind.__name__}'s {field.name} must be {expected}, got {given[field.name]!r}")
    return kind(**cast(Mapping[str, Never], given))
