"""Experience in reinforcement learning: what a batch of tasks gave back, as plain tensors."""

import dataclasses
from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from metarl.tasks import Score, Task


@final
@dataclasses.dataclass(frozen=True)
class Episodes:
    """Episodes of several tasks, axes `task, episode, step, feature`; steps past an episode's end are zero."""

    observations: Float[Tensor, "task episode step observation"]
    """Flattened as by `gymnasium.spaces.flatten`, float32."""
    final_observations: Float[Tensor, "task episode observation"]
    """The observation after the last step, for the bootstrap of a truncated episode."""
    actions: Shaped[Tensor, "task episode step *action"]
    """As the policy drew them: float32, ±1 being the action space's bounds, to which the environment received them
    clipped; or the int64 numbers of discrete actions, without an axis of their own."""
    rewards: Float[Tensor, "task episode step"]
    terminated: Bool[Tensor, "task episode"]
    """The task itself ended the episode; otherwise it was truncated by the time limit."""
    diverged: Bool[Tensor, "task episode"]
    """The simulation blew up or was given a NaN: the episode ended there (and counts as terminated)."""
    lengths: Int[Tensor, "task episode"]
    """Steps taken."""
    success: Bool[Tensor, "task episode"] | None = None
    """Whether the task was solved at any step; None where the environment does not say."""
    success_at_end: Bool[Tensor, "task episode"] | None = None
    """Whether it was solved at the last step; None where the environment does not say."""

    @property
    def mask(self) -> Bool[Tensor, "task episode step"]:
        """True where a step was taken."""
        steps = torch.arange(self.rewards.shape[-1], device=self.lengths.device)
        return steps < self.lengths[..., None]

    @property
    def next_observations(self) -> Float[Tensor, "task episode step observation"]:
        """The observation that each step led to; of an episode's last step its final one."""
        moved = torch.cat([self.observations[:, :, 1:], torch.zeros_like(self.observations[:, :, :1])], dim=2)
        last = (self.lengths - 1)[..., None, None].expand(*self.lengths.shape, 1, moved.shape[-1])
        return moved.scatter(2, last, self.final_observations[:, :, None])

    @property
    def returns(self) -> Float[Tensor, "task episode"]:
        """The undiscounted return of each episode."""
        return self.rewards.sum(-1)

    @property
    def num_steps(self) -> int:
        """Environment steps in all."""
        return int(self.lengths.sum())

    def scores(self, score: Score) -> Float[Tensor, "task episode"]:
        """Each episode by what the distribution judges it by.

        Raises:
            ValueError: by success, where the environment says nothing of it.
        """
        measured = self.measures()
        if score not in measured:
            raise ValueError(f"episodes are to be judged by {score}, but the environment does not tell it")
        return measured[score]

    def measures(self) -> dict[str, Float[Tensor, "task episode"]]:
        """All that an episode can be judged by: `return`, `success` and `success_at_end` where they are told, `length`.

        The length, in environment steps, is how long a task took that ends where it is solved, and how long a body
        stood that ends where it falls.
        """
        told = {"success": self.success, "success_at_end": self.success_at_end, "length": self.lengths}
        measures = {name: value.to(self.rewards.dtype) for name, value in told.items() if value is not None}
        return {"return": self.returns, **measures}

    def tensors(self) -> dict[str, Tensor]:
        """The fields by name, without those that are None."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: tensor for name, tensor in fields.items() if tensor is not None}

    def of_tasks(self, tasks: slice) -> "Episodes":
        """Those of some of the tasks."""
        return Episodes(**{name: tensor[tasks] for name, tensor in self.tensors().items()})

    def to(self, device: torch.device | str) -> "Episodes":
        """The same on another device."""
        return Episodes(**{name: tensor.to(device) for name, tensor in self.tensors().items()})

    @classmethod
    def concatenate(cls, parts: Sequence["Episodes"]) -> "Episodes":
        """The episodes of several batches of tasks as one, in order."""
        names = parts[0].tensors().keys()
        return cls(**{name: torch.cat([part.tensors()[name] for part in parts]) for name in names})


@final
@dataclasses.dataclass(frozen=True)
class Trials:
    """All the episodes on each of several tasks, in the order in which they were played."""

    tasks: tuple[Task, ...]
    episodes: tuple[Episodes, ...]
    """One for each point of the adaptation curve: before the first adaptation, …, after the last."""

    @property
    def supports(self) -> tuple[Episodes, ...]:
        """What was adapted to, one for each adaptation."""
        return self.episodes[:-1]

    @property
    def query(self) -> Episodes:
        """The episodes after the last adaptation."""
        return self.episodes[-1]

    def of_tasks(self, tasks: slice) -> "Trials":
        """Those of some of the tasks."""
        return Trials(self.tasks[tasks], tuple(episodes.of_tasks(tasks) for episodes in self.episodes))

    def metrics(self) -> dict[str, float | int]:
        """Counts, and the means before the first and after the last adaptation: `return_before`, `return_after`, …"""
        ends = {"before": self.episodes[0], "after": self.episodes[-1]}
        means = {
            f"{name}_{when}": float(values.double().mean())
            for when, episodes in ends.items()
            for name, values in episodes.measures().items()
        }
        return {
            "env_steps": sum(episodes.num_steps for episodes in self.episodes),
            "episodes": sum(episodes.lengths.numel() for episodes in self.episodes),
            **means,
            "diverged": sum(int(episodes.diverged.sum()) for episodes in self.episodes),
        }

    @classmethod
    def concatenate(cls, shards: Sequence["Trials"]) -> "Trials":
        """The trials of several shards of one collection, in the shards' order."""
        points = zip(*(shard.episodes for shard in shards), strict=True)
        tasks = tuple(task for shard in shards for task in shard.tasks)
        return cls(tasks, tuple(Episodes.concatenate(point) for point in points))
