"""Reptile (Nichol, Achiam & Schulman 2018, "On First-Order Meta-Learning Algorithms", alg. 1 and 2).

    θ_𝓣 = θ after `inner_steps` steps of Adam with β₁ = 0 on minibatches of the task
    θ ← θ + ε · mean over tasks of (θ_𝓣 − θ)

A training task is one set of examples, its support and query together. Adam's second moments are carried from one
outer step to the next, as in the paper's program; where tasks run side by side it is their mean that is carried. In a
task that is evaluated, minibatches are taken from its support in order, over and over.
"""

import dataclasses
import functools
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl import checks
from metarl.fewshot import encoders, losses, outer_step
from metarl.fewshot.encoders import EncoderConfig
from metarl.fewshot.examples import Batch, Examples, TaskSignature, TrainingTasks
from metarl.fewshot.learner import AdaptationName, BatchNorm, Inspection, need_batch_norm, need_tasks
from metarl.fewshot.network import Network
from metarl.fewshot.plain import fields_only
from metarl.learning.protocols import Metrics, Parameters, State

_BETA, _EPSILON = 0.999, 1e-8  # Adam's β₂ and ε
_LEAST = 1e-30  # of a second moment: √0 has no derivative, and beside ε its root is nothing
_SECOND, _INNER, _OUTER = "exp_avg_sq.", "inner_steps", "step"


@dataclasses.dataclass(frozen=True)
class ReptileConfig:
    """Options of Reptile. Where one is not given, it is the paper's for tasks of this kind: see `paper_defaults`."""

    meta_batch: int = 5
    """Tasks an outer step."""
    inner_steps: int | None = None
    """Inner steps in training."""
    test_steps: int | None = None
    """Inner steps in evaluations."""
    inner_batch: int | None = None
    """Examples of an inner step in training."""
    test_batch: int | None = None
    """Examples of an inner step in evaluations."""
    inner_lr: float | None = None
    """The inner Adam's learning rate."""
    learning_rate: float = 1.0
    """ε in the beginning."""
    anneal_over: int = 100_000
    """Outer steps over which ε falls to a tenth of it, linearly; it stays there. The paper's falls to 0."""
    encoder: EncoderConfig | None = None
    """What makes features of examples; Conv4 for images and a multi-layer perceptron for vectors, if not given."""

    def __post_init__(self) -> None:
        counts = (self.inner_steps, self.test_steps, self.inner_batch, self.test_batch)
        for name, value in zip(("inner_steps", "test_steps", "inner_batch", "test_batch"), counts, strict=True):
            checks.count(**{name: 1 if value is None else value})
        checks.count(meta_batch=self.meta_batch)
        checks.at_least(1, anneal_over=self.anneal_over)
        checks.positive(inner_lr=1.0 if self.inner_lr is None else self.inner_lr)
        checks.fraction(learning_rate=self.learning_rate)

    def build(self, signature: TaskSignature, device: str = "cpu") -> "Reptile":
        encoders.build(self.encoder, signature)  # raises where there is none
        return Reptile(self, signature, device)


class PaperDefaults(NamedTuple):
    """What the paper does for a kind of tasks (table 4; sinusoids: §2)."""

    inner_steps: int
    test_steps: int
    inner_batch: int
    test_batch: int
    inner_lr: float
    shots: int
    """Examples of a training task: of each class, or, for regression, in all."""


def paper_defaults(signature: TaskSignature) -> PaperDefaults:
    """The paper's options for tasks of this kind."""
    if not signature.classifies:
        return PaperDefaults(10, 32, 10, 10, 0.01, 50)
    if signature.images and not signature.small_images:
        return PaperDefaults(8, 50, 10, 5 if signature.shots == 1 else 15, 1e-3, 15)
    if signature.ways < 20:
        return PaperDefaults(5, 50, 10, 5 if signature.shots == 1 else 10, 1e-3, 10)
    return PaperDefaults(10, 50, 20, 10, 5e-4, 10)


