"""Sinusoid regression (Finn et al. 2017, §5.1): y = A sin(x − φ), A ~ U[0.1, 5], φ ~ U[0, π], x ~ U[−5, 5]."""

import dataclasses
import math
from typing import final

import numpy as np
import torch

from metarl import checks
from metarl.fewshot.examples import Batch, Examples, TaskSignature
from metarl.fewshot.sampler import Range, check_range, pick
from metarl.tasks import Family, Json, Split, Task, TaskSpace, Uniform, content_hash

_INPUT_LIMIT = 5.0


@final
@dataclasses.dataclass(frozen=True)
class Sinusoids:
    """The distribution of sinusoids; its 600 test tasks are never drawn in training."""

    id: str = "sinusoid"
    held_out: bool = True
    space: TaskSpace = dataclasses.field(
        default_factory=lambda: TaskSpace("sinusoid", _FAMILIES, _FAMILIES, _FAMILIES, split_sizes=(100, 100, 600))
    )
    """Amplitudes and phases, in splits that share none."""

    def spec(self) -> dict[str, Json]:
        """Everything that decides what an error means."""
        return {"tasks": self.space.spec(), "inputs": [-_INPUT_LIMIT, _INPUT_LIMIT]}

    @property
    def hash(self) -> str:
        return content_hash(self.spec())

    def signature(self, shots: int) -> TaskSignature:
        """What a learner must know of tasks with so many examples in the support."""
        return TaskSignature("regression", (1,), ways=0, shots=shots, outputs=1)

    def sample(self, split: Split, count: int, rng: np.random.Generator) -> tuple[Task, ...]:
        return self.space.sample(split, count, rng)

    def tasks(self, split: Split) -> tuple[Task, ...]:
        return self.space.tasks(split)

    def examples(self, tasks: tuple[Task, ...], count: int, rng: np.random.Generator) -> Examples:
        """Draws `count` examples of each task; inputs and targets are [task, example, 1], float32."""
        if count < 1:
            raise ValueError(f"need at least one example of each task, got {count}")
        x = rng.uniform(-_INPUT_LIMIT, _INPUT_LIMIT, size=(len(tasks), count, 1))
        amplitude, phase = (
            np.array([task[name] for task in tasks]).reshape(-1, 1, 1) for name in ("amplitude", "phase")
        )
        y = amplitude * np.sin(x - phase)
        return Examples(torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y.astype(np.float32)))


@final
@dataclasses.dataclass(frozen=True)
class SinusoidSource:
    """Meta-batches of sinusoids; a `metarl.learning.training.BatchSource`."""

    data: Sinusoids = dataclasses.field(default_factory=Sinusoids)
    shots: Range = 10
    """Examples in a support."""
    queries: int = 10
    """Examples in a query."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_range(1, shots=self.shots)
        checks.at_least(1, queries=self.queries)

    def sample(self, split: Split, count: int, rng: np.random.Generator) -> Batch:
        """`count` tasks of a split."""
        tasks, shots = self.data.sample(split, count, rng), pick(self.shots, rng)
        support, query = (self.data.examples(tasks, number, rng) for number in (shots, self.queries))
        return Batch(support.to(self.device), query.to(self.device))


_FAMILIES = (
    Family(
        "sinusoid",
        {"amplitude": Uniform(0.1, 5.0, 0.001, "1"), "phase": Uniform(0.0, math.pi, 0.001, "rad")},
    ),
)
