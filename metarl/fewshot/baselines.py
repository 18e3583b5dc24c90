"""Two plain baselines: what meta-learning has to beat.

    centroid:  the nearest mean of the raw inputs of a class: nothing is learned
    transfer:  pretrain one network on all training classes at once, then fit to the support by gradient steps, either
               a new last layer on frozen features (`probe`) or everything (`finetune`)
               (Chen et al. 2019, "A Closer Look at Few-shot Classification", §3.2)

The probe's features have unit length, so that one rate fits every network. A regression is pretrained on the examples
of all training tasks as if they were one task's.
"""

import dataclasses
import functools
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl import checks
from metarl.adapt import adapt
from metarl.fewshot import losses, metric, networks, outer_step
from metarl.fewshot.examples import Batch, Examples, TaskSignature, TrainingTasks
from metarl.fewshot.learner import BatchNorm, need_batch_norm
from metarl.fewshot.metric import Embedded
from metarl.fewshot.networks import HEAD, Network, NetworkConfig, Statistics
from metarl.fewshot.prototypical import prototypes, squared_distances
from metarl.learning.protocols import Figures, Parameters, State


@dataclasses.dataclass(frozen=True)
class CentroidConfig:
    """Options of the nearest centroid: there is nothing to learn, so one outer step is enough."""

    meta_batch: int = 1
    """Tasks an outer step."""

    def __post_init__(self) -> None:
        checks.at_least(1, meta_batch=self.meta_batch)


@final
@dataclasses.dataclass(frozen=True)
class Centroid:
    """Nearest mean of the raw inputs."""

    config: CentroidConfig
    signature: TaskSignature
    device: str = "cpu"

    def __post_init__(self) -> None:
        metric.need_classification(self.signature, "centroid")

    @property
    def meta_batch(self) -> int:
        return self.config.meta_batch

    @property
    def shown(self) -> tuple[str, ...]:
        return ("loss", "accuracy")

    @property
    def batch_norms(self) -> tuple[BatchNorm, ...]:
        return ("none",)

    @property
    def training(self) -> TrainingTasks:
        return TrainingTasks(any_ways=True)

    def init(self, seed: int) -> State:
        return State({}, {})

    def meta_step(self, state: State, batch: Batch, rng: np.random.Generator) -> tuple[State, Figures]:
        logits = self.adapt(state, batch.support, "none").predict(batch.query.inputs)
        loss = float(losses.by_task(logits, batch.query).mean())
        return state, {"loss": loss, "accuracy": losses.accuracy(logits, batch.query.targets)}

    def adapt(self, state: State, support: Examples, batch_norm: BatchNorm) -> "Centroids":
        need_batch_norm(batch_norm, self.batch_norms)
        return Centroids(support)


@final
@dataclasses.dataclass(frozen=True)
class Centroids:
    """The support of every task."""

    support: Examples

    def predict(self, inputs: Float[Tensor, "task query ..."]) -> Float[Tensor, "task query way"]:
        tasks = Embedded(self.support.inputs.flatten(2), self.support.targets, inputs.flatten(2))
        return -squared_distances(tasks.query, prototypes(tasks))


@dataclasses.dataclass(frozen=True)
class TransferConfig:
    """Options of meta-transfer."""

    batch: int = 128
    """Examples of a pretraining step; tasks, for a regression."""
    fit: Literal["probe", "finetune"] = "probe"
    """What is fitted to a support: a new last layer on frozen features, or everything."""
    fit_steps: int = 100
    """Gradient steps on a support."""
    rate: float | None = None
    """Their rate; 2 for a probe's features of unit length, 0.1 for everything, 0.01 for a regression, if not
    given."""
    outer_rate: float = 1e-3
    """Adam's learning rate in pretraining."""
    halve_every: int = 5000
    """Outer steps after which it is halved, again and again; 0 for never."""
    network: NetworkConfig = NetworkConfig()

    def __post_init__(self) -> None:
        checks.at_least(1, batch=self.batch, fit_steps=self.fit_steps)
        checks.at_least(0, halve_every=self.halve_every)
        checks.positive(outer_rate=self.outer_rate, rate=1.0 if self.rate is None else self.rate)


