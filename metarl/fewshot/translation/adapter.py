"""An adapter for a language with few sentence pairs: ridge regression whose prior and metric are meta-learned, after
Bertinetto et al. (2019, "Meta-learning with differentiable closed-form solvers").

    k(x, x′) = φ(x)·φ(x′) + w ψ(x)·ψ(x′)                 φ: sentence features, ψ: hashed n-grams
    f(x)     = φ(x) + k(x, X) (k(X, X) + λ I)⁻¹ (φ(Y) − φ(X))           X, Y: the support
    s(x, y)  = cos(f(x), φ(y)) + β ψ(x)·ψ(y) − γ r(y)

f is ridge regression towards the identity: without a support, features stay as they are. r(y) is the mean cosine of
y with its ten nearest f(xᵢ) of the support, so that a candidate that is near everything is near nothing (the
correction of Conneau et al. 2018, "Word translation without parallel data", eq. 3, but without the help of other
queries). Over the training languages, w, λ, β, γ and a temperature τ minimise −log softmax_y τ s(x, y) at x's
translation.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl import checks
from metarl.fewshot.translation.pairs import Language

_NEAREST = 10
_QUERIES = 200  # of a training task
_SUPPORTS = (10, 25, 50, 100)  # pairs of a training task

Numbers = Int[np.ndarray, "_"]  # of any length: a support has another one than its queries


@final
@dataclasses.dataclass(frozen=True)
class AdapterParameters:
    """What is meta-learned: five numbers."""

    ngrams: float = 1.0
    """w: what n-grams weigh beside sentence features."""
    ridge: float = 1.0
    """λ: how strongly features are held where they are."""
    surface: float = 0.0
    """β: what counts that a sentence and a translation look alike, such as names and numbers."""
    hubness: float = 0.0
    """γ: what counts against candidates that are near everything."""
    temperature: float = 20.0
    """τ: it scales scores to logits; no ranking depends on it."""

    def __post_init__(self) -> None:
        checks.positive(ngrams=self.ngrams, ridge=self.ridge, temperature=self.temperature)
        checks.finite(surface=self.surface, hubness=self.hubness)


@final
@dataclasses.dataclass(frozen=True)
class Adapter:
    """The scores of candidates, from a support."""

    parameters: AdapterParameters = AdapterParameters()

    def scores(
        self, language: Language, support: Numbers, query: Numbers, candidates: Numbers
    ) -> Float[Tensor, "query candidate"]:
        """s of every query and candidate, all of them pairs of the language by number; the support may be empty.

        A query's scores depend on no other query.
        """
        with torch.no_grad():
            return _scores(_as_tensor(self.parameters), language, support, query, candidates)


def meta_train(
    languages: Sequence[Language], steps: int, seed: int, learning_rate: float = 0.05, meta_batch: int = 4
) -> tuple[AdapterParameters, list[float]]:
    """The parameters after so many outer steps of Adam on tasks of these languages, and the loss of each step.

    Raises:
        ValueError: there is no language, or one with too few pairs.
    """
    checks.count(steps=steps, meta_batch=meta_batch)
    checks.seed(seed)
    need = max(_SUPPORTS) + _QUERIES
    if not languages or min(language.num_pairs for language in languages) < need:
        raise ValueError(f"meta-training needs languages with at least {need} pairs each")
    rng = np.random.default_rng(seed)
    free = _as_tensor(AdapterParameters()).requires_grad_()
    optimizer = torch.optim.Adam([free], lr=learning_rate)
    losses: list[float] = []
    for _ in range(steps):
        parts: list[Tensor] = []
        for number in rng.integers(len(languages), size=meta_batch):
            language = languages[number]
            order = rng.permutation(language.num_pairs)
            count = int(rng.choice(_SUPPORTS))
            support, query = order[:count], order[count : count + _QUERIES]
            logits = free[4].exp() * _scores(free, language, support, query, query)
            parts.append(torch.nn.functional.cross_entropy(logits, torch.arange(len(query))))
        loss = torch.stack(parts).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return _from_tensor(free.detach()), losses


def _scores(
    free: Float[Tensor, " 5"], language: Language, support: Numbers, query: Numbers, candidates: Numbers
) -> Float[Tensor, "query candidate"]:
    weight, ridge, surface, hubness = free[0].exp(), free[1].exp(), free[2], free[3]
    y = language.targets[candidates]
    match = surface * language.surface[query][:, candidates]
    if len(support) == 0:
        return cosine(language.sources[query], y) + match
    x, known = language.sources, language.sources[support]
    kernel = x @ known.T + weight * language.ngrams[:, support]  # [pair, support]
    regularised = kernel[support] + ridge * torch.eye(len(support), dtype=kernel.dtype)
    moves = torch.linalg.solve(regularised, language.targets[support] - known)
    mapped = x + kernel @ moves
    near_everything = cosine(mapped[support], y).topk(min(_NEAREST, len(support)), dim=0).values.mean(0)
    return cosine(mapped[query], y) + match - hubness * near_everything


def cosine(x: Float[Tensor, "row feature"], y: Float[Tensor, "other feature"]) -> Float[Tensor, "row other"]:
    """The cosine of each row with each other one."""
    return torch.nn.functional.normalize(x, dim=-1) @ torch.nn.functional.normalize(y, dim=-1).T


def _as_tensor(parameters: AdapterParameters) -> Float[Tensor, " 5"]:
    """What the gradient is taken of: positive ones as logarithms."""
    logs = [math.log(parameters.ngrams), math.log(parameters.ridge)]
    plain = [parameters.surface, parameters.hubness]
    return torch.tensor([*logs, *plain, math.log(parameters.temperature)], dtype=torch.float64)


def _from_tensor(free: Float[Tensor, " 5"]) -> AdapterParameters:
    ngrams, ridge, surface, hubness, temperature = free.tolist()
    return AdapterParameters(math.exp(ngrams), math.exp(ridge), surface, hubness, math.exp(temperature))
