"""A long short-term memory cell as a function of named parameters (Hochreiter & Schmidhuber 1997; Gers et al. 2000).

    i, f, g, o = W x + U h + b;   c' = σ(f) c + σ(i) tanh(g);   h' = σ(o) tanh(c')

The arithmetic and the layout of the parameters are PyTorch's; each gate's weights begin orthogonal (Saxe et al. 2014).
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metarl.learning.protocols import Parameters


class LstmCarry(NamedTuple):
    """What the cell carries from step to step."""

    hidden: Float[Tensor, "batch hidden"]
    cell: Float[Tensor, "batch hidden"]


def init(name: str, inputs: int, hidden: int, generator: torch.Generator) -> dict[str, Tensor]:
    """A cell's parameters, named as `torch.nn.LSTMCell`'s behind the given name."""

    def gates(width: int) -> Tensor:
        each = (nn.init.orthogonal_(torch.empty(hidden, width), generator=generator) for _ in range(4))
        return torch.cat(list(each))

    weights = {"weight_ih": gates(inputs), "weight_hh": gates(hidden)}
    biases = {part: torch.zeros(4 * hidden) for part in ("bias_ih", "bias_hh")}
    return {f"{name}.{part}": value for part, value in (weights | biases).items()}


def step(parameters: Parameters, name: str, x: Float[Tensor, "batch input"], carry: LstmCarry) -> LstmCarry:
    """The carry one step later."""
    parts = (parameters[f"{name}.{part}"] for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    return LstmCarry(*torch.lstm_cell(x, list(carry), *parts))


def initial_carry(batch: int, hidden: int, like: Tensor) -> LstmCarry:
    """Zeros."""
    return LstmCarry(like.new_zeros(batch, hidden), like.new_zeros(batch, hidden))
