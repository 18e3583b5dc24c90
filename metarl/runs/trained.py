"""`metarl.load`: the trained learner of a run's folder, of whichever kind."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

from metarl import agents, envs
from metarl.envs import EnvDistribution
from metarl.errors import RunError, UsageError
from metarl.evaluation.evaluate import Candidate
from metarl.evaluation.html import table_html
from metarl.evaluation.judge import Judge, JudgeWorkers
from metarl.evaluation.records import CheckpointRef
from metarl.evaluation.trials import TrialJudge
from metarl.fewshot import encoders
from metarl.fewshot.benchmarks import Benchmark
from metarl.fewshot.class_choice import ClassChoice
from metarl.fewshot.data_options import DataOptions, open_benchmark
from metarl.fewshot.dataset import FewShotDataset
from metarl.fewshot.episode_options import EpisodeOptions
from metarl.fewshot.examples import TaskRecord
from metarl.fewshot.learner import FewShotLearner, LearnerConfig
from metarl.fewshot.registry import LEARNERS
from metarl.fewshot.trained import AdaptedLearner, Inputs, Labels, TrainedLearner
from metarl.learning.collect import CollectorFactory
from metarl.learning.protocols import Agent, State
from metarl.runs import files, run_folder, zoo
from metarl.runs.checkpoints import Checkpoint, CheckpointFolder
from metarl.runs.decoding import OpenKind, OpenKinds, decode, options_to_json
from metarl.runs.files import encode_json, write_atomically
from metarl.runs.run_folder import Run, Which
from metarl.tasks import SPLITS

OPEN_KINDS: OpenKinds = {
    encoders.EncoderConfig: OpenKind(encoders.id_of, lambda id: type(encoders.default_options(id)))
}
"""How the options of encoders are named in a run's config."""
_CLASSES = "classes.json"


@final
@dataclasses.dataclass(frozen=True)
class ClassNames:
    """The names of the classes of each split: `classes.json` of a few-shot run."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


_KINDS: Mapping[run_folder.Kind, tuple[str, str]] = {
    "agent": ("an agent", "agents"),
    "fewshot": ("a few-shot learner", "few-shot learners"),
}
"""What one run of a kind is, and what several are."""


@final
@dataclasses.dataclass(frozen=True, repr=False)
class TrainedAgent:
    """An agent as a run left it."""

    run: Run
    """The run's folder and its config."""
    dist: EnvDistribution
    """The distribution it was trained on, as this version makes it."""
    agent: Agent
    """The agent: its options and architecture."""
    state: State
    """What it has learned."""
    ref: CheckpointRef
    """Which run and which checkpoint this is."""
    env_steps: int
    """Environment steps it had been trained for."""

    def __repr__(self) -> str:
        """One line, without the parameters."""
        return f"<{_described(self.ref, self.run)} on {self.dist.id}, {self.env_steps:,} environment steps>"

    def _repr_html_(self) -> str:
        """What it is, as a table, in notebooks."""
        return _html(self.ref, self.run, {"environment steps": f"{self.env_steps:,}", "parameters": repr(self.state)})

    @property
    def candidate(self) -> Candidate[Agent]:
        """What an evaluation asks for."""
        return Candidate(self.agent, self.state, self.ref, self.run.config.experiment.distribution_hash)

    def judge(self, dist: EnvDistribution | None, collectors: CollectorFactory) -> TrialJudge:
        """Who judges it on a distribution; on the one that it was trained on if None.

        Raises:
            ValueError: the distribution has other spaces than the one that it was trained on.
        """
        dist = dist or self.dist
        if dist.spaces != self.dist.spaces:
            raise ValueError(
                f"{self.run.folder} was trained on {self.dist.id} with {self.dist.spaces}; {dist.id} has {dist.spaces}"
            )
        return TrialJudge(dist, collectors.open(dist, self.state.device))


