"""Siamese networks (Koch, Zemel & Salakhutdinov 2015, "Siamese Neural Networks for One-shot Image Recognition").

    s(x, x') = Σ_j α_j |f_j(x) − f_j(x')| + b,   p(same class) = σ(s)                             (§3.1)

trained to verify pairs, and used to classify: a query belongs to the class whose support it most likely shares. Pairs
are every query with every example of its task's support; as one in `ways` is a match, matches weigh as much in the
loss as all others together. Where exactly one of the classes matches, its odds are exp(s): a softmax of the classes'
s, each the mean over the class's examples, is the probability of each. Deviations: four blocks with batch norm in
place of the paper's four layers, Adam, no distorted images.
"""

import dataclasses
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl import checks
from metarl.fewshot import metric
from metarl.fewshot.encoders import EncoderConfig
from metarl.fewshot.examples import TaskSignature, TrainingTasks
from metarl.fewshot.learner import Weights
from metarl.fewshot.metric import Embedded, MetricLearner
from metarl.learning.protocols import Parameters

_WEIGHT, _BIAS = "verify.weight", "verify.bias"


@dataclasses.dataclass(frozen=True)
class SiameseConfig:
    """Options of siamese networks."""

    meta_batch: int = 2
    """Tasks an outer step."""
    learning_rate: float = 1e-3
    """Adam's."""
    learning_rate_half_life: int = 2000
    """Outer steps after which the learning rate is halved, again and again; 0 for never."""
    encoder: EncoderConfig | None = None
    """What makes features of examples; Conv4 for images and a multi-layer perceptron for vectors, if not given."""

    def __post_init__(self) -> None:
        checks.count(meta_batch=self.meta_batch)
        checks.at_least(0, learning_rate_half_life=self.learning_rate_half_life)
        checks.positive(learning_rate=self.learning_rate)

    def build(self, signature: TaskSignature, device: str = "cpu") -> "Siamese":
        return Siamese(self, signature, device)


@final
@dataclasses.dataclass(frozen=True)
class Siamese(MetricLearner):
    """The learner.

    The pairs of all tasks are one batch: with another number of tasks beside it a prediction can differ in its last
    bits.
    """

    config: SiameseConfig

    @property
    def training(self) -> TrainingTasks:
        """20 classes and 5 queries of each: 2,000 pairs a task."""
        return metric.higher_ways(self.signature, 20)

    def own_parameters(self, generator: torch.Generator) -> dict[str, Tensor]:
        width = self.network.num_features
        return {_WEIGHT: torch.full((width,), -1 / width), _BIAS: torch.zeros(())}  # far apart: not the same

    def compare(self, parameters: Parameters, tasks: Embedded) -> Float[Tensor, "task query way"]:
        """The mean over a class's examples of s(x, x')."""
        return self._same(parameters, tasks) @ (tasks.one_hot / tasks.one_hot.sum(1, keepdim=True))

    def weights(self, parameters: Parameters, tasks: Embedded) -> dict[str, Weights]:
        """p(same class)."""
        same = torch.sigmoid(self._same(parameters, tasks))
        return {"probability to be of the class of each example": Weights("example", same)}

    def _same(self, parameters: Parameters, tasks: Embedded) -> Float[Tensor, "task query example"]:
        """s(x, x')."""
        apart = (tasks.query[:, :, None] - tasks.support[:, None]).abs()  # [task, query, example, feature]
        return apart @ parameters[_WEIGHT] + parameters[_BIAS]

    def criterion(self, logits: Float[Tensor, "task query way"], targets: Int[Tensor, "task query"]) -> Tensor:
        return verification_loss(logits, targets)


def verification_loss(logits: Float[Tensor, "task query way"], targets: Int[Tensor, "task query"]) -> Tensor:
    """−log σ(s) of matches and −log σ(−s) of all others, half and half."""
    match = torch.nn.functional.one_hot(targets, logits.shape[-1]).to(logits.dtype)
    weight = 0.5 * (match + (1 - match) / (logits.shape[-1] - 1))
    by_pair = torch.nn.functional.binary_cross_entropy_with_logits(logits, match, reduction="none")
    return (weight * by_pair).sum(-1).mean()
