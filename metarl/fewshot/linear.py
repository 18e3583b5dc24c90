"""A linear layer as a function of named parameters."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metarl.learning.protocols import Parameters


def init_linear(name: str, width_in: int, width_out: int, generator: torch.Generator) -> dict[str, Tensor]:
    """A linear layer's parameters: a weight [in, out], Xavier-uniform (Glorot & Bengio 2010), and a zero bias."""
    weight = nn.init.xavier_uniform_(torch.empty(width_in, width_out), generator=generator)
    return {f"{name}.weight": weight, f"{name}.bias": torch.zeros(width_out)}


def affine(parameters: Parameters, name: str, x: Float[Tensor, "*example feature"]) -> Float[Tensor, "*example output"]:
    """x W + b; with a task axis in W and b, each task's own."""
    weight, bias = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
    if weight.ndim == 3:
        return torch.baddbmm(bias[:, None], x, weight)
    return x @ weight + bias
