"""Where the experience of agents comes from: trials collected on tasks of a distribution."""

import dataclasses
from typing import Protocol, final, runtime_checkable

import numpy as np

from metarl.learning.collect import TrialCollector
from metarl.learning.episodes import Trials
from metarl.learning.protocols import Agent, Learner, State
from metarl.learning.random_streams import task_seeds
from metarl.tasks import Split, Task


@runtime_checkable
class SampledTasks(Protocol):
    """The part of a task distribution that draws tasks."""

    def sample(self, split: Split, count: int, rng: np.random.Generator) -> tuple[Task, ...]:
        """Draws `count` tasks of a split."""
        ...


@final
@dataclasses.dataclass(frozen=True)
class TrialSource:
    """Trials on training tasks drawn anew in every outer step: an `ExperienceSource` for agents."""

    tasks: SampledTasks
    collector: TrialCollector

    def collect(self, learner: Learner[Trials, object], state: State, seed: int, step: int) -> Trials:
        """The trials of outer step `step` of a run with this seed: a function of its arguments alone."""
        assert isinstance(learner, Agent), "only agents learn from trials"
        tasks = self.tasks.sample("train", learner.meta_batch, np.random.default_rng([seed, step, 1]))
        seeds = task_seeds(seed, step, 2, num_tasks=len(tasks))
        return self.collector.collect_trials(learner.start(state, len(tasks)), tasks, learner.protocol, seeds)
