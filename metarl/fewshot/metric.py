"""What learners that compare have in common: an embedding, trained and judged with its batch norm made explicit.

    predict(x) = compare(f(support), f(x)),   f an embedding that does not change when a task is met

Training normalises by the statistics of all images of the meta-batch, and keeps running averages of them. A query is
judged by those averages (`running`), by its task's support alone (`support`), or by support and query together
(`transductive`), as in training. By running averages an example's features are its own, whatever tasks it is in.
"""

import abc
import dataclasses
import functools
from typing import NamedTuple, Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.fewshot import encoders, losses, outer_step
from metarl.fewshot.encoders import EncoderConfig, Statistics
from metarl.fewshot.examples import Batch, Examples, TaskSignature, TrainingTasks
from metarl.fewshot.learner import (
    AdaptationName,
    BatchNorm,
    Inspection,
    Weights,
    need_batch_norm,
    need_classification,
    need_tasks,
)
from metarl.fewshot.network import Network
from metarl.fewshot.outer_step import OuterOptions
from metarl.fewshot.plain import fields_only
from metarl.learning.protocols import Metrics, Parameters, State


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


def cross_entropy(logits: Float[Tensor, "task query way"], targets: Int[Tensor, "task query"]) -> Tensor:
    """−log p(y | x), its mean over queries and tasks."""
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def cosine(x: Float[Tensor, "task query feature"], y: Float[Tensor, "task other feature"]) -> Tensor:
    """x · y / ‖x‖ ‖y‖ of every pair, [task, query, other]."""
    normalize = torch.nn.functional.normalize
    return normalize(x, dim=-1) @ normalize(y, dim=-1).mT


def higher_ways(signature: TaskSignature, ways: int) -> TrainingTasks:
    """Training tasks of so many ways, or of all classes if there are fewer, and five queries of each."""
    return TrainingTasks(min(ways, signature.classes) if signature.classes else ways, 5, any_ways=True)


@runtime_checkable
class MetricOptions(OuterOptions, Protocol):
    """The options that learners that compare have in common."""

    @property
    def meta_batch(self) -> int: ...

    @property
    def encoder(self) -> EncoderConfig | None: ...


@dataclasses.dataclass(frozen=True)
class MetricLearner(abc.ABC):
    """A learner that compares; each says what is compared how, and what it is trained on."""

    config: MetricOptions
    signature: TaskSignature
    device: str = "cpu"

    def __post_init__(self) -> None:
        need_classification(self.signature, type(self).__name__.lower())
        encoders.build(self.config.encoder, self.signature)  # raises where there is none

    __getstate__ = fields_only

    @property
    @abc.abstractmethod
    def training(self) -> TrainingTasks:
        """The tasks that it is best trained on."""

    @abc.abstractmethod
    def compare(self, parameters: Parameters, tasks: Embedded) -> Float[Tensor, "task query way"]:
        """Logits."""

    @abc.abstractmethod
    def own_parameters(self, generator: torch.Generator) -> dict[str, Tensor]:
        """What is learned beside the embedding."""

    def weights(self, parameters: Parameters, tasks: Embedded) -> dict[str, Weights]:
        """What the answers are made of, by name, [task, query, weight]."""
        return {}

    def criterion(self, logits: Float[Tensor, "task query way"], targets: Int[Tensor, "task query"]) -> Tensor:
        """The loss, a scalar."""
        return cross_entropy(logits, targets)

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
        return ("running", "transductive", "support") if self.network.normalises else ("none",)

    @functools.cached_property
    def network(self) -> Network:
        """The embedding f."""
        return Network(encoders.for_comparison(encoders.build(self.config.encoder, self.signature)))

    def init(self, seed: int) -> State:
        generator = torch.Generator().manual_seed(seed)
        embedding = self.network.init(generator)
        return outer_step.initial_state(self.network, embedding | self.own_parameters(generator), self.device)

    def start(self, state: State, num_tasks: int) -> "MetricPredictor":
        parameters, running = outer_step.learned(state), outer_step.running(state)
        return MetricPredictor(self, parameters, running, num_tasks, self.batch_norms[0])

    def meta_step(self, state: State, experience: Batch, rng: np.random.Generator) -> tuple[State, Metrics]:
        """One outer step on the loss of the queries."""
        tasks, shots = experience.support.targets.shape
        inputs = torch.cat([experience.support.inputs, experience.query.inputs], dim=1).flatten(0, 1)

        def objective(parameters: Parameters) -> tuple[Tensor, tuple[Tensor, Tensor, Statistics]]:
            outputs = self.network(parameters, inputs)
            support, query = _apart(outputs.values.unflatten(0, (tasks, -1)), shots)
            logits = self.compare(parameters, Embedded(support, experience.support.targets, query))
            loss = self.criterion(logits, experience.query.targets)
            return loss, (loss.detach(), logits.detach(), outputs.statistics)

        gradients, (loss, logits, statistics) = outer_step.gradients(objective, outer_step.learned(state))
        metrics = {"loss": float(loss), "accuracy": losses.accuracy(logits, experience.query.targets)}
        return outer_step.step(state, gradients, self.config, statistics), metrics

    def embeds_alone(self, mode: str) -> bool:
        return mode in ("running", "none")

    def embed(self, state: State, inputs: Float[Tensor, "example ..."]) -> Float[Tensor, "example feature"]:
        with torch.no_grad():
            return self.network(outer_step.learned(state), inputs, outer_step.running(state)).values

    def start_embedded(self, state: State, num_tasks: int) -> "MetricPredictor":
        return dataclasses.replace(self.start(state, num_tasks), embedded=True)


