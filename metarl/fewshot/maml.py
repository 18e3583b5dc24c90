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
from metarl.fewshot import encoders, losses, outer_step
from metarl.fewshot.encoders import EncoderConfig, ModuleEncoder
from metarl.fewshot.examples import Batch, Examples, TaskSignature, TrainingTasks
from metarl.fewshot.learner import AdaptationName, BatchNorm, Inspection, need_batch_norm, need_tasks
from metarl.fewshot.network import HEAD, Network
from metarl.fewshot.plain import fields_only
from metarl.learning.protocols import Metrics, Parameters, State

Strategy = Literal["stacked", "vmap", "loop"]
_INNER_LR = "inner_lr."


@dataclasses.dataclass(frozen=True)
class MamlConfig:
    """Options of supervised MAML. Where one is not given, it is that of `paper_defaults` for tasks of this kind."""

    meta_batch: int | None = None
    """Tasks an outer step."""
    inner_steps: int | None = None
    """Inner steps in training."""
    test_steps: int | None = None
    """Inner steps in evaluations."""
    inner_lr: float | None = None
    """α, the inner steps' learning rate, for the mean loss over the support."""
    learning_rate: float = 1e-3
    """Adam's, in the outer step."""
    learning_rate_half_life: int = 0
    """Outer steps after which Adam's learning rate is halved, again and again; 0 for never."""
    first_order: bool = False
    """Take the inner gradients as constants: no second derivatives."""
    anil: bool = False
    """Adapt only the last layer."""
    learn_inner_lr: bool = False
    """Learn an inner learning rate for each layer and step, beginning with `inner_lr`."""
    multi_step: int = 0
    """Outer steps in which the loss moves from all inner steps' parameters to the last's alone; 0 for the last's."""
    strategy: Literal["auto", "stacked", "vmap", "loop"] = "auto"
    """How the tasks of a meta-batch are computed: stacked or by vmap as one program, or in a loop; no result depends on
    it but by rounding. auto: loop for images of more than 32 pixels on a CPU, stacked for all else."""
    encoder: EncoderConfig | None = None
    """What makes features of examples; Conv4 for images and a multi-layer perceptron for vectors, if not given."""

    def __post_init__(self) -> None:
        given = {"meta_batch": self.meta_batch, "inner_steps": self.inner_steps, "test_steps": self.test_steps}
        checks.count(**{name: value for name, value in given.items() if value is not None})
        checks.at_least(0, learning_rate_half_life=self.learning_rate_half_life, multi_step=self.multi_step)
        checks.positive(learning_rate=self.learning_rate, inner_lr=1.0 if self.inner_lr is None else self.inner_lr)

    def build(self, signature: TaskSignature, device: str = "cpu") -> "Maml":
        encoder = encoders.build(self.encoder, signature)
        if self.strategy == "vmap" and isinstance(encoder, ModuleEncoder) and encoder.normalises:
            # seen in PyTorch 2.13: first derivatives are right, second ones are not
            raise ValueError("PyTorch's batch norm has wrong second derivatives under vmap; take another strategy")
        return Maml(self, signature, device)


class PaperDefaults(NamedTuple):
    """Options for a kind of tasks (Finn et al. 2017, §5, app. A)."""

    meta_batch: int
    queries: int
    inner_steps: int
    test_steps: int
    inner_lr: float


def paper_defaults(signature: TaskSignature) -> PaperDefaults:
    """The options for tasks of this kind: the paper's, but for the inner rate and the queries for characters.

    The paper's rates for classification are for the loss summed over examples: 0.01 for photographs, 0.05 for the mean
    of five. For characters it has 0.4 at 5 ways, with a network that averages its features over the image; this one
    hands them all on, and learns several times faster with 0.02 and with three queries a class instead of one
    (docs/results.md).
    """
    if not signature.classifies:
        return PaperDefaults(25, 10, 1, 1, 0.01)
    if signature.small_images:
        queries, rate = max(3, signature.shots), 0.02 * signature.ways
        return PaperDefaults(32, queries, 1, 3, rate) if signature.ways < 20 else PaperDefaults(16, queries, 5, 5, rate)
    if signature.images:
        return PaperDefaults(4 if signature.shots < 5 else 2, 15, 5, 10, 0.05)
    return PaperDefaults(32, 15, 1, 1, 0.1)


