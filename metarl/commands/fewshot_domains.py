r"""How few-shot learners do on sources that they were and were not trained on: `fewshot.py domains runs/one runs/two`.

Runs of learners that take any number of classes, on tasks of every source of a data set, of as many classes and
examples as Meta-Dataset's rule draws; beside them the nearest centroid of raw inputs. Mean accuracies by source and
over those that the data set trains on and all others, mean ranks, Friedman's test and Nemenyi's critical difference.

    fewshot.py prototypical --data image-domains --train-ways 5 20 \
        --train-shots 1 10 --run runs/one
    fewshot.py domains runs/one --output domains.json

How long it takes: one run on ten tasks of each of six sources 20 s of a processor's time, where images are decoded.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from metarl import checks
from metarl.commands.options import ComputeOptions, TrustOptions, check_output, parse, usage
from metarl.commands.other_tasks import fitted
from metarl.errors import UsageError
from metarl.evaluation.evaluate import Candidate, candidate_of, evaluate_with
from metarl.evaluation.judge import EvaluationSettings
from metarl.evaluation.results import Evaluation
from metarl.fewshot.centroid import CentroidConfig
from metarl.fewshot.data_options import DataOptions, data_set
from metarl.fewshot.dataset import FewShotDataset
from metarl.fewshot.datasets.image_domains import source_of
from metarl.fewshot.domains import TASKS_A_SOURCE, DomainBenchmark
from metarl.fewshot.episode_options import EpisodeOptions
from metarl.fewshot.learner import FewShotLearner
from metarl.maths import statistics
from metarl.maths.ranks import RankTest, rank_test
from metarl.maths.statistics import Estimate
from metarl.runs.files import encode_json, write_atomically
from metarl.runs.progress import progress_of_share
from metarl.runs.provenance import environment
from metarl.runs.run_folder import Which
from metarl.runs.trained import TrainedFewShot, labels_of, load_few_shot

FORMAT = 1
_MEANS = ("in-domain", "out-of-domain")
_CENTROID = "centroid of raw inputs"


@dataclasses.dataclass(frozen=True)
class DomainsOptions:
    """Which runs, and on which sources."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of runs: a line each."""
    data: str | None = None
    """A data set whose classes stand in groups (image-domains, clinc150); the first run's if not given."""
    data_root: Path | None = None
    """The folder of the published data sets; METARL_DATA, or `data`, if not given."""
    in_domain: tuple[str, ...] = ()
    """The sources that the runs were trained on; those that the data set has training classes of, if not given."""
    tasks: int = TASKS_A_SOURCE
    """Test tasks of each source."""
    checkpoint: Which = "last"
    """The last checkpoint of the runs, or the best on validation."""
    output: Path | None = None
    """Also write everything, every task's accuracies too, to this JSON file."""
    trust: TrustOptions = TrustOptions()
    compute: ComputeOptions = ComputeOptions(threads=1)

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("name at least one run's folder")
        checks.at_least(2, **{"--tasks": self.tasks})
        checks.at_most(checks.MOST, **{"--tasks": self.tasks})
        if self.output is not None:
            check_output(self.output)


@dataclasses.dataclass(frozen=True)
class Column:
    """A source, or the mean over several."""

    name: str
    sources: tuple[str, ...]


def program(arguments: Sequence[str], name: str) -> None:
    """Evaluates, ranks, prints and writes."""
    options = parse(DomainsOptions, arguments, name, __doc__)
    options.compute.use(linear_algebra_threads=options.compute.threads)
    device, trusted = options.compute.device, options.trust.trust_code
    runs = [load_few_shot(folder, options.checkpoint, device, trust_code=trusted) for folder in options.runs]
    for run in runs:
        if not run.trained.tasks.signature.classifies:
            raise UsageError(f"{run.run.folder} is a regression; sources have classes")
    with usage():
        data = data_set(_data_options(runs[0], options), EpisodeOptions())
        found: dict[str, Evaluation] = {}
        prepared = [(label, run.candidate, _as_taken(data, run)) for label, run in _labelled(runs)]
        columns = columns_of(data, options.in_domain)
        settings = EvaluationSettings(num_tasks=options.tasks * len(data.pools["test"]))
        prepared.append((_CENTROID, _centroid(prepared[0][2]), prepared[0][2]))
        for _, candidate, benchmark in prepared:
            benchmark.points(candidate.learner, settings)  # raises where it takes no such tasks
    for label, candidate, benchmark in prepared:
        with progress_of_share(f"evaluating {label}") as on_progress, usage():
            own = dataclasses.replace(candidate, distribution_hash=None)  # other sources are the point
            found[label] = evaluate_with(benchmark, own, settings, on_progress)
    with usage():
        test = ranked(found, columns) if len(found) > 2 else None
    print(report(found, columns, test, options.tasks))
    if options.output is not None:
        write_atomically(options.output, encode_json(_json(found, columns, test, data, options)))
        print(f"written to {options.output}")


