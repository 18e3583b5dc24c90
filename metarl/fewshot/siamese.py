"""Siamese networks (Koch, Zemel & Salakhutdinov 2015, "Siamese Neural Networks for One-shot Image Recognition").

    s(x, x') = Σ_j α_j |f_j(x) − f_j(x')| + b,   p(same class) = σ(s)                             (§3.1)

trained to verify pairs, and used to classify: a query belongs to the class whose support it most likely shares. Pairs
are every query with every example of its task's support; as one in `ways` is a match, matches weigh as much in the
loss as all others together. Where exactly one of the classes matches, its odds are exp(s): a softmax of the classes'
s, each the mean over the class's examples, is the probability of each. Deviations: four blocks with batch norm in
place of the paper's four layers, Adam, no distorted images.
"""

import dataclasses
import functools
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl import checks
from metarl.fewshot import metric, networks, updates
from metarl.fewshot.examples import Batch, Examples, TaskSignature, TrainingTasks
from metarl.fewshot.learner import BatchNorm, Predictor
from metarl.fewshot.metric import Comparing, Embedded
from metarl.fewshot.networks import Network, NetworkConfig
from metarl.learner import Figures, Parameters, State

_WEIGHT, _BIAS = "verify.weight", "verify.bias"


@dataclasses.dataclass(frozen=True)
class SiameseConfig:
    """Options of siamese networks."""

    meta_batch: int = 2
    """Tasks an outer step."""
    outer_rate: float = 1e-3
    """Adam's learning rate."""
    halve_every: int = 2000
    """Outer steps after which the rate is halved, again and again; 0 for never."""
    network: NetworkConfig = NetworkConfig()

    def __post_init__(self) -> None:
        checks.at_least(1, meta_batch=self.meta_batch)
        checks.at_least(0, halve_every=self.halve_every)
        checks.positive(outer_rate=self.outer_rate)


@final
@dataclasses.dataclass(frozen=True)
class Siamese:
    """The learner."""

    config: SiameseConfig
    signature: TaskSignature
    device: str = "cpu"

    def __post_init__(self) -> None:
        metric.need_classification(self.signature, "siamese")

    @property
    def meta_batch(self) -> int:
        return self.config.meta_batch

    @property
    def shown(self) -> tuple[str, ...]:
        return ("loss", "accuracy")

    @property
    def batch_norms(self) -> tuple[BatchNorm, ...]:
        return metric.batch_norms(self.network)

    @property
    def training(self) -> TrainingTasks:
        """20 classes and 5 queries of each: 2,000 pairs a task."""
        return metric.higher_ways(self.signature, 20)

    @functools.cached_property
    def network(self) -> Network:
        """f."""
        return networks.build(self.config.network, self.signature, outputs=0)

    def init(self, seed: int) -> State:
        parameters = self.network.init(torch.Generator().manual_seed(seed))
        width = self.network.features
        verify = {_WEIGHT: torch.full((width,), -1 / width), _BIAS: torch.zeros(())}  # far apart: not the same
        return updates.start(self.network, parameters | verify, self.device)

    def meta_step(self, state: State, batch: Batch, rng: np.random.Generator) -> tuple[State, Figures]:
        return self._comparing.meta_step(state, batch, self.config)

    def adapt(self, state: State, support: Examples, batch_norm: BatchNorm) -> Predictor:
        return self._comparing.adapt(state, support, batch_norm)

    @property
    def _comparing(self) -> Comparing:
        return Comparing(self.network, compare, verification_loss)


def compare(parameters: Parameters, tasks: Embedded) -> Float[Tensor, "task query way"]:
    """The mean over a class's examples of s(x, x')."""
    apart = (tasks.query[:, :, None] - tasks.support[:, None]).abs()  # [task, query, example, feature]
    same = apart @ parameters[_WEIGHT] + parameters[_BIAS]
    return same @ (tasks.one_hot / tasks.one_hot.sum(1, keepdim=True))


def verification_loss(logits: Float[Tensor, "task query way"], targets: Int[Tensor, "task query"]) -> Tensor:
    """−log σ(s) of matches and −log σ(−s) of all others, half and half."""
    match = torch.nn.functional.one_hot(targets, logits.shape[-1]).to(logits.dtype)
    weight = 0.5 * (match + (1 - match) / (logits.shape[-1] - 1))
    found = torch.nn.functional.binary_cross_entropy_with_logits(logits, match, reduction="none")
    return (weight * found).sum(-1).mean()
