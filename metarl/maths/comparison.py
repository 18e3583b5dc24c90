"""Two agents, or several, on the same tasks: pure functions on arrays of scores, randomness passed in.

Scores have the axes `seed, task`. Agents have seeds of their own, and the tasks in common. Definitions are those of
Agarwal et al. 2021 (arXiv:2108.13264, "rliable"), which is the oracle in the tests; the resampling is that of
`metarl.maths.statistics`: whole seeds of each agent, and whole tasks of both together.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from metarl.maths.statistics import RESAMPLES, Estimate

Pairs = Float[np.ndarray, "seed_x seed_y task"]
"""What every seed of one agent and every seed of the other give on each task."""


def differences(x: Float[np.ndarray, "seed_x task"], y: Float[np.ndarray, "seed_y task"]) -> Pairs:
    """d_ijt = x_it − y_jt: of each task for itself, so that the spread between tasks cancels."""
    return x[:, None] - y[None, :]


def improvements(x: Float[np.ndarray, "seed_x task"], y: Float[np.ndarray, "seed_y task"]) -> Pairs:
    """S(x_it, y_jt) = 1 if x > y, ½ if they are equal, 0 otherwise (section 4.3 there).

    Its mean over everything is the probability of improvement, P(X > Y) = Σ_t P(X_t > Y_t) / M.
    """
    above, equal = x[:, None] > y[None, :], x[:, None] == y[None, :]
    return above + 0.5 * equal


def mean_of_pairs(
    pairs: Pairs,
    rng: np.random.Generator,
    *,
    tasks_vary: bool = True,
    strata: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> Estimate:
    """The mean over both agents' seeds and the tasks, with its percentile interval.

    Seeds of each agent are drawn with replacement, and tasks within their strata (families) for both agents together.
    Where nothing varies (one seed each, one task a stratum) the interval's ends are NaN.

    Args:
        pairs: one value for each pair of seeds and each task.
        rng: for the resamples.
        tasks_vary: whether the tasks are a sample of more; otherwise they are fixed.
        strata: the family of each task; all in one if None.
        resamples: how many.
        confidence: of the interval.

    Raises:
        ValueError: no values, values that are not finite, or strata of another number of tasks.
    """
    if pairs.size == 0 or not np.isfinite(pairs).all():
        raise ValueError(f"need finite values for at least one pair of seeds and one task, got shape {pairs.shape}")
    num_x, num_y, num_tasks = pairs.shape
    names = np.asarray(strata if strata is not None else [""] * num_tasks)
    if len(names) != num_tasks:
        raise ValueError(f"strata name the family of each task: got {len(names)} for {num_tasks} tasks")
    groups = [np.flatnonzero(names == name) for name in dict.fromkeys(names.tolist())]
    value = float(pairs.mean())
    if num_x == num_y == 1 and not (tasks_vary and any(len(group) > 1 for group in groups)):
        return Estimate(value, float("nan"), float("nan"))
    weights_x, weights_y = (_weights(rng, size, resamples) for size in (num_x, num_y))
    weights = np.full((resamples, num_tasks), 1 / num_tasks)
    if tasks_vary:
        for group in groups:
            weights[:, group] = _weights(rng, len(group), resamples) * len(group) / num_tasks
    means = np.einsum("ri,rj,rt,ijt->r", weights_x, weights_y, weights, pairs, optimize=True)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value, float(low), float(high))


def _weights(rng: np.random.Generator, size: int, resamples: int) -> Float[np.ndarray, "resample item"]:
    """How often each of `size` items is drawn in a resample of as many, as shares."""
    return rng.multinomial(size, np.full(size, 1 / size), size=resamples) / size


def performance_profile(
    scores: Float[np.ndarray, "seed task"],
    thresholds: Float[np.ndarray, " threshold"],
    *,
    of: Literal["runs", "tasks"] = "runs",
) -> Float[np.ndarray, " threshold"]:
    """F(τ) = Σ_t Σ_i 1[x_it > τ] / (M N): the share of scores above each threshold (section 4.2 there).

    Of `tasks`, the score that counts is a task's mean over seeds.
    """
    values = scores if of == "runs" else scores.mean(0, keepdims=True)
    ordered = np.sort(values.reshape(-1))
    return 1 - np.searchsorted(ordered, thresholds, side="right") / ordered.size
