"""Evaluations with made-up scores, for the tests of what shows them."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from metarl.evaluation.records import CheckpointRef, EvaluationConfig
from metarl.evaluation.results import Evaluation
from metarl.runs import metrics, run_folder
from metarl.runs.provenance import Environment
from metarl.runs.run_folder import Experiment, Kind
from metarl.tasks import Task

HERE = Environment(1, {"python": "3.11.7", "torch": "2.13.0"}, "abc123", dirty=False)

TASKS = tuple(
    Task.of("ice", friction=0.02 * number) if number % 2 else Task.of("slope", slope=float(number))
    for number in range(8)
)


def made_up(
    learner: str = "maml",
    run: str = "ice",
    seeds: Sequence[int] = (0,),
    *,
    gain: float = 5.0,
    amounts: tuple[int, ...] = (0, 1, 2),
    tasks: tuple[Task, ...] = TASKS,
    distribution: str = "fake-terrain",
    foreign: bool = True,
) -> Evaluation:
    """Task t of seed s scores 10 t + s + gain × amount, and half the gain after another task's experience."""
    config = EvaluationConfig(
        distribution=distribution,
        distribution_hash="0123456789abcdef",
        split="test",
        held_out=True,
        fixed_tasks=False,
        score="return",
        adaptations=tuple(range(len(amounts))),
        amounts=amounts,
        unit="episode",
        episodes_per_adaptation=1,
        trials=1,
        seed=0,
        actions="sampled",
    )
    sources = tuple(
        CheckpointRef(learner, f"{run}-{seed}" if len(seeds) > 1 else run, seed, "last", 10) for seed in seeds
    )
    base = 10.0 * np.arange(len(tasks)) + np.array(seeds, float)[:, None, None, None]
    spent = np.array(amounts, float)[:, None]
    metrics = {"return": base + gain * spent, "diverged": np.zeros((len(seeds), 1, len(amounts), len(tasks)))}
    if foreign:
        metrics["foreign_return"] = base + gain / 2 * spent
    return Evaluation(config, tasks, sources, metrics)


def renamed(evaluation: Evaluation, **fields: object) -> Evaluation:
    """The evaluation with other fields of its configuration."""
    config = dataclasses.replace(evaluation.config, **fields)
    return dataclasses.replace(evaluation, config=config)


def write_run(
    folder: Path,
    rows: Sequence[Mapping[str, float]] = (),
    *,
    learner: str = "maml",
    seed: int = 0,
    distribution: str = "fake-terrain",
    kind: Kind = "agent",
    evaluations: Mapping[str, Evaluation] | None = None,
) -> Path:
    """A run's folder with a config, a line of metrics for each row (outer steps from 1), and evaluations by name."""
    options = {"learner": {"inner_lr": 0.1}}
    experiment = Experiment(kind, learner, options, distribution, "0123456789abcdef", seed)
    with run_folder.open_run(folder, experiment, steps=max(1, len(rows)), environment=HERE) as run:
        with metrics.recording(folder, 1) as recorder:
            for step, row in enumerate(rows, 1):
                recorder.log(step, {name: float(value) for name, value in row.items()})
        for name, evaluation in (evaluations or {}).items():
            run.write_evaluation(name, evaluation.to_json())
    return folder
