"""A learner for tables of any width: rows compared column by column, each column weighed by what its support shows.

What the support shows of column c (all of it the same whatever the order of rows, columns and classes is):

    d_c = [share of variance between classes, what of it chance would give, share of distinct values, skewness,
           kurtosis, mean correlation with other columns, share of the greatest between-class variance; columns, ways
           and shots of the task]
    h_c = MLP(d_c),   context = mean over columns of h_c                        (deep sets, Zaheer et al. 2017, eq. 4)
    a_c = softmax over columns of u(h_c, context)                               (attention over columns)
    r_c = √a_c ((1 − g_c) z_c + g_c tanh(α_c z_c))                              the row as features

with z the values in the support's units. Four ways to classify by r, each with what it needs (temperature, the weights'
prior, shrinkage) a function of the context, are pooled (a product of experts with learned exponents):

    prototypes   −τ ‖r − mean of the class‖²                                    (Snell et al. 2017)
    neighbours   log Σ_i∈class exp(−τ ‖r − r_i‖²)                               (Vinyals et al. 2016)
    logistic     multinomial logistic regression on r, its weights' prior variance κ C for C columns: with a
                 column's attention it is that column's own prior, and with all alike and κ = 1 it is scikit-learn's
    Gauss        −Σ_c a_c (z_c − mean of the class)² / 2 v_c,  v the variance within classes, shrunk to 1

All of it is meta-learned over training tables.
"""

import dataclasses
import functools
import math
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl import checks
from metarl.fewshot.encoders import EncoderConfig
from metarl.fewshot.encoders.encoder import Encoded, Statistics
from metarl.fewshot.examples import TaskSignature, TrainingTasks
from metarl.fewshot.linear import affine, init_linear
from metarl.fewshot.metric import Embedded, MetricLearner
from metarl.fewshot.network import Network
from metarl.fewshot.prototypical import prototypes, squared_distances
from metarl.learning.protocols import Parameters

_DESCRIBED = 10  # numbers of d_c
_EXPERTS = 4
_MOST_COLUMNS = 4096  # every two of them are correlated
_LEAST = 1e-9  # attention: √0 has no derivative
_OF_COLUMN = 3  # attention, g before the sigmoid, log α
_OF_TASK = 6  # three log temperatures, log κ, shrinkage before the sigmoid, log of the distances' scale
_G = -2.0  # what g begins with, before the sigmoid
_ROUNDS = 40  # of the logistic regression's fit


@dataclasses.dataclass(frozen=True)
class ColumnsConfig:
    """Options of the learner of tables."""

    meta_batch: int = 8
    """Tasks an outer step."""
    width: int = 32
    """Numbers of h_c, what is known of a column."""
    learning_rate: float = 2e-3
    """Adam's."""
    learning_rate_half_life: int = 500
    """Outer steps after which the learning rate is halved, again and again; 0 for never."""

    def __post_init__(self) -> None:
        checks.count(meta_batch=self.meta_batch)
        checks.between(1, checks.WIDEST, width=self.width)
        checks.at_least(0, learning_rate_half_life=self.learning_rate_half_life)
        checks.positive(learning_rate=self.learning_rate)

    @property
    def encoder(self) -> EncoderConfig | None:
        """None to choose: rows are compared as they are."""
        return None

    def build(self, signature: TaskSignature, device: str = "cpu") -> "Columns":
        if (columns := math.prod(signature.shape)) > _MOST_COLUMNS:
            raise ValueError(f"columns compares rows of at most {_MOST_COLUMNS} numbers, got {columns}")
        return Columns(self, signature, device)


