"""Maps between languages that are fitted to the same pairs without any meta-training."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from scipy.linalg import orthogonal_procrustes
from torch import Tensor

from metarl.fewshot.translation.adapter import Numbers, cosine
from metarl.fewshot.translation.pairs import Language

Scores = Callable[[Language, Numbers, Numbers, Numbers], Float[Tensor, "query candidate"]]
"""Of every query and candidate, from a support: as `Adapter.scores`."""
RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Candidates for λ; the one that is best on the validation languages is taken."""


def unadapted(
    language: Language, support: Numbers, query: Numbers, candidates: Numbers
) -> Float[Tensor, "query candidate"]:
    """cos(φ(x), φ(y)): whatever the support."""
    return language.sources[query] @ language.targets[candidates].T


def procrustes(
    language: Language, support: Numbers, query: Numbers, candidates: Numbers
) -> Float[Tensor, "query candidate"]:
    """cos(φ(x) R, φ(y)) with the rotation R that minimises ‖φ(X) R − φ(Y)‖, SciPy's."""
    rotation, _ = orthogonal_procrustes(language.sources[support].numpy(), language.targets[support].numpy())
    return cosine(language.sources[query] @ torch.from_numpy(rotation), language.targets[candidates])


def ridge(strength: float) -> Scores:
    """cos(φ(x) W, φ(y)) with W = argmin ‖φ(X) W − φ(Y)‖² + λ ‖W‖², scikit-learn's."""

    def scores(language: Language, support: Numbers, query: Numbers, candidates: Numbers) -> Tensor:
        from sklearn.linear_model import Ridge

        model = Ridge(alpha=strength, fit_intercept=False)
        model.fit(language.sources[support].numpy(), language.targets[support].numpy())
        mapped = torch.from_numpy(model.predict(language.sources[query].numpy()))
        return cosine(mapped, language.targets[candidates])

    return scores


def ridge_to_identity(strength: float) -> Scores:
    """cos(φ(x) W, φ(y)) with W = argmin ‖φ(X) W − φ(Y)‖² + λ ‖W − I‖²: a ridge that knows what to stay near."""

    def scores(language: Language, support: Numbers, query: Numbers, candidates: Numbers) -> Tensor:
        from sklearn.linear_model import Ridge

        known, x = language.sources[support].numpy(), language.sources[query].numpy()
        model = Ridge(alpha=strength, fit_intercept=False).fit(known, language.targets[support].numpy() - known)
        return cosine(torch.from_numpy(x + model.predict(x)), language.targets[candidates])

    return scores


FITTED: Mapping[str, Callable[[float], Scores]] = {"ridge": ridge, "ridge towards identity": ridge_to_identity}
"""Those with a λ to be chosen."""
