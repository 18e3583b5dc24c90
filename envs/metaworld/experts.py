"""Meta-World's scripted policies, one a class. They are told the goal, which agents are not."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from metarl.envs.metaworld import metaworld_api
from metarl.tasks import Task

SHOWN = "+goal-shown"
"""The option that a distribution needs for the scripted policies."""


def expert_actions(tasks: Sequence[Task]) -> Callable[[Tensor, torch.Generator], Tensor]:
    """Acts for each of the tasks as its class's script says; observations are [task, episode, observation]."""
    scripts = [metaworld_api.expert(task.family) for task in tasks]

    def act(observations: Tensor, generator: torch.Generator) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the scripts ask for more than ±1, and say so at every step
            rows = [
                [script(observation) for observation in episodes]
                for script, episodes in zip(scripts, observations.double().cpu().numpy(), strict=True)
            ]
        return torch.from_numpy(np.asarray(rows, dtype=np.float32)).to(observations.device)

    return act
