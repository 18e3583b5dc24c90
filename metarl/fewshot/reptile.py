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
from metarl.fewshot import losses, networks, outer_step
from metarl.fewshot.examples import Batch, Examples, TaskSignature, TrainingTasks
from metarl.fewshot.learner import BatchNorm, need_batch_norm
from metarl.fewshot.networks import Network, NetworkConfig, Tuned
from metarl.learning.protocols import Figures, Parameters, State

_BETA, _EPSILON = 0.999, 1e-8  # Adam's β₂ and ε
_SECOND, _INNER, _OUTER = "exp_avg_sq.", "inner_steps", "step"


@dataclasses.dataclass(frozen=True)
class ReptileConfig:
    """Options of Reptile. Where one is not given, it is the paper's for tasks of this kind: see `recipe`."""

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
    inner_rate: float | None = None
    """The inner Adam's learning rate."""
    outer_rate: float = 1.0
    """ε in the beginning."""
    anneal_over: int = 100_000
    """Outer steps over which ε falls to a tenth of it, linearly; it stays there. The paper's falls to 0."""
    network: NetworkConfig = NetworkConfig()

    def __post_init__(self) -> None:
        counts = (self.inner_steps, self.test_steps, self.inner_batch, self.test_batch)
        for name, value in zip(("inner_steps", "test_steps", "inner_batch", "test_batch"), counts, strict=True):
            checks.at_least(1, **{name: 1 if value is None else value})
        checks.at_least(1, meta_batch=self.meta_batch, anneal_over=self.anneal_over)
        checks.positive(inner_rate=1.0 if self.inner_rate is None else self.inner_rate)
        checks.fraction(outer_rate=self.outer_rate)


class Recipe(NamedTuple):
    """What the paper does for a kind of tasks (table 4; sinusoids: §2)."""

    inner_steps: int
    test_steps: int
    inner_batch: int
    test_batch: int
    inner_rate: float
    shots: int
    """Examples of a training task: of each class, or, for regression, in all."""


def recipe(signature: TaskSignature) -> Recipe:
    """The paper's options for tasks of this kind."""
    if signature.kind == "regression":
        return Recipe(10, 32, 10, 10, 0.01, 50)
    if len(signature.shape) == 3 and not networks.small(signature):
        return Recipe(8, 50, 10, 5 if signature.shots == 1 else 15, 1e-3, 15)
    if signature.ways < 20:
        return Recipe(5, 50, 10, 5 if signature.shots == 1 else 10, 1e-3, 10)
    return Recipe(10, 50, 20, 10, 5e-4, 10)


