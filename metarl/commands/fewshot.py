"""Trains a few-shot learner, then evaluates it on held-out tasks.

`fewshot.py prototypical --data omniglot --ways 5 --shots 1 --run runs/omniglot`; the same command again resumes, and
evaluates again what is trained: with `--also 5x5 20x1`, on tasks of 5 ways and 5 shots, and of 20 ways and 1 shot, too.
`fewshot.py --list` names the learners, encoders and data sets. Own images: `--data folder`, with `folder/class/*.png`.
An encoder after the learner has its own options: `fewshot.py prototypical conv4 --filters 32 --data ...`.
Of trained learners, `fewshot.py robustness runs/omniglot` measures how they stand faults, `fewshot.py insight
runs/omniglot` looks into some of their answers, `fewshot.py ranks runs/columns` ranks them on tables, `fewshot.py
domains runs/images` measures them on sources of images that they were and were not trained on, and `fewshot.py
screening runs/cells --data breast` looks for a finding after a few examples; `fewshot.py openml 31 --output tables`
fetches tables. `--help` says more of each.

How long it takes: 600 outer steps of prototypical networks over a projection of texts (`arsc`) 26 s of training,
1,200 of `columns` on tables 207 s, each on a busy core.
"""

import dataclasses
import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar, cast, final

import tyro

from metarl import checks
from metarl.commands.options import (
    ComputeOptions,
    RunOptions,
    first_line,
    learner_id,
    parse,
    subcommands,
    usage,
)
from metarl.errors import UsageError, warn
from metarl.evaluation.evaluate import Candidate, evaluate_with
from metarl.evaluation.judge import EvaluationSettings
from metarl.evaluation.records import LESS_IS_BETTER, CheckpointRef
from metarl.evaluation.results import Evaluation
from metarl.evaluation.table import table
from metarl.fewshot import answers, datasets, encoders, outer_step, plot, texts
from metarl.fewshot.benchmarks import Benchmark, ClassificationBenchmark, RegressionBenchmark, Size
from metarl.fewshot.class_choice import ClassChoice, class_lines, listed
from metarl.fewshot.data_options import SINUSOID, DataOptions, open_benchmark
from metarl.fewshot.encoders import EncoderConfig
from metarl.fewshot.episode_options import EpisodeOptions
from metarl.fewshot.given_tasks import GivenTasks
from metarl.fewshot.instance_accuracy import InstanceAccuracy
from metarl.fewshot.learner import (
    BatchNorm,
    EmbeddingLearner,
    FewShotLearner,
    LearnerConfig,
    SequenceLearner,
    need_batch_norm,
)
from metarl.fewshot.network import ENCODER, NetworkLearner
from metarl.fewshot.registry import LEARNERS
from metarl.fewshot.tables import pmlb
from metarl.fewshot.tables.benchmark import TableBenchmark
from metarl.learning.protocols import Metrics, State
from metarl.runs import files, metrics, run_folder
from metarl.runs.files import as_text, write_atomically, writing
from metarl.runs.progress import progress_of_share
from metarl.runs.run_folder import Which, evaluation_name
from metarl.runs.session import SCORE, RunRequest, TrainingOptions, train
from metarl.runs.trained import checkpoint_of, fewshot_groups, learner_of, with_encoder, write_classes
from metarl.runs.warm_start import warm_parameters
from metarl.tasks import SPLITS

Learner = TypeVar("Learner", bound=LearnerConfig)
EncoderOptions = TypeVar("EncoderOptions", bound="EncoderConfig | PaperEncoder")
_VALIDATION_TASKS = 200
_DRAWN_TASKS = 3
PROGRAMS = {
    "robustness": "metarl.commands.fewshot_robustness",
    "insight": "metarl.commands.fewshot_insight",
    "ranks": "metarl.commands.fewshot_ranks",
    "domains": "metarl.commands.fewshot_domains",
    "openml": "metarl.commands.fewshot_openml",
    "screening": "metarl.commands.fewshot_screening",
}
"""What else there is to do with few-shot learners, by the first argument."""


@final
@dataclasses.dataclass(frozen=True)
class PaperEncoder:
    """As the papers have it: Conv4 for images, a multi-layer perceptron for vectors."""


