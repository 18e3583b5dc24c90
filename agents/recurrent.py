"""A policy with a memory: the network, what it is told at each step, and trials as sequences of steps.

Trials are handled with the padding between episodes squeezed out (`concatenate`): episodes of different lengths then
make sequences that are whole up to their own length, and one call of the cell runs over a trial.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from metarl.learning.episodes import Episodes
from metarl.learning.protocols import Memory, Parameters
from metarl.maths.running_mean_std import Moments

Cell = Literal["gru", "lstm", "none"]
"""What remembers; with `none` the policy sees its observation alone, through two layers."""


class Previous(NamedTuple):
    """The step before, as the policy is told of it. Axes [trial, time] in a sequence, [task, episode] while acting."""

    actions: Float[Tensor, "*batch action"]
    """As executed: clipped to ±1, the bounds of the action space."""
    rewards: Float[Tensor, "*batch"]
    done: Float[Tensor, "*batch"]
    """1 where it was its episode's last."""

    def map(self, function: Callable[[Tensor], Tensor]) -> "Previous":
        return Previous(function(self.actions), function(self.rewards), function(self.done))


class Outputs(NamedTuple):
    """What the network says at every step of its sequences, and the memory after the last."""

    mean: Float[Tensor, "trial time action"]
    log_std: Float[Tensor, " action"]
    values: Float[Tensor, "trial time"]
    carry: tuple[Float[Tensor, "trial hidden"], ...]


@final
class Network(nn.Module):
    """[o_t, a_{t−1}, r_{t−1}, d_{t−1}] -> cell -> linear heads for μ and v; log σ does not depend on the input.

    Its buffers are the `Moments` of [observation, reward, the trial's discounted return].
    """

    input_mean: Tensor
    input_variance: Tensor
    input_count: Tensor

    def __init__(self, observation_size: int, action_size: int, hidden: int, cell: Cell) -> None:
        super().__init__()
        self._observation_size = observation_size
        self.cell: nn.Module | None = None
        if cell == "none":
            first, second = nn.Linear(observation_size, hidden), nn.Linear(hidden, hidden)
            self.layers = nn.Sequential(first, nn.Tanh(), second, nn.Tanh())
        else:
            kind = {"gru": nn.GRU, "lstm": nn.LSTM}[cell]
            self.cell = kind(observation_size + action_size + 2, hidden, batch_first=True)
        self.mean = nn.Linear(hidden, action_size)
        self.value = nn.Linear(hidden, 1)
        self.log_std = nn.Parameter(torch.empty(action_size))
        for name, value in Moments.start(observation_size + 2).named().items():
            self.register_buffer(name, value)

    def forward(
        self,
        observations: Float[Tensor, "trial time observation"],
        previous: Previous,
        carry: tuple[Float[Tensor, "trial hidden"], ...],
        lengths: Int[Tensor, " trial"] | None = None,
    ) -> Outputs:
        """Runs over whole sequences; with `lengths`, the carry is the one after each sequence's own last step."""
        x = torch.cat([observations, previous.rewards[..., None]], dim=-1)
        x = Moments(self.input_mean[:-1], self.input_variance[:-1], self.input_count).standardised(x)
        if self.cell is None:
            features = self.layers(x[..., : self._observation_size])
            return Outputs(self.mean(features), self.log_std, self.value(features).squeeze(-1), ())
        x = torch.cat([x, previous.actions, previous.done[..., None]], dim=-1)
        memory = tuple(part[None].contiguous() for part in carry)  # the cell wants [layer, trial, hidden]
        start = memory[0] if len(memory) == 1 else memory
        if lengths is None:
            features, after = self.cell(x, start)
        else:
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
            packed, after = self.cell(packed, start)
            features, _ = nn.utils.rnn.pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
        after = after if isinstance(after, tuple) else (after,)
        return Outputs(
            self.mean(features), self.log_std, self.value(features).squeeze(-1), tuple(part[0] for part in after)
        )


@final
@dataclasses.dataclass(frozen=True)
class Policy:
    """The architecture, as plain data."""

    observation_size: int
    action_size: int
    hidden: int
    cell: Cell

    @property
    def network(self) -> Network:
        """The architecture without weights."""
        with torch.device("meta"):
            return Network(self.observation_size, self.action_size, self.hidden, self.cell)

    def zero_carry(self, trials: int, device: torch.device) -> tuple[Float[Tensor, "trial hidden"], ...]:
        parts = {"none": 0, "gru": 1, "lstm": 2}[self.cell]
        return tuple(torch.zeros(trials, self.hidden, device=device) for _ in range(parts))

    def nothing_before(self, trials: int, device: torch.device) -> Previous:
        zeros = torch.zeros(trials, device=device)
        return Previous(torch.zeros(trials, self.action_size, device=device), zeros, zeros)