@final
@dataclasses.dataclass(frozen=True)
class Maml:
    """The learner."""

    config: MamlConfig
    signature: TaskSignature
    device: str = "cpu"

    __getstate__ = fields_only

    @functools.cached_property
    def options(self) -> PaperDefaults:
        """The options, given or those for tasks of this kind."""
        config = self.config
        given = {
            "meta_batch": config.meta_batch,
            "inner_steps": config.inner_steps,
            "test_steps": config.test_steps,
            "inner_lr": config.inner_lr,
        }
        defaults = paper_defaults(self.signature)
        return defaults._replace(**{name: value for name, value in given.items() if value is not None})

    @property
    def meta_batch(self) -> int:
        return self.options.meta_batch

    @property
    def progress_keys(self) -> tuple[str, ...]:
        return ("loss", "accuracy") if self.signature.classifies else ("error_before", "error_after")

    @property
    def num_adaptations(self) -> int:
        return self.options.test_steps

    @property
    def adaptation_name(self) -> AdaptationName:
        return "gradient step"

    @property
    def batch_norms(self) -> tuple[BatchNorm, ...]:
        return ("transductive", "support") if self.network.normalises else ("none",)

    @property
    def training(self) -> TrainingTasks:
        return TrainingTasks(queries=self.options.queries)

    @functools.cached_property
    def network(self) -> Network:
        """f_θ."""
        encoder = encoders.build(self.config.encoder, self.signature)
        return Network(encoders.for_second_order(encoder), self.signature.outputs)

    @property
    def strategy(self) -> Strategy:
        """How the tasks of a meta-batch are computed."""
        if self.config.strategy != "auto":
            return self.config.strategy
        large = self.signature.images and not self.signature.small_images
        return "loop" if large and torch.device(self.device).type == "cpu" else "stacked"

    def init(self, seed: int) -> State:
        parameters = self.network.init(torch.Generator().manual_seed(seed))
        state = outer_step.initial_state(self.network, parameters | self._initial_rates(parameters), self.device)
        return dataclasses.replace(state, parameters=outer_step.learned(state))  # it keeps no running averages

    def start(self, state: State, num_tasks: int) -> "MamlPredictor":
        parameters = self.unadapted(state.parameters)
        return MamlPredictor(self, state.parameters, num_tasks, parameters, self.batch_norms[0])

    def meta_step(self, state: State, experience: Batch, rng: np.random.Generator) -> tuple[State, Metrics]:
        def objective(shared: Parameters) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            adapted, terms = self.unadapted(shared), list[Tensor]()
            predicted = loss = torch.empty(0)
            for step, weight in enumerate(self._step_weights(int(state.optimizer["step"]))):
                adapted = self.inner_step(adapted, shared, experience.support, step)
                if weight:
                    predicted = self.network.predict(adapted, experience.query.inputs, loop=self.strategy == "loop")
                    loss = losses.per_task_loss(predicted, experience.query).mean()
                    terms.append(loss if weight == 1 else weight * loss)
            return functools.reduce(torch.add, terms), (predicted.detach(), loss.detach())

        gradients, (predicted, loss) = outer_step.gradients(objective, state.parameters)
        return outer_step.step(state, gradients, self.config), self._metrics(state, experience, predicted, float(loss))

    def loss(self, parameters: Parameters, examples: Examples) -> Tensor:
        """L(θ) of one task, or, with a task axis in the parameters and examples, its sum over the tasks."""
        predicted = self.network(parameters, examples.inputs).values
        return losses.per_task_loss(predicted, examples).sum()

    def unadapted(self, shared: Parameters) -> dict[str, Tensor]:
        """θ⁰, the same for every task."""
        return {name: value for name, value in shared.items() if not name.startswith(_INNER_LR)}

    def inner_step(self, before: Parameters, shared: Parameters, support: Examples, step: int) -> dict[str, Tensor]:
        """Each task's parameters one inner step further, differentiable.

        Args:
            before: the parameters, without a task axis at step 0.
            shared: what is learned across tasks: the inner learning rates are among it.
            support: of every task.
            step: inner steps taken before.
        """
        names = HEAD if self.config.anil else tuple(before)
        rates, first_order = self._rates(shared, step), self.config.first_order
        if self.strategy == "stacked":  # the gradient of a sum over tasks, in each task's own parameters, is the task's
            own = dict(before)
            if step == 0:
                own |= {name: before[name].expand(len(support.inputs), *before[name].shape) for name in names}
            return adapt(self.loss, own, [support], rates, first_order=first_order, only=names, eager=True)
        return adapt_tasks(
            self.loss,
            before,
            [support],
            rates,
            first_order=first_order,
            only=names,
            shared=step == 0,
            strategy=self.strategy,
        )

    def _rates(self, shared: Parameters, step: int) -> float | dict[str, Tensor]:
        """α of a step; steps beyond the learned ones take the last one's."""
        if not self.config.learn_inner_lr:
            return self.options.inner_lr
        index = min(step, self.options.inner_steps - 1)
        rates = {name.removeprefix(_INNER_LR): value for name, value in shared.items() if name.startswith(_INNER_LR)}
        return {name: value[index] for name, value in rates.items()}

    def _initial_rates(self, parameters: Parameters) -> dict[str, Tensor]:
        if not self.config.learn_inner_lr:
            return {}
        adapting = HEAD if self.config.anil else tuple(parameters)
        steps, rate = self.options.inner_steps, self.options.inner_lr
        return {f"{_INNER_LR}{name}": torch.full((steps,), rate) for name in adapting}

    def _step_weights(self, outer_step: int) -> list[float]:
        """w_i, the weight of the loss after each inner step."""
        count = self.options.inner_steps
        share = min(1.0, outer_step / self.config.multi_step) if self.config.multi_step else 1.0
        return [(1 - share) / count + share * (step == count - 1) for step in range(count)]

    def _metrics(self, state: State, batch: Batch, predicted: Tensor, loss: float) -> Metrics:
        if self.signature.classifies:
            return {"loss": loss, "accuracy": losses.accuracy(predicted, batch.query.targets)}
        with torch.no_grad():
            before = self.network(state.parameters, batch.query.inputs).values
        return {"error_before": float(losses.per_task_loss(before, batch.query).mean()), "error_after": loss}


