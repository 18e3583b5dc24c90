"""Evaluates runs on the frozen list of a split: `evaluate.py runs/ice --split test`. Several runs count as seeds."""

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from metarl.commands.options import Machine, parse, trial_schedule, usage
from metarl.errors import RunError, warn
from metarl.evaluation import SEED, Evaluation, aggregate, evaluate
from metarl.files import encode_json, write_atomically
from metarl.progress import progress
from metarl.tasks import Split
from metarl.trained import Trained, Which, load


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """What to evaluate, on what, and how thoroughly."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of runs; more than one are taken as seeds of one experiment and summed up together."""
    split: Split = "test"
    """Which of the distribution's frozen lists."""
    checkpoint: Which = "last"
    """The last checkpoint, or the best on validation."""
    rounds: int | None = None
    """Adaptations in a trial; as trained if not given."""
    episodes: int | None = None
    """Episodes on each task at each point of the curve; as trained if not given."""
    trials: int = 1
    """Trials on each task, averaged. Take many where a point is a single episode, as with RL²."""
    num_tasks: int | None = None
    """Only the first tasks of the list; all if not given."""
    evaluation_seed: int = SEED
    """Decides every reset and every action's noise; the same for all runs that are to be compared."""
    output: Path | None = None
    """Also write the raw numbers of all runs together to this JSON file."""
    machine: Machine = Machine()

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("name at least one run's folder")


def program(arguments: Sequence[str], name: str) -> None:
    """Evaluates each run, writes `evaluations/<split>.json` into its folder and prints the table."""
    options = parse(EvaluateOptions, arguments, name, __doc__)
    options.machine.use()
    found: list[Evaluation] = []
    for folder in options.runs:
        trained = load(folder, options.checkpoint, options.machine.threads, options.machine.device)
        evaluation = evaluate_run(trained, options)
        path = trained.run.write_evaluation(options.split, evaluation.to_json(), best=options.checkpoint == "best")
        print(f"written to {path}")
        found.append(evaluation)
    with usage():
        together = aggregate(found)
    if options.output is not None:
        if not options.output.parent.is_dir():
            raise RunError(f"--output {options.output}: there is no folder {options.output.parent}")
        write_atomically(options.output, encode_json(together.to_json()))
        print(f"all runs together written to {options.output}")
    print(together.table())


def evaluate_run(trained: Trained, options: EvaluateOptions) -> Evaluation:
    """The evaluation of one run, with progress; a change of the distribution is one warning line."""
    schedule = trial_schedule(trained.agent.schedule, options.rounds, options.episodes)
    total = options.trials * (schedule.rounds + 1)
    with (
        usage(),
        warnings.catch_warnings(record=True) as caught,
        progress(f"evaluating {trained.source.run}", max(total, 1)) as shown,
    ):
        warnings.simplefilter("always")
        evaluation = evaluate(
            trained,
            trained.dist,
            options.split,
            schedule=schedule,
            trials=options.trials,
            num_tasks=options.num_tasks,
            seed=options.evaluation_seed,
            threads=options.machine.threads,
            on_progress=lambda done, _: shown.update(done, {}),
        )
    for message in caught:
        warn(str(message.message))
    return evaluation
