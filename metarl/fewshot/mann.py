"""A memory-augmented neural network (Santoro et al. 2016, "Meta-Learning with Memory-Augmented Neural Networks").

An LSTM sees each input together with the target of the input before, and reads and writes an external memory M:

    write:  w^w = σ(α) w^r_{t−1} + (1 − σ(α)) w^lu_{t−1},   M ← M + w^w k                        (eq. 7, 8)
    read:   w^r = softmax(β cos(k, M)),   r = w^r M                                              (eq. 2-4)
    usage:  w^u ← γ w^u + Σ w^r + Σ w^w                                                          (eq. 5)

w^lu marks the least used slots, one for each head, emptied before they are written (least recently used access,
eq. 6). Every step writes, then reads, its own row among the others: an input finds the slot that it was just put in,
and the next step, which is shown the target, adds to that slot. The loss is the cross-entropy of all steps of a
sequence of the task's examples in random order. Adapting is reading the support; each query is then one more step from
there.

Deviations: the paper's β is 1, which mixes all slots nearly equally whatever the key; here it comes from the
controller, as in the neural Turing machine (Graves et al. 2014) that this is a variant of, and begins at 11. Adam in
place of RMSProp.
"""

import dataclasses
import functools
from typing import Literal, NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl import checks
from metarl.fewshot import encoders, losses, lstm, metric, outer_step
from metarl.fewshot.encoders import STANDARD, EncoderConfig, Standardised, Statistics
from metarl.fewshot.examples import Batch, Examples, TaskSignature, TrainingTasks
from metarl.fewshot.learner import (
    AdaptationName,
    BatchNorm,
    Inspection,
    Weights,
    need_batch_norm,
    need_classification,
    need_tasks,
)
from metarl.fewshot.linear import affine, init_linear
from metarl.fewshot.lstm import LstmCarry
from metarl.fewshot.network import Network
from metarl.fewshot.plain import fields_only
from metarl.learning.protocols import Metrics, Parameters, State

_INSTANCES = 10  # examples of each class in a sequence
_SHARP = 10.0  # what β begins with, before softplus
_CONTROLLER, _HEADS, _OUTPUT = "controller", "heads", "output"


@dataclasses.dataclass(frozen=True)
class MannConfig:
    """Options of MANN; the defaults are the paper's."""

    meta_batch: int = 16
    """Sequences an outer step."""
    slots: int = 128
    """Rows of the memory."""
    width: int = 40
    """Numbers in a row."""
    heads: int = 4
    """Heads, each of which reads and writes."""
    controller: int = 200
    """Width of the LSTM."""
    usage_decay: float = 0.95
    """γ."""
    embedding: Literal["inputs", "encoder", "fixed"] = "inputs"
    """What the controller is shown: the inputs themselves, flat (the paper's), or what an encoder makes of them, which
    is learned too, or is fixed as it begins: with another run's features, say."""
    learning_rate: float = 1e-3
    """Adam's."""
    learning_rate_half_life: int = 0
    """Outer steps after which the learning rate is halved, again and again; 0 for never."""
    encoder: EncoderConfig | None = None
    """What makes features of examples, if anything does; Conv4 for images and a multi-layer perceptron for vectors, if
    not given."""

    def __post_init__(self) -> None:
        checks.count(meta_batch=self.meta_batch)
        checks.between(1, checks.WIDEST, width=self.width, heads=self.heads, controller=self.controller)
        checks.between(self.heads, checks.WIDEST, slots=self.slots)
        checks.at_least(0, learning_rate_half_life=self.learning_rate_half_life)
        checks.fraction(usage_decay=self.usage_decay)
        checks.positive(learning_rate=self.learning_rate)
        if self.embedding == "inputs" and self.encoder is not None:
            raise ValueError("an encoder is given, but the controller is shown the inputs themselves: say embedding")

    def build(self, signature: TaskSignature, device: str = "cpu") -> "Mann":
        return Mann(self, signature, device)


