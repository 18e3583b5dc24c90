"""What an evaluation found: the raw scores by name, and the figures made of them."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar, cast, final

import msgspec
import numpy as np
from jaxtyping import Float
from scipy import stats

from metarl.evaluation.judge import WINDOW, Ablation, Actions
from metarl.maths import statistics
from metarl.maths.statistics import Estimate, Resampling, Statistic
from metarl.tasks import Json, Split, Task

if TYPE_CHECKING:
    import pandas

    from metarl.evaluation.charts import Chart

FORMAT = 3
FOREIGN = "foreign_"
"""What the name of the score begins with where each task's learner had adapted to another task's experience."""
COUNTS = ("env_steps", "diverged")
"""Metrics that are counts of all of a point's episodes, not means."""
SHARES = ("success", "success_at_end", "accuracy")
"""Metrics that are shares of outcomes, each of which is 0 or 1."""
LESS_IS_BETTER = ("error", "negative_log_likelihood")
"""Metrics of which a small value is good."""

Record = TypeVar("Record")


@final
@dataclasses.dataclass(frozen=True)
class CheckpointRef:
    """Which training run, and which of its checkpoints, a row of scores is of."""

    learner: str
    """The learner's id: `maml`, `rl2`, `prototypical`, …"""
    run: str
    """The run's name."""
    seed: int | None
    """The training's seed; None for what was not trained."""
    checkpoint: str
    """Which checkpoint: `last`, `best on validation`, or `none`."""
    step: int
    """Outer steps it had been trained for."""
    content: str = ""
    """A digest of the parameters: two copies of one run have the same."""


@final
@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """How scores were taken. Figures are comparable where this is equal."""

    distribution: str
    """The id of the distribution or data set."""
    distribution_hash: str
    """Of everything that decides what a score means."""
    split: Split
    held_out: bool
    """Whether training never saw these tasks."""
    fixed_tasks: bool
    """Whether these are all the tasks there are, rather than a sample of them."""
    score: str
    """The metric that a learner is judged by."""
    adaptations: tuple[int, ...]
    """Adaptations before each point of the curve."""
    amounts: tuple[int, ...]
    """What was spent on each task before each point, in `unit`s."""
    unit: str
    """What adaptation spends: `episode`, `gradient step`, …"""
    episodes_per_adaptation: int | None
    """Episodes on each task at each point, of agents; None for few-shot learners."""
    trials: int
    """Whole trials on each task, averaged: they make one episode a point less noisy."""
    seed: int
    """The evaluation's own seed."""
    actions: Actions | None = None
    """What the scored episodes' actions were; None for few-shot learners."""
    batch_norm: str | None = None
    """The batch-norm mode of few-shot learners; None where there is none."""
    ablation: Ablation = "none"
    """What the agent was deprived of."""


RANDOM, BLIND, FINE_TUNED, INFORMED, SPECIALIST = "random", "blind", "fine-tuned", "informed", "specialist"
YARDSTICKS = (RANDOM, BLIND, FINE_TUNED, INFORMED, SPECIALIST)
"""What other policies reach on the same tasks, from floor to ceiling:

    random        uniform actions
    blind         one policy trained on all training tasks, which neither adapts nor remembers
    fine-tuned    the blind policy, trained on each task with as many episodes as the agent gets there
    informed      told the task, trained on all families: the ceiling of knowing
    specialist    of each family the policy trained on it alone, where there is one
"""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Yardstick:
    """What another policy reached on an evaluation's tasks, under its settings."""

    sources: tuple[CheckpointRef, ...]
    """One for each seed; for specialists, one for each family in turn."""
    scores: Float[np.ndarray, "seed task"]
    """By the evaluation's score, means over trials and episodes; NaN on tasks that it says nothing about."""


