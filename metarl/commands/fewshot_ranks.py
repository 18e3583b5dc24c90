"""Learners of tables ranked on held-out tables: `fewshot.py ranks runs/columns --data-root data --output ranks.json`.

Each run, and beside it classifiers of scikit-learn and the nearest centroid, which learn from a task's few rows alone,
on the same tasks. Mean ranks over the tables, Friedman's test and Nemenyi's critical difference; and, for each learner,
the tables on which it is best.

How long it takes: ten tables with gradient boosting 20 s of a processor's time.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from jaxtyping import Float

from metarl.commands.options import ComputeOptions, TrustOptions, check_output, parse, usage
from metarl.errors import UsageError
from metarl.evaluation.evaluate import Candidate, candidate_of, evaluate_with
from metarl.evaluation.judge import EvaluationSettings
from metarl.evaluation.results import Evaluation
from metarl.fewshot.centroid import CentroidConfig
from metarl.fewshot.class_choice import listed
from metarl.fewshot.classical import ClassicalConfig
from metarl.fewshot.data_options import open_benchmark
from metarl.fewshot.learner import FewShotLearner
from metarl.fewshot.tables.benchmark import TableBenchmark
from metarl.maths.ranks import RankTest, rank_test
from metarl.runs.files import encode_json, write_atomically
from metarl.runs.progress import progress_of_share
from metarl.runs.provenance import environment
from metarl.runs.run_folder import Which
from metarl.runs.trained import TrainedFewShot, labels_of, load_few_shot
from metarl.tasks import Split

Baseline = Literal["logistic", "neighbours", "boosting", "centroid"]
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class RanksOptions:
    """Which runs and baselines, and on which tasks."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of runs that were trained on tables."""
    baselines: tuple[Baseline, ...] = ("logistic", "neighbours", "boosting", "centroid")
    """What they are held against: scikit-learn's logistic regression, nearest neighbours and gradient boosting, and the
    nearest centroid."""
    shots: int | None = None
    """Support rows of each class; as the first run was evaluated if not given."""
    split: Split = "test"
    """Whose tables."""
    tasks: int | None = None
    """Tasks in all, of the tables in turn: 30 of each if not given."""
    data_root: Path | None = None
    """The folder of the published data sets; as in training if not given."""
    checkpoint: Which = "last"
    """The last checkpoint of the runs, or the best on validation."""
    output: Path | None = None
    """Also write everything, every task's accuracies too, to this JSON file."""
    trust: TrustOptions = TrustOptions()
    compute: ComputeOptions = ComputeOptions(threads=1)

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("name at least one run's folder")
        if len(self.runs) + len(set(self.baselines)) < 3:
            raise ValueError("ranks are tested of at least three learners: name more runs or --baselines")
        if self.output is not None:
            check_output(self.output)


def program(arguments: Sequence[str], name: str) -> None:
    """Evaluates, ranks, prints and writes."""
    options = parse(RanksOptions, arguments, name, __doc__)
    options.compute.use(linear_algebra_threads=options.compute.threads)
    device, trusted = options.compute.device, options.trust.trust_code
    runs = [load_few_shot(folder, options.checkpoint, device, trust_code=trusted) for folder in options.runs]
    with usage():
        benchmark = _benchmark(runs[0], options)
        candidates = {label: run.candidate for label, run in zip(labels_of(runs), runs, strict=True)}
        candidates |= {each: _baseline(each, benchmark) for each in dict.fromkeys(options.baselines)}
        settings = EvaluationSettings(split=options.split, num_tasks=options.tasks)
    found: dict[str, Evaluation] = {}
    for label, candidate in candidates.items():
        with progress_of_share(f"evaluating {label}") as on_progress, usage():
            found[label] = evaluate_with(benchmark, candidate, settings, on_progress)
    by_table = accuracies(found)
    with usage():
        test = rank_test(np.array([list(row.values()) for row in by_table.values()]))
    print(report(found, by_table, test, benchmark.shots))
    if options.output is not None:
        write_atomically(options.output, encode_json(_json(found, by_table, test, benchmark, options)))
        print(f"written to {options.output}")