@final
@dataclasses.dataclass(frozen=True)
class Columns(MetricLearner):
    """The learner."""

    config: ColumnsConfig

    @property
    def training(self) -> TrainingTasks:
        return TrainingTasks(queries=5, any_ways=True)

    @functools.cached_property
    def network(self) -> Network:
        """Rows as they are: what a row means depends on the whole support."""
        return Network(Rows(self.signature.shape))

    def own_parameters(self, generator: torch.Generator) -> dict[str, Tensor]:
        width = self.config.width
        parameters = init_linear("columns.0", _DESCRIBED, width, generator)
        parameters |= init_linear("columns.1", width, width, generator)
        parameters |= init_linear("of_column", 2 * width, _OF_COLUMN, generator)
        parameters |= init_linear("of_task.0", width + 3, width, generator)
        parameters |= init_linear("of_task.1", width, _OF_TASK + _EXPERTS, generator)
        for name in ("of_column", "of_task.1"):  # it begins as plain experts, all columns alike
            parameters[f"{name}.weight"] = 0.1 * parameters[f"{name}.weight"]
            parameters[f"{name}.bias"] = torch.zeros_like(parameters[f"{name}.bias"])
        return parameters

    def compare(self, parameters: Parameters, tasks: Embedded) -> Float[Tensor, "task query way"]:
        """The experts' logits, pooled."""
        tasks = without_empty_columns(tasks)
        seen = (tasks.support != 0).any(1)  # [task, column]
        known = described(tasks, seen)
        hidden = torch.relu(affine(parameters, "columns.0", known))
        hidden = torch.relu(affine(parameters, "columns.1", hidden)) * seen[..., None]
        context = hidden.sum(1) / seen.sum(1, keepdim=True).clamp(min=1)
        beside = context[:, None].expand_as(hidden)
        attention, gain, bend = affine(parameters, "of_column", torch.cat([hidden, beside], -1)).unbind(-1)
        attention = torch.softmax(attention.masked_fill(~seen, -1e9), dim=-1) + _LEAST
        size = known[:, 0, -3:]  # of the task; the same for every column
        task = torch.relu(affine(parameters, "of_task.0", torch.cat([context, size], -1)))
        numbers = affine(parameters, "of_task.1", task)[:, :, None, None]
        numbers = list(numbers.unbind(1))
        scale = 4 * torch.exp(numbers[5])
        root = attention.sqrt()[:, None]

        def row(z: Tensor) -> Tensor:
            share = torch.sigmoid(gain[:, None] + _G)
            return root * ((1 - share) * z + share * torch.tanh(torch.exp(bend[:, None]) * z))

        rows = tasks._replace(support=row(tasks.support), query=row(tasks.query))
        experts = (
            -scale * torch.exp(numbers[0]) * squared_distances(rows.query, prototypes(rows)),
            _neighbours(rows, scale * torch.exp(numbers[1])),
            torch.exp(numbers[2]) * logistic(rows, seen.sum(1)[:, None, None] * torch.exp(numbers[3])),
            scale * _gauss(tasks, attention, torch.sigmoid(numbers[4])),
        )
        weights = torch.nn.functional.softplus(torch.stack(numbers[_OF_TASK:])) / _EXPERTS / 0.6931
        pooled = [weight * torch.log_softmax(each, -1) for weight, each in zip(weights, experts, strict=True)]
        return torch.stack(pooled).sum(0)


def without_empty_columns(tasks: Embedded) -> Embedded:
    """Without the columns behind the last that any support has: what rows were filled up with."""
    used = torch.nonzero((tasks.support != 0).any(1).any(0))
    width = int(used.max()) + 1 if len(used) else 1
    return tasks._replace(support=tasks.support[..., :width], query=tasks.query[..., :width])


