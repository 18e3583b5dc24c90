"""Policies with a memory: sequence models, and the one `unroll` that acting, adapting and learning share.

m_t, f_t = model(x_t, m_{t−1}),     π(· | f_t),     v(f_t)
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol, final, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from metarl.agents import policies
from metarl.agents.batching import map_tensors
from metarl.agents.policies import ActorCriticHeads
from metarl.learning.protocols import Carry, Parameters
from metarl.learning.spaces import Spaces
from metarl.maths.distributions import Distribution

Cell = Literal["gru", "lstm"]


@runtime_checkable
class SequenceModel(Protocol):
    """What remembers, an `nn.Module`: a recurrent cell, a transformer with its cache, a filter with its belief.

    Its carry is any named tuple of tensors [sequence, …]. A step sees no later one, so that a sequence may be run in
    pieces.
    """

    @property
    def num_features(self) -> int:
        """Numbers that it gives at each step."""
        ...

    def initial_carry(self, num_sequences: int, device: torch.device | str) -> Carry:
        """The carry before the first step of a trial."""
        ...

    def __call__(
        self, inputs: Float[Tensor, "sequence time input"], carry: Carry
    ) -> tuple[Float[Tensor, "sequence time feature"], Carry]:
        """The features of every step, and the carry after the last."""
        ...


MakeModel = Callable[[int, int, torch.Generator], SequenceModel]
"""(inputs, units, generator) -> a sequence model."""


class GruCarry(NamedTuple):
    """h of a GRU."""

    hidden: Float[Tensor, "sequence unit"]


class LstmCarry(NamedTuple):
    """h and c of an LSTM."""

    hidden: Float[Tensor, "sequence unit"]
    cell: Float[Tensor, "sequence unit"]


@final
class Gru(nn.Module):
    """A GRU (Cho et al. 2014): orthogonal weights for each gate, zero biases."""

    def __init__(self, inputs: int, units: int, generator: torch.Generator) -> None:
        super().__init__()
        self.num_features = units
        self.cell = policies.uninitialised(lambda: nn.GRU(inputs, units, batch_first=True))
        _initialise(self.cell, units, generator)

    def initial_carry(self, num_sequences: int, device: torch.device | str) -> GruCarry:
        return GruCarry(torch.zeros(num_sequences, self.num_features, device=device))

    def forward(self, inputs: Tensor, carry: Carry) -> tuple[Tensor, GruCarry]:
        (hidden,) = carry
        features, after = self.cell(inputs, hidden[None].contiguous())  # the cell wants [layer, sequence, unit]
        return features, GruCarry(after[0])


@final
class Lstm(nn.Module):
    """An LSTM (Hochreiter & Schmidhuber 1997): orthogonal weights for each gate, zero biases."""

    def __init__(self, inputs: int, units: int, generator: torch.Generator) -> None:
        super().__init__()
        self.num_features = units
        self.cell = policies.uninitialised(lambda: nn.LSTM(inputs, units, batch_first=True))
        _initialise(self.cell, units, generator)

    def initial_carry(self, num_sequences: int, device: torch.device | str) -> LstmCarry:
        zeros = torch.zeros(num_sequences, self.num_features, device=device)
        return LstmCarry(zeros, zeros)

    def forward(self, inputs: Tensor, carry: Carry) -> tuple[Tensor, LstmCarry]:
        hidden, cell = carry
        features, (hidden, cell) = self.cell(inputs, (hidden[None].contiguous(), cell[None].contiguous()))
        return features, LstmCarry(hidden[0], cell[0])


def _initialise(cell: nn.RNNBase, units: int, generator: torch.Generator) -> None:
    for parameter in cell.parameters():
        if parameter.ndim == 1:
            nn.init.zeros_(parameter)
        else:
            policies.orthogonal_gates(parameter, units, generator)


MODELS: dict[Cell, MakeModel] = {"gru": Gru, "lstm": Lstm}


class Outputs(NamedTuple):
    """What the network says at every step of its sequences, and the carry after the last."""

    distribution: Distribution
    """π, [sequence, time]."""
    values: Float[Tensor, "sequence time"]
    carry: Carry


@final
class RecurrentActorCritic(nn.Module):
    """A sequence model with heads for the policy and the value."""

    def __init__(
        self,
        inputs: int,
        units: int,
        spaces: Spaces,
        make: MakeModel,
        initial_log_std: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.model = make(inputs, units, generator)
        self.heads = ActorCriticHeads(self.model.num_features, spaces, initial_log_std, generator)

    def forward(self, inputs: Float[Tensor, "sequence time input"], carry: Carry) -> Outputs:
        features, carry = self.model(inputs, carry)
        outputs = self.heads(features)
        return Outputs(outputs.distribution, outputs.values, carry)


def unroll(
    network: RecurrentActorCritic, parameters: Parameters, inputs: Float[Tensor, "sequence time input"], carry: Carry
) -> Outputs:
    """The network under the given parameters, over whole sequences."""
    inputs = inputs.contiguous()  # a linear layer rounds otherwise on a view, see `batching`
    return torch.func.functional_call(network, dict(parameters), (inputs, carry), tie_weights=False)


def unroll_pieces(
    network: RecurrentActorCritic,
    parameters: Parameters,
    inputs: Float[Tensor, "sequence time input"],
    carry: Carry,
    length: int,
) -> tuple[Outputs, list[Carry]]:
    """`unroll` in pieces of `length` steps, and the carry at the start of each piece."""
    carries, pieces = list[Carry](), list[Outputs]()
    for piece in inputs.split(length, dim=1):
        carries.append(carry)
        pieces.append(unroll(network, parameters, piece, carry))
        carry = pieces[-1].carry
    parts = zip(*(piece.distribution for piece in pieces), strict=True)
    distribution = type(pieces[0].distribution)(*(torch.cat(part, dim=1) for part in parts))
    return Outputs(distribution, torch.cat([piece.values for piece in pieces], dim=1), carry), carries


def carry_after(
    network: RecurrentActorCritic,
    parameters: Parameters,
    inputs: Float[Tensor, "sequence time input"],
    carry: Carry,
    lengths: Int[Tensor, " sequence"],
) -> Carry:
    """The carry after each sequence's own last step; a sequence of no steps keeps what it has."""
    reached = map_tensors(torch.clone, carry)
    start = 0
    for end in lengths.unique().tolist():  # ascending
        if end > start:
            carry = unroll(network, parameters, inputs[:, start:end], carry).carry
        for result, now in zip(reached, carry, strict=True):
            result[lengths == end] = now[lengths == end]
        start = end
    return reached
