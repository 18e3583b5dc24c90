"""What every few-shot learner does: start(state) -> predictor, predictor.adapt(support), predictor.predict(query)."""

from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, Shaped
from torch import Tensor

from metarl.fewshot.examples import Batch, Examples, TaskSignature, TrainingTasks
from metarl.learning.protocols import Learner, State

BatchNorm = Literal["transductive", "support", "running", "none"]
"""Where batch normalisation takes its statistics from when a query is predicted: from the whole query (as the papers
of MAML and Reptile do, so that queries help each other), from the support, from running averages of training, or
nowhere, because the encoder has none. Accuracies differ by points: name it beside every figure."""
AdaptationName = Literal["gradient step", "support"]
"""What one call of `adapt` spends: a gradient step on the support, or the support as a whole."""


@runtime_checkable
class AdaptedPredictor(Protocol):
    """A predictor for each task of a batch: plain data and pure functions, so that it pickles.

    A task's predictions depend on nothing but that task: not on which others are in the batch, nor, but for rounding,
    on their number.
    """

    def adapt(self, support: Examples) -> "AdaptedPredictor":
        """The predictor after these examples too; `self` stays as it is."""
        ...

    def predict(self, inputs: Float[Tensor, "task query ..."]) -> Float[Tensor, "task query output"]:
        """Logits over the ways, or the values of a regression; without gradients.

        Before any adaptation, too: a learner that only compares with its support then answers zeros, by chance.
        """
        ...

    def with_batch_norm(self, mode: str) -> "AdaptedPredictor":
        """The same predictor, judged with the batch-norm statistics of another `BatchNorm` mode.

        Raises:
            ValueError: the learner cannot be judged in this mode.
        """
        ...


@runtime_checkable
class DifferentiablePredictor(AdaptedPredictor, Protocol):
    """A predictor through which gradients can be taken: what attacks on a learner need."""

    def with_gradients(self) -> AdaptedPredictor:
        """The same predictor, before any adaptation, with logits that are differentiable.

        With respect to the queries and, through every `adapt`, to the inputs of the supports.
        """
        ...


Over = Literal["class", "example", "slot"]
"""What weights are given to: the classes of a task, the examples of its support, or the slots of a memory."""


class Weights(NamedTuple):
    """What the answers to queries are made of."""

    over: Over
    """What the last axis runs over."""
    values: Float[Tensor, "*query weight"]


class Inspection(NamedTuple):
    """What happens inside a predictor of one task."""

    layers: Mapping[str, Float[Tensor, "query unit"]]
    """The values of each layer of its network for the queries, in order; the features are the last but for a head's
    outputs (`head`). Empty where there is no network."""
    parameters: Mapping[str, Float[Tensor, "..."]]
    """The network's, as the task has them: what adaptation changes. Empty where it changes none."""
    weights: Mapping[str, Weights]
    """What its answers are made of beside them, by name, [query, ..., weight]: distances to prototypes, attention to
    each example of the support, what a memory is read by."""


@runtime_checkable
class InspectablePredictor(AdaptedPredictor, Protocol):
    """A predictor whose layers, parameters and weights can be looked at."""

    def inspect(self, inputs: Float[Tensor, "1 query ..."]) -> Inspection:
        """What happens inside when these queries of its one task are predicted; before any adaptation, too."""
        ...


@runtime_checkable
class FewShotLearner(Learner[Batch, AdaptedPredictor], Protocol):
    """Learns to learn from a few examples."""

    @property
    def num_adaptations(self) -> int:
        """How often `adapt` is called in an evaluation, each time with the whole support, unless it says otherwise."""
        ...

    @property
    def adaptation_name(self) -> AdaptationName:
        """What one adaptation is called. Gradient steps can be more than `num_adaptations`, supports cannot."""
        ...

    @property
    def batch_norms(self) -> tuple[BatchNorm, ...]:
        """The modes that the learner can be judged in; the first is the one it is trained for."""
        ...

    @property
    def training(self) -> TrainingTasks:
        """The tasks that it is best trained on, as its paper has them."""
        ...


@runtime_checkable
class EmbeddingLearner(FewShotLearner, Protocol):
    """A learner that predicts from features which, in some batch-norm modes, are each example's own.

    In these modes an evaluation embeds every example once, however many tasks it is in.
    """

    def embeds_alone(self, mode: str) -> bool:
        """Whether features depend on no other example in this batch-norm mode."""
        ...

    def embed(self, state: State, inputs: Float[Tensor, "example ..."]) -> Float[Tensor, "example feature"]:
        """The features of examples, in a mode in which they are each example's own."""
        ...

    def start_embedded(self, state: State, num_tasks: int) -> AdaptedPredictor:
        """As `start`, for a predictor that is given features in place of inputs."""
        ...


@runtime_checkable
class SequenceLearner(FewShotLearner, Protocol):
    """A learner that is told each answer after it has given its own."""

    def predict_in_turn(self, state: State, sequence: Examples) -> Float[Tensor, "task example way"]:
        """Logits for each example, from the examples and targets before it and its own inputs."""
        ...


@runtime_checkable
class LearnerConfig(Protocol):
    """A few-shot learner's options: a frozen dataclass that builds it."""

    def build(self, signature: TaskSignature, device: str = "cpu") -> FewShotLearner:
        """The learner with these options, for tasks of this kind.

        Raises:
            ValueError: it cannot learn tasks of this kind.
        """
        ...


def need_batch_norm(mode: str, allowed: tuple[BatchNorm, ...]) -> BatchNorm:
    """The mode, if it is allowed.

    Raises:
        ValueError: a learner cannot be judged in it.
    """
    for known in allowed:
        if mode == known:
            return known
    one_of = "one of " if len(allowed) > 1 else ""
    raise ValueError(f"batch norm must be {one_of}{', '.join(allowed)}, got {mode}")


def need_tasks(num_tasks: int, inputs: Shaped[Tensor, "task example ..."]) -> None:
    """Raises ValueError for examples of another number of tasks than a predictor was started for."""
    if len(inputs) != num_tasks:
        raise ValueError(f"the predictor was started for {num_tasks} tasks, got examples of {len(inputs)}")


def need_classification(signature: TaskSignature, learner: str) -> None:
    """Raises ValueError for a regression."""
    if not signature.classifies:
        raise ValueError(f"{learner} classifies and cannot learn a regression; maml, reptile and transfer can")
