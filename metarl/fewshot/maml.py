"""MAML for supervised tasks (Finn et al. 2017, "Model-Agnostic Meta-Learning", alg. 2).

    minimise  E_𝓣 L(θ_𝓣; query)   with   θ_𝓣 = θ − α ∇_θ L(θ; support), repeated `inner_steps` times

The inner loop is `metarl.adapt`, the same that adapts policies; here every inner step uses the same support.
"""

import dataclasses
import functools
from typing import Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from metarl import adam, checks, networks
from metarl.adapt import adapt_tasks
from metarl.fewshot.examples import Examples
from metarl.learner import Figures, Parameters, State
from metarl.tasks import Task


@runtime_checkable
class ExampleSource(Protocol):
    """Gives examples of tasks."""

    def examples(self, tasks: tuple[Task, ...], count: int, rng: np.random.Generator) -> Examples: ...


@dataclasses.dataclass(frozen=True)
class MamlConfig:
    """Options of supervised MAML; the defaults are the paper's for sinusoids."""

    meta_batch: int = 25
    """Tasks an outer step."""
    shots: int = 10
    """Examples in a support."""
    queries: int = 10
    """Examples in a query."""
    inner_steps: int = 1
    """Inner steps in training."""
    inner_rate: float = 0.01
    """α, the inner steps' rate, for the mean squared error."""
    outer_rate: float = 1e-3
    """Adam's learning rate."""
    first_order: bool = False
    """Take the inner gradients as constants: no second derivatives."""
    anil: bool = False
    """Adapt only the last layer."""
    hidden: tuple[int, ...] = (40, 40)
    """Widths of the hidden layers."""

    def __post_init__(self) -> None:
        checks.at_least(
            1, meta_batch=self.meta_batch, shots=self.shots, queries=self.queries, inner_steps=self.inner_steps
        )
        checks.positive(inner_rate=self.inner_rate, outer_rate=self.outer_rate)
        checks.layers(self.hidden)


@final
@dataclasses.dataclass(frozen=True)
class Maml:
    """The learner: its options and where its examples come from."""

    config: MamlConfig
    source: ExampleSource
    device: str = "cpu"

    @property
    def meta_batch(self) -> int:
        return self.config.meta_batch

    @property
    def shown(self) -> tuple[str, ...]:
        return ("error_before", "error_after")

    @functools.cached_property
    def network(self) -> nn.Sequential:
        """The architecture; its own weights are never used."""
        return self._build(torch.Generator())

    def _build(self, generator: torch.Generator) -> nn.Sequential:
        return networks.mlp([1, *self.config.hidden, 1], nn.ReLU, generator)

    def init(self, seed: int) -> State:
        parameters = networks.parameters_of(self._build(torch.Generator().manual_seed(seed)))
        parameters = {name: value.to(self.device) for name, value in parameters.items()}
        return State(parameters, adam.start(parameters))

    def meta_step(self, state: State, batch: tuple[Task, ...], rng: np.random.Generator) -> tuple[State, Figures]:
        config = self.config
        support = self._examples(batch, config.shots, rng)
        query = self._examples(batch, config.queries, rng)

        def outer(parameters: Parameters) -> tuple[Tensor, Tensor]:
            before = self._error(parameters, query, shared=True)
            after = self._error(self.adapt(parameters, support, config.inner_steps), query, shared=False)
            return after, before.detach()

        gradients, (after, before) = torch.func.grad_and_value(outer, has_aux=True)(dict(state.parameters))
        parameters, optimizer = adam.step(state.parameters, gradients, state.optimizer, config.outer_rate)
        return State(parameters, optimizer), {"error_before": float(before), "error_after": float(after)}

    def adapt(self, parameters: Parameters, support: Examples, steps: int) -> dict[str, Tensor]:
        """Each task's parameters [task, ...] after `steps` inner steps on its support, from shared parameters."""
        last = len(self.network) - 1
        return adapt_tasks(
            functools.partial(mean_squared_error, self.network),
            parameters,
            [support] * steps,
            self.config.inner_rate,
            first_order=self.config.first_order,
            only=(f"{last}.weight", f"{last}.bias") if self.config.anil else None,
        )

    def errors(self, state: State, support: Examples, query: Examples, steps: int) -> Float[Tensor, " task"]:
        """Each task's mean squared error on its query after `steps` inner steps on its support."""
        loss = functools.partial(mean_squared_error, self.network)
        with torch.no_grad():
            if steps == 0:
                return torch.func.vmap(loss, in_dims=(None, 0))(dict(state.parameters), query)
            return torch.func.vmap(loss)(self.adapt(state.parameters, support, steps), query)

    def _error(self, parameters: Parameters, query: Examples, *, shared: bool) -> Tensor:
        loss = functools.partial(mean_squared_error, self.network)
        return torch.func.vmap(loss, in_dims=(None if shared else 0, 0))(dict(parameters), query).mean()

    def _examples(self, tasks: tuple[Task, ...], count: int, rng: np.random.Generator) -> Examples:
        return Examples(*(tensor.to(self.device) for tensor in self.source.examples(tasks, count, rng)))


def mean_squared_error(network: nn.Module, parameters: Parameters, examples: Examples) -> Tensor:
    """L(θ) = E[(f_θ(x) − y)²]."""
    predicted = torch.func.functional_call(network, dict(parameters), (examples.inputs,))
    return ((predicted - examples.targets) ** 2).mean()