def described(tasks: Embedded, seen: Bool[Tensor, "task column"]) -> Float[Tensor, "task column 10"]:
    """d_c: what the support shows of each column."""
    z, ways = tasks.support, tasks.ways
    count, columns = z.shape[1], seen.sum(1).clamp(min=1)  # [task]
    sizes = tasks.one_hot.sum(1)  # [task, way]
    variance = (z**2).mean(1).clamp(min=1e-6)
    between = (sizes[..., None] * prototypes(tasks) ** 2).sum(1) / count / variance
    chance = torch.full_like(between, (ways - 1) / max(1, count - 1))
    ordered = z.sort(dim=1).values
    distinct = ((ordered[:, 1:] - ordered[:, :-1]) > 1e-5).double().sum(1).to(z.dtype) / max(1, count - 1)
    skew = torch.tanh((z**3).mean(1) / 3)
    heavy = torch.log1p((z**4).mean(1)) / 3
    correlation = (z.mT @ z / count).abs().mean(-1) * z.shape[2] / columns[:, None]
    relative = between / between.amax(1, keepdim=True).clamp(min=1e-6)
    size = torch.stack([
        torch.log(columns.to(z.dtype)) / 3,
        torch.full_like(columns, ways, dtype=z.dtype).log() / 2,
        torch.full_like(columns, count / ways, dtype=z.dtype).log() / 2,
    ], -1)  # fmt: skip
    parts = torch.stack([between, between - chance, distinct, skew, heavy, correlation, relative], -1)
    return torch.cat([parts, size[:, None].expand(-1, z.shape[2], -1)], -1)


def _neighbours(rows: Embedded, temperature: Float[Tensor, "task 1 1"]) -> Float[Tensor, "task query way"]:
    similarity = -temperature * squared_distances(rows.query, rows.support)
    elsewhere = (rows.one_hot.mT == 0)[:, None]  # [task, 1, way, example]
    return torch.logsumexp(similarity[:, :, None].masked_fill(elsewhere, -torch.inf), -1)


def logistic(
    rows: Embedded, prior: Float[Tensor, "task 1 1"], rounds: int = _ROUNDS
) -> Float[Tensor, "task query way"]:
    """Logits of a multinomial logistic regression that is fitted to the support, without an intercept.

    With weights W ~ N(0, κ I) the most probable logits of the support are F = K A with K = κ R Rᵀ and
    A = Y − softmax(F). By Böhning's bound (1992) on the curvature, I/2, every round of

        A ← (I + K/2)⁻¹ (F/2 + Y − softmax(F)),   F ← K A

    brings the posterior up. So few rounds stop early where classes are far apart, which is no harm with few rows.
    """
    kernel = prior * (rows.support @ rows.support.mT)
    identity = torch.eye(kernel.shape[-1]).to(kernel)
    inverse = torch.linalg.inv(identity + kernel / 2)
    logits = torch.zeros_like(rows.one_hot)
    weights = logits
    for _ in range(rounds):
        weights = inverse @ (logits / 2 + rows.one_hot - torch.softmax(logits, -1))
        logits = kernel @ weights
    return prior * (rows.query @ rows.support.mT) @ weights


def _gauss(
    tasks: Embedded, attention: Float[Tensor, "task column"], shrinkage: Float[Tensor, "task 1 1"]
) -> Float[Tensor, "task query way"]:
    centres = prototypes(tasks)
    left = tasks.support - tasks.one_hot @ centres
    variance = (1 - shrinkage[:, 0]) * (left**2).mean(1) + shrinkage[:, 0]
    factor = (attention / variance / 2).sqrt()[:, None]
    return -squared_distances(factor * tasks.query, factor * centres)


@final
@dataclasses.dataclass(frozen=True)
class Rows:
    """An encoder that leaves vectors as they are, and takes an image's pixels for columns."""

    shape: tuple[int, ...]

    @property
    def normalises(self) -> bool:
        return False

    @property
    def num_features(self) -> int:
        return math.prod(self.shape)

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        return {}

    def initial_statistics(self) -> Statistics:
        return {}

    def __call__(
        self, parameters: Parameters, inputs: Float[Tensor, "..."], statistics: Statistics | None = None
    ) -> Encoded:
        return Encoded(inputs.flatten(-len(self.shape)), {})
