"""What every few-shot learner does: adapt(support) -> predict(query)."""

from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from metarl.fewshot.examples import Batch, Examples, TrainingTasks
from metarl.learning.protocols import Learner, State

BatchNorm = Literal["transductive", "support", "running", "none"]
"""Where batch normalisation takes its statistics from when a query is predicted: from the whole query (as the papers
of MAML and Reptile do, so that queries help each other), from the support, from running averages of training, or
nowhere, because the network has none. Figures differ by points: name it beside every figure."""


def need_batch_norm(kind: BatchNorm, allowed: tuple[BatchNorm, ...]) -> None:
    """Raises ValueError for a kind that a learner cannot be judged with."""
    if kind not in allowed:
        one_of = "one of " if len(allowed) > 1 else ""
        raise ValueError(f"batch norm must be {one_of}{', '.join(allowed)}, got {kind}")


@runtime_checkable
class Predictor(Protocol):
    """A learner that has adapted to the support of every task of a batch."""

    def predict(self, inputs: Float[Tensor, "task query ..."]) -> Float[Tensor, "task query output"]:
        """Logits over the ways, or the values of a regression."""
        ...


@runtime_checkable
class FewShotLearner(Learner[Batch], Protocol):
    """Learns to learn from a few examples."""

    @property
    def batch_norms(self) -> tuple[BatchNorm, ...]:
        """The kinds that the learner can be judged with; the first is the one it is trained with."""
        ...

    @property
    def training(self) -> TrainingTasks:
        """The tasks that it is best trained on, as its paper has them."""
        ...

    def adapt(self, state: State, support: Examples, batch_norm: BatchNorm) -> Predictor:
        """The learner after it has seen the support; `state` stays as it is."""
        ...