@final
@dataclasses.dataclass(frozen=True)
class Reptile:
    """The learner."""

    config: ReptileConfig
    signature: TaskSignature
    device: str = "cpu"

    __getstate__ = fields_only

    @functools.cached_property
    def options(self) -> PaperDefaults:
        """The options, given or the paper's."""
        config, paper = self.config, paper_defaults(self.signature)
        return PaperDefaults(
            config.inner_steps or paper.inner_steps,
            config.test_steps or paper.test_steps,
            config.inner_batch or paper.inner_batch,
            config.test_batch or paper.test_batch,
            config.inner_lr or paper.inner_lr,
            paper.shots,
        )

    @property
    def meta_batch(self) -> int:
        return self.config.meta_batch

    @property
    def progress_keys(self) -> tuple[str, ...]:
        return ("loss", "last_loss")

    @property
    def num_adaptations(self) -> int:
        return self.options.test_steps

    @property
    def adaptation_name(self) -> AdaptationName:
        return "gradient step"

    @property
    def batch_norms(self) -> tuple[BatchNorm, ...]:
        return ("transductive", "support") if self.network.normalises else ("none",)

    @property
    def training(self) -> TrainingTasks:
        return TrainingTasks(queries=max(1, self.options.shots - self.signature.shots))

    @functools.cached_property
    def network(self) -> Network:
        """f_θ."""
        return Network(encoders.build(self.config.encoder, self.signature), self.signature.outputs)

    def init(self, seed: int) -> State:
        parameters = self.network.init(torch.Generator().manual_seed(seed))
        parameters = {name: value.to(self.device) for name, value in parameters.items()}
        moments = {_SECOND + name: torch.zeros_like(value) for name, value in parameters.items()}
        return State(parameters, {**moments, _INNER: torch.zeros(()), _OUTER: torch.zeros(())})

    def start(self, state: State, num_tasks: int) -> "ReptilePredictor":
        own, moments = self._expanded(state, num_tasks)
        return ReptilePredictor(self, num_tasks, own, moments, int(state.optimizer[_INNER]), self.batch_norms[0])

    def meta_step(self, state: State, experience: Batch, rng: np.random.Generator) -> tuple[State, Metrics]:
        examples = experience.support.followed_by(experience.query)
        steps, size = self.options.inner_steps, self.options.inner_batch
        parts = minibatches(len(examples.inputs), examples.inputs.shape[1], steps, size, rng)
        own, moments = self._expanded(state, len(examples.inputs))
        step, by_step = int(state.optimizer[_INNER]), list[float]()
        for numbers in parts:
            step += 1
            own, moments, loss = self.inner_step(own, moments, examples.take(numbers), step)
            by_step.append(loss)
        outer_step = int(state.optimizer[_OUTER])
        rate = self.config.learning_rate * max(0.1, 1 - outer_step / self.config.anneal_over)
        parameters = {name: torch.lerp(value, own[name].mean(0), rate) for name, value in state.parameters.items()}
        second = {_SECOND + name: value.mean(0) for name, value in moments.items()}
        counters = {_INNER: state.optimizer[_INNER] + steps, _OUTER: state.optimizer[_OUTER] + 1}
        return State(parameters, {**second, **counters}), {"loss": by_step[0], "last_loss": by_step[-1]}

    def inner_step(
        self, own: Parameters, moments: Parameters, minibatch: Examples, step: int, *, differentiable: bool = False
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], float]:
        """v ← β₂ v + (1 − β₂) g²,   θ ← θ − α g / (√(v / (1 − β₂ᵗ)) + ε), for each task by itself.

        Args:
            own: each task's θ.
            moments: each task's v.
            minibatch: of each task.
            step: t, the number of this inner step, from 1, those of training included.
            differentiable: whether the result can be differentiated with respect to the minibatch.

        Returns:
            θ, v, and the mean loss before the step.
        """

        def objective(parameters: Parameters) -> tuple[Tensor, float]:
            loss = losses.per_task_loss(self.network(parameters, minibatch.inputs).values, minibatch)
            return loss.sum(), float(loss.detach().mean())

        gradients, loss = outer_step.gradients(objective, own, differentiable=differentiable)
        moments = {name: torch.lerp(v, gradients[name] ** 2, 1 - _BETA) for name, v in moments.items()}
        correction, rate = 1 - _BETA**step, self.options.inner_lr
        own = {
            name: value - rate * gradients[name] / ((moments[name] / correction).clamp(min=_LEAST).sqrt() + _EPSILON)
            for name, value in own.items()
        }
        return own, moments, loss

    def _expanded(self, state: State, num_tasks: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """θ and v with a task axis."""
        own = {name: value.expand(num_tasks, *value.shape) for name, value in state.parameters.items()}
        second = {name: state.optimizer[_SECOND + name] for name in own}
        return own, {name: value.expand(num_tasks, *value.shape) for name, value in second.items()}


@final
@dataclasses.dataclass(frozen=True)
class ReptilePredictor:
    """The network somewhere in its inner steps on each of a batch of tasks."""

    learner: Reptile
    num_tasks: int
    parameters: Parameters
    """Each task's."""
    moments: Parameters
    """Each task's second moments of Adam."""
    steps: int
    """Inner steps taken, those of training included."""
    batch_norm: BatchNorm
    position: int = 0
    """Where in the support the next minibatch begins."""
    support: Float[Tensor, "task example ..."] | None = None
    """The inputs of the last support."""
    differentiable: bool = False
    """Whether what it predicts can be differentiated with respect to queries and supports."""

    def adapt(self, support: Examples) -> "ReptilePredictor":
        """One inner step on the next minibatch of this support."""
        need_tasks(self.num_tasks, support.inputs)
        count = support.inputs.shape[1]
        size = min(self.learner.options.test_batch, count)
        numbers = (self.position + torch.arange(size)) % count
        minibatch = support.take(numbers.expand(self.num_tasks, -1))
        own, moments, _ = self.learner.inner_step(
            self.parameters, self.moments, minibatch, self.steps + 1, differentiable=self.differentiable
        )
        return dataclasses.replace(
            self,
            parameters=own,
            moments=moments,
            steps=self.steps + 1,
            position=(self.position + size) % count,
            support=support.inputs,
        )

    def predict(self, inputs: Float[Tensor, "task query ..."]) -> Float[Tensor, "task query output"]:
        """Where the support's statistics are to be taken and there is none yet, the queries' own are."""
        need_tasks(self.num_tasks, inputs)
        support = self.support if self.batch_norm == "support" else None
        with torch.set_grad_enabled(self.differentiable):
            return self.learner.network.predict(self.parameters, inputs, support)

    def with_gradients(self) -> "ReptilePredictor":
        return dataclasses.replace(self, differentiable=True)

    def inspect(self, inputs: Float[Tensor, "1 query ..."]) -> Inspection:
        need_tasks(1, inputs)
        normalising = self.support if self.batch_norm == "support" else None
        return self.learner.network.inspect(self.parameters, inputs, normalising)

    def with_batch_norm(self, mode: str) -> "ReptilePredictor":
        return dataclasses.replace(self, batch_norm=need_batch_norm(mode, self.learner.batch_norms))


def minibatches(tasks: int, examples: int, steps: int, size: int, rng: np.random.Generator) -> list[Tensor]:
    """The numbers of the examples of each step, [task, size]: every example once before any is taken again."""
    size = min(size, examples)
    rounds = -(-steps * size // examples)
    order = np.concatenate([rng.permuted(np.tile(np.arange(examples), (tasks, 1)), axis=1) for _ in range(rounds)], 1)
    return list(torch.from_numpy(order[:, : steps * size]).split(size, dim=1))
