"""What all training programs do around the training loop: resume, record, validate, save, and stop when asked to."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Never, TypeVar, cast, final

from metarl import checks
from metarl.errors import RunError, StoppedError, UsageError, warn
from metarl.learning.overlap import overlapping_steps
from metarl.learning.protocols import Experience, ExperienceSource, Learner, Metrics, OffPolicyLearner, State
from metarl.learning.training import OuterStep, outer_steps
from metarl.runs import metrics, provenance, run_folder
from metarl.runs.checkpoints import CheckpointFolder
from metarl.runs.command import command
from metarl.runs.interrupt import Interrupted, stop_requested
from metarl.runs.progress import progress
from metarl.runs.run_folder import Experiment, Kind, Run
from metarl.runs.tensors import BrokenCheckpointError, check_structure

AnyLearner = TypeVar("AnyLearner", bound=Learner[Never, object])
Validate = Callable[[State], Metrics]
"""Metrics on the validation tasks; `validation` is the score that picks the best checkpoint, higher is better."""
SCORE = "validation"
PACE = "env_steps/s"
"""Environment steps a second of this process, validation and saving included; shown, and written nowhere."""
MOST_STEPS = 1_000_000_000
"""Outer steps that a run may have."""


@final
@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """How long to train, and how often to save and to validate."""

    steps: int
    """Outer steps in all."""
    checkpoint_every: int = 10
    """Outer steps between checkpoints; every validated step has one too."""
    validate_every: int = 50
    """Outer steps between evaluations on the validation tasks; 0 for none but the last."""
    keep: int = 3
    """Checkpoints kept, besides the best on validation."""

    def __post_init__(self) -> None:
        every = {"checkpoint_every": self.checkpoint_every, "validate_every": self.validate_every}
        checks.at_least(1, steps=self.steps, checkpoint_every=self.checkpoint_every, keep=self.keep)
        checks.at_least(0, validate_every=self.validate_every)
        checks.at_most(MOST_STEPS, steps=self.steps, keep=self.keep, **every)

    def validates(self, step: int) -> bool:
        """Whether the state after so many outer steps is validated."""
        return step == self.steps or (self.validate_every > 0 and step % self.validate_every == 0)

    def saves(self, step: int) -> bool:
        """Whether the state after so many outer steps is saved in any case."""
        return self.validates(step) or step % self.checkpoint_every == 0


@final
@dataclasses.dataclass(frozen=True)
class RunRequest:
    """What a training program was asked for."""

    folder: Path
    """The run's; the same request again goes on where it stopped."""
    kind: Kind
    """Of the learner."""
    learner: str
    """Id, as `metarl.registry.canonical` gives it."""
    options: Mapping[str, Mapping[str, object]]
    """JSON by group: the learner's options, the tasks', …; see `metarl.runs.decoding.options_to_json`."""
    distribution: str
    """Id of the tasks."""
    distribution_hash: str
    """Content hash of the tasks."""
    training: TrainingOptions
    seed: int = 0
    """Decides everything that is random."""
    device: str = "cpu"
    """Where the learner computes."""
    threads: int = 1
    """Written down; no result depends on them."""
    overlap: bool = False
    """Whether an outer step's experience is collected while the step before is learned from; results differ then."""

    def experiment(self) -> Experiment:
        """What decides the run's results. The number of steps does not: it may grow.

        Raises:
            ValueError: an option is not finite, say, or a number is no seed.
        """
        lasting = {name: value for name, value in dataclasses.asdict(self.training).items() if name != "steps"}
        options = {**self.options, "training": {**lasting, **self.options.get("training", {})}}
        if self.overlap:  # a group of its own, and only here: runs without it are resumed as ever
            options["collection"] = {"overlap": True}
        return Experiment(
            kind=self.kind,
            learner=self.learner,
            options=options,
            distribution=self.distribution,
            distribution_hash=self.distribution_hash,
            seed=self.seed,
            device=self.device,
        )


def train(
    request: RunRequest,
    learner: AnyLearner,
    source: ExperienceSource[AnyLearner, Experience],
    validate: Validate,
    *,
    first_state: Callable[[int], State] | None = None,
) -> Run:
    """Trains in the run's folder, new or begun, until all steps are done.

    Args:
        request: what to train, where and for how long.
        learner: as the request names it.
        source: of the experience that it learns from.
        validate: judges a state on the validation tasks.
        first_state: the state before the first outer step, from the seed; the learner's `init` if None. Of a new run
            it is made before anything is written: a warm start that does not fit leaves no folder behind.

    Raises:
        UsageError: the folder holds another experiment, the learner cannot learn from what other parameters have
            collected and overlap was asked for, or what `first_state` raises.
        StoppedError: a signal asked to stop; everything is saved.
        RunError: the run cannot go on; all steps that were done are saved.
    """
    if request.overlap and not isinstance(learner, OffPolicyLearner):
        raise UsageError(
            f"{request.learner} learns only from what its present parameters have collected: it cannot collect and "
            "learn at once"
        )
    try:
        experiment = request.experiment()
    except ValueError as error:
        raise UsageError(str(error)) from error
    begin = functools.cache(first_state or learner.init)
    if not run_folder.begun(request.folder):
        begin(request.seed)
    environment = provenance.environment(request.threads)
    with run_folder.open_run(request.folder, experiment, steps=request.training.steps, environment=environment) as run:
        train_run(run, learner, source, validate, request.training, begin, overlap=request.overlap)
    return run


