"""Records of figures as columns by name: as a CSV file, and as a pandas data frame where pandas is installed.

A frame of an evaluation is long ("tidy"): a row for every seed, trial, point of the curve and task.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from metarl.errors import UsageError
from metarl.evaluation.results import Evaluation
from metarl.tasks import Scalar

if TYPE_CHECKING:
    import pandas

Columns = Mapping[str, Sequence[Scalar | None]]
"""Columns by name, all of one length; None where a row has no value."""


def columns(evaluation: Evaluation) -> Columns:
    """An evaluation's scores, a row for each seed, trial, point and task.

    The columns are `learner`, `run`, `seed`, `checkpoint`, `step` (outer steps), `distribution`, `split`, `trial`,
    `adaptations`, `amount` (what was spent, in `unit`s), `unit`, `task` (its id), `family`, the tasks' parameters as
    `task.<name>`, and the metrics.
    """
    config, sources, tasks = evaluation.config, evaluation.sources, evaluation.tasks
    shape = evaluation.scores.shape
    seed, trial, point, task = (axis.reshape(-1).tolist() for axis in np.indices(shape))
    names = dict.fromkeys(name for each in tasks for name, _ in each.parameters)
    parameters = [dict(each.parameters) for each in tasks]
    count, ids = len(task), [each.id for each in tasks]
    return {
        "learner": [sources[row].learner for row in seed],
        "run": [sources[row].run for row in seed],
        "seed": [sources[row].seed for row in seed],
        "checkpoint": [sources[row].checkpoint for row in seed],
        "step": [sources[row].step for row in seed],
        "distribution": [config.distribution] * count,
        "split": [config.split] * count,
        "trial": trial,
        "adaptations": [config.adaptations[row] for row in point],
        "amount": [config.amounts[row] for row in point],
        "unit": [config.unit] * count,
        "task": [ids[row] for row in task],
        "family": [tasks[row].family for row in task],
        **{f"task.{name}": [parameters[row].get(name) for row in task] for name in names},
        **{name: values.reshape(-1).tolist() for name, values in evaluation.metrics.items()},
    }


def to_csv(table: Columns) -> str:
    """Columns as comma-separated text with a header; empty where there is no value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table)
    writer.writerows(zip(*table.values(), strict=True))
    return text.getvalue()


def to_frame(table: Columns) -> "pandas.DataFrame":
    """Columns as a data frame.

    Raises:
        UsageError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError:
        raise UsageError(
            "a data frame needs pandas, which is not installed: pip install pandas; to_csv does without"
        ) from None
    return pd.DataFrame(dict(table))
