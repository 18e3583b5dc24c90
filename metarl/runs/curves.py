"""Learning curves: the metrics of runs as columns, with the environment steps that align different agents."""

from pathlib import Path
from typing import TYPE_CHECKING

from metarl.evaluation import frames
from metarl.evaluation.frames import Columns
from metarl.runs import metrics, run_folder
from metarl.runs.run_folder import Run

if TYPE_CHECKING:
    import pandas

ENV_STEPS = "env_steps"
"""The column of the environment steps so far."""


def learning_curves(*folders: str | Path) -> "pandas.DataFrame":
    """The metrics of runs as a data frame, a row for each run and outer step: `metarl.learning_curves("runs/ice")`.

    The columns are `run`, `learner`, `distribution`, `seed`, `step` (outer steps), `env_steps` (environment steps so
    far, which align agents; none in few-shot runs), `wall_time` (s since 1970), and the metrics by name.

    Raises:
        UsageError: pandas is not installed, or there is no run in a folder.
        RunError: its files cannot be read.
    """
    return frames.to_frame(columns([run_folder.read(Path(folder)) for folder in folders]))


def columns(runs: list[Run]) -> Columns:
    """The metrics of runs, a row for each run and outer step; None where a step has no such metric."""
    rows = [(run, row) for run in runs for row in metrics.read(run.folder)]
    leading = dict.fromkeys(("step", ENV_STEPS, "wall_time"))
    names = leading | dict.fromkeys(name for _, row in rows for name in row)
    if not any(ENV_STEPS in row for _, row in rows):
        names.pop(ENV_STEPS)
    experiments = [run.config.experiment for run, _ in rows]
    return {
        "run": [run.folder.name for run, _ in rows],
        "learner": [experiment.learner for experiment in experiments],
        "distribution": [experiment.distribution for experiment in experiments],
        "seed": [experiment.seed for experiment in experiments],
        **{name: [row.get(name) for _, row in rows] for name in names},
    }
