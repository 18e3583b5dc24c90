"""What tests of agents do again and again: collecting trials, and states whose policies depend on everything."""

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from metarl.learning.collect import Collector, EnvSource
from metarl.learning.episodes import Episodes, Trials
from metarl.learning.protocols import AdaptationProtocol, Agent, State
from metarl.learning.random_streams import task_seeds
from metarl.learning.sources import SampledTasks, TrialSource
from metarl.learning.training import outer_steps
from metarl.maths.statistics import Estimate, t_interval
from metarl.tasks import Split, Task


@runtime_checkable
class World(EnvSource, SampledTasks, Protocol):
    """A distribution with held-out tasks."""

    def tasks(self, split: Split) -> tuple[Task, ...]: ...


def lively(state: State, **others: Tensor) -> State:
    """With parameters that make actions depend on everything, and statistics that are not the identity."""
    generator = torch.Generator().manual_seed(7)
    parameters = dict(state.parameters)
    for name, value in parameters.items():
        if not name.startswith(("input_", "inner_lr")):
            parameters[name] = value + 0.3 * torch.randn(value.shape, generator=generator)
    if "input_mean" in parameters:
        size = len(parameters["input_mean"])
        parameters["input_mean"] = torch.linspace(-0.3, 0.4, size, dtype=torch.float64)
        parameters["input_variance"] = torch.linspace(0.5, 2.0, size, dtype=torch.float64)
        parameters["input_total"] = torch.tensor(50.0, dtype=torch.float64)
    return State({**parameters, **others}, state.optimizer)


def collect(
    agent: Agent, state: State, dist: World, seed: int = 0, protocol: AdaptationProtocol | None = None
) -> Trials:
    """Trials on as many tasks as an outer step has."""
    tasks = dist.sample("train", agent.meta_batch, np.random.default_rng(seed))
    seeds = task_seeds(seed, num_tasks=len(tasks))
    return Collector(dist).collect_trials(agent.start(state, len(tasks)), tasks, protocol or agent.protocol, seeds)


def double(episodes: Episodes) -> Episodes:
    """In float64."""
    return Episodes(**{name: x.double() if x.is_floating_point() else x for name, x in episodes.tensors().items()})


def trained(agent: Agent, dist: World, steps: int) -> State:
    state = agent.init(0)
    for outer_step in outer_steps(agent, TrialSource(dist, Collector(dist)), state, seed=0, start=0, stop=steps):
        state = outer_step.state
    return state


def held_out_returns(agent: Agent, state: State, dist: World, trials: int = 6) -> tuple[Estimate, Estimate]:
    """The returns after the last adaptation, and their gains on those before the first, on held-out tasks."""
    tasks = [task for task in dist.tasks("test") for _ in range(trials)]
    played = Collector(dist).collect_trials(
        agent.start(state, len(tasks)), tasks, agent.protocol, task_seeds(99, num_tasks=len(tasks))
    )
    before, after = (each.returns.mean(1).double().numpy() for each in (played.episodes[0], played.query))
    return t_interval(after), t_interval(after - before)
