"""MAML for supervised tasks (Finn et al. 2017, "Model-Agnostic Meta-Learning", alg. 2).

    minimise  E_𝓣 L(θ_𝓣; query)   with   θ_𝓣 = θ − α ∇_θ L(θ; support), repeated `inner_steps` times

L is the mean squared error or the mean cross-entropy. First order takes the inner gradient as a constant (§5.2); ANIL
adapts the last layer alone (Raghu et al. 2020). Of MAML++ (Antoniou et al. 2019) there are an α for each layer and
step, learned with θ, and the loss of every step's parameters in the beginning:

    Σ_i w_i L(θ_i; query),   w_i = (1 − p)/n + p [i = n],   p from 0 to 1 in the first outer steps       (eq. 3)

The inner loop is `metarl.adapt`, the same that adapts policies; here every inner step uses the same support.
"""

import dataclasses
import functools
from typing import Literal, NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl import checks
from metarl.adapt import adapt, adapt_tasks
from metarl.fewshot import losses, networks, outer_step
from metarl.fewshot.examples import Batch, Examples, TaskSignature, TrainingTasks
from metarl.fewshot.learner import BatchNorm, need_batch_norm
from metarl.fewshot.networks import HEAD, Network, NetworkConfig, Tuned
from metarl.learning.protocols import Figures, Parameters, State

Strategy = Literal["stacked", "vmap", "loop"]
_RATES = "rates."


@dataclasses.dataclass(frozen=True)
class MamlConfig:
    """Options of supervised MAML. Where one is not given, it is that of `recipe` for tasks of this kind."""

    meta_batch: int | None = None
    """Tasks an outer step."""
    inner_steps: int | None = None
    """Inner steps in training."""
    test_steps: int | None = None
    """Inner steps in evaluations."""
    inner_rate: float | None = None
    """α, the inner steps' rate, for the mean loss over the support."""
    outer_rate: float = 1e-3
    """Adam's learning rate."""
    halve_every: int = 0
    """Outer steps after which Adam's rate is halved, again and again; 0 for never."""
    first_order: bool = False
    """Take the inner gradients as constants: no second derivatives."""
    anil: bool = False
    """Adapt only the last layer."""
    learned_rates: bool = False
    """Learn an inner rate for each layer and step, beginning with `inner_rate`."""
    multi_step: int = 0
    """Outer steps in which the loss moves from all inner steps' parameters to the last's alone; 0 for the last's."""
    strategy: Literal["auto", "stacked", "vmap", "loop"] = "auto"
    """How the tasks of a meta-batch are computed: stacked or by vmap as one program, or in a loop; no result depends on
    it but by rounding. auto: loop for images of more than 32 pixels on a CPU, stacked for all else."""
    network: NetworkConfig = NetworkConfig()

    def __post_init__(self) -> None:
        given = {"meta_batch": self.meta_batch, "inner_steps": self.inner_steps, "test_steps": self.test_steps}
        checks.at_least(1, **{name: value for name, value in given.items() if value is not None})
        checks.at_least(0, halve_every=self.halve_every, multi_step=self.multi_step)
        checks.positive(outer_rate=self.outer_rate, inner_rate=1.0 if self.inner_rate is None else self.inner_rate)


class Recipe(NamedTuple):
    """Options for a kind of tasks (Finn et al. 2017, §5, app. A)."""

    meta_batch: int
    queries: int
    inner_steps: int
    test_steps: int
    inner_rate: float


def recipe(signature: TaskSignature) -> Recipe:
    """The options for tasks of this kind: the paper's, but for the rate and the queries for characters.

    The paper's rates for classification are for the loss summed over examples: 0.01 for photographs, 0.05 for the mean
    of five. For characters it has 0.4 at 5 ways, with a network that averages its features over the image; this one
    hands them all on, and learns several times faster with 0.02 and with three queries a class instead of one
    (docs/results.md).
    """
    if signature.kind == "regression":
        return Recipe(25, 10, 1, 1, 0.01)
    if networks.small(signature):
        queries, rate = max(3, signature.shots), 0.02 * signature.ways
        return Recipe(32, queries, 1, 3, rate) if signature.ways < 20 else Recipe(16, queries, 5, 5, rate)
    if len(signature.shape) == 3:
        return Recipe(4 if signature.shots < 5 else 2, 15, 5, 10, 0.05)
    return Recipe(32, 15, 1, 1, 0.1)