@final
@dataclasses.dataclass(frozen=True)
class MamlPredictor:
    """The network somewhere in its inner steps on each of a batch of tasks."""

    learner: Maml
    shared: Parameters
    """What was learned across tasks."""
    num_tasks: int
    parameters: Parameters
    """The network's: with a task axis after the first step, where tasks have their own."""
    batch_norm: BatchNorm
    steps: int = 0
    """Inner steps taken."""
    support: Float[Tensor, "task example ..."] | None = None
    """The inputs of the last step."""
    differentiable: bool = False
    """Whether what it predicts can be differentiated with respect to queries and supports."""

    def adapt(self, support: Examples) -> "MamlPredictor":
        """One inner step on this support."""
        need_tasks(self.num_tasks, support.inputs)
        with torch.set_grad_enabled(self.differentiable):
            parameters = self.learner.inner_step(self.parameters, self.shared, support, self.steps)
        return dataclasses.replace(self, parameters=parameters, steps=self.steps + 1, support=support.inputs)

    def predict(self, inputs: Float[Tensor, "task query ..."]) -> Float[Tensor, "task query output"]:
        """Where the support's statistics are to be taken and there is none yet, the queries' own are."""
        need_tasks(self.num_tasks, inputs)
        support = self.support if self.batch_norm == "support" else None
        with torch.set_grad_enabled(self.differentiable):
            one_by_one = self.learner.strategy == "loop" and self.steps > 0
            return self.learner.network.predict(self.parameters, inputs, support, loop=one_by_one)

    def with_gradients(self) -> "MamlPredictor":
        """Through the inner gradients too: a first-order learner takes the same steps, and only learns without them."""
        second = dataclasses.replace(self.learner, config=dataclasses.replace(self.learner.config, first_order=False))
        return dataclasses.replace(self, learner=second, differentiable=True)

    def inspect(self, inputs: Float[Tensor, "1 query ..."]) -> Inspection:
        need_tasks(1, inputs)
        normalising = self.support if self.batch_norm == "support" else None
        return self.learner.network.inspect(self.parameters, inputs, normalising)

    def with_batch_norm(self, mode: str) -> "MamlPredictor":
        return dataclasses.replace(self, batch_norm=need_batch_norm(mode, self.learner.batch_norms))
