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
from metarl.fewshot import losses, lstm, metric, networks, outer_step
from metarl.fewshot.examples import Batch, Examples, TaskSignature, TrainingTasks
from metarl.fewshot.learner import BatchNorm, need_batch_norm
from metarl.fewshot.networks import STANDARD, Network, NetworkConfig, Standardised, Statistics
from metarl.learning.protocols import Figures, Parameters, State

_TURNS = 10  # examples of each class in a sequence
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
    embedding: Literal["inputs", "network", "fixed"] = "inputs"
    """What the controller is shown: the inputs themselves, flat (the paper's), or what a network makes of them, which
    is learned too, or is fixed as it begins: with another run's features, say."""
    outer_rate: float = 1e-3
    """Adam's learning rate."""
    halve_every: int = 0
    """Outer steps after which the rate is halved, again and again; 0 for never."""
    network: NetworkConfig = NetworkConfig()

    def __post_init__(self) -> None:
        checks.at_least(1, meta_batch=self.meta_batch, width=self.width, heads=self.heads, controller=self.controller)
        checks.at_least(self.heads, slots=self.slots)
        checks.at_least(0, halve_every=self.halve_every)
        checks.fraction(usage_decay=self.usage_decay)
        checks.positive(outer_rate=self.outer_rate)


class Carry(NamedTuple):
    """Everything that goes on from step to step."""

    controller: lstm.Memory
    memory: Float[Tensor, "batch slot width"]
    reading: Float[Tensor, "batch head slot"]
    """w^r of the last step."""
    usage: Float[Tensor, "batch slot"]
    """w^u."""
    read: Float[Tensor, "batch head*width"]
    """What the heads read at the last step."""


@final
@dataclasses.dataclass(frozen=True)
class Mann:
    """The learner."""

    config: MannConfig
    signature: TaskSignature
    device: str = "cpu"

    def __post_init__(self) -> None:
        metric.need_classification(self.signature, "mann")

    @property
    def meta_batch(self) -> int:
        return self.config.meta_batch

    @property
    def shown(self) -> tuple[str, ...]:
        return ("loss", "accuracy_2nd", "accuracy_last")

    @property
    def batch_norms(self) -> tuple[BatchNorm, ...]:
        return ("running",) if self._embeds else ("none",)

    @property
    def training(self) -> TrainingTasks:
        """Ten examples of each class, support and query together."""
        return TrainingTasks(queries=max(1, _TURNS - self.signature.shots))

    @functools.cached_property
    def network(self) -> Network:
        """The embedding, where there is one. Standardised, because keys are compared by the angle between them."""
        return Standardised(networks.build(self.config.network, self.signature, outputs=0))

    @property
    def _embeds(self) -> bool:
        return self.config.embedding != "inputs"

    def init(self, seed: int) -> State:
        generator = torch.Generator().manual_seed(seed)
        config, ways = self.config, self.signature.ways
        parameters = self.network.init(generator) if self._embeds else {}
        inputs = self.network.features if self._embeds else int(np.prod(self.signature.shape))
        read = config.heads * config.width
        parameters |= lstm.init(_CONTROLLER, inputs + ways + read, config.controller, generator)
        parameters |= networks.linear(_HEADS, config.controller, config.heads * (config.width + 2), generator)
        parameters[f"{_HEADS}.bias"].view(config.heads, -1)[:, config.width] = _SHARP
        parameters |= networks.linear(_OUTPUT, config.controller + read, ways, generator)
        state = outer_step.start(self.network, parameters, self.device)
        return state if self._embeds else dataclasses.replace(state, parameters=outer_step.learned(state))

    def meta_step(self, state: State, batch: Batch, rng: np.random.Generator) -> tuple[State, Figures]:
        sequence = _shuffled(batch, rng)
        fixed = None
        if self.config.embedding == "fixed":
            with torch.no_grad():
                blocks = {name: pair for name, pair in outer_step.running(state).items() if name != STANDARD}
                fixed = self._features(outer_step.learned(state), sequence.inputs, blocks)

        def objective(parameters: Parameters) -> tuple[Tensor, tuple[Tensor, Statistics | None]]:
            features, statistics = fixed or self._features(parameters, sequence.inputs, None)
            logits, _ = self._read(parameters, features, sequence.targets)
            return losses.by_task(logits, sequence).mean(), (logits.detach(), statistics)

        found, (logits, statistics) = outer_step.gradients(objective, outer_step.learned(state))
        return outer_step.step(state, found, self.config, statistics), _figures(logits, sequence)

    def adapt(self, state: State, support: Examples, batch_norm: BatchNorm) -> "Remembering":
        """The learner that has read the support."""
        need_batch_norm(batch_norm, self.batch_norms)
        with torch.no_grad():
            parameters, statistics = outer_step.learned(state), outer_step.running(state)
            features, _ = self._features(parameters, support.inputs, statistics)
            _, carry = self._read(parameters, features, support.targets)
            return Remembering(self, parameters, statistics, carry, self._one_hot(support.targets[:, -1]))

    def predict_in_turn(self, state: State, sequence: Examples) -> Float[Tensor, "task example way"]:
        """Logits for each example, from the examples and targets before it and its own inputs."""
        with torch.no_grad():
            parameters = outer_step.learned(state)
            features, _ = self._features(parameters, sequence.inputs, outer_step.running(state))
            return self._read(parameters, features, sequence.targets)[0]

    def next(
        self, parameters: Parameters, statistics: Statistics, inputs: Tensor, previous: Tensor, carry: Carry
    ) -> Float[Tensor, "batch way"]:
        """Logits for inputs [batch, ...] that come next, `previous` the target before as a one-hot vector."""
        features, _ = self._features(parameters, inputs[:, None], statistics)
        return step(parameters, self.config, torch.cat([features[:, 0], previous], dim=-1), carry)[0]

    def _features(
        self, parameters: Parameters, inputs: Tensor, statistics: Statistics | None
    ) -> tuple[Float[Tensor, "task example feature"], Statistics | None]:
        if not self._embeds:
            return inputs.flatten(2), None
        outputs = self.network(parameters, inputs.flatten(0, 1), statistics)
        return outputs.values.unflatten(0, inputs.shape[:2]), outputs.statistics

    def _read(
        self, parameters: Parameters, features: Float[Tensor, "task example feature"], targets: Tensor
    ) -> tuple[Float[Tensor, "task example way"], Carry]:
        """Goes through the sequences: logits at every step, and the carry after the last."""
        one_hot = self._one_hot(targets)
        previous = torch.cat([torch.zeros_like(one_hot[:, :1]), one_hot[:, :-1]], dim=1)
        x = torch.cat([features, previous], dim=-1)
        carry, logits = empty(self.config, len(x), x), []
        for t in range(x.shape[1]):
            found, carry = step(parameters, self.config, x[:, t], carry)
            logits.append(found)
        return torch.stack(logits, dim=1), carry

    def _one_hot(self, targets: Int[Tensor, "..."]) -> Float[Tensor, "..."]:
        return torch.nn.functional.one_hot(targets, self.signature.ways).float()