@dataclasses.dataclass(frozen=True)
class FewshotOptions(Generic[Learner, EncoderOptions]):
    """Which learner, on which data, and for how long."""

    learner: Learner
    run: RunOptions
    data: DataOptions
    encoder: EncoderOptions = cast(EncoderOptions, PaperEncoder())
    classes: ClassChoice = ClassChoice()
    episodes: EpisodeOptions = EpisodeOptions()
    loop: TrainingOptions = TrainingOptions(steps=20_000, checkpoint_every=1000, validate_every=1000)
    validation_tasks: int | None = None
    """Validation tasks that the score is the mean over: 200 if not given; of a regression, all in its list."""
    tasks: int | None = None
    """Test tasks of the evaluation: 1000 if not given; of a regression, all in its list."""
    also: tuple[str, ...] = ()
    """Other sizes of test tasks to evaluate on: ways x shots, 5x5 20x1, or ways x shots x queries, 5x1x3."""
    start_from: Path | None = None
    """Begin with the features that another run learned on the same data: its last checkpoint (runs/other) or
    any (runs/other/checkpoints/500). Learner and options may differ, the encoder may not. Steps count from 0 again."""
    checkpoint: Which = "last"
    """Which checkpoint is evaluated: the last, or the best on validation."""
    batch_norms: tuple[str, ...] = ()
    """The batch-norm modes that are evaluated, of running, transductive and support. All of the learner's if not given;
    but where it embeds every image once in its first mode, only that one: in the others an image is embedded anew for
    each task that it is in, which takes ten times as long."""
    compute: ComputeOptions = ComputeOptions(threads=1)

    def __post_init__(self) -> None:
        for name, value in (("--validation-tasks", self.validation_tasks), ("--tasks", self.tasks)):
            if value is not None:
                checks.at_least(2, **{name: value})
                checks.at_most(checks.MOST, **{name: value})


AnyOptions = FewshotOptions[LearnerConfig, EncoderConfig | PaperEncoder]


def program(arguments: Sequence[str], name: str) -> None:
    """Trains in the run's folder, new or begun, then evaluates on the held-out tasks."""
    if "--list" in arguments:
        print(listing())
        return
    if arguments and arguments[0] in PROGRAMS:
        module = importlib.import_module(PROGRAMS[arguments[0]])
        module.program(arguments[1:], f"{name} {arguments[0]}")
        return
    learner = cast(type[LearnerConfig], subcommands(LEARNERS, arguments))
    encoder = cast(type[EncoderConfig | PaperEncoder], _encoders(arguments))
    options = parse(FewshotOptions[learner, encoder], arguments, name, __doc__)
    options.compute.use(linear_algebra_threads=options.compute.threads)
    with usage():
        benchmark = open_benchmark(options.data, options.episodes, options.compute.device, options.classes)
        config = options.learner
        if not isinstance(options.encoder, PaperEncoder):
            config = with_encoder(config, options.encoder)
        built = config.build(benchmark.record.signature, options.compute.device)
        if isinstance(benchmark, RegressionBenchmark):
            benchmark.tasks(EvaluationSettings(split="validation", num_tasks=options.validation_tasks))
            benchmark.tasks(EvaluationSettings(split="test", num_tasks=options.tasks))
        _ = modes_of(built, options.batch_norms)
        sizes = {"": benchmark} | {name: benchmark.resized(built, size) for name, size in map(size_of, options.also)}
    if isinstance(benchmark, ClassificationBenchmark):
        for line in benchmark.data.left_out:
            warn(f"left out: {line}")
        print("\n".join(class_lines(benchmark.data)))
        if benchmark.left_out:
            warn(f"left out of tasks of {benchmark.ways} classes, having fewer: {listed(benchmark.left_out)}")
        if benchmark.data.text_encoder and ":" not in options.data.data:  # one's own function chooses by itself
            print(texts.why(options.data.text_encoder or texts.AUTO))
            found = dataclasses.replace(options.data, text_encoder=benchmark.data.text_encoder)
            options = dataclasses.replace(options, data=found)
    if isinstance(benchmark, TableBenchmark):
        for split in SPLITS:
            print(f"{split} tables ({len(names := benchmark.collection.names(split))}): {listed(names)}")
        for line in (line for table in benchmark.collection.tables for line in table.left_out):
            warn(f"left out: {line}")
    run = train_learner(learner_id(LEARNERS, options.learner, arguments), config, built, benchmark, options)
    evaluate_run(run, sizes, built, options)


