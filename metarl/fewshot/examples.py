"""What a few-shot learner is given: examples of several tasks, as plain tensors."""

from typing import NamedTuple

from jaxtyping import Float, Shaped
from torch import Tensor


class Examples(NamedTuple):
    """Inputs and what they should be mapped to; a leading task axis where it is for a whole meta-batch."""

    inputs: Float[Tensor, "..."]
    """[task, example, feature, ...], float32."""
    targets: Shaped[Tensor, "..."]
    """[task, example, ...]. For classification int64, the numbers of the ways (0 … ways − 1) and no further axis; for
    regression the float32 values."""


class Batch(NamedTuple):
    """The tasks of a meta-batch: what each is adapted to, and what it is judged on."""

    support: Examples
    query: Examples
