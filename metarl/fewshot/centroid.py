"""The nearest centroid of raw inputs: what any learned embedding has to beat.

p(y = k | x) ∝ exp(−‖x − c_k‖²),   c_k the mean of the support of class k
"""

import dataclasses
from typing import final

import numpy as np
from jaxtyping import Float
from torch import Tensor

from metarl import checks
from metarl.fewshot import losses
from metarl.fewshot.examples import Batch, Examples, TaskSignature, TrainingTasks
from metarl.fewshot.learner import AdaptationName, BatchNorm, need_batch_norm, need_classification, need_tasks
from metarl.fewshot.metric import Embedded
from metarl.fewshot.prototypical import prototypes, squared_distances
from metarl.learning.protocols import Metrics, State


@dataclasses.dataclass(frozen=True)
class CentroidConfig:
    """Options of the nearest centroid: there is nothing to learn, so one outer step is enough."""

    meta_batch: int = 1
    """Tasks an outer step."""

    def __post_init__(self) -> None:
        checks.count(meta_batch=self.meta_batch)

    def build(self, signature: TaskSignature, device: str = "cpu") -> "Centroid":
        return Centroid(self, signature, device)


@final
@dataclasses.dataclass(frozen=True)
class Centroid:
    """The learner, which learns nothing."""

    config: CentroidConfig
    signature: TaskSignature
    device: str = "cpu"

    def __post_init__(self) -> None:
        need_classification(self.signature, "centroid")

    @property
    def meta_batch(self) -> int:
        return self.config.meta_batch

    @property
    def progress_keys(self) -> tuple[str, ...]:
        return ("loss", "accuracy")

    @property
    def num_adaptations(self) -> int:
        return 1

    @property
    def adaptation_name(self) -> AdaptationName:
        return "support"

    @property
    def batch_norms(self) -> tuple[BatchNorm, ...]:
        return ("none",)

    @property
    def training(self) -> TrainingTasks:
        return TrainingTasks(any_ways=True)

    def init(self, seed: int) -> State:
        return State({}, {})

    def start(self, state: State, num_tasks: int) -> "CentroidPredictor":
        return CentroidPredictor(self.signature.ways, num_tasks)

    def meta_step(self, state: State, experience: Batch, rng: np.random.Generator) -> tuple[State, Metrics]:
        logits = (
            self.start(state, len(experience.support.inputs)).adapt(experience.support).predict(experience.query.inputs)
        )
        loss = float(losses.per_task_loss(logits, experience.query).mean())
        return state, {"loss": loss, "accuracy": losses.accuracy(logits, experience.query.targets)}


@final
@dataclasses.dataclass(frozen=True)
class CentroidPredictor:
    """The examples that were shown of each of a batch of tasks."""

    ways: int
    """Zeros that are answered before any example."""
    num_tasks: int
    support: Examples | None = None
    """All that it has been shown."""

    def adapt(self, support: Examples) -> "CentroidPredictor":
        """Averages over these examples too."""
        need_tasks(self.num_tasks, support.inputs)
        shown = support if self.support is None else self.support.followed_by(support)
        return dataclasses.replace(self, support=shown)

    def predict(self, inputs: Float[Tensor, "task query ..."]) -> Float[Tensor, "task query way"]:
        """Zeros, by chance, for each of the signature's ways, where there is nothing to compare with yet."""
        need_tasks(self.num_tasks, inputs)
        if self.support is None:
            return inputs.new_zeros(*inputs.shape[:2], self.ways)
        tasks = Embedded(self.support.inputs.flatten(2), self.support.targets, inputs.flatten(2))
        return -squared_distances(tasks.query, prototypes(tasks))

    def with_gradients(self) -> "CentroidPredictor":
        return self

    def with_batch_norm(self, mode: str) -> "CentroidPredictor":
        need_batch_norm(mode, ("none",))
        return self