def accuracies(found: Mapping[str, Evaluation]) -> dict[str, dict[str, float]]:
    """The mean accuracy after adaptation on each table, by table and learner."""
    tables = next(iter(found.values())).families
    return {
        table: {label: float(each.only(table).scores[:, :, -1].mean()) for label, each in found.items()}
        for table in tables
    }


def report(
    found: Mapping[str, Evaluation], by_table: Mapping[str, Mapping[str, float]], test: RankTest, shots: int
) -> str:
    """Mean accuracies, mean ranks, who differs, and who is best where."""
    labels = list(found)
    width = max(map(len, labels))
    count = len(next(iter(found.values())).tasks)
    lines = [f"{len(by_table)} tables, {count} tasks, {shots} rows a class", ""]
    lines.append(f"{'':{width}}  mean rank  accuracy [95 % interval]")
    order = sorted(range(len(labels)), key=lambda number: test.mean_ranks[number])
    for number in order:
        estimate = found[labels[number]].estimate("accuracy")
        lines.append(f"{labels[number]:{width}}  {test.mean_ranks[number]:9.2f}  {estimate:.3f}")
    apart = f"mean ranks {test.critical_difference:.2f} apart differ (Nemenyi, α = {test.alpha:g})"
    lines += ["", f"Friedman: p = {test.p_value:.2g}; {apart}"]
    first = order[0]
    alike = [labels[number] for number in order[1:] if not test.differ(first, number)]
    lines.append(f"not told apart from {labels[first]}: {', '.join(alike) or 'none'}")
    for label in labels:
        best = [table for table, row in by_table.items() if row[label] == max(row.values())]
        lines.append(f"{label} is best on {len(best)}: {listed(best, 30)}")
    return "\n".join(lines)


def _benchmark(run: TrainedFewShot, options: RanksOptions) -> TableBenchmark:
    data = run.data if options.data_root is None else dataclasses.replace(run.data, data_root=options.data_root)
    benchmark = open_benchmark(data, run.episodes, options.compute.device)
    if not isinstance(benchmark, TableBenchmark):
        raise UsageError(f"{run.run.folder} was trained on {benchmark.id}, not on tables")
    if options.shots is None:
        return benchmark
    return dataclasses.replace(benchmark, options=dataclasses.replace(benchmark.options, shots=options.shots))


def _baseline(name: Baseline, benchmark: TableBenchmark) -> Candidate[FewShotLearner]:
    config = CentroidConfig() if name == "centroid" else ClassicalConfig(name)
    learner = config.build(benchmark.record.signature)
    return candidate_of(learner, name)


def _json(
    found: Mapping[str, Evaluation],
    by_table: Mapping[str, Mapping[str, float]],
    test: RankTest,
    benchmark: TableBenchmark,
    options: RanksOptions,
) -> dict[str, object]:
    def last(evaluation: Evaluation) -> Float[np.ndarray, " task"]:
        return evaluation.scores[:, :, -1].mean((0, 1))

    return {
        "format": FORMAT,
        "data": benchmark.id,
        "data_hash": benchmark.hash,
        "split": options.split,
        "shots": benchmark.shots,
        "evaluation_seed": EvaluationSettings().seed,
        "environment": environment(options.compute.threads).to_json(),
        "tables": {split: benchmark.collection.names(split) for split in ("train", "validation", "test")},
        "learners": [
            {
                "name": label,
                "source": dataclasses.asdict(each.sources[0]),
                "mean_rank": float(test.mean_ranks[number]),
                "accuracies": last(each).tolist(),
            }
            for number, (label, each) in enumerate(found.items())
        ],
        "friedman_p": test.p_value,
        "critical_difference": test.critical_difference,
        "alpha": test.alpha,
        "by_table": {table: dict(row) for table, row in by_table.items()},
        "tasks": [task.to_json() for task in next(iter(found.values())).tasks],
    }
