"""MAML-TRPO's outer objective as sums over parts of the tasks, each of which can be computed elsewhere.

    L(x) = −1/N Σ_𝓣 E[π_{θ_𝓣}(a | o) / π_old(a | o) · Â],   KL(x) = 1/N Σ_𝓣 E KL(π_old ‖ π_{θ_𝓣})

of N tasks 𝓣, with x = (θ, α), and their derivatives through the inner steps. A part holds the trials of some of the
tasks. What it is asked for is a function of the part and the question, so it does not matter who answers; and the
answers are summed in the parts' order, so that the last bit depends on the parts alone.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.agents.batching import map_tensors
from metarl.agents.policy_adaptation import PolicyAdaptation
from metarl.agents.policy_gradient import PolicyBatch, PolicyOutputs, kl_sum, surrogate_sum
from metarl.learning.episodes import Trials
from metarl.learning.protocols import Parameters
from metarl.learning.sharding import PartExecutor
from metarl.maths import trust_region
from metarl.maths.parameters import unravel
from metarl.maths.running_mean_std import RunningMeanStd


class Point(NamedTuple):
    """Where the objective is asked for."""

    x: Float[Tensor, " n"]
    """θ and α in one vector."""
    statistics: RunningMeanStd | None
    """What observations are standardised by, if by anything."""


class Values(NamedTuple):
    """The objective and its constraint."""

    loss: Float[Tensor, ""]
    kl: Float[Tensor, ""]


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """Some of the tasks, and what was played on them."""

    adaptation: PolicyAdaptation
    parameters: Parameters
    """Those that played."""
    trials: Trials
    chosen: tuple[tuple[int, ...], ...]
    """At each point of the trials, the numbers of the episodes that the Fisher matrix is of."""
    _products: list[tuple[Point, trust_region.Product]] = dataclasses.field(default_factory=list)
    """The last point that products were asked for at, with its graph: a whole conjugate gradient asks at one."""

    @functools.cached_property
    def _replayed(self) -> tuple[list[PolicyBatch], list[PolicyOutputs]]:
        return self.adaptation.replay(self.parameters, self.trials)

    @functools.cached_property
    def _like(self) -> Parameters:
        """The names and shapes in x."""
        return self.adaptation.learned(self.parameters)

    def statistics_with(self, before: RunningMeanStd) -> RunningMeanStd:
        """The statistics with the observations of these trials taken in."""
        return before.merge(self.adaptation.observations_of(self.trials))

    def entropy(self) -> Float[Tensor, ""]:
        """The sum over the tasks of the mean entropy of the adapted policies that played, nats."""
        return self._replayed[1][-1].distribution.entropy().flatten(1).mean(1).sum()

    def values(self, point: Point) -> Values:
        """The sums over the tasks."""
        raw, played = self._replayed
        new = self._outputs(point, raw)
        return Values(surrogate_sum(new, played[-1], raw[-1]), kl_sum(new, played[-1], raw[-1]))

    def gradient(self, point: Point) -> tuple[Float[Tensor, " n"], Values]:
        """That of the loss's sum, and the sums."""

        def loss(x: Tensor) -> tuple[Tensor, Values]:
            values = self.values(point._replace(x=x))
            return values.loss, values

        gradient, values = torch.func.grad(loss, has_aux=True)(point.x)
        return gradient, values

    def product(self, point: Point, vector: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The vector times the Hessian of the KL's sum at the point, on a share of every task's episodes."""
        if not (self._products and _same(self._products[0][0], point)):
            self._products[:] = [(point, self._product_at(point))]
        return self._products[0][1](vector)

    def _product_at(self, point: Point) -> trust_region.Product:
        raw, _ = self._replayed
        shares = [self._share(batch, chosen) for batch, chosen in zip(raw, self.chosen, strict=True)]
        x = point.x.detach().requires_grad_()
        mask = shares[-1].mask.to(x.dtype)
        weights = mask / mask.sum(-1, keepdim=True).clamp_min(1)
        distribution = self._outputs(point._replace(x=x), shares).distribution
        return trust_region.fisher_vector_product(distribution, x, weights, damping=0.0)

    def _share(self, batch: PolicyBatch, chosen: Sequence[int]) -> PolicyBatch:
        episodes = self.adaptation.config.episodes_per_adaptation
        index = torch.tensor(chosen, device=batch.mask.device)
        return map_tensors(lambda part: part.unflatten(1, (episodes, -1))[:, index].flatten(1, 2), batch)

    def _outputs(self, point: Point, raw: Sequence[PolicyBatch]) -> PolicyOutputs:
        """π_{θ_𝓣} on the query's samples, as a function of θ and α; the query is the last batch."""
        *supports, query = (batch.standardised(point.statistics) for batch in raw)
        stages = self.adaptation.stages(unravel(point.x, self._like), supports)
        return self.adaptation.outputs(stages[-1], query)


def _same(one: Point, other: Point) -> bool:
    statistics = zip(one.statistics or (), other.statistics or (), strict=True)
    return torch.equal(one.x, other.x) and all(torch.equal(x, y) for x, y in statistics)


@final
@dataclasses.dataclass(frozen=True)
class Objective:
    """The whole objective, from its parts."""

    parts: Sequence[Part]
    executor: PartExecutor
    """Who answers for the parts."""

    @property
    def num_tasks(self) -> int:
        return sum(len(part.trials.tasks) for part in self.parts)

    def statistics_with(self, before: RunningMeanStd) -> RunningMeanStd:
        """The statistics with the observations of all trials taken in."""
        for part in self.parts:
            before = part.statistics_with(before)
        return before

    def entropy(self) -> float:
        """The mean entropy of the adapted policies that played, nats."""
        return float(_sum(self.executor.map(Part.entropy, self.parts)) / self.num_tasks)

    def values(self, point: Point) -> Values:
        """L and KL."""
        return self._means(self.executor.map(functools.partial(_values, point=point), self.parts))

    def gradient(self, point: Point) -> tuple[Float[Tensor, " n"], Values]:
        """∇L, L and KL."""
        found = self.executor.map(functools.partial(_gradient, point=point), self.parts)
        return _sum([gradient for gradient, _ in found]) / self.num_tasks, self._means([values for _, values in found])

    def product(self, point: Point, vector: Float[Tensor, " n"], damping: float) -> Float[Tensor, " n"]:
        """The vector times the Hessian of KL at the point, damped."""
        found = self.executor.map(functools.partial(_product, point=point, vector=vector), self.parts)
        return _sum(found) / self.num_tasks + damping * vector

    def _means(self, sums: Sequence[Values]) -> Values:
        return Values(*(_sum(column) / self.num_tasks for column in zip(*sums, strict=True)))


def _values(part: Part, point: Point) -> Values:
    with torch.no_grad():
        return part.values(point)


def _gradient(part: Part, point: Point) -> tuple[Tensor, Values]:
    return part.gradient(point)


def _product(part: Part, point: Point, vector: Tensor) -> Tensor:
    return part.product(point, vector)


def _sum(terms: Sequence[Tensor]) -> Tensor:
    """From the first to the last, whoever answered first."""
    return functools.reduce(torch.add, terms)
