"""The variance of a number within each of several groups, as an exponential moving average over batches.

Groups are known by positive whole numbers and take a slot when they are first met, so the tensors keep their shapes.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.maths.masked import masked_mean

SLOTS = 64
"""The most groups there can be: Meta-World's ML45 has 45 classes."""
SHARE = 0.1
"""How far one batch moves a group's variance."""


class GroupVariance(NamedTuple):
    """v_g ← (1 − κ) v_g + κ Var_batch(x | g), with the first batch's own variance to begin with."""

    groups: Int[Tensor, " slot"]
    """Each slot's group; 0 where it is free."""
    variances: Float[Tensor, " slot"]
    """v_g; 1 where the slot is free."""

    @classmethod
    def initial(cls) -> "GroupVariance":
        """Of no groups."""
        return cls(torch.zeros(SLOTS, dtype=torch.int64), torch.ones(SLOTS, dtype=torch.float64))

    def merge(
        self, groups: Int[Tensor, " row"], x: Float[Tensor, "row step"], mask: Bool[Tensor, "row step"]
    ) -> "GroupVariance":
        """With a batch taken in, whose rows are of these groups.

        Raises:
            ValueError: there are more groups than slots.
        """
        known, variances = self.groups.clone(), self.variances.clone()
        for group in groups.unique().tolist():
            rows = groups == group
            own, inside = x[rows].double(), mask[rows]
            variance = masked_mean((own - masked_mean(own, inside)) ** 2, inside)
            slots = (known == group).nonzero()
            if len(slots):
                slot = int(slots[0])
                variances[slot] += SHARE * (variance - variances[slot])
                continue
            free = (known == 0).nonzero()
            if not len(free):
                raise ValueError(f"there can be at most {SLOTS} groups, and there are more")
            known[free[0]], variances[free[0]] = group, variance
        return GroupVariance(known, variances)

    def of(self, groups: Int[Tensor, " row"]) -> Float[Tensor, " row"]:
        """v_g of each row's group, which must have been merged."""
        return self.variances[(self.groups == groups[:, None]).to(torch.int8).argmax(1)]