@final
@dataclasses.dataclass(frozen=True, repr=False)
class TrainedFewShot:
    """A few-shot learner as a run left it: it can be shown a few labelled examples of anything."""

    run: Run
    """The run's folder and its config."""
    trained: TrainedLearner
    """The learner and what it has learned."""
    ref: CheckpointRef
    """Which run and which checkpoint this is."""
    data: DataOptions
    """Where the tasks of its training came from."""
    episodes: EpisodeOptions
    """How large they were."""
    choice: ClassChoice = ClassChoice()
    """Which classes its user held out."""

    @property
    def classes(self) -> ClassNames | None:
        """The names of the classes of each split; None where the run does not say it: a regression, an early run.

        Raises:
            RunError: the file cannot be read.
        """
        path = self.run.folder / _CLASSES
        return decode(ClassNames, path) if path.is_file() else None

    def __repr__(self) -> str:
        """One line, without the parameters."""
        return f"<{_described(self.ref, self.run)} on {self.data.data}: {self.trained!r}>"

    def _repr_html_(self) -> str:
        """What it is, as a table, in notebooks."""
        return _html(self.ref, self.run, {"learner": repr(self.trained)})

    @property
    def candidate(self) -> Candidate[FewShotLearner]:
        """What an evaluation asks for."""
        trained_on = self.run.config.experiment.distribution_hash
        return Candidate(self.trained.learner, self.trained.state, self.ref, trained_on)

    def benchmark(self) -> Benchmark:
        """The tasks that it was trained on, whose files must still be there."""
        return open_benchmark(self.data, self.episodes, self.trained.state.device, self.choice)

    def judge(self, dist: Benchmark | None, collectors: CollectorFactory) -> Judge[FewShotLearner]:
        """Who judges it: the benchmark given, or the one it was trained on.

        Nothing is simulated: `collectors` matter only where they are workers that can take shares of the tasks.
        """
        benchmark = dist or self.benchmark()
        return collectors.shared(benchmark) if isinstance(collectors, JudgeWorkers) else benchmark

    def adapt(
        self, examples: Inputs, labels: Labels, *, num_adaptations: int | None = None, batch_norm: str | None = None
    ) -> AdaptedLearner:
        """The learner after it has seen a few examples: `metarl.fewshot.trained.TrainedLearner.adapt`."""
        return self.trained.adapt(examples, labels, num_adaptations=num_adaptations, batch_norm=batch_norm)


def load(
    folder: Path | str, which: Which = "last", device: str = "cpu", *, trust_code: bool = False
) -> TrainedAgent | TrainedFewShot:
    """The trained learner of a run.

    Args:
        folder: the run's folder, or the name of an agent that comes with the package: `zoo:cheetah-terrain/maml`.
        which: the last checkpoint, or the best on validation.
        device: where the learner computes.
        trust_code: whether code from outside of metarl may be imported that the run names (`my_file.py:name`). A
            folder that somebody else made can name any code.

    Raises:
        UsageError: no run there, no checkpoint yet, what it was trained on is not there any more, or it names code
            from outside that is not trusted.
        RunError: every checkpoint is damaged, or does not fit the learner; or the config is not one of this version.
    """
    run = run_folder.read(zoo.resolve(folder))
    of_kind = _agent if run.config.experiment.kind == "agent" else _few_shot
    return of_kind(run, which, device, trust_code=trust_code)


def load_agent(
    folder: Path | str, which: Which = "last", device: str = "cpu", *, trust_code: bool = False
) -> TrainedAgent:
    """The agent of a run; see `load`. A `UsageError` where the run is a few-shot learner's."""
    return _agent(_of_kind(folder, "agent"), which, device, trust_code=trust_code)


def load_few_shot(
    folder: Path | str, which: Which = "last", device: str = "cpu", *, trust_code: bool = False
) -> TrainedFewShot:
    """The few-shot learner of a run; see `load`. A `UsageError` where the run is an agent's."""
    return _few_shot(_of_kind(folder, "fewshot"), which, device, trust_code=trust_code)


def _of_kind(folder: Path | str, kind: run_folder.Kind) -> Run:
    run = run_folder.read(zoo.resolve(folder))
    found = run.config.experiment.kind
    if found != kind:
        raise UsageError(f"{folder} is {_KINDS[found][0]}; this is about {_KINDS[kind][1]}")
    return run


def _agent(run: Run, which: Which, device: str, *, trust_code: bool) -> TrainedAgent:
    experiment = run.config.experiment
    if not trust_code:
        run_folder.need_trusted(run)
    try:
        dist = envs.make(experiment.distribution)
        kind = agents.REGISTRY[experiment.learner]
    except ValueError as error:
        raise UsageError(f"{run.folder} was trained on what is not there any more: {error}") from error
    agent = run.options("learner", kind).build(dist.spaces, device)
    saved, ref = checkpoint_of(run, which, agent.init(0))
    return TrainedAgent(run, dist, agent, saved.state.to(device), ref, saved.env_steps)


def _few_shot(run: Run, which: Which, device: str, *, trust_code: bool) -> TrainedFewShot:
    """The data that it was trained on need not be there."""
    experiment = run.config.experiment
    if not trust_code:
        run_folder.need_trusted(run)
    try:
        kind = LEARNERS[experiment.learner]
    except ValueError as error:
        raise UsageError(f"{run.folder} was trained with what is not there any more: {error}") from error
    config = run.options("learner", kind, open_kinds=OPEN_KINDS)
    tasks, data = run.options("tasks", TaskRecord), run.options("data", DataOptions)
    learner = config.build(tasks.signature, device)
    saved, ref = checkpoint_of(run, which, learner.init(0))
    trained = TrainedLearner(learner, saved.state.to(device), tasks, data.text_encoder or "")
    # A group of its own, and only where something was chosen: runs without it are read, and resumed, as ever.
    choice = run.options("classes", ClassChoice) if "classes" in experiment.options else ClassChoice()
    return TrainedFewShot(run, trained, ref, data, run.options("episodes", EpisodeOptions), choice)


