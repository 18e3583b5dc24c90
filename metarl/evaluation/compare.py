"""Agents side by side: the same tasks, the same amount spent on each, paired differences with their intervals.

Agents that spend differently (a gradient step on 20 episodes, a memory that reads one at a time) are compared at equal
amounts: after at most b episodes, an agent has the score of its last point that cost no more than b.
"""

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence
from typing import final

import numpy as np
from jaxtyping import Float

from metarl.evaluation.charts import Chart, Panel, Series, line_chart
from metarl.evaluation.records import LESS_IS_BETTER, EvaluationConfig
from metarl.evaluation.results import Evaluation
from metarl.evaluation.table import aligned, counted, decimals
from metarl.maths import comparison
from metarl.maths.statistics import Estimate, bootstrap, mean

_THRESHOLDS = 200
_SAME = ("distribution", "distribution_hash", "split", "score", "unit", "actions", "batch_norm")
"""What must be equal for scores to mean the same."""


@final
@dataclasses.dataclass(frozen=True)
class Standing:
    """One agent after at most so much was spent on a task."""

    label: str
    spent: int
    """What its point cost, in the unit of the comparison."""
    mean: Estimate


@final
@dataclasses.dataclass(frozen=True)
class Duel:
    """One agent against another, after at most so much was spent on a task."""

    one: str
    """The agent whose score is the minuend: `one − other`."""
    other: str
    difference: Estimate
    """Of the means, task by task."""
    improvement: Estimate
    """The probability that the first does better than the other on a task, ties counting half."""

    @property
    def decided(self) -> bool:
        """Whether the interval of the difference leaves zero out."""
        return self.difference.low > 0 or self.difference.high < 0