@final
@dataclasses.dataclass(frozen=True)
class Reptile:
    """The learner."""

    config: ReptileConfig
    signature: TaskSignature
    device: str = "cpu"

    @functools.cached_property
    def recipe(self) -> Recipe:
        """The options, given or the paper's."""
        config, paper = self.config, recipe(self.signature)
        return Recipe(
            config.inner_steps or paper.inner_steps,
            config.test_steps or paper.test_steps,
            config.inner_batch or paper.inner_batch,
            config.test_batch or paper.test_batch,
            config.inner_rate or paper.inner_rate,
            paper.shots,
        )

    @property
    def meta_batch(self) -> int:
        return self.config.meta_batch

    @property
    def shown(self) -> tuple[str, ...]:
        return ("loss", "last_loss")

    @property
    def batch_norms(self) -> tuple[BatchNorm, ...]:
        return ("transductive", "support") if self.network.normalises else ("none",)

    @property
    def training(self) -> TrainingTasks:
        return TrainingTasks(queries=max(1, self.recipe.shots - self.signature.shots))

    @functools.cached_property
    def network(self) -> Network:
        """f_θ."""
        return networks.build(self.config.network, self.signature, self.signature.outputs)

    def init(self, seed: int) -> State:
        parameters = self.network.init(torch.Generator().manual_seed(seed))
        parameters = {name: value.to(self.device) for name, value in parameters.items()}
        moments = {_SECOND + name: torch.zeros_like(value) for name, value in parameters.items()}
        return State(parameters, {**moments, _INNER: torch.zeros(()), _OUTER: torch.zeros(())})

    def meta_step(self, state: State, batch: Batch, rng: np.random.Generator) -> tuple[State, Figures]:
        examples = Examples(*(torch.cat(pair, dim=1) for pair in zip(batch.support, batch.query, strict=True)))
        steps, size = self.recipe.inner_steps, self.recipe.inner_batch
        parts = _minibatches(len(examples.inputs), examples.inputs.shape[1], steps, size, rng)
        tuned, moments, found = self._tune(state, [_take(examples, part) for part in parts])
        outer_step = int(state.optimizer[_OUTER])
        rate = self.config.outer_rate * max(0.1, 1 - outer_step / self.config.anneal_over)
        parameters = {name: torch.lerp(value, tuned[name].mean(0), rate) for name, value in state.parameters.items()}
        second = {_SECOND + name: value.mean(0) for name, value in moments.items()}
        counters = {_INNER: state.optimizer[_INNER] + steps, _OUTER: state.optimizer[_OUTER] + 1}
        return State(parameters, {**second, **counters}), {"loss": found[0], "last_loss": found[-1]}

    def adapt(self, state: State, support: Examples, batch_norm: BatchNorm, steps: int | None = None) -> Tuned:
        """Each task's parameters after so many inner steps on its support, `test_steps` unless told otherwise."""
        need_batch_norm(batch_norm, self.batch_norms)
        count, size = self.recipe.test_steps if steps is None else steps, self.recipe.test_batch
        examples = support.inputs.shape[1]
        order = torch.arange(count * min(size, examples)) % examples
        parts = order.expand(len(support.inputs), -1).split(min(size, examples), dim=1)
        tuned, _, _ = self._tune(state, [_take(support, part) for part in parts] if count else [])
        return Tuned(self.network, tuned, support.inputs if batch_norm == "support" else None)

    def errors(self, state: State, support: Examples, query: Examples, steps: int) -> Float[Tensor, " task"]:
        """Each task's mean squared error on its query after `steps` inner steps on its support."""
        predicted = self.adapt(state, support, self.batch_norms[0], steps).predict(query.inputs)
        return losses.by_task(predicted, query)

    def _tune(self, state: State, parts: list[Examples]) -> tuple[dict[str, Tensor], dict[str, Tensor], list[float]]:
        """Adam with β₁ = 0: each task's parameters and second moments, and the mean loss at each step."""
        tasks = len(parts[0].inputs) if parts else 1
        tuned = {name: value.expand(tasks, *value.shape) for name, value in state.parameters.items()}
        moments = {
            name: state.optimizer[_SECOND + name].expand(tasks, *value.shape)
            for name, value in state.parameters.items()
        }
        done, found = int(state.optimizer[_INNER]), []
        for step, part in enumerate(parts, start=done + 1):

            def objective(parameters: Parameters, part: Examples = part) -> tuple[Tensor, float]:
                loss = losses.by_task(self.network(parameters, part.inputs).values, part)
                return loss.sum(), float(loss.detach().mean())

            gradients, value = outer_step.gradients(objective, tuned)
            found.append(value)
            moments = {name: torch.lerp(v, gradients[name] ** 2, 1 - _BETA) for name, v in moments.items()}
            unbiased = 1 - _BETA**step
            rate = self.recipe.inner_rate
            tuned = {
                name: value - rate * gradients[name] / ((moments[name] / unbiased).sqrt() + _EPSILON)
                for name, value in tuned.items()
            }
        return tuned, moments, found


def _minibatches(tasks: int, examples: int, steps: int, size: int, rng: np.random.Generator) -> list[Tensor]:
    """The numbers of the examples of each step, [task, size]: every example once before any is taken again."""
    size = min(size, examples)
    rounds = -(-steps * size // examples)
    order = np.concatenate([rng.permuted(np.tile(np.arange(examples), (tasks, 1)), axis=1) for _ in range(rounds)], 1)
    return list(torch.from_numpy(order[:, : steps * size]).split(size, dim=1))


def _take(examples: Examples, numbers: Tensor) -> Examples:
    rows = torch.arange(len(numbers), device=examples.inputs.device)[:, None]
    numbers = numbers.to(examples.inputs.device)
    return Examples(examples.inputs[rows, numbers], examples.targets[rows, numbers])
