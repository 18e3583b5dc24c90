"""Transfer (Chen et al. 2019, "A Closer Look at Few-shot Classification", §3.2): what meta-learning has to beat.

    pretrain one network on all training classes at once, then fit to the support by gradient steps, either
    a new last layer on frozen features (`probe`) or everything (`finetune`)

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
from metarl.fewshot import encoders, losses, outer_step
from metarl.fewshot.encoders import EncoderConfig, Statistics
from metarl.fewshot.examples import Batch, Examples, TaskSignature, TrainingTasks
from metarl.fewshot.learner import AdaptationName, BatchNorm, Inspection, need_batch_norm, need_tasks
from metarl.fewshot.linear import affine, init_linear
from metarl.fewshot.network import HEAD, Network
from metarl.fewshot.plain import fields_only
from metarl.learning.protocols import Metrics, Parameters, State


@dataclasses.dataclass(frozen=True)
class TransferConfig:
    """Options of transfer."""

    batch: int = 128
    """Examples of a pretraining step; tasks, for a regression."""
    fit: Literal["probe", "finetune"] = "probe"
    """What is fitted to a support: a new last layer on frozen features, or everything."""
    fit_steps: int = 100
    """Gradient steps on a support."""
    fit_lr: float | None = None
    """Their learning rate; 2 for a probe's features of unit length, 0.1 for everything, 0.01 for a regression, if not
    given."""
    learning_rate: float = 1e-3
    """Adam's, in pretraining."""
    learning_rate_half_life: int = 5000
    """Outer steps after which it is halved, again and again; 0 for never."""
    encoder: EncoderConfig | None = None
    """What makes features of examples; Conv4 for images and a multi-layer perceptron for vectors, if not given."""

    def __post_init__(self) -> None:
        checks.count(batch=self.batch, fit_steps=self.fit_steps)
        checks.at_least(0, learning_rate_half_life=self.learning_rate_half_life)
        checks.positive(learning_rate=self.learning_rate, fit_lr=1.0 if self.fit_lr is None else self.fit_lr)

    def build(self, signature: TaskSignature, device: str = "cpu") -> "Transfer":
        return Transfer(self, signature, device)


@final
@dataclasses.dataclass(frozen=True)
class Transfer:
    """Pretrained on all classes, fitted to a support."""

    config: TransferConfig
    signature: TaskSignature
    device: str = "cpu"

    def __post_init__(self) -> None:
        encoders.build(self.config.encoder, self.signature)  # raises where there is none
        if self.signature.classifies and self.signature.classes < 2:
            raise ValueError(f"pretraining needs at least 2 training classes, got {self.signature.classes}")

    __getstate__ = fields_only

    @property
    def meta_batch(self) -> int:
        return 1 if self.signature.classifies else self.config.batch

    @property
    def progress_keys(self) -> tuple[str, ...]:
        return ("loss", "accuracy") if self.signature.classifies else ("loss",)

    @property
    def num_adaptations(self) -> int:
        return 1

    @property
    def adaptation_name(self) -> AdaptationName:
        return "support"

    @property
    def batch_norms(self) -> tuple[BatchNorm, ...]:
        return ("running", "transductive", "support") if self.network.normalises else ("none",)

    @property
    def training(self) -> TrainingTasks:
        if self.signature.classifies:
            return TrainingTasks(queries=self.config.batch, any_ways=True, by_class=True)
        return TrainingTasks()

    @functools.cached_property
    def network(self) -> Network:
        """The features; the head is a layer of its own, because a fit begins with another one."""
        return Network(encoders.build(self.config.encoder, self.signature))

    def init(self, seed: int) -> State:
        generator = torch.Generator().manual_seed(seed)
        outputs = self.signature.classes if self.signature.classifies else self.signature.outputs
        head = init_linear("head", self.network.num_features, outputs, generator)
        return outer_step.initial_state(self.network, self.network.init(generator) | head, self.device)

    def start(self, state: State, num_tasks: int) -> "TransferPredictor":
        parameters, running = outer_step.learned(state), outer_step.running(state)
        unfitted = self.before_fit(parameters, self.signature.ways)
        return TransferPredictor(self, unfitted, running, num_tasks, self.batch_norms[0])

    def meta_step(self, state: State, experience: Batch, rng: np.random.Generator) -> tuple[State, Metrics]:
        parts = [experience.query] if self.signature.classifies else [experience.support, experience.query]
        pooled = Examples(*(torch.cat([part[i].flatten(0, 1) for part in parts]) for i in range(2)))

        def objective(parameters: Parameters) -> tuple[Tensor, tuple[Tensor, Statistics]]:
            outputs = self.network(parameters, pooled.inputs)
            predicted = affine(parameters, "head", outputs.values)
            return losses.per_task_loss(predicted, pooled), (predicted.detach(), outputs.statistics)

        gradients, (predicted, statistics) = outer_step.gradients(objective, outer_step.learned(state))
        metrics = {"loss": float(losses.per_task_loss(predicted, pooled))}
        if self.signature.classifies:
            metrics["accuracy"] = losses.accuracy(predicted, pooled.targets)
        return outer_step.step(state, gradients, self.config, statistics), metrics

    def fit(
        self,
        parameters: Parameters,
        support: Examples,
        running: Statistics | None,
        *,
        embedded: bool,
        first_order: bool = True,
    ) -> dict[str, Tensor]:
        """The parameters after `fit_steps` gradient steps, with a task axis where they were fitted.

        Args:
            parameters: before; a classification's last layer begins anew, with an output for each class of the support.
            support: of every task; features in place of inputs where `embedded`.
            running: what normalises it; None for its own statistics.
            embedded: whether it is given as features.
            first_order: whether the steps' gradients are constants for whoever differentiates the result.
        """
        if self.signature.classifies:
            parameters = self.before_fit(parameters, int(support.targets.max()) + 1)
        probing = self.config.fit == "probe"
        if probing and not embedded:  # the features stay as they are: compute them once
            support = support._replace(inputs=self.features(parameters, support.inputs, running))

        def loss(fitted: Parameters, examples: Examples) -> Tensor:
            features = examples.inputs if probing else self.features(fitted, examples.inputs, running)
            return losses.per_task_loss(affine(fitted, "head", features), examples).sum()

        names, tasks = HEAD if probing else tuple(parameters), len(support.inputs)
        own = {name: parameters[name].expand(tasks, *parameters[name].shape) for name in names}
        supports = [support] * self.config.fit_steps
        return adapt(loss, {**parameters, **own}, supports, self._fit_lr, first_order=first_order, only=names)

    def features(self, parameters: Parameters, inputs: Tensor, statistics: Statistics | None) -> Tensor:
        """What the last layer is given."""
        features = self.network(parameters, inputs, statistics).values
        if self.config.fit == "probe" and self.signature.classifies:
            return torch.nn.functional.normalize(features, dim=-1)
        return features

    def embeds_alone(self, mode: str) -> bool:
        return self.config.fit == "probe" and mode in ("running", "none")

    def embed(self, state: State, inputs: Float[Tensor, "example ..."]) -> Float[Tensor, "example feature"]:
        with torch.no_grad():
            return self.features(outer_step.learned(state), inputs, outer_step.running(state))

    def start_embedded(self, state: State, num_tasks: int) -> "TransferPredictor":
        return dataclasses.replace(self.start(state, num_tasks), embedded=True)

    def before_fit(self, parameters: Parameters, ways: int) -> dict[str, Tensor]:
        """Where a fit begins: for a classification with a last layer of zeros for so many ways."""
        begun = dict(parameters)
        if self.signature.classifies:
            weight = parameters["head.weight"]
            begun["head.weight"] = weight.new_zeros(len(weight), ways)
            begun["head.bias"] = weight.new_zeros(ways)
        return begun

    @property
    def _fit_lr(self) -> float:
        if self.config.fit_lr is not None:
            return self.config.fit_lr
        if not self.signature.classifies:
            return 0.01
        return 2.0 if self.config.fit == "probe" else 0.1


