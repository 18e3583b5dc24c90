"""Planning in tabular MDPs of a finite horizon, for a batch of them at once.

    Q_h(s, a) = r(s, a) + Σ_{s'} p(s' | s, a) V_{h+1}(s'),    V_h(s) = maxₐ Q_h(s, a),    V_H = 0

(Puterman 1994, section 4.5; in the paper's time-homogeneous MDPs p and r are the same at each step h).
"""

import torch
from jaxtyping import Float
from torch import Tensor


def backward_induction(
    transitions: Float[Tensor, "*batch state action next_state"],
    rewards: Float[Tensor, "*batch state action"],
    horizon: int,
) -> Float[Tensor, "*batch {horizon} state action"]:
    """Q_h for h = 0 … H − 1."""
    q_h = rewards
    q_values = [q_h]
    for _ in range(horizon - 1):
        v_hp1 = q_h.amax(-1)
        q_h = rewards + (transitions * v_hp1[..., None, None, :]).sum(-1)
        q_values.append(q_h)
    return torch.stack(q_values[::-1], -3)


def optimistic_induction(
    transitions: Float[Tensor, "*batch state action next_state"],
    radius: Float[Tensor, "*batch state action"],
    rewards: Float[Tensor, "*batch state action"],
    horizon: int,
) -> Float[Tensor, "*batch {horizon} state action"]:
    """Q_h, with the transitions that promise most among those near the given ones: extended value iteration.

    Q_h(s, a) = r(s, a) + max{ Σ_{s'} p̃(s') V_{h+1}(s') : ‖p̃ − p(· | s, a)‖₁ ≤ d(s, a) }
    (Jaksch, Ortner & Auer 2010, JMLR 11, eq. 13 and figure 2).
    """
    q_h = rewards
    q_values = [q_h]
    for _ in range(horizon - 1):
        v_hp1, order = q_h.amax(-1).sort(-1, descending=True)
        sorted_transitions = transitions.gather(-1, order[..., None, None, :].expand_as(transitions))
        q_h = rewards + (_best_near(sorted_transitions, radius) * v_hp1[..., None, None, :]).sum(-1)
        q_values.append(q_h)
    return torch.stack(q_values[::-1], -3)


def _best_near(
    transitions: Float[Tensor, "*batch state action next_state"], radius: Float[Tensor, "*batch state action"]
) -> Float[Tensor, "*batch state action next_state"]:
    """p̃, where next states are in the order of their values, the best first.

    The best gets d / 2 more, which the worst lose: from the best on, each keeps its part until they add up to 1.
    """
    best = (transitions[..., :1] + radius[..., None] / 2).clamp(max=1.0)
    total = torch.cat([best, transitions[..., 1:]], -1).cumsum(-1).clamp(max=1.0)
    return torch.diff(total, prepend=torch.zeros_like(best))
