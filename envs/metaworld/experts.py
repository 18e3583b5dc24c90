"""Meta-World's scripted policies, one a class. They are told the goal, which agents are not."""

import dataclasses
import warnings
from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.distribution import EnvDistribution
from metarl.envs.metaworld import metaworld_api
from metarl.envs.metaworld.distribution import PREFIX, metaworld
from metarl.learning.fixed import FixedPolicy
from metarl.learning.random_streams import TaskRandom
from metarl.tasks import Task

SHOWN = "+goal-shown"
"""The option that a distribution needs for the scripted policies."""


@final
@dataclasses.dataclass(frozen=True)
class ExpertActions:
    """Acts for each task as its class's script says; plain data, so that it pickles."""

    classes: tuple[str, ...]
    """Of each task."""

    def __call__(
        self, observations: Float[Tensor, "task episode observation"], random: TaskRandom | None
    ) -> Float[Tensor, "task episode 4"]:
        scripts = [metaworld_api.expert(name) for name in self.classes]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the scripts ask for more than ±1, and say so at every step
            rows = [
                [script(observation) for observation in episodes]
                for script, episodes in zip(scripts, observations.double().cpu().numpy(), strict=True)
            ]
        return torch.from_numpy(np.asarray(rows, dtype=np.float32)).to(observations.device)


def expert_actions(tasks: Sequence[Task]) -> ExpertActions:
    """The scripts of these tasks' classes."""
    return ExpertActions(tuple(task.family for task in tasks))


def expert_reference(dist: EnvDistribution, tasks: Sequence[Task]) -> tuple[EnvDistribution, FixedPolicy]:
    """The reference policy `expert`: the scripts of its tasks, where the goal is shown to them.

    Raises:
        ValueError: the distribution is not Meta-World's.
    """
    if not dist.id.startswith(PREFIX):
        raise ValueError(f"there are scripted policies for Meta-World only, not for {dist.id}")
    shown = dist if SHOWN in dist.id else metaworld(dist.id + SHOWN)
    return shown, FixedPolicy(expert_actions(tasks))