@final
@dataclasses.dataclass(frozen=True)
class Point:
    """One point of an adaptation curve, or the gain from its first to its last."""

    adaptations: int
    """Adaptations before it."""
    amount: int
    """What was spent on each task before it, in the evaluation's unit."""
    mean: Estimate
    """Over seeds and tasks."""
    interquartile_mean: Estimate
    """Over seeds and tasks."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of one or more runs on a list of tasks, and the figures made of them."""

    config: EvaluationConfig
    tasks: tuple[Task, ...]
    sources: tuple[CheckpointRef, ...]
    """One for each seed."""
    metrics: Mapping[str, Float[np.ndarray, "seed trial point task"]]
    """By name: the score (`return`, `success`, `accuracy`, `error`) and what was measured beside it. Each is a mean
    over the point's episodes or queries, but for the `COUNTS`."""
    calibration: Float[np.ndarray, "seed point bin 3"] | None = None
    """Of classifiers, all trials and tasks together: how many answers fell into each bin of confidence, and the sums of
    their confidences and of the right ones among them."""
    yardsticks: Mapping[str, Yardstick] = dataclasses.field(default_factory=dict)
    """By name (`YARDSTICKS`): what other policies reached on the same tasks."""
    first_episode: Float[np.ndarray, "_seed _trial window _task"] | None = None
    """Of agents: the reward of each `WINDOW` steps within the first point's episodes. A memory adapts there too."""

    def __post_init__(self) -> None:
        points = len(self.config.adaptations)
        shape = (len(self.sources), self.config.trials, points, len(self.tasks))
        if self.config.score not in self.metrics:
            raise ValueError(f"the score {self.config.score!r} is not among the metrics {', '.join(self.metrics)}")
        if len(self.config.amounts) != points or 0 in shape:
            raise ValueError(f"need as many amounts as adaptations, and at least one of each axis, got shape {shape}")
        for name, values in self.metrics.items():
            if values.shape != shape:
                raise ValueError(f"{name} must have the shape {shape} [seed, trial, point, task], got {values.shape}")
            if not np.isfinite(values).all():
                raise ValueError(
                    f"{int((~np.isfinite(values)).sum())} of {values.size} values of {name} are not finite"
                )
        if self.calibration is not None and self.calibration.shape[:2] != (shape[0], points):
            raise ValueError(f"calibration must begin with the axes {shape[0]}, {points}: {self.calibration.shape}")
        if self.first_episode is not None and np.delete(self.first_episode.shape, 2).tolist() != [*shape[:2], shape[3]]:
            raise ValueError(
                f"first_episode must have the axes [seed, trial, window, task] of the metrics' {shape}, "
                f"got {self.first_episode.shape}"
            )
        for name, yardstick in self.yardsticks.items():
            if name not in YARDSTICKS or yardstick.scores.ndim != 2 or yardstick.scores.shape[1] != len(self.tasks):
                raise ValueError(
                    f"a yardstick is one of {', '.join(YARDSTICKS)} with scores [seed, task] on {len(self.tasks)} "
                    f"tasks, got {name} of shape {yardstick.scores.shape}"
                )

    def __repr__(self) -> str:
        curve = self.curve()
        first, last = curve[0].mean, curve[-1].mean
        return (
            f"<Evaluation of {', '.join(source.run for source in self.sources[:3])} on {self.config.distribution} "
            f"{self.config.split}: {self.config.score} {first.value:.3g} before, {last.value:.3g} after adaptation>"
        )

    def _repr_html_(self) -> str:
        """The headline as a table, in notebooks."""
        from metarl.evaluation.table import html_table  # it reads evaluations

        return html_table(self)

    def to_frame(self) -> "pandas.DataFrame":
        """The scores as a data frame, a row for each seed, trial, point and task; see `metarl.evaluation.frames`.

        Raises:
            UsageError: pandas is not installed.
        """
        from metarl.evaluation import frames

        return frames.to_frame(frames.columns(self))

    def to_csv(self) -> str:
        """The same rows as comma-separated text, without pandas."""
        from metarl.evaluation import frames

        return frames.to_csv(frames.columns(self))

    def plot(self) -> "Chart":
        """The adaptation curves, of all tasks and of each family, with intervals; a notebook shows the chart.

        Its `figure` is matplotlib's; `save(path)` writes it as .svg, .png or .pdf.
        """
        from metarl.evaluation.charts import adaptation_chart

        return adaptation_chart({self.label: self})

    @property
    def label(self) -> str:
        """What it is of, in a few words: `rl2 (ice)`, `maml (3 seeds)`."""
        learner, count = self.sources[0].learner, len(self.sources)
        return f"{learner} ({self.sources[0].run if count == 1 else f'{count} seeds'})"

    @property
    def scores(self) -> Float[np.ndarray, "seed trial point task"]:
        """The metric that learners are judged by."""
        return self.metrics[self.config.score]

    @property
    def families(self) -> tuple[str, ...]:
        """The families of the tasks, in the order of the list."""
        return tuple(dict.fromkeys(task.family for task in self.tasks))

    def only(self, family: str) -> "Evaluation":
        """The part that is about one family of tasks.

        Raises:
            ValueError: there is no task of it.
        """
        chosen = [task for task in self.tasks if task.family == family]
        if not chosen:
            raise ValueError(f"no task of family {family!r} here; there are {', '.join(self.families)}")
        return self.on(chosen)

    def on(self, tasks: Sequence[Task]) -> "Evaluation":
        """The part that is about these tasks, in their order; the calibration, which is of all, is left out.

        Raises:
            ValueError: one of them was not evaluated.
        """
        places = {task: index for index, task in enumerate(self.tasks)}
        if missing := [task for task in tasks if task not in places]:
            raise ValueError(f"{missing[0]} is not among the {len(self.tasks)} tasks of this evaluation")
        chosen = [places[task] for task in tasks]
        if tuple(tasks) == self.tasks:
            return self
        return dataclasses.replace(
            self,
            tasks=tuple(tasks),
            metrics={name: values[..., chosen] for name, values in self.metrics.items()},
            calibration=None,
            yardsticks={
                name: dataclasses.replace(yardstick, scores=yardstick.scores[:, chosen])
                for name, yardstick in self.yardsticks.items()
            },
            first_episode=None if self.first_episode is None else self.first_episode[..., chosen],
        )

    def judged_by(self, metric: str) -> "Evaluation":
        """The same evaluation with another metric as the score; without yardsticks, which are of the old one.

        Raises:
            ValueError: it was not measured.
        """
        return dataclasses.replace(self, config=dataclasses.replace(self.config, score=metric), yardsticks={})

    def reference_metrics(self) -> dict[str, str]:
        """The metrics that stand for what the score is held against, by a name for people: `{"foreign": ...}`."""
        ending = f"_{self.config.score}"
        return {name.removesuffix(ending).replace("_", " "): name for name in self.metrics if name.endswith(ending)}

    @property
    def references(self) -> dict[str, "Evaluation"]:
        """What was measured in the score's place on the same tasks, by name: metrics called `<name>_<score>`.

        `foreign` is the swap control. Whatever else an evaluation holds under such a name is there too.
        """
        return {name: self.judged_by(metric) for name, metric in self.reference_metrics().items()}

    @property
    def resampled(self) -> str:
        """What the intervals resample, in words.

        Tasks are resampled where the list is a sample of a distribution. Where the distribution *is* a few tasks, they
        are fixed; one run on fixed tasks leaves only its trials.
        """
        one = len(self.sources) == 1
        if self._tasks_vary:
            return "tasks within families" if one else "seeds, and tasks within families"
        if not one:
            return "seeds (the tasks are all there are)"
        return "the trials of one run" if self.config.trials > 1 else "nothing (one run, one trial, fixed tasks)"

    @property
    def caveat(self) -> str | None:
        """What an interval of a single run does not cover; None where there are several."""
        seeds = [source.seed for source in self.sources]
        if len(seeds) > 1 or seeds[0] is None:
            return None
        return "one seed: the interval says nothing about runs of other seeds"

    @property
    def _tasks_vary(self) -> bool:
        """Whether the tasks are a sample of more, so that intervals have to cover others."""
        return not self.config.fixed_tasks

    def curve(self) -> tuple[Point, ...]:
        """The adaptation curve: the score after each number of adaptations."""
        rows = self._rows(self.scores)
        return tuple(
            self._point(rows[:, index], adaptations, amount, self.config.score)
            for index, (adaptations, amount) in enumerate(
                zip(self.config.adaptations, self.config.amounts, strict=True)
            )
        )

    def gain(self) -> Point:
        """What adaptation brings: last point − first point, paired by seed and task."""
        rows = self._rows(self.scores)
        return self._last(rows[:, -1] - rows[:, 0])

    def specific_gain(self) -> Point | None:
        """What a task's own support brings beyond another task's: own − foreign after all adaptations, paired.

        A gain that any support gives is a start that is switched on, no adaptation. None where it was not measured.
        """
        foreign = FOREIGN + self.config.score
        return self.beyond(foreign) if foreign in self.metrics else None

    def beyond(self, metric: str) -> Point:
        """How far the score lies above another metric after all adaptations, paired by seed, trial and task."""
        return self._last(self._rows(self.scores - self.metrics[metric])[:, -1])

    def yardstick(self, name: str) -> Estimate | None:
        """The mean score of a yardstick with its interval; None where it is missing on one of the tasks."""
        scores = self._known(name)
        return None if scores is None else self._estimate(scores, statistics.mean)

    def above(self, name: str, point: int = -1) -> Estimate | None:
        """Mean score − a yardstick's, on the same tasks; None where the yardstick is missing on one of them."""
        scores = self._known(name)
        if scores is None:
            return None
        return self._combined([self._rows(self.scores)[:, point], scores], lambda means: means[0] - means[1])

    def normalised(self, point: int = -1) -> Estimate | None:
        """(score − blind) / (informed − blind), of means over the tasks: 0 is blind's, 1 informed's.

        None where one of the two is missing, or where knowing the task brings nothing: then there is nothing to win
        by adapting.
        """
        blind, informed = self._known(BLIND), self._known(INFORMED)
        if blind is None or informed is None or (room := self.room()) is None or not room.low > 0:
            return None
        scores = self._rows(self.scores)[:, point]
        return self._combined([scores, blind, informed], lambda means: (means[0] - means[1]) / (means[2] - means[1]))

    def need(self) -> Estimate | None:
        """(informed − blind) / (informed − random): the share of what can be learned that needs knowing the task.

        None where one of the yardsticks is missing.
        """
        levels = [self._known(name) for name in (INFORMED, BLIND, RANDOM)]
        known = [level for level in levels if level is not None]
        if len(known) < len(levels):
            return None
        return self._combined(known, lambda means: (means[0] - means[1]) / (means[0] - means[2]))

    def room(self) -> Estimate | None:
        """informed − blind: how much there is to win by knowing the task; None where one of them is missing."""
        blind, informed = self._known(BLIND), self._known(INFORMED)
        if blind is None or informed is None:
            return None
        return self._combined([informed, blind], lambda means: means[0] - means[1])

    def _known(self, name: str) -> Float[np.ndarray, "seed task"] | None:
        """A yardstick's scores, where it has one on every task."""
        yardstick = self.yardsticks.get(name)
        return None if yardstick is None or not np.isfinite(yardstick.scores).all() else yardstick.scores

    def _combined(
        self,
        samples: Sequence[Float[np.ndarray, "_ task"]],
        combine: Callable[[Sequence[Float[np.ndarray, "*batch"]]], Float[np.ndarray, "*batch"]],
    ) -> Estimate:
        rng, strata = np.random.default_rng(self.config.seed), [task.family for task in self.tasks]
        return statistics.bootstrap_of_means(samples, combine, rng, tasks_vary=self._tasks_vary, strata=strata)

    def within_episode(self) -> tuple[tuple[int, Estimate], ...]:
        """The step that each window of the first episode ends with, and the mean reward in it; empty where unknown."""
        if self.first_episode is None:
            return ()
        rows = self._rows(self.first_episode)
        return tuple(
            (WINDOW * (number + 1), self._estimate(rows[:, number], statistics.mean)) for number in range(rows.shape[1])
        )

    def estimate(self, metric: str, point: int = -1) -> Estimate:
        """The mean of a metric at a point of the curve, with its interval."""
        return self._share(metric, self._rows(self.metrics[metric])[:, point], statistics.mean)

    def worst_tenth(self, point: int = -1) -> float:
        """The mean score of the worst tenth of the tasks, at least one."""
        sign = -1 if self.config.score in LESS_IS_BETTER else 1
        scores = sign * np.sort(sign * self._rows(self.scores)[:, point].mean(0))
        return float(scores[: max(1, len(scores) // 10)].mean())

    def _last(self, rows: Float[np.ndarray, "row task"]) -> Point:
        return self._point(rows, self.config.adaptations[-1], self.config.amounts[-1])

    def _point(self, rows: Float[np.ndarray, "row task"], adaptations: int, amount: int, metric: str = "") -> Point:
        kinds = (statistics.mean, statistics.interquartile_mean)
        mean, middle = (self._share(metric, rows, kind) for kind in kinds)
        return Point(adaptations, amount, mean, middle)

    def _rows(self, values: Float[np.ndarray, "seed trial point task"]) -> Float[np.ndarray, "row point task"]:
        """What is resampled as rows: the seeds, or the trials of a single run on fixed tasks."""
        if len(self.sources) == 1 and not self._tasks_vary:
            return values[0]
        return values.mean(1)

    def _estimate(self, rows: Float[np.ndarray, "row task"], statistic: Statistic) -> Estimate:
        resample: Resampling = "seeds and tasks" if self._tasks_vary else "seeds"
        strata = [task.family for task in self.tasks]
        # A fresh generator for each figure: it does not depend on which others were asked for before.
        rng = np.random.default_rng(self.config.seed)
        return statistics.bootstrap(rows, statistic, rng, resample=resample, strata=strata)

    def _share(self, metric: str, rows: Float[np.ndarray, "row task"], statistic: Statistic) -> Estimate:
        """`_estimate`; of outcomes that are all alike, Wilson's interval: nothing that is resampled can differ."""
        if metric in SHARES and rows.min() == rows.max() and rows.max() in (0, 1):
            return _wilson(float(rows.max()), rows.shape[1] if self._tasks_vary else rows.shape[0])
        return self._estimate(rows, statistic)

    def to_json(self) -> dict[str, Json]:
        """What a file of `evaluations/` holds: the raw scores, and the figures for whoever reads it."""
        families = self.families if len(self.families) > 1 else ()
        parts = {"all": self} | {family: self.only(family) for family in families}
        figures: dict[str, Json] = {}
        for name, part in parts.items():
            figures[name] = _figures(part)
        return {
            "format": FORMAT,
            "config": _to_json(self.config),
            "sources": [_to_json(source) for source in self.sources],
            "figures": figures,
            "tasks": [task.to_json() for task in self.tasks],
            "metrics": {name: values.tolist() for name, values in self.metrics.items()},
            "calibration": None if self.calibration is None else self.calibration.tolist(),
            "first_episode": None if self.first_episode is None else self.first_episode.tolist(),
            "yardsticks": {
                name: {
                    "sources": [_to_json(source) for source in yardstick.sources],
                    "scores": [[None if math.isnan(x) else x for x in row] for row in yardstick.scores.tolist()],
                }
                for name, yardstick in self.yardsticks.items()
            },
        }

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> "Evaluation":
        """Reads `to_json`'s value; the figures are made anew from the scores.

        Raises:
            ValueError: it is not one; the message says where.
        """
        if value.get("format") != FORMAT:
            raise ValueError(f"need an evaluation of format {FORMAT}, got {value.get('format')!r}: evaluate again")
        written = _record(_Written, value, "the evaluation")
        calibration, windows = written.calibration, written.first_episode
        return cls(
            config=_record(EvaluationConfig, written.config, "config"),
            tasks=tuple(Task.from_json(cast(Mapping[str, Json], task)) for task in written.tasks),
            sources=tuple(_record(CheckpointRef, source, "sources") for source in written.sources),
            metrics={name: _array(values, f"metrics.{name}") for name, values in written.metrics.items()},
            calibration=None if calibration is None else _array(calibration, "calibration"),
            first_episode=None if windows is None else _array(windows, "first_episode"),
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


def _wilson(share: float, count: int) -> Estimate:
    """Wilson's score interval (1927)."""
    interval = stats.binomtest(round(share * count), count).proportion_ci(method="wilson")
    return Estimate(share, float(interval.low), float(interval.high))


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


def _array(values: list[object], where: str) -> np.ndarray:
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where} is not an array of numbers: {' '.join(str(error).split())}") from error
