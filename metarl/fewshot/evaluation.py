"""How well a few-shot learner does on held-out tasks: errors after 0, 1, ... steps, over hundreds of tasks."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from torch import Tensor

from metarl.fewshot.examples import Examples
from metarl.learner import State
from metarl.statistics import t_interval
from metarl.tasks import Json, Split, Task

SEED = 20_170_309
"""Decides supports and queries: the same for every run."""
QUERIES = 100
"""Query examples of each task."""


@runtime_checkable
class Regressor(Protocol):
    """A learner whose error on a query can be measured after any number of inner steps."""

    def errors(self, state: State, support: Examples, query: Examples, steps: int) -> Float[Tensor, " task"]:
        """Each task's mean squared error."""
        ...


@runtime_checkable
class ExampleDistribution(Protocol):
    """Tasks, and examples of them."""

    def tasks(self, split: Split) -> tuple[Task, ...]: ...

    def examples(self, tasks: tuple[Task, ...], count: int, rng: np.random.Generator) -> Examples: ...


def errors_by_step(
    learner: Regressor, data: ExampleDistribution, state: State, split: Split, shots: int, steps: Sequence[int]
) -> dict[int, Float[np.ndarray, " task"]]:
    """Each task's mean squared error after each number of inner steps, all on the same supports and queries."""
    rng = np.random.default_rng([SEED, shots])
    tasks = data.tasks(split)
    support, query = data.examples(tasks, shots, rng), data.examples(tasks, QUERIES, rng)
    return {count: learner.errors(state, support, query, count).cpu().numpy().astype(np.float64) for count in steps}


def to_json(found: Mapping[int, Mapping[int, Float[np.ndarray, " task"]]], step: int) -> dict[str, Json]:
    """Figures with 95 % intervals and the raw errors, by shots, then by inner steps."""
    by_shots: dict[str, Json] = {}
    for shots, errors in found.items():
        rows: dict[str, Json] = {}
        for count, values in errors.items():
            estimate = t_interval(values)
            rows[str(count)] = {
                "mean": estimate.value,
                "interval": [estimate.low, estimate.high],
                "tasks": len(values),
                "errors": [round(float(value), 6) for value in values],
            }
        by_shots[str(shots)] = rows
    return {"figure": "mean squared error", "seed": SEED, "queries": QUERIES, "step": step, "shots": by_shots}


def table(found: Mapping[int, Mapping[int, Float[np.ndarray, " task"]]]) -> str:
    """Mean squared error ± 95 % by shots and inner steps."""
    counts = list(next(iter(found.values())))
    tasks = len(next(iter(next(iter(found.values())).values())))
    lines = [f"mean squared error ± 95 %, {tasks} held-out tasks, after n inner steps", ""]
    lines.append("shots " + "".join(f"{f'n = {count}':>18}" for count in counts))
    for shots, errors in found.items():
        estimates = (t_interval(values) for values in errors.values())
        cells = (f"{each.value:.3f} ± {(each.high - each.low) / 2:.3f}" for each in estimates)
        lines.append(f"{shots:<6}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(lines)
