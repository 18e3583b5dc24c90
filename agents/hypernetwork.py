"""Layers whose weights come from a policy's memory (Beck et al. 2022, arXiv 2210.11348).

    θ(m) = A m + b,     x_0 = o,     x_{i+1} = tanh(W_i(m) x_i + b_i(m)),     [W_0, b_0, W_1, …] = θ(m)

Bias-HyperInit: A = 0, and b holds the weights of an ordinary network. Before training every memory has this network;
with A drawn at random the weights would have a scale that no network starts with.
"""

import itertools
from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metarl.agents import policies
from metarl.agents.policies import Initialise


@final
class HyperLayers(nn.Module):
    """(memory, observation) ↦ the last of the tanh layers.

    Every step has weights of its own, so it takes as long as `features` networks: narrow layers are best.
    """

    def __init__(self, features: int, widths: Sequence[int], initialise: Initialise) -> None:
        """`widths` are those of the observation and of each layer; `initialise` fills the ordinary weights."""
        super().__init__()
        self._widths = tuple(itertools.pairwise(widths))
        layers = [policies.linear(width_in, width_out, initialise) for width_in, width_out in self._widths]
        numbers = torch.cat([x.detach().flatten() for layer in layers for x in (layer.weight, layer.bias)])
        self.generator = policies.linear(features, len(numbers), nn.init.zeros_)
        with torch.no_grad():
            self.generator.bias.copy_(numbers)

    def forward(
        self, memory: Float[Tensor, "*batch feature"], observations: Float[Tensor, "*batch observation"]
    ) -> Float[Tensor, "*batch hidden"]:
        x = observations[..., None]
        sizes = [size for width_in, width_out in self._widths for size in (width_in * width_out, width_out)]
        numbers = iter(self.generator(memory).split(sizes, dim=-1))
        for width_in, width_out in self._widths:
            weight, bias = next(numbers).unflatten(-1, (width_out, width_in)), next(numbers)
            x = torch.tanh(weight @ x + bias[..., None])
        return x.squeeze(-1)
