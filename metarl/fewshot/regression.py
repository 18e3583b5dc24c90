"""How well a few-shot learner does on held-out regressions: mean squared errors over hundreds of tasks.

A learner that adapts by gradient steps is judged after 0, 1, ... of them; any other after it has adapted.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from torch import Tensor

from metarl.fewshot.evaluation import estimate_to_json
from metarl.fewshot.examples import Examples
from metarl.fewshot.learner import FewShotLearner
from metarl.learning.protocols import State
from metarl.maths.statistics import t_interval
from metarl.tasks import Json, Split, Task

SEED = 20_170_309
"""Decides supports and queries: the same for every run."""
QUERIES = 100
"""Query examples of each task."""

Found = Mapping[int, Mapping[str, Float[np.ndarray, " task"]]]
"""Errors by shots, then by the number of inner steps, or `adapted`."""


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


def draw(
    data: ExampleDistribution, split: Split, shots: int, tasks: int | None = None, device: str = "cpu"
) -> tuple[Examples, Examples]:
    """Supports and queries of a split's frozen tasks, or the first of them: the same for every learner."""
    rng = np.random.default_rng([SEED, shots])
    listed = data.tasks(split)[:tasks]
    support, query = (data.examples(listed, count, rng) for count in (shots, QUERIES))
    return support.to(device), query.to(device)


def errors_by_step(
    learner: Regressor, state: State, support: Examples, query: Examples, steps: Sequence[int]
) -> dict[int, Float[np.ndarray, " task"]]:
    """Each task's mean squared error after each number of inner steps."""
    return {count: learner.errors(state, support, query, count).cpu().numpy().astype(np.float64) for count in steps}


def errors_adapted(
    learner: FewShotLearner, state: State, support: Examples, query: Examples
) -> Float[np.ndarray, " task"]:
    """Each task's mean squared error after adaptation."""
    predicted = learner.adapt(state, support, learner.batch_norms[0]).predict(query.inputs).detach()
    return ((predicted - query.targets) ** 2).flatten(1).mean(1).cpu().numpy().astype(np.float64)


def to_json(found: Found) -> dict[str, Json]:
    """Figures with 95 % intervals and the raw errors, by shots, then by inner steps."""
    by_shots: dict[str, Json] = {}
    for shots, errors in found.items():
        rows: dict[str, Json] = {}
        for name, values in errors.items():
            rows[name] = {
                **estimate_to_json(t_interval(values)),
                "tasks": len(values),
                "errors": [round(float(value), 6) for value in values],
            }
        by_shots[str(shots)] = rows
    return {"figure": "mean squared error", "seed": SEED, "queries": QUERIES, "shots": by_shots}


def table(found: Found) -> str:
    """Mean squared error ± 95 % by shots and inner steps."""
    names = list(next(iter(found.values())))
    tasks = len(next(iter(next(iter(found.values())).values())))
    lines = [f"mean squared error ± 95 %, {tasks} held-out tasks, after n inner steps", ""]
    lines.append("shots " + "".join(f"{f'n = {name}' if name.isdigit() else name:>18}" for name in names))
    for shots, errors in found.items():
        estimates = (t_interval(values) for values in errors.values())
        cells = (f"{each.value:.3f} ± {(each.high - each.low) / 2:.3f}" for each in estimates)
        lines.append(f"{shots:<6}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(lines)
