"""Why a trained few-shot learner answers as it does: `fewshot.py insight runs/maml --tasks 3`.

On test tasks: what leaving each support example out does to each query's right answer; how far adaptation moves
parameters and layers; distances to prototypes, attention to the support, what a memory reads; embeddings before and
after in two dimensions. Written as `insight.json` of the run's folder, and as pictures that `report` shows.

How long it takes: three tasks of prototypical networks on characters nine seconds of a processor's time.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from jaxtyping import Float

from metarl import checks
from metarl.commands.options import ComputeOptions, TrustOptions, parse, usage
from metarl.commands.other_tasks import OtherTasks
from metarl.errors import UsageError
from metarl.evaluation.judge import EvaluationSettings
from metarl.fewshot import insight_picture
from metarl.fewshot.benchmarks import ClassificationBenchmark
from metarl.fewshot.insight import Insight, look_into
from metarl.runs import files
from metarl.runs.files import encode_json, write_atomically, writing
from metarl.runs.progress import progress_of_share
from metarl.runs.provenance import environment
from metarl.runs.run_folder import Which
from metarl.runs.trained import TrainedFewShot, load_few_shot
from metarl.tasks import Task

FORMAT = 2
_MOST_TASKS = 100


@dataclasses.dataclass(frozen=True)
class InsightOptions:
    """Which run, and how many tasks."""

    run: Annotated[Path, tyro.conf.Positional]
    """The folder of a few-shot run."""
    tasks: int = 1
    """Test tasks that are looked into."""
    adaptations: int | None = None
    """Adaptations, as in evaluations if not given."""
    checkpoint: Which = "last"
    """The last checkpoint, or the best on validation."""
    other: OtherTasks = OtherTasks()
    evaluation_seed: int = EvaluationSettings().seed
    """Decides the tasks and their examples, as in evaluations."""
    trust: TrustOptions = TrustOptions()
    compute: ComputeOptions = ComputeOptions(threads=1)

    def __post_init__(self) -> None:
        checks.count(**{"--tasks": self.tasks})
        checks.at_most(_MOST_TASKS, **{"--tasks": self.tasks})
        if self.adaptations is not None:
            checks.count(**{"--adaptations": self.adaptations})


def program(arguments: Sequence[str], name: str) -> None:
    """Looks into the tasks, prints what was found, and writes figures and pictures."""
    options = parse(InsightOptions, arguments, name, __doc__)
    options.compute.use(linear_algebra_threads=options.compute.threads)
    run = load_few_shot(options.run, options.checkpoint, options.compute.device, trust_code=options.trust.trust_code)
    with usage():
        benchmark = options.other.benchmark(run, "test")
        if not isinstance(benchmark, ClassificationBenchmark):
            raise UsageError(f"{options.run} was trained on tables; this is about images and vectors")
        settings = EvaluationSettings(
            num_tasks=options.tasks, seed=options.evaluation_seed, num_adaptations=options.adaptations
        )
        last = benchmark.points(run.trained.learner, settings).adaptations[-1]
        tasks = benchmark.tasks(settings)
    found: list[Insight] = []
    with progress_of_share(f"looking into {options.run.name}") as on_progress:
        for number, task in enumerate(tasks):
            support, query = benchmark.examples(task, settings.seed)
            found.append(look_into(run.trained.learner, run.trained.state, support, query, last))
            on_progress((number + 1) / len(tasks))
    if found[0].influence is None:
        print("each class is shown once, so no example can be left out: add --shots 2 or more for the influence")
    pictures = run.run.pictures
    with writing(pictures):
        files.make_folder(pictures)
    for number, each in enumerate(found):
        title = f"{run.ref.learner}, {benchmark.id}, test task {number}"
        print(f"{title}: {insight_picture.about(each)}")
        write_atomically(pictures / f"insight-{number}.png", insight_picture.picture(each, title))
    path = run.run.folder / "insight.json"
    write_atomically(path, encode_json(_json(run, benchmark, tasks, found, options)))
    print(f"written to {path} and {pictures}/insight-*.png; next: metarl report {options.run}")


def _json(
    run: TrainedFewShot,
    benchmark: ClassificationBenchmark,
    tasks: Sequence[Task],
    found: Sequence[Insight],
    options: InsightOptions,
) -> dict[str, object]:
    return {
        "format": FORMAT,
        "data": benchmark.id,
        "data_hash": benchmark.hash,
        "source": dataclasses.asdict(run.ref),
        "evaluation_seed": options.evaluation_seed,
        "environment": environment(options.compute.threads).to_json(),
        "tasks": [_of_task(task, each) for task, each in zip(tasks, found, strict=True)],
    }


def _of_task(task: Task, found: Insight) -> dict[str, object]:
    embeddings = found.embeddings
    return {
        "task": task.to_json(),
        "support_targets": found.support_targets.tolist(),
        "query_targets": found.query_targets.tolist(),
        "log_probabilities": _rounded(found.log_probabilities),
        "influence": None if found.influence is None else _rounded(found.influence),
        "relative_changes": found.changes,
        "cka": found.similarities,
        "weights": {name: {"over": over, "values": _rounded(values)} for name, (over, values) in found.weights.items()},
        "embeddings": None
        if embeddings is None
        else {
            "before": _rounded(embeddings.before),
            "after": _rounded(embeddings.after),
            "explained_variance": embeddings.explained,
        },
    }


def _rounded(values: Float[np.ndarray, "..."]) -> object:
    return np.round(values.astype(np.float64), 6).tolist()
