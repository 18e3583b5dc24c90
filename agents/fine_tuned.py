"""Fine-tuning: the task-blind policy, trained on each task by PPO with the episodes of the trial.

It is the yardstick for what an agent that has learned to adapt must beat with as many episodes: ordinary training from
an ordinary start. There is nothing to meta-train in it.
"""

import dataclasses
import functools
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from metarl.agents.batching import map_tensors, pad_tasks
from metarl.agents.policies import ActorCriticOutputs
from metarl.agents.ppo import Ppo
from metarl.learning.episodes import Episodes, Trials
from metarl.learning.protocols import AdaptationProtocol, Carry, Memoryless, Metrics, Parameters, State
from metarl.learning.random_streams import TaskRandom
from metarl.maths import adam
from metarl.maths.running_mean_std import RunningMeanStd
from metarl.tasks import Task

_ANY_TASK = Task.of("any")  # PPO asks for the episodes alone


@final
@dataclasses.dataclass(frozen=True)
class FineTuned:
    """The agent: PPO, which goes on learning on each task for itself."""

    ppo: Ppo
    """What the policy was trained by, and is trained by on each task."""
    protocol: AdaptationProtocol
    """Adaptations, and episodes before each: as many as the agent gets that it is a yardstick of."""

    meta_batch = 1
    progress_keys = ()
    adaptation_name = "PPO update"

    def init(self, seed: int) -> State:
        return self.ppo.init(seed)

    def start(self, state: State, num_tasks: int) -> "FineTunedPolicy":
        """Every task begins with the blind policy, and with an optimiser that has seen nothing."""
        fresh = State(state.parameters, adam.start(self.ppo.learned(state.parameters)))
        return FineTunedPolicy(self, (fresh,) * num_tasks, 0)

    def meta_step(self, state: State, experience: Trials, rng: np.random.Generator) -> tuple[State, Metrics]:
        raise ValueError("fine-tuning has nothing to meta-train: train PPO, and fine-tune what it has learned")


@final
@dataclasses.dataclass(frozen=True)
class FineTunedPolicy(Memoryless):
    """A policy for each task, with what PPO keeps beside it."""

    agent: FineTuned
    states: tuple[State, ...]
    """One for each task."""
    updates: int
    """Adaptations so far."""

    def act(
        self, observations: Float[Tensor, "task episode observation"], carry: Carry, random: TaskRandom | None
    ) -> tuple[Shaped[Tensor, "task episode *action"], Carry]:
        ppo = self.agent.ppo

        def apply(parameters: Parameters, observations: Tensor) -> ActorCriticOutputs:
            mean, variance, total = RunningMeanStd.among(parameters)
            seen = RunningMeanStd(mean[:-1], variance[:-1], total).standardise(observations)
            return ppo.apply(ppo.learned(parameters), seen)

        outputs = torch.func.vmap(apply)(self._stacked, pad_tasks(observations))
        distribution = map_tensors(lambda x: x[: len(observations)], outputs.distribution)
        return distribution.sample(random), carry

    @functools.cached_property
    def _stacked(self) -> dict[str, Shaped[Tensor, "task *shape"]]:
        """The parameters of all tasks by name."""
        names = self.states[0].parameters
        return {name: pad_tasks(torch.stack([state.parameters[name] for state in self.states])) for name in names}

    def adapt(self, support: Episodes) -> "FineTunedPolicy":
        """One outer step of PPO on each task's own episodes."""
        states: list[State] = []
        for index, state in enumerate(self.states):
            own = Episodes(**{name: part[index : index + 1] for name, part in support.tensors().items()})
            order = np.random.default_rng(self.updates)  # of minibatches: the same for every task, whatever its company
            states.append(self.agent.ppo.meta_step(state, Trials((_ANY_TASK,), (own,)), order)[0])
        return FineTunedPolicy(self.agent, tuple(states), self.updates + 1)

    def shard(self, tasks: slice) -> "FineTunedPolicy":
        """The policies of some of the tasks."""
        return FineTunedPolicy(self.agent, self.states[tasks], self.updates)