class Trials(NamedTuple):
    """Trials as sequences: the steps of all episodes one after another, padding only at the end."""

    observations: Float[Tensor, "trial time observation"]
    actions: Float[Tensor, "trial time action"]
    """As drawn; the executed action is this clipped to ±1."""
    rewards: Float[Tensor, "trial time"]
    done: Float[Tensor, "trial time"]
    """1 at the last step of each episode."""
    lengths: Int[Tensor, " trial"]
    """Steps of the trial."""

    def map(self, function: Callable[[Tensor], Tensor]) -> "Trials":
        """With the function applied to everything that has a time axis."""
        parts = (self.observations, self.actions, self.rewards, self.done)
        observations, actions, rewards, done = (function(x) for x in parts)
        return Trials(observations, actions, rewards, done, self.lengths)

    @property
    def mask(self) -> Bool[Tensor, "trial time"]:
        """True where a step was taken."""
        return torch.arange(self.rewards.shape[1], device=self.lengths.device) < self.lengths[:, None]

    def previous(self, before: Previous) -> Previous:
        """What the policy is told at each step: the transition before it, `before` at the first."""

        def shifted(first: Tensor, following: Tensor) -> Tensor:
            return torch.cat([first[:, None], following[:, :-1]], dim=1)

        return Previous(
            shifted(before.actions, self.actions.clamp(-1, 1)),
            shifted(before.rewards, self.rewards),
            shifted(before.done, self.done),
        )


def concatenate(rounds: Sequence[Episodes]) -> Trials:
    """The rounds' episodes one after another, with the padding between them squeezed out.

    Episodes that were played side by side in a round are read in their order, as if one after the other.
    """
    mask = torch.cat([episodes.mask.flatten(1) for episodes in rounds], dim=1)  # [trial, time]
    lengths = mask.sum(1)
    order = torch.argsort((~mask).to(torch.int8), dim=1, stable=True)[:, : int(lengths.max())]

    def squeezed(pick: Callable[[Episodes], Tensor]) -> Tensor:
        """Real steps to the front; what is left over at the end is the episodes' own padding."""
        x = torch.cat([pick(episodes).flatten(1, 2) for episodes in rounds], dim=1)
        index = order[..., None].expand(*order.shape, x.shape[-1]) if x.ndim == 3 else order
        return x.gather(1, index)

    def done(episodes: Episodes) -> Tensor:
        steps = torch.arange(episodes.rewards.shape[-1], device=episodes.lengths.device)
        return (steps == episodes.lengths[..., None] - 1).to(episodes.rewards.dtype)

    return Trials(
        squeezed(lambda episodes: episodes.observations),
        squeezed(lambda episodes: episodes.actions),
        squeezed(lambda episodes: episodes.rewards),
        squeezed(done),
        lengths,
    )


@final
@dataclasses.dataclass(frozen=True)
class Rl2Actor:
    """The policy somewhere in a trial on each of a batch of tasks."""

    policy: Policy
    parameters: Parameters
    carry: tuple[Float[Tensor, "task hidden"], ...]
    """The memory so far."""
    before: Previous
    """The last transition of the episode before, which the memory has not taken in yet. Axes [task]."""

    @functools.cached_property
    def _network(self) -> Network:
        return self.policy.network

    def call(
        self,
        observations: Float[Tensor, "trial time observation"],
        previous: Previous,
        carry: tuple[Tensor, ...],
        lengths: Tensor | None = None,
    ) -> Outputs:
        inputs = (observations, previous, carry, lengths)
        with torch.no_grad():
            return torch.func.functional_call(self._network, dict(self.parameters), inputs)

    def begin(self, episodes: int) -> Memory:
        def repeated(x: Tensor) -> Tensor:
            return x[:, None].expand(x.shape[0], episodes, *x.shape[1:]).contiguous()

        return tuple(repeated(x) for x in (*self.before, *self.carry))

    def act(
        self, observations: Float[Tensor, "task episode observation"], memory: Memory, generator: torch.Generator
    ) -> tuple[Float[Tensor, "task episode action"], Memory]:
        shape = observations.shape[:2]
        actions, rewards, done, *carry = (x.flatten(0, 1) for x in memory)
        previous = Previous(actions, rewards, done).map(lambda x: x[:, None])
        outputs = self.call(observations.flatten(0, 1)[:, None], previous, tuple(carry))
        mean = outputs.mean[:, 0].unflatten(0, shape)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        drawn = mean + outputs.log_std.exp() * noise
        return drawn, (*memory[:3], *(part.unflatten(0, shape) for part in outputs.carry))

    def feedback(
        self,
        memory: Memory,
        actions: Float[Tensor, "task episode action"],
        rewards: Float[Tensor, "task episode"],
        done: Bool[Tensor, "task episode"],
    ) -> Memory:
        return (actions, rewards, done.to(rewards.dtype), *memory[3:])

    def adapt(self, support: Episodes) -> "Rl2Actor":
        """The memory after these episodes too, recomputed from what they hold."""
        trials = concatenate([support])
        outputs = self.call(trials.observations, trials.previous(self.before), self.carry, trials.lengths)
        rows, last = torch.arange(len(trials.lengths), device=trials.lengths.device), trials.lengths - 1
        before = Previous(trials.actions[rows, last].clamp(-1, 1), trials.rewards[rows, last], trials.done[rows, last])
        return dataclasses.replace(self, carry=outputs.carry, before=before)
