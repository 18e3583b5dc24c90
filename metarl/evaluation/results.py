"""What an evaluation found: the raw scores by name, and the figures made of them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, final

import numpy as np
from jaxtyping import Float

from metarl.evaluation.intervals import Intervals
from metarl.evaluation.judge import WINDOW
from metarl.evaluation.records import (
    FOREIGN,
    LESS_IS_BETTER,
    YARDSTICKS,
    CheckpointRef,
    EvaluationConfig,
    Point,
    Yardstick,
)
from metarl.evaluation.yardstick_figures import YardstickFigures
from metarl.maths import statistics
from metarl.maths.statistics import Estimate
from metarl.tasks import Json, Task

if TYPE_CHECKING:
    import pandas

    from metarl.evaluation.charts import Chart


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
        windows = self.first_episode
        if windows is not None and (
            windows.ndim != 4 or (*windows.shape[:2], windows.shape[3]) != (*shape[:2], shape[3])
        ):
            raise ValueError(
                f"first_episode must have the axes [seed, trial, window, task] of the metrics' {shape}, "
                f"got {windows.shape}"
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
        return self._beside.level(name)

    def above(self, name: str, point: int = -1) -> Estimate | None:
        """Mean score − a yardstick's, on the same tasks; None where the yardstick is missing on one of them."""
        return self._beside.above(self._rows(self.scores)[:, point], name)

    def normalised(self, point: int = -1) -> Estimate | None:
        """(score − blind) / (informed − blind), of means over the tasks: 0 is blind's, 1 informed's.

        None where one of the two is missing, or where knowing the task brings nothing: then there is nothing to win
        by adapting.
        """
        return self._beside.normalised(self._rows(self.scores)[:, point])

    def need(self) -> Estimate | None:
        """(informed − blind) / (informed − random): the share of what can be learned that needs knowing the task.

        None where one of the yardsticks is missing.
        """
        return self._beside.need()

    def room(self) -> Estimate | None:
        """informed − blind: how much there is to win by knowing the task; None where one of them is missing."""
        return self._beside.room()

    @property
    def _beside(self) -> YardstickFigures:
        return YardstickFigures(self.yardsticks, self._intervals)

    @property
    def _intervals(self) -> Intervals:
        return Intervals(self.config.seed, self._tasks_vary, tuple(task.family for task in self.tasks))

    def within_episode(self) -> tuple[tuple[int, Estimate], ...]:
        """The step that each window of the first episode ends with, and the mean reward in it; empty where unknown."""
        if self.first_episode is None:
            return ()
        rows = self._rows(self.first_episode)
        return tuple(
            (WINDOW * (number + 1), self._intervals.of_rows(rows[:, number], statistics.mean))
            for number in range(rows.shape[1])
        )

    def estimate(self, metric: str, point: int = -1) -> Estimate:
        """The mean of a metric at a point of the curve, with its interval."""
        return self._intervals.of_metric(metric, self._rows(self.metrics[metric])[:, point], statistics.mean)

    def worst_tenth(self, point: int = -1) -> float:
        """The mean score of the worst tenth of the tasks, at least one."""
        sign = -1 if self.config.score in LESS_IS_BETTER else 1
        scores = sign * np.sort(sign * self._rows(self.scores)[:, point].mean(0))
        return float(scores[: max(1, len(scores) // 10)].mean())

    def _last(self, rows: Float[np.ndarray, "row task"]) -> Point:
        return self._point(rows, self.config.adaptations[-1], self.config.amounts[-1])

    def _point(self, rows: Float[np.ndarray, "row task"], adaptations: int, amount: int, metric: str = "") -> Point:
        kinds = (statistics.mean, statistics.interquartile_mean)
        mean, middle = (self._intervals.of_metric(metric, rows, kind) for kind in kinds)
        return Point(adaptations, amount, mean, middle)

    def _rows(self, values: Float[np.ndarray, "seed trial point task"]) -> Float[np.ndarray, "row point task"]:
        """What is resampled as rows: the seeds, or the trials of a single run on fixed tasks."""
        if len(self.sources) == 1 and not self._tasks_vary:
            return values[0]
        return values.mean(1)

    def to_json(self) -> dict[str, Json]:
        """What a file of `evaluations/` holds: the raw scores, and the figures for whoever reads it."""
        from metarl.evaluation import written

        return written.to_json(self)

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> "Evaluation":
        """Reads `to_json`'s value; the figures are made anew from the scores.

        Raises:
            ValueError: it is not one; the message says where.
        """
        from metarl.evaluation import written

        return written.from_json(value)
