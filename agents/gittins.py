"""The Gittins index of a Bernoulli arm: what to pull, if rewards are discounted and pulls never end.

    ν(a, b) = sup_{τ ≥ 1} E[Σ_{t<τ} γᵗ rₜ] / E[Σ_{t<τ} γᵗ],    p ~ Beta(a, b)

(Gittins 1979, J. R. Stat. Soc. B 41(2), eq. 8). Always pulling the arm of the largest index maximises E[Σ γᵗ rₜ].
It is computed by calibration (Gittins, Glazebrook & Weber 2011, section 8.4): ν(a, b) is the certain payment λ a pull
that is worth as much as going on with the arm,

    V(a, b; λ) = max( λ / (1 − γ),  p̂ (1 + γ V(a+1, b; λ)) + (1 − p̂) γ V(a, b+1; λ) ),    p̂ = a / (a + b).
"""

import functools

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_GRID = 500  # intervals of λ
_LOOKAHEAD = 3.0  # in units of 1 / (1 − γ): pulls after those of the table, before the arm counts as known


@functools.lru_cache(maxsize=4)  # at most 8 MB, for tables of 500 pulls
def gittins_table(discount: float, pulls: int) -> Float[Tensor, "success failure"]:
    """ν(1 + s, 1 + f) of an arm with s successes and f failures in up to `pulls` pulls; NaN beyond. p ~ U[0, 1].

    Exact to four digits for γ = 0.9 and 0.99 (the published tables). Between the λ of a grid, what going on is worth
    more than λ is interpolated; after 3 / (1 − γ) pulls more than the table has, the arm counts as known.

    Raises:
        ValueError: a discount outside [0, 1), or no pulls.
    """
    if not 0.0 <= discount < 1.0 or pulls < 1:
        raise ValueError(f"need 0 <= discount < 1 and at least one pull, got {discount} and {pulls}")
    forever = 1.0 / (1.0 - discount)
    payment = np.linspace(0.0, 1.0, _GRID + 1)[:, None]  # λ
    last = pulls + int(np.ceil(_LOOKAHEAD * forever))
    table = np.full((pulls + 1, pulls + 1), np.nan)
    value = np.maximum(payment, _means(last)) * forever  # [λ, successes], of arms pulled `last` times
    for pulled in range(last - 1, -1, -1):
        mean = _means(pulled)
        going_on = mean * (1 + discount * value[:, 1:]) + (1 - mean) * discount * value[:, :-1]
        if pulled <= pulls:
            successes = np.arange(pulled + 1)
            table[successes, pulled - successes] = _root(going_on - payment * forever)
        value = np.maximum(going_on, payment * forever)
    return torch.from_numpy(table)


def _means(pulled: int) -> Float[np.ndarray, " success"]:
    """p̂ of an arm after so many pulls, by the number of successes."""
    return (1.0 + np.arange(pulled + 1)) / (2.0 + pulled)


def _root(advantage: Float[np.ndarray, "payment success"]) -> Float[np.ndarray, " success"]:
    """The λ at which an advantage that falls with λ is 0; λ = 0, 1 / grid, …, 1 along the first axis."""
    below = (advantage > 0).sum(0) - 1
    columns = np.arange(advantage.shape[1])
    left, right = advantage[below, columns], advantage[below + 1, columns]
    return (below + left / (left - right)) / _GRID
