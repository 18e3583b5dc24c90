"""Prototypical networks (Snell, Swersky & Zemel 2017, "Prototypical Networks for Few-shot Learning").

c_k = mean of f(x) over the support of class k                                             (eq. 1)
p(y = k | x) ∝ exp(−d(f(x), c_k)),   d the squared Euclidean distance                      (eq. 2)
loss: −log p(y | x), over tasks of more ways than will be asked for                        (alg. 1, §2.6)
"""

import dataclasses
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from metarl import checks
from metarl.fewshot import metric
from metarl.fewshot.encoders import EncoderConfig
from metarl.fewshot.examples import TaskSignature, TrainingTasks
from metarl.fewshot.learner import Weights
from metarl.fewshot.metric import Embedded, MetricLearner
from metarl.learning.protocols import Parameters


@dataclasses.dataclass(frozen=True)
class PrototypicalConfig:
    """Options of prototypical networks; the defaults are the paper's for Omniglot."""

    meta_batch: int = 1
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

    def build(self, signature: TaskSignature, device: str = "cpu") -> "Prototypical":
        return Prototypical(self, signature, device)


@final
@dataclasses.dataclass(frozen=True)
class Prototypical(MetricLearner):
    """The learner."""

    config: PrototypicalConfig

    @property
    def training(self) -> TrainingTasks:
        """60 classes and 5 queries of each, 20 classes for photographs, as in the paper (§3.1, §3.2)."""
        return metric.higher_ways(self.signature, 60 if self.signature.small_images else 20)

    def own_parameters(self, generator: torch.Generator) -> dict[str, Tensor]:
        return {}

    def compare(self, parameters: Parameters, tasks: Embedded) -> Float[Tensor, "task query way"]:
        """−‖f(x) − c_k‖²."""
        return -squared_distances(tasks.query, prototypes(tasks))

    def weights(self, parameters: Parameters, tasks: Embedded) -> dict[str, Weights]:
        """‖f(x) − c_k‖²."""
        return {"squared distance to each prototype": Weights("class", -self.compare(parameters, tasks))}


def prototypes(tasks: Embedded) -> Float[Tensor, "task way feature"]:
    """c_k, for any number of examples of each class."""
    share = tasks.one_hot / tasks.one_hot.sum(1, keepdim=True)
    return share.mT @ tasks.support


def squared_distances(
    x: Float[Tensor, "task query feature"], y: Float[Tensor, "task other feature"]
) -> Float[Tensor, "task query other"]:
    """‖x − y‖² of every pair, as ‖x‖² − 2 x·y + ‖y‖²."""
    return (x**2).sum(-1)[..., None] - 2 * x @ y.mT + (y**2).sum(-1)[:, None]
