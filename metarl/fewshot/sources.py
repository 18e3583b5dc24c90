"""Where few-shot learners' experience comes from: an `ExperienceSource` for each kind of tasks.

What outer step n of a run learns from follows from (seed, n) alone.
"""

import dataclasses
from typing import final

import numpy as np
import torch

from metarl import checks
from metarl.fewshot.dataset import FewShotDataset
from metarl.fewshot.examples import Batch, Examples
from metarl.fewshot.sampler import EpisodeSampler, EpisodeShape, Range, check_range, inputs, pick, targets
from metarl.fewshot.sinusoid import Sinusoids
from metarl.learning.protocols import Learner, State


@final
@dataclasses.dataclass(frozen=True, eq=False)
class EpisodeSource:
    """N-way K-shot tasks of a data set's training classes."""

    data: FewShotDataset
    shape: EpisodeShape = EpisodeShape()

    def collect(self, learner: Learner[Batch, object], state: State, seed: int, step: int) -> Batch:
        """`meta_batch` tasks.

        Raises:
            ValueError: there are too few classes, or a class has too few examples.
        """
        return EpisodeSampler(self.data, self.shape).sample("train", learner.meta_batch, _generator(seed, step))


@final
@dataclasses.dataclass(frozen=True, eq=False)
class ClassSource:
    """Examples of all training classes under the classes' own numbers there: for a learner that is pretrained."""

    data: FewShotDataset
    size: int = 128
    """Examples of a task."""

    def __post_init__(self) -> None:
        checks.at_least(1, size=self.size)

    def collect(self, learner: Learner[Batch, object], state: State, seed: int, step: int) -> Batch:
        """`meta_batch` tasks, whose queries are examples drawn with replacement; their supports are empty."""
        data, rng = self.data, _generator(seed, step)
        classes = np.array(data.splits["train"])
        places = np.full(len(data.classes), -1)
        places[classes] = np.arange(len(classes))
        members = np.flatnonzero(places[data.labels] >= 0)
        numbers = members[rng.integers(len(members), size=(learner.meta_batch, self.size))]
        labels, none = places[data.labels[numbers]], numbers[:, :0]
        return Batch(
            Examples(inputs(data, none), targets(data, none)), Examples(inputs(data, numbers), targets(data, labels))
        )


@final
@dataclasses.dataclass(frozen=True)
class SinusoidSource:
    """Sinusoids of the training split."""

    data: Sinusoids = dataclasses.field(default_factory=Sinusoids)
    shots: Range = 10
    """Examples in a support."""
    queries: int = 10
    """Examples in a query."""
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        check_range(1, shots=self.shots)
        checks.count(queries=self.queries)

    def collect(self, learner: Learner[Batch, object], state: State, seed: int, step: int) -> Batch:
        """`meta_batch` tasks."""
        rng = _generator(seed, step)
        tasks, shots = self.data.sample("train", learner.meta_batch, rng), pick(self.shots, rng)
        support, query = (self.data.examples(tasks, number, rng) for number in (shots, self.queries))
        return Batch(support.to(self.device), query.to(self.device))


def _generator(seed: int, step: int) -> np.random.Generator:
    """Beside default_rng([seed, step]), which is the learner's own in that step."""
    return np.random.default_rng([seed, step, 1])