def train_run(
    run: Run,
    learner: AnyLearner,
    source: ExperienceSource[AnyLearner, Experience],
    validate: Validate,
    options: TrainingOptions,
    first_state: Callable[[int], State],
    *,
    overlap: bool = False,
) -> None:
    """Trains in an open run, from its last whole checkpoint if it has one, until all steps are done.

    Raises:
        UsageError: the run's checkpoints were published, to be used alone.
        StoppedError: a signal asked to stop; everything is saved.
        RunError: the parameters are no longer finite, workers were lost again and again, or a file could not be
            written. All steps that were done are saved, as they are before any other exception passes.
    """
    checkpoints, experiment = CheckpointFolder(run), run.config.experiment
    checkpoints.clean_up()
    expected = learner.init(experiment.seed)
    saved = checkpoints.latest(expected)
    state = first_state(experiment.seed) if saved is None else saved.state.to(experiment.device)
    if saved is not None and not saved.whole:
        raise UsageError(
            f"{run.folder} was published without its optimiser's state, so its training cannot go on: give another "
            f"--run, and --start-from {run.folder}"
        )
    if saved is not None:
        checkpoints.prune(saved.step, options.keep)  # a process may have been killed before it did
    start, env_steps = (0, 0) if saved is None else (saved.step, saved.env_steps)
    resumed = "" if saved is None else f"resumed from step {start}"
    began = time.monotonic()
    with (
        metrics.recording(run.folder, start + 1, notes=_notes(run)) as recorder,
        progress(run.folder.absolute().name, options.steps, done=start, note=resumed) as shown,
        stop_requested() as stop,
    ):
        book = _Book(checkpoints, recorder, options.keep, start, state, env_steps)
        steps = (overlapping_steps if overlap else outer_steps)(
            cast(OffPolicyLearner[Experience, object], learner),  # it learns from what this source gives
            cast(ExperienceSource[Learner[Experience, object], Experience], source),
            state,
            seed=experiment.seed,
            start=start,
            stop=options.steps,
        )
        for step in range(start + 1, options.steps + 1):
            try:
                with stop.step():
                    outcome = next(steps)
                    judged = validate(outcome.state) if options.validates(step) else {}
                if step == start + 1:
                    _check_learner(outcome.state, expected)
            except Interrupted:
                book.save()
                raise _stopped(run, book.step, options.steps, stop.signal_number) from None
            except Exception:
                book.save_before_failing()
                raise
            figures = book.add(outcome, judged)
            if stop.requested or options.saves(step):
                book.save(judged.get(SCORE))
            if "env_steps" in figures:
                figures = {**figures, PACE: (figures["env_steps"] - env_steps) / (time.monotonic() - began)}
            names = ("env_steps", PACE, *learner.progress_keys, SCORE)
            shown.update(step, {name: figures[name] for name in dict.fromkeys(names) if name in figures})
            if stop.requested:
                raise _stopped(run, step, options.steps, stop.signal_number)


def _notes(run: Run) -> dict[str, str]:
    """What TensorBoard shows as texts: the command, and the options as a table."""
    rows = [
        f"| {group} | {name} | {value} |"
        for group, options in run.config.experiment.options.items()
        if isinstance(options, Mapping)
        for name, value in options.items()
    ]
    table = "\n".join(["| group | option | value |", "|---|---|---|", *rows])
    return {"run/command": f"    {command(run)}", "run/options": table}


@final
class _Book:
    """What is done, and whether it is saved."""

    def __init__(
        self,
        checkpoints: CheckpointFolder,
        recorder: metrics.Recorder,
        keep: int,
        step: int,
        state: State,
        env_steps: int,
    ) -> None:
        self.step = self._saved_at = step
        self._checkpoints, self._recorder, self._keep = checkpoints, recorder, keep
        self._state, self._env_steps = state, env_steps

    def add(self, outcome: OuterStep, judged: Metrics) -> Metrics:
        """Takes in a step that is done, and writes down its metrics."""
        own = dict(outcome.metrics)
        if "env_steps" in own:
            own["env_steps"] = self._env_steps = self._env_steps + int(own["env_steps"])
        own["time/outer_step"] = outcome.seconds
        figures = {name: float(value) for name, value in (own | dict(judged)).items()}
        self._recorder.log(outcome.step, figures)
        self.step, self._state = outcome.step, outcome.state
        return figures

    def save(self, score: float | None = None) -> None:
        """Saves the state after the last step that is done, unless it is saved."""
        if self.step > self._saved_at:
            self._recorder.sync()
            self._checkpoints.save(self.step, self._state, env_steps=self._env_steps, score=score, keep_last=self._keep)
            self._saved_at = self.step

    def save_before_failing(self) -> None:
        """The same, while another error is on its way: one of saving is only told."""
        try:
            self.save()
        except RunError as error:
            warn(str(error))


def _check_learner(state: State, expected: State) -> None:
    try:
        check_structure(state, expected, "the first outer step changed what the state holds")
    except BrokenCheckpointError as error:
        raise RunError(f"{error}; a learner's `init` must give all tensors that it will have") from error


def _stopped(run: Run, step: int, steps: int, signal_number: int | None) -> StoppedError:
    assert signal_number is not None
    done = f"all {steps} steps are done" if step == steps else f"stopped after {step} of {steps} steps"
    onward = "" if step == steps else "; the same command goes on from here"
    return StoppedError(f"{run.folder}: {done}{onward}", signal_number)