@final
@dataclasses.dataclass(frozen=True)
class TransferPredictor:
    """The network, fitted to what it has been shown of each of a batch of tasks."""

    learner: Transfer
    unfitted: Parameters
    """Where a fit begins."""
    running: Statistics
    """The running averages of training."""
    num_tasks: int
    batch_norm: BatchNorm
    embedded: bool = False
    """Whether it is given features in place of inputs."""
    support: Examples | None = None
    """All that it has been shown."""
    fitted: Parameters | None = None
    """The parameters after the fit."""
    differentiable: bool = False
    """Whether what it predicts can be differentiated with respect to queries and supports."""

    def adapt(self, support: Examples) -> "TransferPredictor":
        """Fits anew, to these examples too."""
        need_tasks(self.num_tasks, support.inputs)
        shown = support if self.support is None else self.support.followed_by(support)
        with torch.set_grad_enabled(self.differentiable):
            fitted = self.learner.fit(
                self.unfitted, shown, self._running, embedded=self.embedded, first_order=not self.differentiable
            )
        return dataclasses.replace(self, support=shown, fitted=fitted)

    def predict(self, inputs: Float[Tensor, "task query ..."]) -> Float[Tensor, "task query output"]:
        """Zeros, by chance, before the first support of a classification.

        Where the support's statistics are to be taken and there is none yet, the queries' own are.
        """
        need_tasks(self.num_tasks, inputs)
        parameters, statistics = self.unfitted if self.fitted is None else self.fitted, self._running
        with torch.set_grad_enabled(self.differentiable):
            if self.embedded:
                return affine(parameters, "head", inputs)
            if self.batch_norm == "support" and self.support is not None:
                statistics = self.learner.network(parameters, self.support.inputs).statistics
            return affine(parameters, "head", self.learner.features(parameters, inputs, statistics))

    def with_gradients(self) -> "TransferPredictor":
        return dataclasses.replace(self, differentiable=True)

    def inspect(self, inputs: Float[Tensor, "1 query ..."]) -> Inspection:
        need_tasks(1, inputs)
        network, parameters = self.learner.network, self.unfitted if self.fitted is None else self.fitted
        with torch.no_grad():
            statistics = self._running
            if self.batch_norm == "support" and self.support is not None:
                statistics = network(parameters, self.support.inputs).statistics
            layers = network.layers(parameters, inputs, statistics)
            return Inspection({**layers, "head": self.predict(inputs)[0]}, parameters, {})

    def with_batch_norm(self, mode: str) -> "TransferPredictor":
        mode = need_batch_norm(mode, self.learner.batch_norms)
        fresh = dataclasses.replace(self, batch_norm=mode, support=None, fitted=None)
        return fresh if self.support is None else fresh.adapt(self.support)

    @property
    def _running(self) -> Statistics | None:
        return self.running if self.batch_norm == "running" else None
