"""What learners that compare have in common: an embedding, trained and judged with its batch norm made explicit.

    predict(x) = compare(f(support), f(x)),   f an embedding that does not change when a task is met

Training normalises by the statistics of all images of the meta-batch, and keeps running averages of them. A query is
judged by those averages (`running`), by its task's support alone (`support`), or by support and query together
(`transductive`), as in training.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple, Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.fewshot import losses, networks, outer_step
from metarl.fewshot.examples import Batch, Examples, TaskSignature, TrainingTasks
from metarl.fewshot.learner import BatchNorm, Predictor, need_batch_norm
from metarl.fewshot.networks import Network, NetworkConfig, Statistics
from metarl.fewshot.outer_step import OuterOptions
from metarl.learning.protocols import Figures, Parameters, State


class Embedded(NamedTuple):
    """Tasks as their features."""

    support: Float[Tensor, "task example feature"]
    targets: Int[Tensor, "task example"]
    """The ways of the support's examples."""
    query: Float[Tensor, "task query feature"]

    @property
    def ways(self) -> int:
        return int(self.targets.max()) + 1

    @property
    def one_hot(self) -> Float[Tensor, "task example way"]:
        return torch.nn.functional.one_hot(self.targets, self.ways).to(self.support.dtype)


Compare = Callable[[Parameters, Embedded], Tensor]
"""Logits [task, query, way] from parameters and features."""
Criterion = Callable[[Tensor, Tensor], Tensor]
"""A scalar loss of logits [task, query, way] and the query's targets."""


def cross_entropy(logits: Float[Tensor, "task query way"], targets: Int[Tensor, "task query"]) -> Tensor:
    """−log p(y | x), its mean over queries and tasks."""
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def cosine(x: Float[Tensor, "task query feature"], y: Float[Tensor, "task other feature"]) -> Tensor:
    """x · y / ‖x‖ ‖y‖ of every pair, [task, query, other]."""
    normalize = torch.nn.functional.normalize
    return normalize(x, dim=-1) @ normalize(y, dim=-1).mT


def need_classification(signature: TaskSignature, learner: str) -> None:
    """Raises ValueError for a regression."""
    if signature.kind != "classification":
        raise ValueError(f"{learner} classifies and cannot learn a regression; maml, reptile and transfer can")


def batch_norms(network: Network) -> tuple[BatchNorm, ...]:
    """The kinds that a comparing learner can be judged with."""
    return ("running", "transductive", "support") if network.normalises else ("none",)


def higher_ways(signature: TaskSignature, ways: int) -> TrainingTasks:
    """Training tasks of so many ways, or of all classes if there are fewer, and five queries of each."""
    return TrainingTasks(min(ways, signature.classes) if signature.classes else ways, 5, any_ways=True)


@runtime_checkable
class MetricOptions(OuterOptions, Protocol):
    """The options that learners that compare have in common."""

    @property
    def meta_batch(self) -> int: ...

    @property
    def network(self) -> NetworkConfig: ...


@dataclasses.dataclass(frozen=True)
class MetricLearner(abc.ABC):
    """A learner that compares; each says what is compared how, and what it is trained on."""

    config: MetricOptions
    signature: TaskSignature
    device: str = "cpu"

    def __post_init__(self) -> None:
        need_classification(self.signature, type(self).__name__.lower())

    @property
    @abc.abstractmethod
    def training(self) -> TrainingTasks:
        """The tasks that it is best trained on."""

    @property
    @abc.abstractmethod
    def comparing(self) -> "Comparing":
        """The embedding, how it compares, and its loss."""

    @abc.abstractmethod
    def own_parameters(self, generator: torch.Generator) -> dict[str, Tensor]:
        """What is learned beside the embedding."""

    @property
    def meta_batch(self) -> int:
        return self.config.meta_batch

    @property
    def shown(self) -> tuple[str, ...]:
        return ("loss", "accuracy")

    @property
    def batch_norms(self) -> tuple[BatchNorm, ...]:
        return batch_norms(self.network)

    @functools.cached_property
    def network(self) -> Network:
        """The embedding f."""
        return networks.build(self.config.network, self.signature, outputs=0)

    def init(self, seed: int) -> State:
        generator = torch.Generator().manual_seed(seed)
        embedding = self.network.init(generator)
        return outer_step.start(self.network, embedding | self.own_parameters(generator), self.device)

    def meta_step(self, state: State, batch: Batch, rng: np.random.Generator) -> tuple[State, Figures]:
        return self.comparing.meta_step(state, batch, self.config)

    def adapt(self, state: State, support: Examples, batch_norm: BatchNorm) -> Predictor:
        return self.comparing.adapt(state, support, batch_norm)


@final
@dataclasses.dataclass(frozen=True)
class Comparing:
    """An embedding and a way to compare."""

    network: Network
    compare: Compare
    criterion: Criterion = cross_entropy

    def meta_step(self, state: State, batch: Batch, options: OuterOptions) -> tuple[State, Figures]:
        """One outer step on the loss of the queries."""
        tasks, shots = batch.support.targets.shape
        inputs = torch.cat([batch.support.inputs, batch.query.inputs], dim=1).flatten(0, 1)

        def objective(parameters: Parameters) -> tuple[Tensor, tuple[Tensor, Tensor, Statistics]]:
            outputs = self.network(parameters, inputs)
            support, query = _apart(outputs.values.unflatten(0, (tasks, -1)), shots)
            logits = self.compare(parameters, Embedded(support, batch.support.targets, query))
            loss = self.criterion(logits, batch.query.targets)
            return loss, (loss.detach(), logits.detach(), outputs.statistics)

        found, (loss, logits, statistics) = outer_step.gradients(objective, outer_step.learned(state))
        figures = {"loss": float(loss), "accuracy": losses.accuracy(logits, batch.query.targets)}
        return outer_step.step(state, found, options, statistics), figures

    def adapt(self, state: State, support: Examples, batch_norm: BatchNorm) -> "Compared":
        """The learner that compares queries with this support."""
        need_batch_norm(batch_norm, batch_norms(self.network))
        parameters = outer_step.learned(state)
        with torch.no_grad():
            statistics = outer_step.running(state) if batch_norm == "running" else None
            outputs = self.network(parameters, support.inputs, statistics)
        if batch_norm == "support":
            statistics = outputs.statistics
        together = support.inputs if batch_norm == "transductive" else None
        return Compared(self, parameters, support.targets, outputs.values, statistics, together)


@final
@dataclasses.dataclass(frozen=True)
class Compared:
    """A comparing learner that has seen the support of every task."""

    learner: Comparing
    parameters: Parameters
    targets: Int[Tensor, "task example"]
    """The ways of the support's examples."""
    features: Float[Tensor, "task example feature"]
    """The support, embedded."""
    statistics: Statistics | None
    """What normalises the queries; None for their own."""
    together: Float[Tensor, "..."] | None
    """The support's inputs, where it is normalised together with the queries."""

    def predict(self, inputs: Float[Tensor, "task query ..."]) -> Float[Tensor, "task query way"]:
        network = self.learner.network
        with torch.no_grad():
            if self.together is None:
                support = self.features
                query = network(self.parameters, inputs, self.statistics).values
            else:
                both = network(self.parameters, torch.cat([self.together, inputs], dim=1)).values
                support, query = _apart(both, self.together.shape[1])
            return self.learner.compare(self.parameters, Embedded(support, self.targets, query))


def _apart(x: Float[Tensor, "task both feature"], shots: int) -> tuple[Tensor, Tensor]:
    return x[:, :shots], x[:, shots:]
