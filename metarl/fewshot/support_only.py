"""Learners that learn nothing across tasks: what they answer follows from a task's own support. Baselines."""

import abc
import dataclasses
from typing import TypeVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

from metarl.fewshot import losses
from metarl.fewshot.examples import Batch, Examples, TaskSignature, TrainingTasks
from metarl.fewshot.learner import AdaptationName, BatchNorm, need_batch_norm, need_tasks
from metarl.learning.protocols import Metrics, State

Predictor = TypeVar("Predictor", bound="SupportOnlyPredictor")
_BATCH_NORMS: tuple[BatchNorm, ...] = ("none",)


@dataclasses.dataclass(frozen=True)
class SupportOnlyPredictor(abc.ABC):
    """The examples that were shown of each of a batch of tasks."""

    ways: int
    """Zeros that are answered before any example."""
    num_tasks: int
    support: Examples | None = None
    """All that it has been shown."""

    @abc.abstractmethod
    def answers(self, support: Examples, inputs: Float[Tensor, "task query ..."]) -> Float[Tensor, "task query way"]:
        """Logits for queries, from all examples that were shown."""

    def adapt(self: Predictor, support: Examples) -> Predictor:
        """Answers from these examples too."""
        need_tasks(self.num_tasks, support.inputs)
        shown = support if self.support is None else self.support.followed_by(support)
        return dataclasses.replace(self, support=shown)

    def predict(self, inputs: Float[Tensor, "task query ..."]) -> Float[Tensor, "task query way"]:
        """Zeros, by chance, for each of the signature's ways, where there is nothing to compare with yet."""
        need_tasks(self.num_tasks, inputs)
        if self.support is None:
            return inputs.new_zeros(*inputs.shape[:2], self.ways)
        return self.answers(self.support, inputs)

    def with_batch_norm(self: Predictor, mode: str) -> Predictor:
        need_batch_norm(mode, _BATCH_NORMS)
        return self


@dataclasses.dataclass(frozen=True)
class SupportOnly(abc.ABC):
    """The learner: its state is empty, and an outer step changes nothing."""

    signature: TaskSignature
    meta_batch: int
    """Tasks an outer step."""

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
        return _BATCH_NORMS

    @property
    def training(self) -> TrainingTasks:
        return TrainingTasks(any_ways=True)

    def init(self, seed: int) -> State:
        return State({}, {})

    @abc.abstractmethod
    def start(self, state: State, num_tasks: int) -> SupportOnlyPredictor:
        """Predictors that have been shown nothing yet."""

    def meta_step(self, state: State, experience: Batch, rng: np.random.Generator) -> tuple[State, Metrics]:
        predictor = self.start(state, len(experience.support.inputs)).adapt(experience.support)
        logits = predictor.predict(experience.query.inputs)
        loss = float(losses.per_task_loss(logits, experience.query).mean())
        return state, {"loss": loss, "accuracy": losses.accuracy(logits, experience.query.targets)}
