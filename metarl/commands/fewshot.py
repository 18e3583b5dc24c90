"""Trains a few-shot learner, then evaluates it on held-out tasks.

`fewshot.py prototypical --data omniglot --ways 5 --shots 1 --run runs/omniglot`; the same command again resumes, and
evaluates again what is trained: with `--also 5x5 20x1`, on tasks of 5 ways and 5 shots, and of 20 ways and 1 shot, too.
`fewshot.py --list` names the learners and data sets. Own images: `--data folder`, with `folder/class/*.png`.
"""

import dataclasses
import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from metarl.commands.options import Machine, Place, experiment, parse, state_of, usage
from metarl.errors import RunError, UsageError
from metarl.fewshot import datasets, learners, outer_step, plot
from metarl.fewshot.benchmarks import Classification, Problem, SinusoidRegression, Size
from metarl.fewshot.datasets import Splitting
from metarl.fewshot.episodes import Episodes
from metarl.fewshot.learner import FewShotLearner
from metarl.fewshot.learners import CONFIGS, LearnerConfig
from metarl.fewshot.trained import LEARNER, described
from metarl.learning.protocols import Figures, State
from metarl.learning.training import LoopConfig, Training, train
from metarl.runs import checkpoints, metrics, provenance, run_folder
from metarl.runs.progress import progress
from metarl.runs.trained import Which
from metarl.tasks import Json

_SINUSOID = "sinusoid"


def _about(kind: type[LearnerConfig]) -> str:
    """A learner and its paper: the first line of its file."""
    return (sys.modules[kind.__module__].__doc__ or "").splitlines()[0].removesuffix(".")


ABOUT = {name: _about(kind) for name, kind in CONFIGS.items()}
"""What each learner is, by its name."""

if TYPE_CHECKING:
    Chosen = LearnerConfig
else:  # a sub-command for each
    Chosen = tyro.extras.subcommand_type_from_defaults({name: kind() for name, kind in CONFIGS.items()}, ABOUT)


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """Where tasks come from."""

    data: str
    """A data set's name (--list), or one's own images: a folder of folders of .png or .jpeg, one folder a class; a zip
    of it; or an .npz file with `images` and integer `labels`."""
    data_root: Path | None = None
    """The folder of the published data sets; METARL_DATA, or `data`, if not given."""
    download: bool = False
    """Fetch files of a published data set that are missing."""
    image_size: int | None = None
    """Scale own images to this height and width, px."""
    split_fractions: tuple[float, float, float] | None = None
    """Shares of own classes for train, validation and test, where the folder does not say it; 0.6 0.2 0.2 if not
    given."""
    split_seed: int | None = None
    """Decides which of them go where; 0 if not given."""

    @property
    def splitting(self) -> Splitting | None:
        """How own classes are shared out, if any of it was asked for."""
        if self.split_fractions is None and self.split_seed is None:
            return None
        return Splitting(self.split_fractions or Splitting().fractions, self.split_seed or 0)


@dataclasses.dataclass(frozen=True)
class FewshotOptions:
    """Which learner, on which data, and for how long."""

    learner: Chosen
    place: Place
    data: DataOptions
    episodes: Episodes = Episodes()
    loop: LoopConfig = LoopConfig(steps=20_000, checkpoint_every=1000, validate_every=1000)
    validation_tasks: int | None = None
    """Validation tasks that the score is the mean over: 200 if not given; of a regression, all in its list."""
    tasks: int | None = None
    """Test tasks of the evaluation: 1000 if not given; of a regression, all in its list."""
    also: tuple[str, ...] = ()
    """Other sizes of test tasks to evaluate on: ways x shots, 5x5 20x1, or ways x shots x queries, 5x1x3."""
    start_from: Path | None = None
    """Begin with the features that another run learned on the same data: one of its checkpoints,
    runs/other/checkpoints/500. Learner and options may differ, the network may not. Steps count from 0 again."""
    checkpoint: Which = "last"
    """Which checkpoint is evaluated: the last, or the best on validation."""
    machine: Machine = Machine(threads=1)


def program(arguments: Sequence[str], name: str) -> None:
    """Trains in the run's folder, new or begun, then evaluates on the held-out tasks."""
    if "--list" in arguments:
        print(listing())
        return
    options = parse(FewshotOptions, arguments, name, __doc__)
    options.machine.use(linear_algebra_threads=options.machine.threads)
    with usage():
        problem = open_problem(options)
        learner = learners.make(options.learner, problem.signature, options.machine.device)
        source = problem.source(learner.training)
        judged = {"": problem} | {name: problem.resized(learner, other) for name, other in map(size, options.also)}

    def validate(state: State) -> Figures:
        return problem.validate(learner, state)

    @functools.cache  # asked for before a new run is written, and by the training
    def start(seed: int) -> State:
        fresh = learner.init(seed)
        return fresh if options.start_from is None else with_features_of(options.start_from, fresh, problem)

    if not run_folder.begun(options.place.run):
        start(options.place.seed)  # so that a beginning that does not fit is refused before anything is written
    environment = provenance.environment(options.machine.threads)
    decided = {
        "agent": dataclasses.asdict(options.learner),
        "episodes": dataclasses.asdict(options.episodes),
        "tasks": described(problem),
        "loop": {"validation_tasks": options.validation_tasks},
    }
    if options.start_from is not None:
        decided["start"] = {"from": str(options.start_from)}
    name = f"{LEARNER}{name_of(options.learner)}"
    decides = experiment(name, decided, options.loop, problem, options.place, options.machine)
    with run_folder.claim(options.place.run, decides, steps=options.loop.steps, environment=environment) as run:
        finished = train(Training(learner, source, validate, (*learner.shown, "validation"), start), run, options.loop)
        plot.write_curve(run.folder, learner.shown, run.folder / "curve.png")
        if not finished:
            print(f"{run.folder}: stopped; the same command goes on from here")
            return
        evaluate(run, judged, learner, options)


