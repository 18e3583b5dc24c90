"""Returns and advantages as pure functions.

Time is the last axis. `r_t` is the reward of step t, `v_t` the value of the observation the step started from,
`v_tp1` that of the observation it led to. Steps past an episode's end are masked out by the caller's zeros:
`discount_tp1` is 0 where the task ended, so nothing after it flows back.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.maths.masked import sequence_mask


def discounted_returns(
    r_t: Float[Tensor, "*batch step"],
    discount_tp1: Float[Tensor, "*batch step"],
    final_value: Float[Tensor, "*batch"] | None = None,
) -> Float[Tensor, "*batch step"]:
    """G_t = r_t + γ_{t+1} G_{t+1} (Sutton & Barto 2018, eq. 3.9), with G_T = `final_value`, zero if not given."""
    following = torch.zeros_like(r_t[..., 0]) if final_value is None else final_value
    returns = []
    for reward, discount in zip(reversed(r_t.unbind(-1)), reversed(discount_tp1.unbind(-1)), strict=True):
        following = reward + discount * following
        returns.append(following)
    return torch.stack(returns[::-1], dim=-1)


def td_errors(
    r_t: Float[Tensor, "*batch step"],
    discount_tp1: Float[Tensor, "*batch step"],
    v_t: Float[Tensor, "*batch step"],
    final_value: Float[Tensor, "*batch"],
) -> Float[Tensor, "*batch step"]:
    """δ_t = r_t + γ_{t+1} v_{t+1} − v_t (Sutton & Barto 2018, eq. 6.5)."""
    v_tp1 = torch.cat([v_t[..., 1:], final_value[..., None]], dim=-1)
    return r_t + discount_tp1 * v_tp1 - v_t


def gae(
    r_t: Float[Tensor, "*batch step"],
    discount_tp1: Float[Tensor, "*batch step"],
    v_t: Float[Tensor, "*batch step"],
    final_value: Float[Tensor, "*batch"],
    lam: float,
) -> Float[Tensor, "*batch step"]:
    """A_t = Σ_l (γλ)^l δ_{t+l} (Schulman et al. 2016, eq. 16).

    Args:
        r_t: rewards.
        discount_tp1: γ, or 0 where the step ended the task; a truncated episode keeps γ and bootstraps.
        v_t: values of the observations that the steps started from.
        final_value: the value of the observation after the last step.
        lam: λ; 0 gives the TD error, 1 the Monte-Carlo return minus the value.
    """
    delta_t = td_errors(r_t, discount_tp1, v_t, final_value)
    return discounted_returns(delta_t, discount_tp1 * lam)


def sequence_gae(
    r_t: Float[Tensor, "sequence step"],
    v_t: Float[Tensor, "sequence step"],
    lengths: Int[Tensor, " sequence"],
    terminated: Bool[Tensor, " sequence"],
    discount: float,
    lam: float,
) -> Float[Tensor, "sequence step"]:
    """`gae` of sequences that end at different steps, and have at least one step of padding after them.

    Args:
        r_t: rewards.
        v_t: values; the first of the padding is that of the observation that the last step led to.
        lengths: steps of each sequence.
        terminated: whether the task ended with the sequence; otherwise it was cut off, and bootstraps.
        discount: γ.
        lam: λ.

    Returns:
        The advantages; 0 in the padding.
    """
    mask = sequence_mask(lengths, r_t.shape[-1])
    last = torch.arange(r_t.shape[-1], device=lengths.device) == lengths[:, None] - 1
    discount_tp1 = discount * (mask & ~(last & terminated[:, None])).to(v_t.dtype)
    # With its own value for reward a step of padding has no TD error: nothing but the bootstrap flows back.
    return gae(torch.where(mask, r_t, v_t), discount_tp1, v_t, torch.zeros_like(v_t[:, 0]), lam)