def train_learner(
    id: str,
    config: LearnerConfig,
    learner: FewShotLearner,
    benchmark: Benchmark,
    options: AnyOptions,
) -> run_folder.Run:
    """Trains in the run's folder, new or begun."""
    regression = benchmark.score in LESS_IS_BETTER
    count = options.validation_tasks or (None if regression else _VALIDATION_TASKS)
    settings = EvaluationSettings(split="validation", num_tasks=count)
    ref = CheckpointRef(id, as_text(options.run.run.name), options.run.seed, "last", 0)

    def validate(state: State) -> Metrics:
        found = evaluate_with(benchmark, Candidate(learner, state, ref, benchmark.hash), settings)
        last = {name: float(values[:, :, -1].mean()) for name, values in found.metrics.items()}
        score = last[benchmark.score]
        return {SCORE: -score if regression else score, **{f"validation_{key}": x for key, x in last.items()}}

    def first_state(seed: int) -> State:
        fresh = learner.init(seed)
        return fresh if options.start_from is None else with_features_of(options.start_from, learner, fresh, benchmark)

    with usage():
        groups = fewshot_groups(config, options.data, options.episodes, benchmark.record, options.classes)
        source = benchmark.source(learner.training)
    groups["validation"] = {"tasks": options.validation_tasks}
    if options.start_from is not None:
        groups["start"] = {"from": str(options.start_from)}
    request = RunRequest(
        folder=options.run.run,
        kind="fewshot",
        learner=id,
        options=groups,
        distribution=options.data.id,
        distribution_hash=benchmark.hash,
        training=options.loop,
        seed=options.run.seed,
        device=options.compute.device,
        threads=options.compute.threads,
    )
    run = train(request, learner, source, validate, first_state=first_state)
    if isinstance(benchmark, ClassificationBenchmark):
        write_classes(run, benchmark.data)
    keys = (*learner.progress_keys, SCORE)
    write_atomically(run.folder / "curve.png", plot.training_curve(metrics.read(run.folder), keys))
    return run


def with_features_of(checkpoint: Path, learner: FewShotLearner, fresh: State, benchmark: Benchmark) -> State:
    """A learner's first state, with the features of another run's checkpoint in place of new ones.

    Where they are now compared, and were not, they are scaled to distances that a learner can begin with.

    Raises:
        UsageError: it is not a checkpoint's folder, of a run on other data, or of another encoder.
        BrokenCheckpointError: it is damaged.
    """
    run, there = warm_parameters(checkpoint)
    data = run.config.experiment.distribution_hash
    if data != benchmark.hash:  # classes that it was trained on may be among those held out here
        raise UsageError(f"--start-from {checkpoint} was trained on other data: {data}, not {benchmark.hash}")
    features = {name: value for name, value in fresh.parameters.items() if outer_step.of_encoder(name)}
    if not features:
        raise UsageError(f"--start-from {checkpoint}: this learner has no encoder that could begin with it")
    for name, value in features.items():
        if name not in there or (there[name].shape, there[name].dtype) != (value.shape, value.dtype):
            what = f"{list(there[name].shape)} of {there[name].dtype}" if name in there else "missing"
            raise UsageError(f"--start-from {checkpoint} is of another encoder: {name} is {what} there")
        features[name] = there[name].to(value.device)
    before, now = (each.network if isinstance(each, NetworkLearner) else None for each in (learner_of(run), learner))
    if before is not None and now is not None:
        own = {name.removeprefix(ENCODER): value for name, value in features.items() if name.startswith(ENCODER)}
        scaled = encoders.scaled_for_comparison(own, before.encoder, now.encoder)
        features |= {ENCODER + name: value for name, value in scaled.items()}
    return dataclasses.replace(fresh, parameters={**fresh.parameters, **features})


def evaluate_run(
    run: run_folder.Run,
    sizes: Mapping[str, Benchmark],
    learner: FewShotLearner,
    options: AnyOptions,
) -> None:
    """Writes `evaluations/test.json` and its like, one for every size and batch-norm mode, and prints the tables."""
    saved, ref = checkpoint_of(run, options.checkpoint, learner.init(run.config.experiment.seed))
    state, trained_on = saved.state.to(options.compute.device), run.config.experiment.distribution_hash
    candidate = Candidate(learner, state, ref, trained_on)
    seconds = sum(
        row.get("time/outer_step") or 0.0 for row in metrics.read(run.folder) if (row["step"] or 0) <= saved.step
    )
    print(f"{run.folder.name}: {ref.checkpoint} checkpoint (outer step {saved.step}), {seconds:,.0f} s of training")
    _draw_answers(run, sizes[""], candidate)
    for size, benchmark in sizes.items():
        for mode in modes_of(learner, options.batch_norms):
            settings = EvaluationSettings(num_tasks=options.tasks, batch_norm=mode)
            with progress_of_share(f"evaluating {run.folder.name} {size}".rstrip()) as on_progress:
                found = evaluate_with(benchmark, candidate, settings, on_progress)
            default = mode == learner.batch_norms[0]
            _written(run, found, options.checkpoint, size, "" if default else mode)
        if not size and isinstance(benchmark, ClassificationBenchmark) and benchmark.data.given:
            with usage():
                found = evaluate_with(GivenTasks(benchmark.data), candidate, EvaluationSettings())
            _written(run, found, options.checkpoint, "published")
        if isinstance(learner, SequenceLearner) and isinstance(benchmark, ClassificationBenchmark):
            try:
                in_turn = InstanceAccuracy(benchmark.data, benchmark.ways)
            except ValueError as error:  # long after training: the other tables are none the worse
                warn(f"the accuracy by instance is left out: {error}")
                continue
            in_sequence = Candidate(learner, state, ref, trained_on)
            found = evaluate_with(in_turn, in_sequence, EvaluationSettings(num_tasks=options.tasks))
            _written(run, found, options.checkpoint, size, "by-instance")