@final
@dataclasses.dataclass(frozen=True)
class Maml:
    """The learner."""

    config: MamlConfig
    signature: TaskSignature
    device: str = "cpu"

    @functools.cached_property
    def recipe(self) -> Recipe:
        """The options, given or those for tasks of this kind."""
        paper = recipe(self.signature)
        config = self.config
        given = {
            "meta_batch": config.meta_batch,
            "inner_steps": config.inner_steps,
            "test_steps": config.test_steps,
            "inner_rate": config.inner_rate,
        }
        return paper._replace(**{name: value for name, value in given.items() if value is not None})

    @property
    def meta_batch(self) -> int:
        return self.recipe.meta_batch

    @property
    def shown(self) -> tuple[str, ...]:
        return ("loss", "accuracy") if self.signature.kind == "classification" else ("error_before", "error_after")

    @property
    def batch_norms(self) -> tuple[BatchNorm, ...]:
        return ("transductive", "support") if self.network.normalises else ("none",)

    @property
    def training(self) -> TrainingTasks:
        return TrainingTasks(queries=self.recipe.queries)

    @functools.cached_property
    def network(self) -> Network:
        """f_θ."""
        return networks.build(self.config.network, self.signature, self.signature.outputs, adapted=True)

    @property
    def strategy(self) -> Strategy:
        """How the tasks of a meta-batch are computed."""
        if self.config.strategy != "auto":
            return self.config.strategy
        large = len(self.signature.shape) == 3 and not networks.small(self.signature)
        return "loop" if large and torch.device(self.device).type == "cpu" else "stacked"

    def init(self, seed: int) -> State:
        parameters = self.network.init(torch.Generator().manual_seed(seed))
        state = outer_step.start(self.network, parameters | self._initial_rates(parameters), self.device)
        return dataclasses.replace(state, parameters=outer_step.learned(state))  # it keeps no running averages

    def meta_step(self, state: State, batch: Batch, rng: np.random.Generator) -> tuple[State, Figures]:
        def objective(parameters: Parameters) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            adapted, terms = self.unadapted(parameters), list[Tensor]()
            predicted = loss = torch.empty(0)
            for step, weight in enumerate(self._step_weights(int(state.optimizer["step"]))):
                adapted = self.inner_step(adapted, parameters, batch.support, step)
                if weight:
                    predicted = adapted.values(batch.query.inputs)
                    loss = losses.by_task(predicted, batch.query).mean()
                    terms.append(loss if weight == 1 else weight * loss)
            return functools.reduce(torch.add, terms), (predicted.detach(), loss.detach())

        found, (predicted, loss) = outer_step.gradients(objective, state.parameters)
        return outer_step.step(state, found, self.config), self._figures(state, batch, predicted, float(loss))

    def adapt(self, state: State, support: Examples, batch_norm: BatchNorm, steps: int | None = None) -> Tuned:
        """Each task's parameters after so many inner steps on its support, `test_steps` unless told otherwise."""
        need_batch_norm(batch_norm, self.batch_norms)
        with torch.no_grad():
            adapted = self.unadapted(state.parameters)
            for step in range(self.recipe.test_steps if steps is None else steps):
                adapted = self.inner_step(adapted, state.parameters, support, step)
            return dataclasses.replace(adapted, support=support.inputs if batch_norm == "support" else None)

    def errors(self, state: State, support: Examples, query: Examples, steps: int) -> Float[Tensor, " task"]:
        """Each task's mean squared error (or cross-entropy) on its query after `steps` inner steps on its support."""
        predicted = self.adapt(state, support, self.batch_norms[0], steps).predict(query.inputs)
        return losses.by_task(predicted, query)

    def loss(self, parameters: Parameters, examples: Examples) -> Tensor:
        """L(θ) of one task, or, with a task axis in the parameters and examples, its sum over the tasks."""
        predicted = self.network(parameters, examples.inputs).values
        return losses.by_task(predicted, examples).sum()

    def unadapted(self, parameters: Parameters) -> Tuned:
        """θ⁰, the same for every task."""
        return Tuned(self.network, parameters)

    def inner_step(self, before: Tuned, shared: Parameters, support: Examples, step: int) -> Tuned:
        """One inner step further, differentiable; `shared` are the parameters that the rates are among."""
        parameters = {name: value for name, value in before.parameters.items() if not name.startswith(_RATES)}
        names = HEAD if self.config.anil else tuple(parameters)
        rates, first_order = self._rates(shared, step), self.config.first_order
        if self.strategy == "stacked":  # the gradient of a sum over tasks, in each task's own parameters, is the task's
            if step == 0:
                tasks = len(support.inputs)
                parameters |= {name: parameters[name].expand(tasks, *parameters[name].shape) for name in names}
            adapted = adapt(self.loss, parameters, [support], rates, first_order=first_order, only=names, eager=True)
        else:
            adapted = adapt_tasks(
                self.loss,
                parameters,
                [support],
                rates,
                first_order=first_order,
                only=names,
                shared=step == 0,
                strategy=self.strategy,
            )
        return Tuned(self.network, adapted, loop=self.strategy == "loop")

    def _rates(self, shared: Parameters, step: int) -> float | dict[str, Tensor]:
        """α of a step; steps beyond the learned ones take the last one's."""
        if not self.config.learned_rates:
            return self.recipe.inner_rate
        index = min(step, self.recipe.inner_steps - 1)
        rates = {name.removeprefix(_RATES): value for name, value in shared.items() if name.startswith(_RATES)}
        return {name: value[index] for name, value in rates.items()}

    def _initial_rates(self, parameters: Parameters) -> dict[str, Tensor]:
        if not self.config.learned_rates:
            return {}
        adapting = HEAD if self.config.anil else tuple(parameters)
        steps, rate = self.recipe.inner_steps, self.recipe.inner_rate
        return {f"{_RATES}{name}": torch.full((steps,), rate) for name in adapting}

    def _step_weights(self, outer_step: int) -> list[float]:
        """w_i, the weight of the loss after each inner step."""
        count = self.recipe.inner_steps
        share = min(1.0, outer_step / self.config.multi_step) if self.config.multi_step else 1.0
        return [(1 - share) / count + share * (step == count - 1) for step in range(count)]

    def _figures(self, state: State, batch: Batch, predicted: Tensor, loss: float) -> Figures:
        if self.signature.kind == "classification":
            return {"loss": loss, "accuracy": losses.accuracy(predicted, batch.query.targets)}
        with torch.no_grad():
            before = self.network(state.parameters, batch.query.inputs).values
        return {"error_before": float(losses.by_task(before, batch.query).mean()), "error_after": loss}
