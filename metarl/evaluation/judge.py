"""What an evaluation asks of those who judge learners: agents by their episodes, few-shot learners by their queries."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol, TypeVar, final, runtime_checkable

import numpy as np
from jaxtyping import Float

from metarl import checks
from metarl.learning.protocols import State
from metarl.tasks import Split, Task

AnyLearner = TypeVar("AnyLearner")
Learner_contra = TypeVar("Learner_contra", contravariant=True)
Actions = Literal["sampled", "mean"]
"""Whether scored episodes are of drawn actions, or of the mean (most probable) ones: two different policies."""
Ablation = Literal["none", "wipe-memory", "hide-reward"]
"""What an agent is deprived of while it is evaluated: nothing; what it learned in the episodes before, whenever it
should adapt; or rewards, each of which it is told to be 0."""
OnProgress = Callable[[float], object]
"""Told which share of the work is done, from 0 to 1."""


WINDOW = 25
"""Steps that the rewards within an episode are summed over."""


@final
@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """How learners are to be evaluated; what is None is as the learner was trained."""

    split: Split = "test"
    """Which of the frozen lists of tasks."""
    num_tasks: int | None = None
    """Only the first tasks of the list; all if None."""
    num_adaptations: int | None = None
    """Adaptations in a trial."""
    episodes_per_adaptation: int | None = None
    """Episodes on each task before each adaptation, and after the last; for agents only."""
    trials: int = 1
    """Whole trials on each task."""
    seed: int = 20_210_830
    """The evaluation's own seed: the same for every run, so that all meet the same resets, supports and queries."""
    actions: Actions = "sampled"
    """What the scored episodes' actions are; what agents adapt to is always sampled. For agents only."""
    swap_control: bool = True
    """Whether agents that adapt are also scored after adapting to the experience of *another* task. What own support
    brings beyond foreign support is specific to the task. For agents only."""
    ablation: Ablation = "none"
    """What the agent is deprived of. For agents only."""
    batch_norm: str | None = None
    """Where batch normalisation takes its statistics from when queries are predicted; for few-shot learners only."""

    def __post_init__(self) -> None:
        for name in ("num_tasks", "episodes_per_adaptation", "trials"):
            value = getattr(self, name)
            if value is not None:
                checks.count(**{name: value})
        if self.num_adaptations is not None:
            checks.at_least(0, num_adaptations=self.num_adaptations)
            checks.at_most(checks.MOST, num_adaptations=self.num_adaptations)
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"the evaluation's seed must be between 0 and 2**63 - 1, got {self.seed}")


@final
@dataclasses.dataclass(frozen=True)
class Points:
    """The points of the adaptation curve that are measured."""

    adaptations: tuple[int, ...]
    """Adaptations before each point, ascending; the first is before any: 0."""
    amounts: tuple[int, ...]
    """What was spent on each task before each point, in `unit`s."""
    unit: str
    """What adaptation spends: `episode`, `gradient step`, `support`, `example a class`."""
    episodes_per_adaptation: int | None = None
    """Of agents: episodes on each task at each point."""
    batch_norm: str | None = None
    """Of few-shot learners: the batch-norm mode that is used; None where there is none."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """What one trial on every task gave."""

    metrics: Mapping[str, Float[np.ndarray, "point task"]]
    """By name; the score is among them. A count (`env_steps`, `diverged`) is of all of a point's episodes."""
    calibration: Float[np.ndarray, "point task bin 3"] | None = None
    """Of classifiers: how many answers to a task's queries fell into each bin of confidence, and the sums of their
    confidences and of the right ones among them (see `metarl.maths.calibration`)."""
    first_episode: Float[np.ndarray, "window task"] | None = None
    """Of agents: the reward of each `WINDOW` steps of a task's first episodes, before any adaptation between episodes;
    a mean over them."""

    @staticmethod
    def concatenate(parts: "Sequence[Measured]") -> "Measured":
        """What was measured on some tasks, and on those that follow, as one."""
        calibrations = [part.calibration for part in parts if part.calibration is not None]
        windows = [part.first_episode for part in parts if part.first_episode is not None]
        return Measured(
            {name: np.concatenate([part.metrics[name] for part in parts], axis=1) for name in parts[0].metrics},
            np.concatenate(calibrations, axis=1) if calibrations else None,
            np.concatenate(windows, axis=1) if windows else None,
        )


@runtime_checkable
class Judge(Protocol[Learner_contra]):
    """Tasks of a distribution or data set, and how well a learner does on them."""

    @property
    def id(self) -> str: ...

    @property
    def hash(self) -> str:
        """The content hash of everything that decides what a score means."""
        ...

    @property
    def held_out(self) -> bool:
        """Whether validation and test hold tasks that training never sees."""
        ...

    @property
    def score(self) -> str:
        """The name of the metric that a learner is judged by; higher is better, unless it is an `error`."""
        ...

    def tasks(self, settings: EvaluationSettings) -> tuple[Task, ...]:
        """The tasks of an evaluation: the same for everybody.

        Raises:
            ValueError: there are fewer than asked for.
        """
        ...

    def points(self, learner: Learner_contra, settings: EvaluationSettings) -> Points:
        """The points at which a learner is measured.

        Raises:
            ValueError: a setting that is not for this kind of learner.
        """
        ...

    def measure(
        self,
        learner: Learner_contra,
        state: State,
        tasks: tuple[Task, ...],
        settings: EvaluationSettings,
        trial: int,
        on_progress: OnProgress,
    ) -> Measured:
        """One trial on every task: a function of its arguments alone, each task's part of that task's alone."""
        ...


@runtime_checkable
class JudgeWorkers(Protocol):
    """Those that can take shares of a judge's tasks, such as the workers of `metarl.cluster`."""

    def shared(self, judge: Judge[AnyLearner]) -> Judge[AnyLearner]:
        """The judge, with its tasks shared out among them: it measures the same, bit for bit."""
        ...