class MannCarry(NamedTuple):
    """Everything that goes on from step to step."""

    controller: LstmCarry
    memory: Float[Tensor, "batch slot width"]
    reading: Float[Tensor, "batch head slot"]
    """w^r of the last step."""
    usage: Float[Tensor, "batch slot"]
    """w^u."""
    read: Float[Tensor, "batch head*width"]
    """What the heads read at the last step."""

    def repeated(self, count: int) -> "MannCarry":
        """Each row `count` times."""
        controller = LstmCarry(*(part.repeat_interleave(count, dim=0) for part in self.controller))
        return MannCarry(controller, *(part.repeat_interleave(count, dim=0) for part in self[1:]))


@final
@dataclasses.dataclass(frozen=True)
class Mann:
    """The learner.

    The queries of all tasks are one batch for the controller: with another number of tasks beside it a prediction can
    differ in its last bits.
    """

    config: MannConfig
    signature: TaskSignature
    device: str = "cpu"

    def __post_init__(self) -> None:
        need_classification(self.signature, "mann")
        if self.config.embedding != "inputs":
            encoders.build(self.config.encoder, self.signature)  # raises where there is none

    __getstate__ = fields_only

    @property
    def meta_batch(self) -> int:
        return self.config.meta_batch

    @property
    def progress_keys(self) -> tuple[str, ...]:
        return ("loss", "accuracy_2nd", "accuracy_last")

    @property
    def num_adaptations(self) -> int:
        return 1

    @property
    def adaptation_name(self) -> AdaptationName:
        return "support"

    @property
    def batch_norms(self) -> tuple[BatchNorm, ...]:
        return ("none",) if self.network is None else ("running",)

    @property
    def training(self) -> TrainingTasks:
        """Ten examples of each class, support and query together."""
        return TrainingTasks(queries=max(1, _INSTANCES - self.signature.shots))

    @functools.cached_property
    def network(self) -> Network | None:
        """The embedding, where there is one. Standardised, because keys are compared by the angle between them."""
        if self.config.embedding == "inputs":
            return None
        return Network(Standardised(encoders.build(self.config.encoder, self.signature)))

    def init(self, seed: int) -> State:
        generator = torch.Generator().manual_seed(seed)
        config, network, ways = self.config, self.network, self.signature.ways
        parameters = {} if network is None else network.init(generator)
        inputs = int(np.prod(self.signature.shape)) if network is None else network.num_features
        read = config.heads * config.width
        parameters |= lstm.init(_CONTROLLER, inputs + ways + read, config.controller, generator)
        parameters |= init_linear(_HEADS, config.controller, config.heads * (config.width + 2), generator)
        parameters[f"{_HEADS}.bias"].view(config.heads, -1)[:, config.width] = _SHARP
        parameters |= init_linear(_OUTPUT, config.controller + read, ways, generator)
        return outer_step.initial_state(network, parameters, self.device)

    def start(self, state: State, num_tasks: int) -> "MannPredictor":
        parameters = outer_step.learned(state)
        like = parameters[f"{_OUTPUT}.bias"]
        carry, previous = initial_carry(self.config, num_tasks, like), like.new_zeros(num_tasks, self.signature.ways)
        return MannPredictor(self, parameters, outer_step.running(state), num_tasks, carry, previous)

    def meta_step(self, state: State, experience: Batch, rng: np.random.Generator) -> tuple[State, Metrics]:
        sequence = _shuffled(experience.support.followed_by(experience.query), rng)
        fixed = None
        if self.config.embedding == "fixed":
            with torch.no_grad():
                layers = {name: pair for name, pair in outer_step.running(state).items() if name != STANDARD}
                fixed = self.features(outer_step.learned(state), sequence.inputs, layers)

        def objective(parameters: Parameters) -> tuple[Tensor, tuple[Tensor, Statistics | None]]:
            features, statistics = fixed or self.features(parameters, sequence.inputs, None)
            x = torch.cat([features, _one_step_later(self.one_hot(sequence.targets))], dim=-1)
            logits, _ = read_through(parameters, self.config, x, initial_carry(self.config, len(x), x))
            return losses.per_task_loss(logits, sequence).mean(), (logits.detach(), statistics)

        gradients, (logits, statistics) = outer_step.gradients(objective, outer_step.learned(state))
        return outer_step.step(state, gradients, self.config, statistics), _metrics(logits, sequence)

    def predict_in_turn(self, state: State, sequence: Examples) -> Float[Tensor, "task example way"]:
        """Logits for each example, from the examples and targets before it and its own inputs."""
        before = self.start(state, len(sequence.inputs))
        return before.read(sequence)[0]

    def features(
        self, parameters: Parameters, inputs: Tensor, statistics: Statistics | None
    ) -> tuple[Float[Tensor, "task example feature"], Statistics | None]:
        """What the controller is shown of inputs [task, example, ...], and what normalised it."""
        if self.network is None:
            return inputs.flatten(2), None
        outputs = self.network(parameters, inputs.flatten(0, 1), statistics)
        return outputs.values.unflatten(0, inputs.shape[:2]), outputs.statistics

    def one_hot(self, targets: Int[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Targets as the controller is shown them."""
        return torch.nn.functional.one_hot(targets, self.signature.ways).float()

    def embeds_alone(self, mode: str) -> bool:
        return self.network is not None

    def embed(self, state: State, inputs: Float[Tensor, "example ..."]) -> Float[Tensor, "example feature"]:
        with torch.no_grad():
            return self.features(outer_step.learned(state), inputs[None], outer_step.running(state))[0][0]

    def start_embedded(self, state: State, num_tasks: int) -> "MannPredictor":
        return dataclasses.replace(self.start(state, num_tasks), embedded=True)


@final
@dataclasses.dataclass(frozen=True)
class MannPredictor:
    """The learner after it has read what it was shown of each of a batch of tasks."""

    learner: Mann
    parameters: Parameters
    running: Statistics
    """The running averages of training."""
    num_tasks: int
    carry: MannCarry
    previous: Float[Tensor, "task way"]
    """The target of the last example, which it is told with the next input; zeros before the first."""
    embedded: bool = False
    """Whether it is given features in place of inputs."""
    differentiable: bool = False
    """Whether what it predicts can be differentiated with respect to queries and supports."""

    def adapt(self, support: Examples) -> "MannPredictor":
        """Reads these examples too, in their order."""
        need_tasks(self.num_tasks, support.inputs)
        _, carry = self.read(support)
        return dataclasses.replace(self, carry=carry, previous=self.learner.one_hot(support.targets[:, -1]))

    def predict(self, inputs: Float[Tensor, "task query ..."]) -> Float[Tensor, "task query way"]:
        """Each query is one more step from here."""
        need_tasks(self.num_tasks, inputs)
        with torch.set_grad_enabled(self.differentiable):
            logits, _ = self._asked(inputs)
        return logits.unflatten(0, inputs.shape[:2])

    def inspect(self, inputs: Float[Tensor, "1 query ..."]) -> Inspection:
        """No parameter changes; each head reads the memory by its weights, [query, head, slot]."""
        need_tasks(1, inputs)
        with torch.no_grad():
            _, carry = self._asked(inputs)
            layers = {} if self.learner.network is None else {"features": self._features(inputs)[0]}
        return Inspection(layers, {}, {"read weights": Weights("slot", carry.reading)})

    def with_gradients(self) -> "MannPredictor":
        return dataclasses.replace(self, differentiable=True)

    def with_batch_norm(self, mode: str) -> "MannPredictor":
        need_batch_norm(mode, self.learner.batch_norms)
        return self

    def read(self, sequence: Examples) -> tuple[Float[Tensor, "task example way"], MannCarry]:
        """Logits for every example in turn, and the carry after the last."""
        with torch.set_grad_enabled(self.differentiable):
            targets = _one_step_later(self.learner.one_hot(sequence.targets), self.previous)
            x = torch.cat([self._features(sequence.inputs), targets], dim=-1)
            return read_through(self.parameters, self.learner.config, x, self.carry)

    def _asked(self, inputs: Tensor) -> tuple[Float[Tensor, "query way"], MannCarry]:
        """The queries of all tasks in one row: logits and what would go on."""
        x = torch.cat([self._features(inputs), self.previous[:, None].expand(-1, inputs.shape[1], -1)], dim=-1)
        return step(self.parameters, self.learner.config, x.flatten(0, 1), self.carry.repeated(inputs.shape[1]))

    def _features(self, inputs: Tensor) -> Tensor:
        return inputs if self.embedded else self.learner.features(self.parameters, inputs, self.running)[0]


def initial_carry(config: MannConfig, batch: int, like: Tensor) -> MannCarry:
    """The carry at the start of a sequence. Slots are not quite equal, so that the cosine is defined."""
    return MannCarry(
        lstm.initial_carry(batch, config.controller, like),
        like.new_full((batch, config.slots, config.width), 1e-6),
        like.new_zeros(batch, config.heads, config.slots),
        like.new_zeros(batch, config.slots),
        like.new_zeros(batch, config.heads * config.width),
    )


def read_through(
    parameters: Parameters, config: MannConfig, x: Float[Tensor, "batch step input"], carry: MannCarry
) -> tuple[Float[Tensor, "batch step way"], MannCarry]:
    """Goes through sequences: logits at every step, and the carry after the last."""
    by_step: list[Tensor] = []
    for x_t in x.unbind(1):
        logits, carry = step(parameters, config, x_t, carry)
        by_step.append(logits)
    return torch.stack(by_step, dim=1), carry


def step(
    parameters: Parameters, config: MannConfig, x: Float[Tensor, "batch input"], carry: MannCarry
) -> tuple[Float[Tensor, "batch way"], MannCarry]:
    """One step: logits for x = [input, target before], and what goes on."""
    controller = lstm.step(parameters, _CONTROLLER, torch.cat([x, carry.read], dim=-1), carry.controller)
    heads = affine(parameters, _HEADS, controller.hidden).unflatten(-1, (config.heads, -1))
    key, strength, gate = heads.split([config.width, 1, 1], dim=-1)
    key, gate = torch.tanh(key), torch.sigmoid(gate)
    unused = least_used(carry.usage, config.heads)
    writing = gate * carry.reading + (1 - gate) * unused
    memory = carry.memory * (1 - unused.sum(1))[..., None] + writing.mT @ key
    reading = address(key, torch.nn.functional.softplus(strength) + 1, memory)
    read = (reading @ memory).flatten(1)
    usage = config.usage_decay * carry.usage + (reading + writing).sum(1)
    logits = affine(parameters, _OUTPUT, torch.cat([controller.hidden, read], dim=-1))
    return logits, MannCarry(controller, memory, reading, usage, read)


def address(
    key: Float[Tensor, "batch head width"],
    strength: Float[Tensor, "batch head 1"],
    memory: Float[Tensor, "batch slot width"],
) -> Float[Tensor, "batch head slot"]:
    """w^r = softmax(β cos(k, M))."""
    return torch.softmax(strength * metric.cosine(key, memory), dim=-1)


def least_used(usage: Float[Tensor, "batch slot"], count: int) -> Float[Tensor, "batch head slot"]:
    """w^lu: for each of `count` heads a one-hot vector, the least used slot for the first."""
    slots = torch.topk(usage.detach(), count, dim=-1, largest=False).indices
    return torch.nn.functional.one_hot(slots, usage.shape[-1]).to(usage.dtype)


def _one_step_later(
    targets: Float[Tensor, "task example way"], first: Float[Tensor, "task way"] | None = None
) -> Float[Tensor, "task example way"]:
    """At each example the target before it; at the first the one given, or zeros."""
    before = torch.zeros_like(targets[:, 0]) if first is None else first
    return torch.cat([before[:, None], targets[:, :-1]], dim=1)


def _shuffled(examples: Examples, rng: np.random.Generator) -> Examples:
    """The examples of each task in random order."""
    tasks, count = examples.targets.shape
    order = rng.permuted(np.tile(np.arange(count), (tasks, 1)), axis=1)
    return examples.take(torch.from_numpy(order))


def _metrics(logits: Float[Tensor, "task example way"], sequence: Examples) -> Metrics:
    """The loss, and the accuracy at the second and at the last example of a class."""
    targets = sequence.targets
    right = (logits.argmax(-1) == targets).float()
    same = (targets[:, :, None] == targets[:, None]).float()
    instance = same.tril().sum(-1)  # which example of its class each is, from 1
    by_instance = {name: right[instance == number] for name, number in (("2nd", 2.0), ("last", float(instance.max())))}
    accuracies = {f"accuracy_{name}": float(each.mean()) for name, each in by_instance.items() if each.numel()}
    return {"loss": float(losses.per_task_loss(logits, sequence).mean()), **accuracies}
