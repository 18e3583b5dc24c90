"""The linear feature baseline (Duan et al. 2016, "Benchmarking Deep RL for Continuous Control", §4).

    v(o, t) = wᵀ [o, o², τ, τ², τ³, 1],   τ = t / 100

fitted by ridge regression on the returns of the very episodes it will serve, anew for each task and each stage of
adaptation: it costs one small solve and never lags behind the policy.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_OBSERVATION_CLIP = 10.0
_TIME_SCALE = 100.0  # environment steps
_ATTEMPTS = 8


def features(observations: Float[Tensor, "*batch step observation"]) -> Float[Tensor, "*batch step feature"]:
    """[o, o², τ, τ², τ³, 1] of each step, observations clipped to ±10."""
    clipped = observations.clamp(-_OBSERVATION_CLIP, _OBSERVATION_CLIP)
    steps = torch.arange(observations.shape[-2], dtype=observations.dtype, device=observations.device)
    tau = (steps / _TIME_SCALE)[:, None].expand(*observations.shape[:-1], 1)
    return torch.cat([clipped, clipped**2, tau, tau**2, tau**3, torch.ones_like(tau)], dim=-1)


def fit(
    observations: Float[Tensor, "task episode step observation"],
    returns: Float[Tensor, "task episode step"],
    mask: Bool[Tensor, "task episode step"],
    ridge: float = 1e-5,
) -> Float[Tensor, "task episode step"]:
    """Fits each task's baseline to its own returns and gives its values.

    Solved in float64, w = (XᵀX + ρI)⁻¹ Xᵀy; ρ begins at `ridge` and grows tenfold while the solution is not finite.

    Raises:
        ValueError: observations or returns are not finite, so that no ridge can help.
    """
    x = features(observations).double().flatten(1, 2) * mask.flatten(1)[..., None]  # [task, sample, feature]
    y = (returns.double() * mask).flatten(1)[..., None]  # [task, sample, 1]
    gram, moment = x.mT @ x, x.mT @ y
    identity = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    ridges = [ridge * 10.0**attempt for attempt in range(_ATTEMPTS)]
    for ridge in ridges:
        weights, info = torch.linalg.solve_ex(gram + ridge * identity, moment)
        if not info.any() and bool(weights.isfinite().all()):
            return (x @ weights).squeeze(-1).view_as(returns).to(returns.dtype)
    raise ValueError(f"the baseline could not be fitted with ridges up to {ridges[-1]:g}")
