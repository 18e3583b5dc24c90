"""Policies with a memory: sequence models, and the one `unroll` that acting, adapting and learning share.

m_t, f_t = model(x_t, m_{t−1}),     π(· | f_t),     v(f_t)
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol, final, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from metarl.agents import policies
from metarl.agents.batching import map_tensors
from metarl.agents.hypernetwork import HyperLayers
from metarl.agents.policies import ActionHead
from metarl.agents.transformer import Transformer
from metarl.learning.protocols import Carry, Parameters
from metarl.learning.spaces import Spaces
from metarl.maths.distributions import Distribution
from metarl.maths.limits import Limits

Cell = Literal["gru", "lstm", "transformer"]
Critic = Literal["shared", "separate", "linear"]
"""Whether the critic shares the policy's memory, has one of its own, or is not part of the network."""


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


MODELS: dict[Cell, MakeModel] = {"gru": Gru, "lstm": Lstm, "transformer": Transformer}


class Outputs(NamedTuple):
    """What the network says at every step of its sequences, and the carry after the last."""

    distribution: Distribution
    """π, [sequence, time]."""
    values: Float[Tensor, "sequence time"]
    """Zeros where the network has no critic."""
    carry: Carry


@final
class SideBySide(nn.Module):
    """Two sequence models of one kind that share nothing, the policy's and the critic's, as one.

    Features are the policy's and then the critic's; so are the last axes of the carry's tensors.
    """

    def __init__(self, policy: SequenceModel, critic: SequenceModel) -> None:
        super().__init__()
        self.policy, self.critic = policy, critic
        self.num_features = policy.num_features + critic.num_features

    def initial_carry(self, num_sequences: int, device: torch.device | str) -> Carry:
        parts = (model.initial_carry(num_sequences, device) for model in (self.policy, self.critic))
        return _joined(*parts)

    def forward(self, inputs: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        halves = (map_tensors(lambda x, half=half: x.chunk(2, dim=-1)[half], carry) for half in range(2))
        (features, after), (of_critic, critic_after) = (
            model(inputs, half) for model, half in zip((self.policy, self.critic), halves, strict=True)
        )
        return torch.cat([features, of_critic], dim=-1), _joined(after, critic_after)


def _joined(one: Carry, other: Carry) -> Carry:
    return type(one)(*(torch.cat(parts, dim=-1) for parts in zip(one, other, strict=True)))


@final
@dataclasses.dataclass(frozen=True)
class Architecture:
    """What a recurrent actor-critic has between its memory and its outputs. The default is two linear layers."""

    initial_log_std: float = -0.5
    bounded_mean: bool = False
    """Whether tanh keeps the mean actions within ±1."""
    log_std_limits: Limits = (None, None)
    layers: tuple[int, ...] = ()
    """Widths of tanh layers; policy and critic have their own."""
    sees_state: bool = False
    """Whether these layers are also given the observation itself, beside the memory (Beck et al. 2023, RNN+S)."""
    hypernetwork: bool = False
    """Whether the policy's layers see the observation alone and get their weights from the memory."""
    critic: Critic = "shared"


@final
class RecurrentActorCritic(nn.Module):
    """A sequence model with heads for the policy and the value. The inputs begin with the observation."""

    def __init__(
        self,
        inputs: int,
        units: int,
        spaces: Spaces,
        make: MakeModel,
        architecture: Architecture,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self._architecture, self._observation_size = architecture, spaces.observation_size
        model = make(inputs, units, generator)
        self._num_features = model.num_features
        two = architecture.critic == "separate"
        self.model = SideBySide(model, make(inputs, units, generator)) if two else model
        width = model.num_features + architecture.sees_state * spaces.observation_size
        widths, initialise = [width, *architecture.layers], policies.orthogonal(generator)
        self.bodies = nn.ModuleDict()
        if architecture.hypernetwork:
            layers = [spaces.observation_size, *architecture.layers]
            self.bodies["policy"] = HyperLayers(model.num_features, layers, initialise)
        elif architecture.layers:
            self.bodies["policy"] = policies.mlp(widths, initialise)
        if architecture.layers and architecture.critic != "linear":
            self.bodies["value"] = policies.mlp(widths, initialise)
        self.heads = nn.ModuleDict()
        self.heads["policy"] = ActionHead(
            widths[-1],
            spaces,
            policies.orthogonal(generator, gain=0.01),
            architecture.initial_log_std,
            squashed=architecture.bounded_mean,
            log_std_limits=architecture.log_std_limits,
        )
        if architecture.critic != "linear":
            self.heads["value"] = policies.value_layer(widths[-1], generator)

    def forward(self, inputs: Float[Tensor, "sequence time input"], carry: Carry) -> Outputs:
        features, carry = self.model(inputs, carry)
        observations = inputs[..., : self._observation_size]
        of_policy, of_critic = features[..., : self._num_features], features[..., -self._num_features :]
        if self._architecture.hypernetwork:
            hidden = self.bodies["policy"](of_policy, observations)
        else:
            hidden = self._hidden("policy", of_policy, observations)
        distribution = self.heads["policy"](hidden)
        if "value" not in self.heads:
            return Outputs(distribution, features.new_zeros(features.shape[:2]), carry)
        values = self.heads["value"](self._hidden("value", of_critic, observations)).squeeze(-1)
        return Outputs(distribution, values, carry)

    def _hidden(self, name: str, features: Tensor, observations: Tensor) -> Tensor:
        seen = torch.cat([features, observations], dim=-1) if self._architecture.sees_state else features
        return self.bodies[name](seen) if name in self.bodies else seen


def unroll(
    network: RecurrentActorCritic, parameters: Parameters, inputs: Float[Tensor, "sequence time input"], carry: Carry
) -> Outputs:
    """The network under the given parameters, over whole sequences."""
    inputs = inputs.contiguous()  # a linear layer rounds otherwise on a view, see `batching`
    return policies.call(network, parameters, inputs, carry)


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
    advance: Callable[[Tensor, Carry], Carry],
    inputs: Float[Tensor, "sequence time input"],
    carry: Carry,
    lengths: Int[Tensor, " sequence"],
) -> Carry:
    """The carry after each sequence's own last step; a sequence of no steps keeps what it has.

    `advance` gives the carry after all steps of what it is given. It is given one at a time: in pieces that ended where
    other sequences end, the last bit of a sequence would depend on its company.
    """
    reached = map_tensors(torch.clone, carry)
    for step in range(int(lengths.max())):
        carry = advance(inputs[:, step : step + 1], carry)
        ended = lengths == step + 1
        for result, now in zip(reached, carry, strict=True):
            result[ended] = now[ended]
    return reached
