"""How trained few-shot learners stand faults: `fewshot.py robustness runs/prototypical runs/maml --output runs/faults`.

Wrong labels in the support, noise, blur, attacks on queries and on supports, classes of unequal numbers: a curve for
each, written as JSON with every task's accuracy and drawn as SVG, all learners in one figure.

How long it takes: prototypical networks on 30 tasks of characters, all faults, 66 s of a processor's time.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from jaxtyping import Float

from metarl.commands.options import ComputeOptions, TrustOptions, check_output, parse, usage
from metarl.commands.other_tasks import OpenedData, OtherTasks
from metarl.errors import UsageError
from metarl.evaluation.charts import Chart, Panel, estimated, line_chart
from metarl.evaluation.judge import EvaluationSettings
from metarl.fewshot.benchmarks import ClassificationBenchmark
from metarl.fewshot.class_choice import listed
from metarl.fewshot.robustness import KINDS, LEVELS_OF, PGD, FaultLevels, Faults, Kind, impossible
from metarl.maths import statistics
from metarl.maths.statistics import Estimate
from metarl.runs.files import encode_json, write_atomically
from metarl.runs.progress import progress_of_share
from metarl.runs.provenance import environment
from metarl.runs.run_folder import Which
from metarl.runs.trained import TrainedFewShot, labels_of, load_few_shot

FORMAT = 1
_UNITS: Mapping[Kind, str] = {
    "label-noise": "share of support labels that are wrong",
    "noise": "standard deviation of the noise, black 0 to white 1",
    "blur": "standard deviation of the blur, px",
    "fgsm-query": "ε",
    "pgd-query": "ε",
    "fgsm-support": "ε",
    "pgd-support": "ε",
    "imbalance": "spread of the classes' shots",
}
Curves = Mapping[Kind, Float[np.ndarray, "level task"]]


@dataclasses.dataclass(frozen=True)
class RobustnessOptions:
    """Which runs, which faults, and how many tasks."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of few-shot runs: a line each."""
    kinds: tuple[Kind, ...] | None = None
    """The faults; if not given, all that the tasks can have: vectors are not blurred, one shot is never fewer."""
    tasks: int = 100
    """Test tasks."""
    checkpoint: Which = "last"
    """The last checkpoint, or the best on validation."""
    output: Path | None = None
    """Where to write, without an ending: OUTPUT.json and OUTPUT.svg. `robustness` in the run's folder if not given;
    several runs need it."""
    levels: FaultLevels = FaultLevels()
    other: OtherTasks = OtherTasks()
    evaluation_seed: int = EvaluationSettings().seed
    """Decides the tasks, their examples and what is wrong with them; the same for all that are to be compared."""
    trust: TrustOptions = TrustOptions()
    compute: ComputeOptions = ComputeOptions(threads=1)

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("name at least one run's folder")
        if len({path.resolve() for path in self.runs}) < len(self.runs):
            raise ValueError("a run is named twice")
        if self.output is None and len(self.runs) > 1:
            raise ValueError("--output says where the curves of several runs are written")
        if self.kinds is not None and not self.kinds:
            raise ValueError("name at least one of --kinds")
        if self.tasks < 2:
            raise ValueError(f"--tasks must be at least 2, got {self.tasks}")
        for option in (field.name for field in dataclasses.fields(FaultLevels)):
            kinds = PGD if option == "attack_steps" else [kind for kind in KINDS if LEVELS_OF[kind] == option]
            given = getattr(self.levels, option) != getattr(FaultLevels(), option)
            if given and self.kinds is not None and not set(kinds) & set(self.kinds):
                name = option.replace("_", "-")
                raise ValueError(f"--{name} is about {', '.join(kinds)}, of which none is among --kinds")
        if self.output is not None:
            check_output(self.json_path)

    @property
    def json_path(self) -> Path:
        """The file of the figures."""
        target = self.runs[0] / "robustness" if self.output is None else self.output
        return target.with_name(target.name + ".json")


