"""Matching networks (Vinyals et al. 2016, "Matching Networks for One Shot Learning").

    p(y | x) = Σ_i a(x, x_i) [y = y_i],   a(x, x_i) = softmax_i s(f(x), g(x_i))                (eq. 1, §2.1.1)

s is τ times the cosine, τ learned (without it the softmax of cosines in [−1, 1] is too flat to train at many ways), or
minus the squared Euclidean distance. With full-context embeddings (app. A.1, A.2) the support is read by a
bidirectional LSTM, in the order in which it comes, and the query by `reads` steps of an LSTM with attention to it:

    g(x_i) = →h_i + ←h_i + g'(x_i)
    h_k = LSTM(f'(x), [h_{k−1}, r_{k−1}], c_{k−1}) + f'(x),   r_k = Σ_i softmax_i(h_k · g(x_i)) g(x_i),   f(x) = h_K
"""

import dataclasses
import math
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from metarl import checks
from metarl.fewshot import lstm, metric
from metarl.fewshot.encoders import EncoderConfig
from metarl.fewshot.examples import TaskSignature, TrainingTasks
from metarl.fewshot.learner import Weights
from metarl.fewshot.metric import Embedded, MetricLearner
from metarl.fewshot.prototypical import squared_distances
from metarl.learning.protocols import Parameters

_FORWARDS, _BACKWARDS, _ATTENTION = "context.forwards", "context.backwards", "context.attention"
_TEMPERATURE = "log_temperature"


@dataclasses.dataclass(frozen=True)
class MatchingConfig:
    """Options of matching networks."""

    meta_batch: int = 2
    """Tasks an outer step."""
    similarity: Literal["cosine", "l2"] = "cosine"
    """The cosine times a learned temperature, or minus the squared Euclidean distance."""
    temperature: float = 10.0
    """τ in the beginning, for the cosine."""
    full_context: bool = False
    """Embed each example in the context of the whole support."""
    reads: int = 5
    """K, the steps of attention to the support, with full context."""
    learning_rate: float = 1e-3
    """Adam's."""
    learning_rate_half_life: int = 2000
    """Outer steps after which the learning rate is halved, again and again; 0 for never."""
    encoder: EncoderConfig | None = None
    """What makes features of examples; Conv4 for images and a multi-layer perceptron for vectors, if not given."""

    def __post_init__(self) -> None:
        checks.count(meta_batch=self.meta_batch, reads=self.reads)
        checks.at_least(0, learning_rate_half_life=self.learning_rate_half_life)
        checks.positive(learning_rate=self.learning_rate, temperature=self.temperature)

    def build(self, signature: TaskSignature, device: str = "cpu") -> "Matching":
        return Matching(self, signature, device)


@final
@dataclasses.dataclass(frozen=True)
class Matching(MetricLearner):
    """The learner.

    With full context the examples of all tasks are one batch for the LSTMs: with another number of tasks beside it a
    prediction can differ in its last bits.
    """

    config: MatchingConfig

    @property
    def training(self) -> TrainingTasks:
        """20 classes and 5 queries of each: more ways than the paper's 5, as for prototypical networks."""
        return metric.higher_ways(self.signature, 20)

    def own_parameters(self, generator: torch.Generator) -> dict[str, Tensor]:
        parameters: dict[str, Tensor] = {}
        if self.config.similarity == "cosine":
            parameters[_TEMPERATURE] = torch.tensor(math.log(self.config.temperature))
        if self.config.full_context:
            width = self.network.num_features
            for name, inputs in ((_FORWARDS, width), (_BACKWARDS, width), (_ATTENTION, 2 * width)):
                parameters |= lstm.init(name, inputs, width, generator)
        return parameters

    def compare(self, parameters: Parameters, tasks: Embedded) -> Float[Tensor, "task query way"]:
        """log Σ_i a(x, x_i) [y = y_i]."""
        return attended(self._similarity(parameters, tasks), tasks)

    def weights(self, parameters: Parameters, tasks: Embedded) -> dict[str, Weights]:
        """a(x, x_i)."""
        attention = torch.softmax(self._similarity(parameters, tasks), dim=-1)
        return {"attention to each example": Weights("example", attention)}

    def _similarity(self, parameters: Parameters, tasks: Embedded) -> Float[Tensor, "task query example"]:
        """s(f(x), g(x_i))."""
        if self.config.full_context:
            tasks = in_context(parameters, tasks, self.config.reads)
        if self.config.similarity == "cosine":
            return parameters[_TEMPERATURE].exp() * metric.cosine(tasks.query, tasks.support)
        return -squared_distances(tasks.query, tasks.support)


def attended(similarity: Float[Tensor, "task query example"], tasks: Embedded) -> Float[Tensor, "task query way"]:
    """log Σ_i a(x, x_i) [y = y_i]."""
    log_attention = torch.log_softmax(similarity, -1)[:, :, None, :]
    elsewhere = (tasks.one_hot.mT == 0)[:, None]  # [task, 1, way, example]
    return torch.logsumexp(log_attention.masked_fill(elsewhere, -torch.inf), dim=-1)


def in_context(parameters: Parameters, tasks: Embedded, reads: int) -> Embedded:
    """The examples as embedded in the context of the support."""
    support = _read_support(parameters, tasks.support)
    count, queries, width = tasks.query.shape
    carry = lstm.initial_carry(count * queries, width, tasks.query)
    read = torch.zeros_like(tasks.query)
    hidden = torch.zeros_like(tasks.query)
    for _ in range(reads):
        previous = torch.cat([hidden, read], dim=-1).flatten(0, 1)
        carry = lstm.step(parameters, _ATTENTION, previous, lstm.LstmCarry(tasks.query.flatten(0, 1), carry.cell))
        hidden = carry.hidden.unflatten(0, (count, queries)) + tasks.query
        read = torch.softmax(hidden @ support.mT, dim=-1) @ support
    return tasks._replace(support=support, query=hidden)


def _read_support(parameters: Parameters, support: Float[Tensor, "task example feature"]) -> Tensor:
    count, examples, width = support.shape
    terms = [support]
    for name, order in ((_FORWARDS, range(examples)), (_BACKWARDS, range(examples - 1, -1, -1))):
        carry, by_example = lstm.initial_carry(count, width, support), {}
        for example in order:
            carry = lstm.step(parameters, name, support[:, example], carry)
            by_example[example] = carry.hidden
        terms.append(torch.stack([by_example[example] for example in range(examples)], dim=1))
    return torch.stack(terms).sum(0)
