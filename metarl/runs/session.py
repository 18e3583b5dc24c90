"""Training in a run's folder: what every training program does, whatever learns.

Resumes from the last whole checkpoint, writes metrics and checkpoints, validates, shows progress, stops on Ctrl-C. The
learning itself is `metarl.learning.training.outer_steps`.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar, final

from metarl import checks
from metarl.errors import RunError, StoppedError, WorkerLostError
from metarl.learning.protocols import Experience, ExperienceSource, Learner, Metrics, State
from metarl.learning.training import OuterStep, outer_steps
from metarl.runs import checkpoints, metrics, run_folder
from metarl.runs.interrupt import Interrupted, Stop
from metarl.runs.progress import progress
from metarl.runs.provenance import environment
from metarl.runs.run_folder import Experiment, Run
from metarl.tasks import Json

AnyExperience = TypeVar("AnyExperience", bound=Experience)
AnyLearner = TypeVar("AnyLearner")


@final
@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """Options of the training loop."""

    steps: int
    """Outer steps in all; the same command with more of them goes on."""
    checkpoint_every: int = 10
    """Outer steps between checkpoints; every validated step has one too."""
    validate_every: int = 50
    """Outer steps between evaluations on the validation tasks; 0 for none but the last."""
    keep: int = 3
    """Checkpoints kept, besides the best on validation."""

    def __post_init__(self) -> None:
        checks.at_least(1, steps=self.steps, checkpoint_every=self.checkpoint_every, keep=self.keep)
        checks.at_least(0, validate_every=self.validate_every)

    def lasting(self) -> dict[str, object]:
        """The options that a run keeps for good: all but the number of steps, which may grow."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "steps"}


@final
@dataclasses.dataclass(frozen=True)
class Plan(Generic[AnyExperience]):
    """What is trained: the learner, where its experience comes from, and how it is judged on the way."""

    learner: Learner[AnyExperience, object]
    source: ExperienceSource[Learner[AnyExperience, object], AnyExperience]
    validate: Callable[[State], Metrics]
    """Metrics on the validation tasks; `validation` is the score that picks the best checkpoint, higher is better."""
    warm_start: Callable[[State], State] = lambda fresh: fresh
    """The state before the first outer step, from the learner's own; refuses (UsageError) what does not fit."""


def train_run(
    folder: Path, experiment: Experiment, plan: Plan[AnyExperience], options: TrainingOptions, stop: Stop, threads: int
) -> Run:
    """Starts a run in the folder, or goes on with the one there, and trains it to the end.

    Args:
        folder: the run's; missing, empty, or of this very experiment.
        experiment: what decides the run's results.
        plan: what is trained.
        options: of the loop.
        stop: asked after every step, and by the collector within it.
        threads: for the record of what it ran in.

    Raises:
        UsageError: the folder is of another experiment, or a warm start does not fit; nothing was written.
        StoppedError: by SIGINT or SIGTERM, with everything saved; the same command goes on.
        RunError: the parameters are no longer finite, or a file could not be written.
        WorkerLostError: the environments' workers were lost again and again; all steps before are saved.
    """
    seed = experiment.seed
    fresh = plan.learner.init(seed)
    first = fresh if run_folder.begun(folder) else plan.warm_start(fresh)  # before anything is written
    with run_folder.open_run(folder, experiment, steps=options.steps, environment=environment(threads)) as run:
        checkpoints.clean_up(run.checkpoints)
        saved = checkpoints.latest(run.checkpoints)
        if saved is None:
            state, start, env_steps = plan.warm_start(fresh) if first is fresh else first, 0, 0
        else:
            checkpoints.check_state(saved.state, fresh, f"the checkpoint of step {saved.step} in {folder}")
            state, start, env_steps = saved.state.to(experiment.device), saved.step, counted_steps(saved)
            if start < options.steps:
                print(f"{folder}: resumed from step {start}")
        _Training(run, plan, options, stop, seed).run(state, start, env_steps)
    return run


def counted_steps(saved: checkpoints.Checkpoint) -> int:
    """Environment steps that a checkpoint's learner had been trained for.

    Raises:
        RunError: the checkpoint does not say.
    """
    count = saved.extra.get("env_steps", 0)
    if not isinstance(count, int) or count < 0:
        raise RunError(f"the checkpoint of step {saved.step} counts {count!r} environment steps")
    return count


@final
class _Training(Generic[AnyExperience]):
    """One process's share of a run."""

    def __init__(self, run: Run, plan: Plan[AnyExperience], options: TrainingOptions, stop: Stop, seed: int) -> None:
        self._run, self._plan, self._options, self._stop, self._seed = run, plan, options, stop, seed
        self._saved = 0  # the last step with a checkpoint

    def run(self, state: State, start: int, env_steps: int) -> None:
        options, plan = self._options, self._plan
        self._saved, done = start, OuterStep(start, state, {}, 0.0)
        with (
            metrics.recording(self._run.folder, start + 1) as recorder,
            progress(self._run.folder.name, options.steps, done=start) as shown,
        ):
            try:
                steps = outer_steps(plan.learner, plan.source, state, seed=self._seed, start=start, stop=options.steps)
                for following in steps:
                    judged = plan.validate(following.state) if self._validates(following.step) else {}
                    done, env_steps = following, env_steps + int(following.metrics.get("env_steps", 0))
                    row = {name: float(value) for name, value in {**done.metrics, **judged}.items()}
                    row |= {"env_steps": env_steps, "time/outer_step": done.seconds}
                    recorder.log(done.step, row)
                    if self._due(done.step):
                        self._save(recorder, done, env_steps, row.get("validation"))
                    keys = ("env_steps", *plan.learner.progress_keys, "validation")
                    shown.update(done.step, {name: row[name] for name in keys if name in row})
                    if self._stop.signal is not None:
                        break
            except (Interrupted, KeyboardInterrupt):
                pass  # the unfinished step is dropped
            except WorkerLostError:
                self._save(recorder, done, env_steps)
                raise
            self._save(recorder, done, env_steps)
        if done.step < options.steps:
            raise StoppedError(
                f"{self._run.folder}: stopped after step {done.step}; the same command goes on from here",
                self._stop.signal,
            )

    def _validates(self, step: int) -> bool:
        every = self._options.validate_every
        return step == self._options.steps or bool(every and step % every == 0)

    def _due(self, step: int) -> bool:
        return self._validates(step) or step % self._options.checkpoint_every == 0

    def _save(self, recorder: metrics.Recorder, done: OuterStep, env_steps: int, score: float | None = None) -> None:
        """Writes a checkpoint, unless this step has one."""
        if done.step == self._saved:
            return
        recorder.sync()
        extra: dict[str, Json] = {
            "env_steps": env_steps,
            "rng": {"bit_generator": "PCG64", "next_seed": [self._seed, done.step]},
        }
        checkpoints.save(self._run.checkpoints, done.step, done.state, extra, score=score, keep_last=self._options.keep)
        self._saved = done.step