@final
@dataclasses.dataclass(frozen=True)
class MetricPredictor:
    """A learner that compares with the examples that it has been shown of each of a batch of tasks."""

    learner: MetricLearner
    parameters: Parameters
    """What was learned."""
    running: Statistics
    """The running averages of training."""
    num_tasks: int
    batch_norm: BatchNorm
    embedded: bool = False
    """Whether it is given features in place of inputs."""
    support: Examples | None = None
    """All that it has been shown."""
    features: Float[Tensor, "task example feature"] | None = None
    """The support's, where they do not depend on the queries."""
    statistics: Statistics | None = None
    """What normalises the queries, where not their own statistics do."""
    differentiable: bool = False
    """Whether what it predicts can be differentiated with respect to queries and supports."""

    def adapt(self, support: Examples) -> "MetricPredictor":
        """Compares with these examples too."""
        need_tasks(self.num_tasks, support.inputs)
        shown = support if self.support is None else self.support.followed_by(support)
        if self.embedded:
            return dataclasses.replace(self, support=shown, features=shown.inputs)
        if self.batch_norm == "transductive":
            return dataclasses.replace(self, support=shown, features=None, statistics=None)
        with torch.set_grad_enabled(self.differentiable):
            given = None if self.batch_norm == "support" else self.running
            features, statistics = self.learner.network(self.parameters, shown.inputs, given)
        return dataclasses.replace(self, support=shown, features=features, statistics=statistics)

    def predict(self, inputs: Float[Tensor, "task query ..."]) -> Float[Tensor, "task query way"]:
        """Zeros, by chance, for each of the signature's ways, where there is nothing to compare with yet."""
        need_tasks(self.num_tasks, inputs)
        if self.support is None:
            return inputs.new_zeros(*inputs.shape[:2], self.learner.signature.ways)
        with torch.set_grad_enabled(self.differentiable):
            if self.features is None:
                both = torch.cat([self.support.inputs, inputs], dim=1)
                embedded = self.learner.network(self.parameters, both).values
                support, query = _apart(embedded, self.support.inputs.shape[1])
            else:
                support, query = self.features, self._embedded(inputs)
            return self.learner.compare(self.parameters, Embedded(support, self.support.targets, query))

    def with_batch_norm(self, mode: str) -> "MetricPredictor":
        fresh = dataclasses.replace(
            self,
            batch_norm=need_batch_norm(mode, self.learner.batch_norms),
            support=None,
            features=None,
            statistics=None,
        )
        return fresh if self.support is None else fresh.adapt(self.support)

    def inspect(self, inputs: Float[Tensor, "1 query ..."]) -> Inspection:
        """Nothing adapts but what queries are compared with."""
        need_tasks(1, inputs)
        network, statistics = self.learner.network, self.running if self.batch_norm == "running" else self.statistics
        with torch.no_grad():
            if self.support is not None and self.features is None:  # of support and queries together
                both = torch.cat([self.support.inputs, inputs], dim=1)
                statistics = network(self.parameters, both).statistics
            layers = network.layers(self.parameters, inputs, statistics or None)
            if self.support is None:
                return Inspection(layers, {}, {})
            features = self.features
            if features is None:
                features = network(self.parameters, self.support.inputs, statistics).values
            *_, query = layers.values()
            tasks = Embedded(features, self.support.targets, query[None])
            weights = self.learner.weights(self.parameters, tasks)
            return Inspection(
                layers, {}, {name: each._replace(values=each.values[0]) for name, each in weights.items()}
            )

    def with_gradients(self) -> "MetricPredictor":
        return dataclasses.replace(self, differentiable=True)

    def _embedded(self, inputs: Tensor) -> Tensor:
        return inputs if self.embedded else self.learner.network(self.parameters, inputs, self.statistics).values


def _apart(x: Float[Tensor, "task both feature"], shots: int) -> tuple[Tensor, Tensor]:
    return x[:, :shots], x[:, shots:]