@final
@dataclasses.dataclass(frozen=True)
class Round:
    """The comparison at one amount."""

    amount: int
    """The most that is spent on a task."""
    standings: tuple[Standing, ...]
    duels: tuple[Duel, ...]


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """Evaluations by label, on the tasks that they have in common."""

    evaluations: Mapping[str, Evaluation]
    notes: tuple[str, ...]
    """What is not as equal as one might think."""

    @property
    def config(self) -> EvaluationConfig:
        """Of the first; what decides the scores' meaning is the same in all."""
        return next(iter(self.evaluations.values())).config

    @property
    def amounts(self) -> tuple[int, ...]:
        """The amounts at which any of them was measured."""
        return tuple(sorted({amount for each in self.evaluations.values() for amount in each.config.amounts}))

    def at(self, amount: int) -> Round:
        """The comparison where at most `amount` is spent on each task."""
        standings = tuple(
            Standing(
                label, each.config.amounts[_point(each, amount)], each.estimate(self.config.score, _point(each, amount))
            )
            for label, each in self.evaluations.items()
        )
        labels = list(self.evaluations)
        duels = tuple(
            self._duel(one, other, amount) for index, one in enumerate(labels) for other in labels[index + 1 :]
        )
        return Round(amount, standings, duels)

    def _duel(self, one: str, other: str, amount: int) -> Duel:
        first, second = self.evaluations[one], self.evaluations[other]
        sign = -1 if self.config.score in LESS_IS_BETTER else 1
        x, y = (self.scores(label, amount) for label in (one, other))
        strata = [task.family for task in first.tasks]
        vary = not (first.config.fixed_tasks or second.config.fixed_tasks)
        difference, improvement = (
            comparison.mean_of_pairs(pairs, np.random.default_rng(self.config.seed), tasks_vary=vary, strata=strata)
            for pairs in (comparison.differences(x, y), comparison.improvements(sign * x, sign * y))
        )
        return Duel(one, other, difference, improvement)

    def scores(self, label: str, amount: int) -> Float[np.ndarray, "seed task"]:
        """An agent's scores after at most `amount`, the mean over its trials."""
        evaluation = self.evaluations[label]
        return evaluation.scores[:, :, _point(evaluation, amount)].mean(1)

    def profiles(self, amount: int) -> Chart:
        """Performance profiles: the share of tasks and seeds on which the score lies above a threshold."""
        scores = {label: self.scores(label, amount) for label in self.evaluations}
        low, high = (bound(float(bound(each)) for each in map(np.ravel, scores.values())) for bound in (min, max))
        room = 0.02 * (high - low) or 1.0
        thresholds = np.linspace(low - room, high + room, _THRESHOLDS)
        series = [self._profile(label, each, thresholds, number) for number, (label, each) in enumerate(scores.items())]
        config = self.config
        title = f"after at most {counted(amount, config.unit)}"
        about = f"Performance profiles {title}: the share of runs above each {config.score}."
        return line_chart([Panel(title, series)], f"threshold of the {config.score}", "share of runs above it", about)

    def _profile(
        self,
        label: str,
        scores: Float[np.ndarray, "seed task"],
        thresholds: Float[np.ndarray, " threshold"],
        colour: int,
    ) -> Series:
        evaluation = self.evaluations[label]
        strata = [task.family for task in evaluation.tasks]
        resample = "seeds" if evaluation.config.fixed_tasks else "seeds and tasks"
        chosen = thresholds[:: max(1, _THRESHOLDS // 40)]  # the band's ends: a bootstrap for each
        bands = [
            bootstrap(
                (scores > threshold).astype(float), mean, np.random.default_rng(0), resample=resample, strata=strata,
                resamples=500,
            )
            for threshold in chosen
        ]  # fmt: skip
        low, high = (np.interp(thresholds, chosen, [getattr(band, end) for band in bands]) for end in ("low", "high"))
        share = comparison.performance_profile(scores, thresholds)
        return Series(label, thresholds, share, low, high, colour, steps=True)


def compare(evaluations: Mapping[str, Evaluation]) -> Comparison:
    """Brings evaluations onto the tasks that they have in common.

    Raises:
        ValueError: fewer than two, or they cannot be compared: another distribution, score or unit, or no task in
            common; the message names both sides.
    """
    if len(evaluations) < 2:
        raise ValueError(f"a comparison needs at least two evaluations, got {', '.join(evaluations) or 'none'}")
    (name, first), *others = evaluations.items()
    for label, other in others:
        for field in _SAME:
            one, two = getattr(first.config, field), getattr(other.config, field)
            if one != two:
                raise ValueError(f"{name} and {label} cannot be compared: {field} is {one!r} and {two!r}")
    common = [task for task in first.tasks if all(task in other.tasks for _, other in others)]
    if not common:
        raise ValueError(f"{' and '.join(evaluations)} have no task in common")
    chosen = {label: each.on(common) for label, each in evaluations.items()}
    return Comparison(chosen, tuple(_notes(evaluations, len(common))))


def _notes(evaluations: Mapping[str, Evaluation], common: int) -> list[str]:
    notes = []
    if any(len(each.tasks) != common for each in evaluations.values()):
        counts = ", ".join(f"{label} {len(each.tasks)}" for label, each in evaluations.items())
        notes.append(f"compared on the {common} tasks in common ({counts} were evaluated)")
    seeds = {each.config.seed for each in evaluations.values()}
    if len(seeds) > 1:
        notes.append(f"other evaluation seeds ({', '.join(map(str, sorted(seeds)))}): resets and noise differ")
    most = max(each.config.amounts[-1] for each in evaluations.values())
    for label, each in evaluations.items():
        if each.config.amounts[-1] < most:
            reached = counted(each.config.amounts[-1], each.config.unit)
            notes.append(f"{label} was measured to {reached} only; beyond that its last point stands")
    alone = [label for label, each in evaluations.items() if len(each.sources) == 1]
    if alone:
        notes.append(f"one seed of {', '.join(alone)}: intervals say nothing about other seeds")
    return notes


def _point(evaluation: Evaluation, amount: int) -> int:
    """The last point of the curve that cost no more than `amount`."""
    return max(point for point, spent in enumerate(evaluation.config.amounts) if spent <= amount)


def comparison_table(found: Comparison) -> str:
    """A comparison as aligned text: at every amount the scores, the differences and who does better how often."""
    config, parts = found.config, list[str]()
    for amount in found.amounts:
        each = found.at(amount)
        number = f".{decimals(max(abs(standing.mean.value) for standing in each.standings))}f"
        rows = [["", f"mean {config.score}", f"{config.unit}s spent"]]
        rows += [[standing.label, f"{standing.mean:{number}}", str(standing.spent)] for standing in each.standings]
        duels = [["", "difference", "P(improvement)"]]
        duels += [
            [f"{duel.one} − {duel.other}", f"{duel.difference:{number}}", f"{duel.improvement:.2f}"]
            for duel in each.duels
        ]
        parts.append("\n".join([f"after at most {counted(amount, config.unit)}", *aligned(rows), "", *aligned(duels)]))
    head = f"{config.distribution} ({config.distribution_hash}), {config.split} tasks; [95 % interval]"
    meaning = "P(improvement): how often the first does better than the other on a task, ties counting half"
    remarks = [meaning, *(f"note: {note}" for note in found.notes)]
    return "\n\n".join([head, *parts, *("\n".join(textwrap.wrap(remark, 80)) for remark in remarks)])


def winners(found: Comparison) -> Sequence[str]:
    """What the largest amount decides, a sentence for each pair."""
    last, sentences = found.at(found.amounts[-1]), []
    for duel in last.duels:
        better = (duel.difference.value > 0) != (found.config.score in LESS_IS_BETTER)
        first, second = (duel.one, duel.other) if better else (duel.other, duel.one)
        verdict = f"{first} does better than {second}" if duel.decided else f"{first} and {second} cannot be told apart"
        limit = counted(found.amounts[-1], found.config.unit)
        sentences.append(f"{verdict} after at most {limit}: {duel.one} − {duel.other} is {duel.difference:.3g}")
    return sentences