def columns_of(data: FewShotDataset, in_domain: Sequence[str] = ()) -> list[Column]:
    """The test sources, those of training first, and the means over the two kinds.

    Args:
        in_domain: the sources of training; those that the data set has training classes of, if none is named.

    Raises:
        ValueError: one that is not tested.
    """
    tested = list(dict.fromkeys(source_of(data.groups[pool[0]]) for pool in data.pools["test"]))
    if unknown := [name for name in in_domain if name not in tested]:
        raise ValueError(f"--in-domain {unknown[0]}: {data.id} tests {', '.join(tested)}")
    trained = set(in_domain) or {source_of(data.groups[number]) for number in data.splits["train"]}
    kinds = [tuple(each for each in tested if (each in trained) is inside) for inside in (True, False)]
    singles = [Column(name, (name,)) for kind in kinds for name in kind]
    return [*singles, *(Column(name, kind) for name, kind in zip(_MEANS, kinds, strict=True) if kind)]


def ranked(found: Mapping[str, Evaluation], columns: Sequence[Column]) -> RankTest:
    """Learners ranked by their accuracy on each source.

    Raises:
        ValueError: there is one source.
    """
    singles = [column for column in columns if column.name not in _MEANS]
    return rank_test(np.array([[estimate(each, column).value for each in found.values()] for column in singles]))


def estimate(found: Evaluation, column: Column) -> Estimate:
    """The mean accuracy after the support, every source weighing the same, with its interval over tasks."""
    last = found.scores[0, :, -1].mean(0)
    families = [task.family for task in found.tasks]
    kept = np.isin(families, column.sources)
    strata = [family for family in families if family in column.sources]
    return statistics.bootstrap(
        last[None, kept], statistics.mean, np.random.default_rng(found.config.seed), strata=strata
    )


def report(found: Mapping[str, Evaluation], columns: Sequence[Column], test: RankTest | None, tasks: int) -> str:
    """A line for each learner, best rank first, and who differs."""
    width, cell = max(map(len, found)), 22
    labels = list(found)
    order = range(len(labels)) if test is None else np.argsort(test.mean_ranks, kind="stable")
    head = "".join(f"{column.name:>{cell}}" for column in columns)
    lines = [f"{tasks} tasks of each source; accuracy [95 % interval over tasks]", "", f"{'':{width}}{head}  mean rank"]
    for number in order:
        label = labels[number]
        cells = "".join(f"{estimate(found[label], column):.3f}".rjust(cell) for column in columns)
        lines.append(f"{label:{width}}{cells}  {'' if test is None else format(test.mean_ranks[number], '9.2f')}")
    if test is None:
        return "\n".join([*lines, "", "ranks are tested of at least three learners: name more runs"])
    apart = f"mean ranks {test.critical_difference:.2f} apart differ (Nemenyi, α = {test.alpha:g})"
    return "\n".join([*lines, "", f"Friedman: p = {test.p_value:.2g}; {apart}"])


def _labelled(runs: Sequence[TrainedFewShot]) -> list[tuple[str, TrainedFewShot]]:
    return list(zip(labels_of(runs), runs, strict=True))


def _data_options(run: TrainedFewShot, options: DomainsOptions) -> DataOptions:
    data = run.data
    if options.data is not None and DataOptions(options.data).id != data.id:
        data = DataOptions(options.data, text_encoder=data.text_encoder)
    return data if options.data_root is None else dataclasses.replace(data, data_root=options.data_root)


def _as_taken(data: FewShotDataset, run: TrainedFewShot) -> DomainBenchmark:
    """The test classes as the run's learner takes them; raises UsageError where it was trained on one of them."""
    tested = {data.classes[number] for number in data.splits["test"]}
    known = run.classes
    trained = sorted(tested & set(known.train)) if known is not None else []
    if trained:
        raise UsageError(f"{run.run.folder} was trained on {trained[0]}, which {data.id} tests")
    return DomainBenchmark(fitted(data, run.trained.tasks, "test").on(str(run.trained.state.device)))


def _centroid(benchmark: DomainBenchmark) -> Candidate[FewShotLearner]:
    learner = CentroidConfig().build(benchmark.data.signature(2, 1))
    return candidate_of(learner, "centroid")


def _json(
    found: Mapping[str, Evaluation],
    columns: Sequence[Column],
    test: RankTest | None,
    data: FewShotDataset,
    options: DomainsOptions,
) -> dict[str, object]:
    first = next(iter(found.values()))
    return {
        "format": FORMAT,
        "data": data.id,
        "data_hash": data.hash,
        "tasks_a_source": options.tasks,
        "evaluation_seed": first.config.seed,
        "rule": dataclasses.asdict(DomainBenchmark(data).rule),
        "environment": environment(options.compute.threads).to_json(),
        "columns": {column.name: list(column.sources) for column in columns},
        "friedman_p": None if test is None else test.p_value,
        "critical_difference": None if test is None else test.critical_difference,
        "learners": [
            {
                "name": label,
                "source": dataclasses.asdict(each.sources[0]),
                "batch_norm": each.config.batch_norm,
                "mean_rank": None if test is None else float(test.mean_ranks[number]),
                "columns": {
                    column.name: {"mean": value.value, "low": value.low, "high": value.high}
                    for column in columns
                    for value in [estimate(each, column)]
                },
                "accuracies": {
                    family: np.round(each.only(family).scores[0, :, -1].mean(0), 6).tolist() for family in each.families
                },
            }
            for number, (label, each) in enumerate(found.items())
        ],
        "ways": [len(str(task["classes"]).split()) for task in first.tasks],
    }
