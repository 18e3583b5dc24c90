"""The one training loop, for every learner.

All randomness of outer step n comes from (seed, n). So a run that is killed and resumed needs the state and the step
alone, and goes on bit for bit as if nothing had happened. Folders, checkpoints and progress are the business of
`metarl.runs.session`.
"""

import dataclasses
import math
import time
from collections.abc import Iterator
from typing import TypeVar, final

import numpy as np

from metarl.errors import RunError
from metarl.learning.protocols import Experience, ExperienceSource, Learner, Metrics, State

AnyExperience = TypeVar("AnyExperience", bound=Experience)


@final
@dataclasses.dataclass(frozen=True)
class OuterStep:
    """What one outer step led to."""

    step: int
    """Outer steps done, this one included."""
    state: State
    metrics: Metrics
    """The experience's and the learner's."""
    seconds: float
    """Wall-clock time that it took."""


def outer_steps(
    learner: Learner[AnyExperience, object],
    source: ExperienceSource[Learner[AnyExperience, object], AnyExperience],
    state: State,
    *,
    seed: int,
    start: int,
    stop: int,
) -> Iterator[OuterStep]:
    """Outer steps `start`, …, `stop` − 1 of a run: collect experience, learn from it.

    Args:
        learner: learns from the experience.
        source: hands it over.
        state: after `start` outer steps.
        seed: the run's.
        start: outer steps done before.
        stop: outer steps in all.

    Raises:
        RunError: a parameter is no longer finite.
    """
    for step in range(start, stop):
        began = time.perf_counter()
        experience = source.collect(learner, state, seed, step)
        gathered = metrics_of(experience, step)
        state, metrics = learner.meta_step(state, experience, np.random.default_rng([seed, step]))
        need_finite(state, step + 1)
        yield OuterStep(step + 1, state, {**gathered, **metrics}, time.perf_counter() - began)


def metrics_of(experience: Experience, step: int) -> Metrics:
    """The experience's own metrics.

    Raises:
        RunError: one is infinite.
    """
    gathered = experience.metrics()
    if strange := [name for name, value in gathered.items() if math.isinf(value)]:
        raise RunError(f"{strange[0]} is infinite in the experience of step {step + 1}: its source is at fault")
    return gathered


def need_finite(state: State, step: int) -> None:
    """Raises RunError for the first parameter with a NaN or an infinity."""
    for name, value in state.parameters.items():
        # The sum is quick; it can overflow where all entries are finite.
        if not math.isfinite(float(value.sum())) and not bool(value.isfinite().all()):
            raise RunError(
                f"parameter {name} is no longer finite after step {step}; the last checkpoint is from before; "
                "a smaller learning rate may help"
            )
