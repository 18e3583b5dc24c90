"""The records an evaluation is made of: where scores come from, how they were taken, and what they are held against."""

import dataclasses
from typing import final

import numpy as np
from jaxtyping import Float

from metarl.evaluation.judge import Ablation, Actions
from metarl.maths.statistics import Estimate
from metarl.tasks import Split

FOREIGN = "foreign_"
"""What the name of the score begins with where each task's learner had adapted to another task's experience."""
COUNTS = ("env_steps", "diverged")
"""Metrics that are counts of all of a point's episodes, not means."""
SHARES = ("success", "success_at_end", "accuracy")
"""Metrics that are shares of outcomes, each of which is 0 or 1."""
LESS_IS_BETTER = ("error", "negative_log_likelihood")
"""Metrics of which a small value is good."""


@final
@dataclasses.dataclass(frozen=True)
class CheckpointRef:
    """Which training run, and which of its checkpoints, a row of scores is of."""

    learner: str
    """The learner's id: `maml`, `rl2`, `prototypical`, …"""
    run: str
    """The run's name."""
    seed: int | None
    """The training's seed; None for what was not trained."""
    checkpoint: str
    """Which checkpoint: `last`, `best on validation`, or `none`."""
    step: int
    """Outer steps it had been trained for."""
    content: str = ""
    """A digest of the parameters: two copies of one run have the same."""


@final
@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """How scores were taken. Figures are comparable where this is equal."""

    distribution: str
    """The id of the distribution or data set."""
    distribution_hash: str
    """Of everything that decides what a score means."""
    split: Split
    held_out: bool
    """Whether training never saw these tasks."""
    fixed_tasks: bool
    """Whether these are all the tasks there are, rather than a sample of them."""
    score: str
    """The metric that a learner is judged by."""
    adaptations: tuple[int, ...]
    """Adaptations before each point of the curve."""
    amounts: tuple[int, ...]
    """What was spent on each task before each point, in `unit`s."""
    unit: str
    """What adaptation spends: `episode`, `gradient step`, …"""
    episodes_per_adaptation: int | None
    """Episodes on each task at each point, of agents; None for few-shot learners."""
    trials: int
    """Whole trials on each task, averaged: they make one episode a point less noisy."""
    seed: int
    """The evaluation's own seed."""
    actions: Actions | None = None
    """What the scored episodes' actions were; None for few-shot learners."""
    batch_norm: str | None = None
    """The batch-norm mode of few-shot learners; None where there is none."""
    ablation: Ablation = "none"
    """What the agent was deprived of."""


RANDOM, BLIND, FINE_TUNED, INFORMED, SPECIALIST = "random", "blind", "fine-tuned", "informed", "specialist"
YARDSTICKS = (RANDOM, BLIND, FINE_TUNED, INFORMED, SPECIALIST)
"""What other policies reach on the same tasks, from floor to ceiling:

    random        uniform actions
    blind         one policy trained on all training tasks, which neither adapts nor remembers
    fine-tuned    the blind policy, trained on each task with as many episodes as the agent gets there
    informed      told the task, trained on all families: the ceiling of knowing
    specialist    of each family the policy trained on it alone, where there is one
"""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Yardstick:
    """What another policy reached on an evaluation's tasks, under its settings."""

    sources: tuple[CheckpointRef, ...]
    """One for each seed; for specialists, one for each family in turn."""
    scores: Float[np.ndarray, "seed task"]
    """By the evaluation's score, means over trials and episodes; NaN on tasks that it says nothing about."""


@final
@dataclasses.dataclass(frozen=True)
class Point:
    """One point of an adaptation curve, or the gain from its first to its last."""

    adaptations: int
    """Adaptations before it."""
    amount: int
    """What was spent on each task before it, in the evaluation's unit."""
    mean: Estimate
    """Over seeds and tasks."""
    interquartile_mean: Estimate
    """Over seeds and tasks."""
