"""Trials as sequences: the steps of all episodes one after another, with the padding between episodes squeezed out.

Episodes of different lengths then make sequences that are whole up to their own length, and one call of a network runs
over a trial.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from metarl.learning.episodes import Episodes
from metarl.learning.spaces import Spaces
from metarl.maths.masked import sequence_mask


class PreviousStep(NamedTuple):
    """The step before, as a policy is told of it: zeros where there was none."""

    actions: Float[Tensor, "*batch action"]
    """As executed: clipped to ±1, the bounds of the action space; or a discrete action's one-hot vector."""
    rewards: Float[Tensor, "*batch"]
    done: Float[Tensor, "*batch"]
    """1 where it was its episode's last."""

    @classmethod
    def none(cls, num_tasks: int, action_size: int, device: torch.device | str) -> "PreviousStep":
        """Before the first step of a trial."""
        zeros = torch.zeros(num_tasks, device=device)
        return cls(torch.zeros(num_tasks, action_size, device=device), zeros, zeros)


def told(actions: Shaped[Tensor, "*batch"], spaces: Spaces) -> Float[Tensor, "*told"]:
    """Actions as a policy is told of them: executed ones of a Box, one-hot vectors of discrete ones."""
    if not spaces.discrete:
        return actions.clamp(-1, 1)
    choices = torch.arange(spaces.action_size, device=actions.device)
    return (actions[..., None] == choices).to(torch.get_default_dtype())


class TrialSequences(NamedTuple):
    """Trials as sequences; padding is at the end only."""

    observations: Float[Tensor, "trial time observation"]
    actions: Shaped[Tensor, "trial time *action"]
    """As drawn."""
    rewards: Float[Tensor, "trial time"]
    done: Float[Tensor, "trial time"]
    """1 at the last step of each episode."""
    lengths: Int[Tensor, " trial"]
    """Steps of the trial."""
    final_observations: Float[Tensor, "trial observation"]
    """After the last step of the trial."""
    terminated: Bool[Tensor, " trial"]
    """Whether the trial's last episode was ended by the task itself."""

    @property
    def mask(self) -> Bool[Tensor, "trial time"]:
        """True where a step was taken."""
        return sequence_mask(self.lengths, self.rewards.shape[1])

    def previous(self, before: PreviousStep, spaces: Spaces) -> PreviousStep:
        """What the policy is told at each step: the step before it, and at the first one `before`.

        So the last action and reward of an episode, and done = 1, arrive with the next episode's first observation.
        """
        following = (told(self.actions, spaces), self.rewards, self.done)
        return PreviousStep(
            *(torch.cat([first[:, None], later[:, :-1]], dim=1) for first, later in zip(before, following, strict=True))
        )

    def last(self, spaces: Spaces) -> PreviousStep:
        """The last step of each trial."""
        rows, last = torch.arange(len(self.lengths), device=self.lengths.device), self.lengths - 1
        return PreviousStep(told(self.actions[rows, last], spaces), self.rewards[rows, last], self.done[rows, last])

    def with_final_observations(self, time: int) -> "TrialSequences":
        """Padded to `time` steps, one more than the longest trial has at least, with the final observation after the
        last step, as if the last episode went on.
        """
        rows = torch.arange(len(self.lengths), device=self.lengths.device)

        def extended(x: Tensor) -> Tensor:
            return torch.cat([x, x.new_zeros(len(x), time - x.shape[1], *x.shape[2:])], dim=1)

        observations, actions, rewards, done = (extended(x) for x in self[:4])
        observations = observations.index_put((rows, self.lengths), self.final_observations)
        return TrialSequences(observations, actions, rewards, done, *self[4:])


def concatenate(points: Sequence[Episodes]) -> TrialSequences:
    """The episodes of a trial one after another; those that were played side by side in their order."""
    mask = torch.cat([episodes.mask.flatten(1) for episodes in points], dim=1)  # [trial, time]
    lengths = mask.sum(1)
    order = torch.argsort((~mask).to(torch.int8), dim=1, stable=True)[:, : int(lengths.max())]

    def squeezed(pick: Callable[[Episodes], Tensor]) -> Tensor:
        """Real steps to the front; what is left over at the end is the episodes' own padding."""
        x = torch.cat([pick(episodes).flatten(1, 2) for episodes in points], dim=1)
        index = order[..., None].expand(*order.shape, x.shape[-1]) if x.ndim == 3 else order
        return x.gather(1, index)

    def done(episodes: Episodes) -> Tensor:
        steps = torch.arange(episodes.rewards.shape[-1], device=episodes.lengths.device)
        return (steps == episodes.lengths[..., None] - 1).to(episodes.rewards.dtype)

    return TrialSequences(
        squeezed(lambda episodes: episodes.observations),
        squeezed(lambda episodes: episodes.actions),
        squeezed(lambda episodes: episodes.rewards),
        squeezed(done),
        lengths,
        points[-1].final_observations[:, -1],
        points[-1].terminated[:, -1],
    )