@final
@dataclasses.dataclass(frozen=True)
class Transfer:
    """Pretrained on all classes, fitted to a support."""

    config: TransferConfig
    signature: TaskSignature
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self._classifies and self.signature.classes < 2:
            raise ValueError(f"pretraining needs at least 2 training classes, got {self.signature.classes}")

    @property
    def _classifies(self) -> bool:
        return self.signature.kind == "classification"

    @property
    def meta_batch(self) -> int:
        return 1 if self._classifies else self.config.batch

    @property
    def shown(self) -> tuple[str, ...]:
        return ("loss", "accuracy") if self._classifies else ("loss",)

    @property
    def batch_norms(self) -> tuple[BatchNorm, ...]:
        return ("running", "transductive", "support") if self.network.normalises else ("none",)

    @property
    def training(self) -> TrainingTasks:
        return TrainingTasks(queries=self.config.batch, by_class=True) if self._classifies else TrainingTasks()

    @functools.cached_property
    def network(self) -> Network:
        """The features; the head is a layer of its own."""
        return networks.build(self.config.network, self.signature, outputs=0)

    def init(self, seed: int) -> State:
        generator = torch.Generator().manual_seed(seed)
        outputs = self.signature.classes if self._classifies else self.signature.outputs
        head = networks.linear("head", self.network.features, outputs, generator)
        return outer_step.start(self.network, self.network.init(generator) | head, self.device)

    def meta_step(self, state: State, batch: Batch, rng: np.random.Generator) -> tuple[State, Figures]:
        parts = [batch.query] if self._classifies else [batch.support, batch.query]
        pooled = Examples(*(torch.cat([part[i].flatten(0, 1) for part in parts]) for i in range(2)))

        def objective(parameters: Parameters) -> tuple[Tensor, tuple[Tensor, Statistics]]:
            outputs = self.network(parameters, pooled.inputs)
            predicted = networks.affine(parameters, "head", outputs.values)
            return losses.by_task(predicted, pooled), (predicted.detach(), outputs.statistics)

        found, (predicted, statistics) = outer_step.gradients(objective, outer_step.learned(state))
        figures = {"loss": float(losses.by_task(predicted, pooled))}
        if self._classifies:
            figures["accuracy"] = losses.accuracy(predicted, pooled.targets)
        return outer_step.step(state, found, self.config, statistics), figures

    def adapt(self, state: State, support: Examples, batch_norm: BatchNorm) -> "Fitted":
        """The network after the fit to each task's support."""
        need_batch_norm(batch_norm, self.batch_norms)
        running = outer_step.running(state) if batch_norm == "running" else None
        parameters, tasks = self._start(state), len(support.inputs)
        with torch.no_grad():
            if self.config.fit == "probe":  # the features stay as they are: compute them once
                examples, names = support._replace(inputs=self.embed(parameters, support.inputs, running)), HEAD
            else:
                examples, names = support, tuple(parameters)

            def loss(fitted: Parameters, examples: Examples) -> Tensor:
                probing = self.config.fit == "probe"
                features = examples.inputs if probing else self.embed(fitted, examples.inputs, running)
                return losses.by_task(networks.affine(fitted, "head", features), examples).sum()

            own = {name: parameters[name].expand(tasks, *parameters[name].shape) for name in names}
            supports = [examples] * self.config.fit_steps
            fitted = adapt(loss, {**parameters, **own}, supports, self._rate, first_order=True, only=names)
        return Fitted(self, fitted, running, support.inputs if batch_norm == "support" else None)

    def embed(self, parameters: Parameters, inputs: Tensor, statistics: Statistics | None) -> Tensor:
        """What the last layer is given."""
        features = self.network(parameters, inputs, statistics).values
        if self.config.fit == "probe" and self._classifies:
            return torch.nn.functional.normalize(features, dim=-1)
        return features

    def _start(self, state: State) -> dict[str, Tensor]:
        """Where a fit begins: for a classification with a last layer of zeros."""
        parameters = outer_step.learned(state)
        if self._classifies:
            weight = parameters["head.weight"]
            parameters["head.weight"] = weight.new_zeros(len(weight), self.signature.ways)
            parameters["head.bias"] = weight.new_zeros(self.signature.ways)
        return parameters

    @property
    def _rate(self) -> float:
        if self.config.rate is not None:
            return self.config.rate
        if not self._classifies:
            return 0.01
        return 2.0 if self.config.fit == "probe" else 0.1


@final
@dataclasses.dataclass(frozen=True)
class Fitted:
    """The network fitted to every task's support."""

    learner: Transfer
    parameters: Parameters
    """With a task axis where they were fitted."""
    running: Statistics | None
    """What normalises the queries, if not None."""
    support: Float[Tensor, "..."] | None
    """The inputs whose statistics normalise the queries, if not None."""

    def predict(self, inputs: Float[Tensor, "task query ..."]) -> Float[Tensor, "task query output"]:
        with torch.no_grad():
            statistics = self.running
            if self.support is not None:
                statistics = self.learner.network(self.parameters, self.support).statistics
            features = self.learner.embed(self.parameters, inputs, statistics)
            return networks.affine(self.parameters, "head", features)
