"""The nearest centroid of raw inputs: what any learned embedding has to beat.

p(y = k | x) ∝ exp(−‖x − c_k‖²),   c_k the mean of the support of class k
"""

import dataclasses
from typing import final

from jaxtyping import Float
from torch import Tensor

from metarl import checks
from metarl.fewshot.examples import Examples, TaskSignature
from metarl.fewshot.learner import need_classification
from metarl.fewshot.metric import Embedded
from metarl.fewshot.prototypical import prototypes, squared_distances
from metarl.fewshot.support_only import SupportOnly, SupportOnlyPredictor
from metarl.learning.protocols import State


@dataclasses.dataclass(frozen=True)
class CentroidConfig:
    """Options of the nearest centroid: there is nothing to learn, so one outer step is enough."""

    meta_batch: int = 1
    """Tasks an outer step."""

    def __post_init__(self) -> None:
        checks.count(meta_batch=self.meta_batch)

    def build(self, signature: TaskSignature, device: str = "cpu") -> "Centroid":
        need_classification(signature, "centroid")
        return Centroid(signature, self.meta_batch)


@final
@dataclasses.dataclass(frozen=True)
class Centroid(SupportOnly):
    """The learner, which learns nothing."""

    def start(self, state: State, num_tasks: int) -> "CentroidPredictor":
        return CentroidPredictor(self.signature.ways, num_tasks)


@final
@dataclasses.dataclass(frozen=True)
class CentroidPredictor(SupportOnlyPredictor):
    """Averages over the examples that it was shown."""

    def answers(self, support: Examples, inputs: Float[Tensor, "task query ..."]) -> Float[Tensor, "task query way"]:
        tasks = Embedded(support.inputs.flatten(2), support.targets, inputs.flatten(2))
        return -squared_distances(tasks.query, prototypes(tasks))

    def with_gradients(self) -> "CentroidPredictor":
        return self
