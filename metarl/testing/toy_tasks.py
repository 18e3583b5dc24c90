"""Small few-shot tasks on which every learner learns within seconds: classes to tell apart, or curves to follow.

    classification:  x = S z + 2 D u + 0.3 ε,   z the class's own, u and ε drawn for each example
    regression:      y = A sin(v · x − φ),      A and φ the task's own

S, D and v are the same for all tasks. Classes differ along a few directions and examples along others: who knows S from
D, and only many tasks tell, needs one example of a class.
"""

import dataclasses
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.fewshot.examples import Batch, Examples, TaskSignature
from metarl.fewshot.learner import FewShotLearner
from metarl.learning.protocols import State

CLASSES = 60
"""Training classes, and as many held-out ones."""
IMAGES = TaskSignature("classification", (1, 8, 8), ways=3, shots=1, outputs=3, classes=CLASSES)
VECTORS = dataclasses.replace(IMAGES, shape=(16,))
CURVES = TaskSignature("regression", (1,), ways=0, shots=10, outputs=1)
_DIRECTIONS = 4
_MOST_QUERIES = 5
_MANY_WAYS = 10


@final
@dataclasses.dataclass(frozen=True)
class ToyTasks:
    """Tasks of a signature; an `ExperienceSource`."""

    signature: TaskSignature = IMAGES

    def collect(self, learner: FewShotLearner, state: State, seed: int, step: int) -> Batch:
        """The training experience of outer step `step`, as the learner wants it."""
        training, rng = learner.training, np.random.default_rng([seed, step, 1])
        if training.by_class:
            return self._by_class(learner.meta_batch, training.queries or 64, rng)
        queries = min(training.queries or _MOST_QUERIES, _MOST_QUERIES)
        ways = _MANY_WAYS if training.any_ways else self.signature.ways
        return self.sample(learner.meta_batch, queries, rng, ways=ways)

    def held_out(self, count: int, seed: int = 0, shots: int | None = None) -> Batch:
        """Tasks that training never meets."""
        rng = np.random.default_rng([seed, 2])
        return self.sample(count, _MOST_QUERIES, rng, shots=shots, held_out=True)

    def sample(
        self,
        count: int,
        queries: int,
        rng: np.random.Generator,
        *,
        shots: int | None = None,
        ways: int | None = None,
        held_out: bool = False,
    ) -> Batch:
        """Tasks with so many support and query examples: of each class, or in all."""
        shots = self.signature.shots if shots is None else shots
        if not self.signature.classifies:
            amplitude, phase = rng.uniform(1, 2, (count, 1, 1)), rng.uniform(0, np.pi, (count, 1, 1))
            return Batch(*(self._curve(amplitude, phase, number, rng) for number in (shots, queries)))
        ways = self.signature.ways if ways is None else ways
        chosen = np.stack([rng.choice(CLASSES, ways, replace=False) for _ in range(count)])
        parts: list[Examples] = []
        for number in (shots, queries):
            targets = rng.permuted(np.tile(np.repeat(np.arange(ways), number), (count, 1)), axis=1)
            inputs = self._inputs(np.take_along_axis(chosen, targets, axis=1), 2 if held_out else 1, rng)
            parts.append(Examples(inputs, torch.from_numpy(targets)))
        return Batch(*parts)

    def _by_class(self, count: int, examples: int, rng: np.random.Generator) -> Batch:
        """Examples of all training classes under their own numbers, as queries."""
        classes = rng.integers(CLASSES, size=(count, examples))
        none = Examples(torch.empty(count, 0, *self.signature.shape), torch.empty(count, 0, dtype=torch.int64))
        return Batch(none, Examples(self._inputs(classes, 1, rng), torch.from_numpy(classes)))

    def _inputs(
        self, classes: Int[np.ndarray, "task example"], seed: int, rng: np.random.Generator
    ) -> Float[Tensor, "task example ..."]:
        numbers, fixed = int(np.prod(self.signature.shape)), np.random.default_rng(0)
        signal, distraction = fixed.normal(size=(2, _DIRECTIONS, numbers))
        own = 1.5 * np.random.default_rng(seed).normal(size=(CLASSES, _DIRECTIONS))
        x = own[classes] @ signal + 2 * rng.normal(size=(*classes.shape, _DIRECTIONS)) @ distraction
        x += 0.3 * rng.normal(size=x.shape)
        return torch.from_numpy(x.astype(np.float32) / 4).unflatten(-1, self.signature.shape)

    def _curve(
        self,
        amplitude: Float[np.ndarray, "task 1 1"],
        phase: Float[np.ndarray, "task 1 1"],
        examples: int,
        rng: np.random.Generator,
    ) -> Examples:
        numbers = int(np.prod(self.signature.shape))
        x = rng.uniform(-3, 3, size=(len(amplitude), examples, numbers))
        y = amplitude * np.sin(x.sum(-1, keepdims=True) / numbers**0.5 - phase)
        inputs = torch.from_numpy(x.astype(np.float32)).unflatten(-1, self.signature.shape)
        return Examples(inputs, torch.from_numpy(np.repeat(y, self.signature.outputs, axis=-1).astype(np.float32)))
