"""Experience: what a batch of tasks gave back, as plain tensors."""

import dataclasses
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.tasks import Score


@final
@dataclasses.dataclass(frozen=True)
class Episodes:
    """Episodes of several tasks, axes `task, episode, step, feature`; steps past an episode's end are zero."""

    observations: Float[Tensor, "task episode step observation"]
    final_observations: Float[Tensor, "task episode observation"]
    """The observation after the last step, for the bootstrap of a truncated episode."""
    actions: Float[Tensor, "task episode step action"]
    """As the policy drew them, ±1 being the action space's bounds; the environment received them clipped to that."""
    rewards: Float[Tensor, "task episode step"]
    terminated: Bool[Tensor, "task episode"]
    """The task itself ended the episode; otherwise it was truncated by the time limit."""
    diverged: Bool[Tensor, "task episode"]
    """The simulation blew up or was given a NaN: the episode ended there (and counts as terminated)."""
    lengths: Int[Tensor, "task episode"]
    """Steps taken."""
    success: Bool[Tensor, "task episode"] | None = None
    """Whether the task was solved at any step; None where the environment does not say."""

    @property
    def mask(self) -> Bool[Tensor, "task episode step"]:
        """True where a step was taken."""
        steps = torch.arange(self.rewards.shape[-1], device=self.lengths.device)
        return steps < self.lengths[..., None]

    @property
    def scores(self) -> Float[Tensor, "task episode"]:
        """The undiscounted return of each episode."""
        return self.rewards.sum(-1)

    @property
    def num_steps(self) -> int:
        """Environment steps in all."""
        return int(self.lengths.sum())

    def judged(self, score: Score) -> Float[Tensor, "task episode"]:
        """Each episode by what the distribution judges it by.

        Raises:
            ValueError: by success, where the environment says nothing of it.
        """
        if score == "return":
            return self.scores
        if self.success is None:
            raise ValueError("episodes are to be judged by success, but the environment does not tell it")
        return self.success.to(self.rewards.dtype)

    def figures(self, when: str) -> dict[str, float]:
        """`return_<when>`, the mean return; `success_<when>`, the share of successes where the environment tells."""
        figures = {f"return_{when}": float(self.scores.mean())}
        return figures if self.success is None else figures | {f"success_{when}": float(self.success.double().mean())}

    def tensors(self) -> dict[str, Tensor]:
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: tensor for name, tensor in fields.items() if tensor is not None}

    def to(self, device: torch.device | str) -> "Episodes":
        return Episodes(**{name: tensor.to(device) for name, tensor in self.tensors().items()})