@final
@dataclasses.dataclass(frozen=True)
class Remembering:
    """The learner after it has read the support of every task."""

    learner: Mann
    parameters: Parameters
    statistics: Statistics
    carry: Carry
    previous: Float[Tensor, "task way"]
    """The target of the support's last example."""

    def predict(self, inputs: Float[Tensor, "task query ..."]) -> Float[Tensor, "task query way"]:
        tasks, queries = inputs.shape[:2]

        def repeated(x: Tensor) -> Tensor:
            return x.repeat_interleave(queries, dim=0)

        memory, reading, usage, read = (repeated(x) for x in self.carry[1:])
        controller = lstm.Memory(*(repeated(x) for x in self.carry.controller))
        with torch.no_grad():
            logits = self.learner.next(
                self.parameters,
                self.statistics,
                inputs.flatten(0, 1),
                repeated(self.previous),
                Carry(controller, memory, reading, usage, read),
            )
        return logits.unflatten(0, (tasks, queries))


def empty(config: MannConfig, batch: int, like: Tensor) -> Carry:
    """The carry at the start of a sequence. Slots are not quite equal, so that the cosine is defined."""
    return Carry(
        lstm.empty(batch, config.controller, like),
        like.new_full((batch, config.slots, config.width), 1e-6),
        like.new_zeros(batch, config.heads, config.slots),
        like.new_zeros(batch, config.slots),
        like.new_zeros(batch, config.heads * config.width),
    )


def step(
    parameters: Parameters, config: MannConfig, x: Float[Tensor, "batch input"], carry: Carry
) -> tuple[Float[Tensor, "batch way"], Carry]:
    """One step: logits for x = [input, target before], and what goes on."""
    controller = lstm.step(parameters, _CONTROLLER, torch.cat([x, carry.read], dim=-1), carry.controller)
    heads = networks.affine(parameters, _HEADS, controller.hidden).unflatten(-1, (config.heads, -1))
    key, strength, gate = heads.split([config.width, 1, 1], dim=-1)
    key, gate = torch.tanh(key), torch.sigmoid(gate)
    unused = least_used(carry.usage, config.heads)
    writing = gate * carry.reading + (1 - gate) * unused
    memory = carry.memory * (1 - unused.sum(1))[..., None] + writing.mT @ key
    reading = address(key, torch.nn.functional.softplus(strength) + 1, memory)
    read = (reading @ memory).flatten(1)
    usage = config.usage_decay * carry.usage + (reading + writing).sum(1)
    logits = networks.affine(parameters, _OUTPUT, torch.cat([controller.hidden, read], dim=-1))
    return logits, Carry(controller, memory, reading, usage, read)


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


def _shuffled(batch: Batch, rng: np.random.Generator) -> Examples:
    """All examples of each task in random order."""
    inputs, targets = (torch.cat(pair, dim=1) for pair in zip(batch.support, batch.query, strict=True))
    tasks, examples = targets.shape
    order = rng.permuted(np.tile(np.arange(examples), (tasks, 1)), axis=1)
    numbers, rows = torch.from_numpy(order).to(targets.device), torch.arange(tasks, device=targets.device)[:, None]
    return Examples(inputs[rows, numbers], targets[rows, numbers])


def _figures(logits: Float[Tensor, "task example way"], sequence: Examples) -> Figures:
    """The loss, and the accuracy at the second and at the last example of a class."""
    targets = sequence.targets
    right = (logits.argmax(-1) == targets).float()
    same = (targets[:, :, None] == targets[:, None]).float()
    turn = same.tril().sum(-1)  # which example of its class each is, from 1
    by_turn = {name: right[turn == number] for name, number in (("2nd", 2.0), ("last", float(turn.max())))}
    accuracies = {f"accuracy_{name}": float(found.mean()) for name, found in by_turn.items() if found.numel()}
    return {"loss": float(losses.by_task(logits, sequence).mean()), **accuracies}
