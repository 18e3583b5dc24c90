"""Random actions, the floor of every comparison. Other policies that learn nothing are `FixedPolicy`s too."""

import dataclasses
from collections.abc import Sequence
from typing import TypeVar, final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from metarl.learning.collect import EnvSource
from metarl.learning.fixed import NOTHING, FixedPolicy
from metarl.learning.random_streams import TaskRandom
from metarl.learning.spaces import Spaces
from metarl.tasks import Task

__all__ = ["NOTHING", "FixedPolicy", "UniformActions", "random_policy", "random_reference"]

Source = TypeVar("Source", bound=EnvSource)


@final
@dataclasses.dataclass(frozen=True)
class UniformActions:
    """a ~ U[−1, 1]ⁿ, or any of n discrete actions; without noise the mean, or the first of the most probable ones."""

    size: int
    """n."""
    discrete: bool

    def __call__(
        self, observations: Float[Tensor, "task episode observation"], random: TaskRandom | None
    ) -> Shaped[Tensor, "task episode *action"]:
        count = 1 if self.discrete else self.size
        if random is None:
            uniform = torch.full((*observations.shape[:2], count), 0.0 if self.discrete else 0.5)
        else:
            uniform = random.uniform(count)
        uniform = uniform.to(observations.device)
        return (uniform[..., 0] * self.size).long() if self.discrete else 2 * uniform - 1


def random_policy(spaces: Spaces, episodes: int = 1) -> FixedPolicy:
    """Uniform over the action space."""
    return FixedPolicy(UniformActions(spaces.action_size, spaces.discrete), episodes)


def random_reference(dist: Source, tasks: Sequence[Task]) -> tuple[Source, FixedPolicy]:
    """The reference policy `random`: see `metarl.evaluation.references`."""
    return dist, random_policy(dist.spaces)
