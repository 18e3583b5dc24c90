"""A transformer as a memory (Vaswani et al. 2017), with a cache of the last steps' keys and values for its carry.

    x ← x + W softmax(q kᵀ / √d + b_distance) v,     x ← x + MLP(x),     each of a normalised x

Every layer looks at the step itself and at the `WINDOW` steps before it, through the ends of episodes; two layers reach
back twice as far. Positions are told by a learned bias for each distance, so that a sequence comes out the same in
pieces as whole (as in Transformer-XL, Dai et al. 2019).
"""

import math
from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from metarl.agents import policies
from metarl.learning.protocols import Carry

LAYERS = 2
HEADS = 4
WINDOW = 64
"""Steps that a layer looks back."""


class TransformerCarry(NamedTuple):
    """What the last `WINDOW` steps left; the newest is last."""

    cache: Float[Tensor, "sequence window number"]
    """Each layer's keys and values."""
    filled: Float[Tensor, "sequence 1"]
    """How many steps there were; those before are zeros that nobody looks at."""


@final
class Layer(nn.Module):
    """Attention and an MLP, both beside the identity."""

    def __init__(self, units: int, generator: torch.Generator) -> None:
        super().__init__()
        initialise, gently = (policies.orthogonal(generator, gain=gain) for gain in (1.0, 1 / math.sqrt(2 * LAYERS)))
        self.before_attention, self.before_mlp = (nn.LayerNorm(units) for _ in range(2))
        self.projection = policies.linear(units, 3 * units, initialise)
        self.mix = policies.linear(units, units, gently)
        self.widen, self.narrow = (
            policies.linear(units, 4 * units, initialise),
            policies.linear(4 * units, units, gently),
        )
        self.by_distance = nn.Parameter(torch.zeros(HEADS, WINDOW + 1))

    def forward(
        self,
        x: Float[Tensor, "sequence time unit"],
        cache: Float[Tensor, "sequence window both"],
        mask: Bool[Tensor, "sequence time key"],
        distances: Tensor,
    ) -> tuple[Float[Tensor, "sequence time unit"], Float[Tensor, "sequence key both"]]:
        """The features, and the keys and values of the cache and of these steps."""
        queries, new = self.projection(self.before_attention(x)).split([x.shape[-1], 2 * x.shape[-1]], dim=-1)
        both = torch.cat([cache, new], dim=1)
        keys, values = (_by_head(part) for part in both.chunk(2, dim=-1))
        scores = _by_head(queries) @ keys.mT / math.sqrt(keys.shape[-1]) + self.by_distance[:, distances]
        weights = scores.masked_fill(~mask[:, None], -torch.inf).softmax(-1)
        x = x + self.mix((weights @ values).transpose(1, 2).flatten(2))
        return x + self.narrow(torch.relu(self.widen(self.before_mlp(x)))), both


def _by_head(x: Float[Tensor, "sequence time unit"]) -> Float[Tensor, "sequence head time width"]:
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2).contiguous()


@final
class Transformer(nn.Module):
    """A `SequenceModel` of two layers of four heads, whose carry is a cache."""

    def __init__(self, inputs: int, units: int, generator: torch.Generator) -> None:
        super().__init__()
        assert units % HEADS == 0, f"{units} units do not make {HEADS} heads"
        self.num_features = units
        self.embed = policies.linear(inputs, units, policies.orthogonal(generator))
        self.layers = nn.ModuleList(Layer(units, generator) for _ in range(LAYERS))
        self.last = nn.LayerNorm(units)

    def initial_carry(self, num_sequences: int, device: torch.device | str) -> TransformerCarry:
        cache = torch.zeros(num_sequences, WINDOW, LAYERS * 2 * self.num_features, device=device)
        return TransformerCarry(cache, torch.zeros(num_sequences, 1, device=device))

    def forward(self, inputs: Tensor, carry: Carry) -> tuple[Tensor, TransformerCarry]:
        cache, filled = carry
        time = inputs.shape[1]
        steps, keys = (torch.arange(size, device=inputs.device) for size in (time, WINDOW + time))
        distances = WINDOW + steps[:, None] - keys  # [time, key]
        near = (distances >= 0) & (distances <= WINDOW)
        mask = near & (keys >= WINDOW - filled)[:, None]
        x, after = self.embed(inputs), list[Tensor]()
        for layer, own in zip(self.layers, cache.chunk(LAYERS, dim=-1), strict=True):
            x, both = layer(x, own, mask, distances.clamp(0, WINDOW))
            after.append(both[:, -WINDOW:])
        filled = (filled + time).clamp(max=WINDOW)
        return self.last(x), TransformerCarry(torch.cat(after, dim=-1), filled)
