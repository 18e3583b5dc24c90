"""Choosing among a few actions by their values: the best one, and now and then any."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.learning.random_streams import TaskRandom

_TIE = 1e-9  # values as near to the best as this are as good: what differs in them is rounding


def epsilon_greedy(
    values: Float[Tensor, "task episode action"], epsilon: float, random: TaskRandom | None, *, lots: bool
) -> Int[Tensor, "task episode"]:
    """argmaxₐ v(a) with probability 1 − ε, otherwise any action (Sutton & Barto 2018, section 2.2).

    Args:
        values: v.
        epsilon: ε.
        random: the noise; without any (None) it is the first of the best.
        lots: whether ties are broken by lot; otherwise it is the first of the best.
    """
    best = values >= values.amax(-1, keepdim=True) - _TIE
    if random is None or not lots:
        best = torch.zeros_like(best).scatter(-1, best.int().argmax(-1, keepdim=True), True)
    if random is None:
        return best.int().argmax(-1)
    noise = random.uniform(values.shape[-1] + 1)
    explores, lot = noise[..., :1] < epsilon, noise[..., 1:]
    return torch.where(best | explores, lot, -1.0).argmax(-1)