def with_features_of(checkpoint: Path, fresh: State, problem: Problem) -> State:
    """A learner's first state, with the features of another run's checkpoint in place of new ones.

    Raises:
        UsageError: it is not a checkpoint's folder, of a run on other data, or of another network.
        BrokenCheckpointError: it is damaged.
    """
    there = state_of(checkpoint).parameters
    data = run_folder.read(checkpoint.parent.parent).config.experiment.distribution_hash
    if data != problem.hash:  # classes that it was trained on may be among those held out here
        raise UsageError(f"--start-from {checkpoint} was trained on other data: {data}, not {problem.hash}")
    features = {name: value for name, value in fresh.parameters.items() if outer_step.of_features(name)}
    if not features:
        raise UsageError(f"--start-from {checkpoint}: this learner has no network that could begin with it")
    for name, value in features.items():
        if name not in there or there[name].shape != value.shape:
            shape = list(there[name].shape) if name in there else "missing"
            raise UsageError(f"--start-from {checkpoint} is of another network: {name} is {shape} there")
        features[name] = there[name].to(value.device)
    return dataclasses.replace(fresh, parameters={**fresh.parameters, **features})


def evaluate(
    run: run_folder.Run, judged: Mapping[str, Problem], learner: FewShotLearner, options: FewshotOptions
) -> None:
    """Writes `evaluations/test.json` (or `test-20w1s.json`, `test-best.json`) and prints the tables.

    Args:
        run: where the checkpoints are.
        judged: what to evaluate on, by the name of its size.
        learner: of the run.
        options: which checkpoint.
    """
    find = checkpoints.latest if options.checkpoint == "last" else checkpoints.best
    saved = find(run.checkpoints)
    if saved is None:
        raise RunError(f"{run.folder} has no checkpoint; train it again")
    state = saved.state.to(options.machine.device)
    before = (row for row in metrics.read(run.folder) if (row["step"] or 0) <= saved.step)
    seconds = sum(row.get("time/outer_step") or 0.0 for row in before)
    about: dict[str, Json] = {
        "learner": run.config.experiment.learner,
        "checkpoint": options.checkpoint,
        "step": saved.step,
        "training_seconds": round(seconds, 3),
    }
    print(f"{run.folder.name}: {options.checkpoint} checkpoint (outer step {saved.step}), {seconds:,.0f} s of training")
    for name, problem in judged.items():
        with progress(f"evaluating {run.folder.name} {name}".rstrip(), 100) as shown:
            report = problem.evaluate(
                learner, state, "test", on_progress=lambda share, shown=shown: shown.update(round(100 * share), {})
            )
        content = about | report.to_json()
        path = run.write_evaluation("test", content, size=name, best=options.checkpoint == "best")
        print(f"\nwritten to {path}")
        print(report.table())


def open_problem(options: FewshotOptions) -> Problem:
    """The tasks that the options name.

    Raises:
        UsageError: files are missing or are others.
        ValueError: options that do not fit the data, or data that contradict themselves.
    """
    given, device = options.data, options.machine.device
    if given.data == _SINUSOID:
        if given.download or given.image_size is not None or given.splitting or given.data_root:
            raise ValueError(f"{_SINUSOID} is drawn, not read: leave the options of files out")
        return SinusoidRegression(options.episodes, device, options.validation_tasks, options.tasks)
    data = datasets.load(
        given.data,
        given.data_root,
        download=given.download,
        image_size=given.image_size,
        splitting=given.splitting,
    )
    counts = {"validation_tasks": options.validation_tasks, "tasks": options.tasks}
    given_counts = {name: count for name, count in counts.items() if count is not None}
    return Classification(data.on(device), options.episodes, **given_counts)


def size(text: str) -> tuple[str, Size]:
    """The name and the size of test tasks from "20x5" or "20x5x3".

    Raises:
        ValueError: the text says something else.
    """
    numbers = text.split("x")
    if len(numbers) not in (2, 3) or not all(number.isdecimal() for number in numbers):
        raise ValueError(f"--also takes ways x shots, or ways x shots x queries, such as 20x5, got {text!r}")
    name = "".join(number + unit for number, unit in zip(numbers, "wsq", strict=False))
    return name, Size(*map(int, numbers))


def name_of(config: LearnerConfig) -> str:
    """The name of the learner that these are options of."""
    return next(name for name, kind in CONFIGS.items() if type(config) is kind)


def listing() -> str:
    """All learners and data sets, a line each."""
    data = {_SINUSOID: "regression: amplitudes and phases, 600 test tasks"}
    data |= {name: found.about for name, found in datasets.PUBLISHED.items()}
    data |= {"a folder, .zip, .npz": "one's own images by class"}
    parts: list[str] = []
    for title, about in (("learners", ABOUT), ("data sets", data)):
        width = max(map(len, about))
        parts += [f"{title}:", *(f"  {name:{width}}  {line}" for name, line in about.items()), ""]
    return "\n".join(parts[:-1])