def program(arguments: Sequence[str], name: str) -> None:
    """Measures, prints a table, and writes the figures and the chart."""
    options = parse(RobustnessOptions, arguments, name, __doc__)
    options.compute.use(linear_algebra_threads=options.compute.threads)
    with usage():
        settings = EvaluationSettings(num_tasks=options.tasks, seed=options.evaluation_seed)
    runs: list[tuple[TrainedFewShot, Faults]] = []
    opened: OpenedData = {}
    for folder in options.runs:
        run = load_few_shot(folder, options.checkpoint, options.compute.device, trust_code=options.trust.trust_code)
        with usage():
            benchmark = options.other.benchmark(run, "test", opened)
            if not isinstance(benchmark, ClassificationBenchmark):
                raise UsageError(f"{folder} was trained on tables; faults are of images and vectors")
            faults = Faults(benchmark, options.levels, _kinds(benchmark) if options.kinds is None else options.kinds)
        runs.append((run, faults))
    labels = labels_of([run for run, _ in runs])
    prepared = [(label, *each) for label, each in zip(labels, runs, strict=True)]
    first = prepared[0][2].benchmark
    for label, _, faults in prepared[1:]:
        other = faults.benchmark
        if (other.hash, other.ways, other.shots) != (first.hash, first.ways, first.shots):
            raise UsageError(f"{label} has other tasks than {prepared[0][0]}: give --data, --ways, --shots")
    names = [first.data.classes[number] for number in first.data.splits["test"]]
    size = f"{first.id}, {first.ways}-way {first.shots}-shot, {options.tasks} tasks"
    print(f"{size} of {len(names)} test classes: {listed(names)}")
    for kind, reason in impossible(first).items() if options.kinds is None else ():
        print(f"without {kind}: {reason}")
    found: dict[str, Curves] = {}
    for label, run, faults in prepared:
        with progress_of_share(f"faults of {label}") as on_progress, usage():
            found[label] = faults.measure(run.trained.learner, run.trained.state, settings, on_progress)
    print(text_table(found, options.levels, options.evaluation_seed))
    write_atomically(options.json_path, encode_json(_json(found, prepared, options)))
    svg = options.json_path.with_suffix(".svg")
    chart(found, options.levels, options.evaluation_seed).save(svg)
    print(f"written to {options.json_path} and {svg}")


def _kinds(benchmark: ClassificationBenchmark) -> tuple[Kind, ...]:
    """All that its tasks can have."""
    left_out = impossible(benchmark)
    return tuple(kind for kind in KINDS if kind not in left_out)


def estimates(accuracies: Float[np.ndarray, "level task"], seed: int) -> list[Estimate]:
    """The mean at each level, with its interval over tasks."""
    return [statistics.bootstrap(row[None], statistics.mean, np.random.default_rng(seed)) for row in accuracies]


def text_table(found: Mapping[str, Curves], levels: FaultLevels, seed: int) -> str:
    """A block for each fault, a line for each learner."""
    width, blocks = max(map(len, found)), list[str]()
    for kind in next(iter(found.values())):
        head = f"{kind + ' ':<{width}}  " + "  ".join(f"{level:>17g}" for level in levels.of(kind))
        rows = [
            f"{label:<{width}}  " + "  ".join(f"{each:.3f}" for each in estimates(curves[kind], seed))
            for label, curves in found.items()
        ]
        blocks.append("\n".join([head, *rows]))
    return "\n\n".join(["accuracy [95 % interval over tasks]", *blocks, ""])


def chart(found: Mapping[str, Curves], levels: FaultLevels, seed: int) -> Chart:
    """A panel for each fault, a line for each learner."""
    panels = [
        Panel(
            f"{kind}: {_UNITS[kind]}" if kind.startswith(("fgsm", "pgd")) else kind,
            [
                estimated(label, np.array(levels.of(kind)), estimates(curves[kind], seed), number)
                for number, (label, curves) in enumerate(found.items())
            ],
        )
        for kind in next(iter(found.values()))
    ]
    about = f"Accuracy of {', '.join(found)} under {', '.join(next(iter(found.values())))}."
    return line_chart(panels, "how much", "accuracy", about)


def _json(
    found: Mapping[str, Curves], prepared: Sequence[tuple[str, TrainedFewShot, Faults]], options: RobustnessOptions
) -> dict[str, object]:
    benchmark = prepared[0][2].benchmark
    return {
        "format": FORMAT,
        "data": benchmark.id,
        "data_hash": benchmark.hash,
        "test_classes": [benchmark.data.classes[number] for number in benchmark.data.splits["test"]],
        "ways": benchmark.ways,
        "shots": benchmark.shots,
        "queries": benchmark.options.evaluated.queries,
        "tasks": options.tasks,
        "evaluation_seed": options.evaluation_seed,
        "attack_steps": options.levels.attack_steps,
        "units": {kind: _UNITS[kind] for kind in prepared[0][2].kinds},
        "environment": environment(options.compute.threads).to_json(),
        "learners": [
            {
                "name": label,
                "source": dataclasses.asdict(run.ref),
                "batch_norm": run.trained.learner.batch_norms[0],
                "curves": {
                    kind: {
                        "levels": list(options.levels.of(kind)),
                        "mean": [each.value for each in estimates(values, options.evaluation_seed)],
                        "low": [each.low for each in estimates(values, options.evaluation_seed)],
                        "high": [each.high for each in estimates(values, options.evaluation_seed)],
                        "accuracies": values.tolist(),
                    }
                    for kind, values in found[label].items()
                },
            }
            for label, run, _ in prepared
        ],
    }
