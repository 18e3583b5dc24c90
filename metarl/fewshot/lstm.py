"""A long short-term memory cell as a function of named parameters (Hochreiter & Schmidhuber 1997; Gers et al. 2000).

    i, f, g, o = W x + U h + b;   c' = σ(f) c + σ(i) tanh(g);   h' = σ(o) tanh(c')

The arithmetic, the layout of the parameters and the way they begin are those of RL²'s memory (`metarl.agents`): one
cell of PyTorch's, gates with orthogonal weights.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.agents import policies
from metarl.learning.protocols import Parameters


class Memory(NamedTuple):
    """What the cell carries from step to step."""

    hidden: Float[Tensor, "batch hidden"]
    cell: Float[Tensor, "batch hidden"]


def init(name: str, inputs: int, hidden: int, generator: torch.Generator) -> dict[str, Tensor]:
    """A cell's parameters, named as `torch.nn.LSTMCell`'s behind the given name."""
    shapes = {"weight_ih": (4 * hidden, inputs), "weight_hh": (4 * hidden, hidden)}
    weights = {part: policies.orthogonal_gates(torch.empty(shape), hidden, generator) for part, shape in shapes.items()}
    biases = {part: torch.zeros(4 * hidden) for part in ("bias_ih", "bias_hh")}
    return {f"{name}.{part}": value for part, value in (weights | biases).items()}


def step(parameters: Parameters, name: str, x: Float[Tensor, "batch input"], memory: Memory) -> Memory:
    """The memory one step later."""
    parts = (parameters[f"{name}.{part}"] for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    return Memory(*torch.lstm_cell(x, list(memory), *parts))


def empty(batch: int, hidden: int, like: Tensor) -> Memory:
    """Zeros."""
    return Memory(like.new_zeros(batch, hidden), like.new_zeros(batch, hidden))