def learner_of(run: Run) -> FewShotLearner | None:
    """The untrained learner of a few-shot run; None where its code is from outside of metarl, which is not imported.

    Raises:
        RunError: its config names what no learner can be made of.
    """
    experiment = run.config.experiment
    if set(experiment.code) - {experiment.distribution}:
        return None
    try:
        config = run.options("learner", LEARNERS[experiment.learner], open_kinds=OPEN_KINDS)
        return config.build(run.options("tasks", TaskRecord).signature)
    except ValueError as error:
        raise RunError(f"the learner of {run.folder} cannot be made: {error}") from error


def labels_of(runs: Sequence[TrainedFewShot]) -> tuple[str, ...]:
    """What each run is called beside the others: `prototypical (omniglot)`.

    Raises:
        UsageError: two would be called the same.
    """
    labels = tuple(f"{run.ref.learner} ({run.ref.run})" for run in runs)
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise UsageError(f"two runs have the same learner and the same folder's name, {twice[0]}: rename a folder")
    return labels


def write_classes(run: Run, data: FewShotDataset) -> None:
    """Writes the names of the classes of each split into the run's folder.

    Raises:
        RunError: it cannot be written.
    """
    names = {split: [data.classes[number] for number in data.splits[split]] for split in SPLITS}
    write_atomically(run.folder / _CLASSES, encode_json(names))


def fewshot_groups(
    config: LearnerConfig,
    data: DataOptions,
    episodes: EpisodeOptions,
    tasks: TaskRecord,
    classes: ClassChoice | None = None,
) -> dict[str, dict[str, object]]:
    """The options of a few-shot run by group, as `load` reads them.

    Raises:
        ValueError: an option is not finite, or of a type that JSON would not give back.
    """
    root = data.data_root and data.data_root.resolve()
    found_again = dataclasses.replace(data, data=data.id, data_root=root, download=False)
    return {
        "learner": dict(options_to_json(config, open_kinds=OPEN_KINDS)),
        "data": dict(options_to_json(found_again)),
        "episodes": dict(options_to_json(episodes)),
        "tasks": dict(options_to_json(tasks)),
        **({"classes": dict(options_to_json(classes))} if classes is not None and classes.given else {}),
    }


def with_encoder(config: LearnerConfig, encoder: encoders.EncoderConfig) -> LearnerConfig:
    """A learner's options with another encoder.

    Raises:
        ValueError: the learner takes none.
    """
    assert dataclasses.is_dataclass(config), "the registry checked it"
    if "encoder" not in {field.name for field in dataclasses.fields(config)}:
        raise ValueError(f"{type(config).__name__} takes no encoder")
    return dataclasses.replace(config, encoder=encoder)


def checkpoint_of(run: Run, which: Which, expected: State) -> tuple[Checkpoint, CheckpointRef]:
    """The last checkpoint of a run, or the best on validation, held against the learner's `init`.

    Raises:
        UsageError: there is none yet.
        RunError: every one is damaged or of another learner.
    """
    saved = CheckpointFolder(run).find(which, expected)
    if saved is None:
        raise UsageError(f"{run.folder} has no {'' if which == 'last' else 'validated '}checkpoint yet; train it first")
    experiment, label = run.config.experiment, "last" if which == "last" else "best on validation"
    name = files.as_text(run.folder.name)
    ref = CheckpointRef(experiment.learner, name, experiment.seed, label, saved.step, saved.content)
    return saved, ref


def _html(ref: CheckpointRef, run: Run, more: Mapping[str, str]) -> str:
    experiment = run.config.experiment
    about = {
        "trained on": f"{experiment.distribution} ({experiment.distribution_hash})",
        "seed": str(experiment.seed),
        "checkpoint": f"{ref.checkpoint}, outer step {ref.step} of {run.config.steps}",
    }
    return table_html(f"{ref.learner} of {run.folder}", ["", ""], [list(row) for row in (about | dict(more)).items()])


def _described(ref: CheckpointRef, run: Run) -> str:
    return (
        f"{ref.learner} of {run.folder}, seed {ref.seed}, {ref.checkpoint} checkpoint, outer step {ref.step}, trained"
    )
