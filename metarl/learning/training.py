"""The one training loop, for every learner.

All randomness of outer step n comes from (seed, n). So a run that is killed and resumed needs the state and the step
alone, and goes on bit for bit as if nothing had happened.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar, final, runtime_checkable

import numpy as np

from metarl import checks
from metarl.errors import RunError, WorkerLostError
from metarl.learning.protocols import Figures, Learner, State
from metarl.runs import checkpoints, metrics
from metarl.runs.interrupt import stop_requested
from metarl.runs.progress import progress
from metarl.runs.run_folder import Run
from metarl.tasks import Json, Split

Batch = TypeVar("Batch")
Batch_co = TypeVar("Batch_co", covariant=True)


@runtime_checkable
class BatchSource(Protocol[Batch_co]):
    """Where meta-batches come from: a task distribution, or an episode sampler of a data set."""

    def sample(self, split: Split, count: int, rng: np.random.Generator) -> Batch_co: ...


@final
@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """Options of the training loop."""

    steps: int
    """Outer steps in all."""
    checkpoint_every: int = 10
    """Outer steps between checkpoints; every validated step has one too."""
    validate_every: int = 50
    """Outer steps between evaluations on the validation tasks; 0 for none but the last."""
    keep: int = 3
    """Checkpoints kept, besides the best on validation."""

    def __post_init__(self) -> None:
        checks.at_least(1, steps=self.steps, checkpoint_every=self.checkpoint_every, keep=self.keep)
        checks.at_least(0, validate_every=self.validate_every)


@final
@dataclasses.dataclass(frozen=True)
class Training(Generic[Batch]):
    """What is trained: the learner, its tasks, and how it is judged on the way."""

    learner: Learner[Batch]
    source: BatchSource[Batch]
    validate: Callable[[State], Figures]
    """Figures on the validation tasks; `validation` is the score that picks the best checkpoint, higher is better."""
    shown: tuple[str, ...]
    """The figures that the progress shows."""
    start: Callable[[int], State] | None = None
    """The state before the first outer step, from the run's seed; the learner's `init` if None."""


def train(training: Training[Batch], run: Run, config: LoopConfig) -> bool:
    """Trains in a run's folder, from its last whole checkpoint if it has one.

    Returns:
        Whether all steps are done; false after Ctrl-C, with everything saved.

    Raises:
        RunError: the parameters are no longer finite, or a file could not be written.
        WorkerLostError: the environments' workers were lost again and again; all steps before are saved.
    """
    checkpoints.clean_up(run.checkpoints)
    saved = checkpoints.latest(run.checkpoints)
    seed = run.config.experiment.seed
    if saved is None:
        state = (training.start or training.learner.init)(seed)
    else:
        state = saved.state.to(run.config.experiment.device)
    start = saved_at = saved.step if saved else 0
    env_steps = _counter(saved)
    title = run.folder.name
    with (
        metrics.recording(run.folder, start + 1) as recorder,
        progress(title, config.steps, done=start) as shown,
        stop_requested() as stop,
    ):
        for step in range(start, config.steps):
            began = time.perf_counter()
            # The figures of step n + 1 are those after n + 1 outer steps, the checkpoint `n + 1` too.
            rng = np.random.default_rng([seed, step])
            done = step + 1
            final_step = done == config.steps
            validated = final_step or (config.validate_every and done % config.validate_every == 0)
            try:
                batch = training.source.sample("train", training.learner.meta_batch, rng)
                following, figures = training.learner.meta_step(state, batch, rng)
                _need_finite(following, done)
                seconds = time.perf_counter() - began
                judged = training.validate(following) if validated else {}
            except WorkerLostError:
                if step > saved_at:  # nothing of the steps before is lost
                    recorder.sync()
                    checkpoints.save(run.checkpoints, step, state, _extra(env_steps, seed, step), keep_last=config.keep)
                raise
            state, env_steps = following, env_steps + int(figures.get("env_steps", 0))
            figures = {**figures, "env_steps": env_steps, "time/outer_step": seconds}
            figures = {name: float(value) for name, value in figures.items()} | dict(judged)
            stopping = stop()
            recorder.log(done, figures)
            if final_step or stopping or validated or done % config.checkpoint_every == 0:
                recorder.sync()
                extra, score = _extra(env_steps, seed, done), figures.get("validation")
                checkpoints.save(run.checkpoints, done, state, extra, score=score, keep_last=config.keep)
                saved_at = done
            shown.update(done, {name: figures[name] for name in training.shown if name in figures})
            if stopping and not final_step:
                return False
    return True


def _extra(env_steps: int, seed: int, done: int) -> dict[str, Json]:
    """What a checkpoint holds besides the learner's state."""
    return {"env_steps": env_steps, "rng": {"bit_generator": "PCG64", "next_seed": [seed, done]}}


def _counter(saved: checkpoints.Checkpoint | None) -> int:
    count = saved.extra.get("env_steps", 0) if saved else 0
    assert isinstance(count, int)
    return count


def _need_finite(state: State, step: int) -> None:
    for name, value in state.parameters.items():
        if not math.isfinite(float(value.sum())) and not bool(value.isfinite().all()):
            raise RunError(
                f"parameter {name} is no longer finite after step {step}; the last checkpoint is from before; "
                "try a smaller learning rate"
            )