def _draw_answers(run: run_folder.Run, benchmark: Benchmark, candidate: Candidate[FewShotLearner]) -> None:
    """Draws a few test tasks with the learner's answers, where they are of images."""
    if not isinstance(benchmark, ClassificationBenchmark) or not benchmark.record.signature.images:
        return
    settings = EvaluationSettings(num_tasks=_DRAWN_TASKS)
    content = answers.picture(benchmark.answered(candidate.learner, candidate.state, settings))
    with writing(run.pictures):
        files.make_folder(run.pictures)
    write_atomically(run.pictures / "test.png", content)


def modes_of(learner: FewShotLearner, asked: Sequence[str]) -> tuple[BatchNorm, ...]:
    """The batch-norm modes that a learner is evaluated in.

    Raises:
        ValueError: it cannot be judged in one of those asked for.
    """
    if asked:
        return tuple(need_batch_norm(mode, learner.batch_norms) for mode in dict.fromkeys(asked))
    first = learner.batch_norms[0]
    if isinstance(learner, EmbeddingLearner) and learner.embeds_alone(first):
        return (first,)
    return learner.batch_norms


def _written(run: run_folder.Run, found: Evaluation, checkpoint: Which, *labels: str) -> None:
    print(f"\n{table(found)}")  # first: it was long work, and writing may fail
    path = run.write_evaluation(evaluation_name("test", *labels, checkpoint=checkpoint), found.to_json())
    print(f"written to {path}; next: metarl report {run.folder}")


def size_of(text: str) -> tuple[str, Size]:
    """The name and the size of test tasks from "20x5" or "20x5x3".

    Raises:
        ValueError: the text says something else.
    """
    numbers = text.split("x")
    if len(numbers) not in (2, 3) or not all(number.isdecimal() for number in numbers):
        raise ValueError(f"--also takes ways x shots, or ways x shots x queries, such as 20x5, got {text!r}")
    name = "".join(number + unit for number, unit in zip(numbers, "wsq", strict=False))
    return name, Size(*map(int, numbers))


def listing() -> str:
    """All learners, encoders and data sets, a line each."""
    learners = {name: _about(LEARNERS[name]) for name in LEARNERS}
    kinds = {name: first_line(encoders.ENCODERS[name]) for name in encoders.ENCODERS}
    data = {SINUSOID: "regression: amplitudes and phases, 600 test tasks"}
    data |= {pmlb.NAME: "86 tables, split by table, 2 to 10 classes a task"}
    data |= {name: datasets.DATASETS[name].about for name in datasets.DATASETS}
    data |= {
        "a folder of .csv, .tsv": "one's own tables",
        "a folder, .zip, .npz": "one's own images by class",
        "a .csv": "one's own texts: columns text and label",
        "my_file.py:name": "a function of one's own",
    }
    parts: list[str] = []
    for title, about in (("learners", learners), ("encoders", kinds), ("data sets", data)):
        width = max(map(len, about))
        parts += [f"{title}:", *(f"  {name:{width}}  {line}" for name, line in about.items()), ""]
    return "\n".join(parts[:-1])


def _about(config: type[LearnerConfig]) -> str:
    """A learner in a line: the paper that its module here begins with; one's own class's docstring."""
    module = sys.modules[config.__module__]
    return first_line(module if module.__name__.startswith("metarl.") else config)


def _encoders(arguments: Sequence[str]) -> object:
    """The encoders as sub-commands that may be left out; with one from outside, if the arguments name it."""
    words = [argument for argument in arguments if not argument.startswith("-")]
    names = list(encoders.ENCODERS)
    if len(words) > 1 and ":" in words[1] and arguments[1] == words[1]:
        names.append(words[1])
    with usage():
        choices: dict[str, EncoderConfig | PaperEncoder] = {"paper": PaperEncoder()}
        choices |= {name: encoders.default_options(name) for name in names}
    about = {name: first_line(type(choice)) for name, choice in choices.items()}
    return tyro.extras.subcommand_type_from_defaults(choices, about)
