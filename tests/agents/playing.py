"""What the tests of agents share: trials on toys, states that respond to everything, and a short training."""

from collections.abc import Iterator

import numpy as np
import torch

from metarl.learning.collect import Collector
from metarl.learning.episodes import Trials
from metarl.learning.protocols import Agent, State
from metarl.learning.random_streams import task_seeds
from metarl.learning.sources import TrialSource
from metarl.learning.training import OuterStep, outer_steps
from metarl.testing.agents import World


def play(agent: Agent, dist: World, state: State, seed: int = 0) -> Trials:
    """A meta-batch of trials."""
    return TrialSource(dist, Collector(dist)).collect(agent, state, seed, 0)


def lively(state: State) -> State:
    """The state with parameters that make everything depend on everything, and statistics not the identity."""
    generator = torch.Generator().manual_seed(7)
    parameters = {
        name: value
        if name.startswith(("input_", "inner_lr"))
        else value + 0.3 * torch.randn(value.shape, generator=generator)
        for name, value in state.parameters.items()
    }
    if "input_mean" in parameters:
        parameters |= {"input_mean": parameters["input_mean"] + 0.3, "input_variance": parameters["input_variance"] * 2}
    return State(parameters, state.optimizer)


def train(agent: Agent, dist: World, steps: int, seed: int = 0) -> Iterator[OuterStep]:
    """The training loop, without a folder."""
    source = TrialSource(dist, Collector(dist))
    return outer_steps(agent, source, agent.init(seed), seed=seed, start=0, stop=steps)


def mean_returns(agent: Agent, dist: World, state: State, seed: int = 99) -> tuple[float, float]:
    """Mean return before the first and after the last adaptation on 64 drawn tasks."""
    tasks = dist.sample("test", 64, np.random.default_rng(seed))
    trials = Collector(dist).collect_trials(
        agent.start(state, 64), tasks, agent.protocol, task_seeds(seed, num_tasks=64)
    )
    metrics = trials.metrics()
    return metrics["return_before"], metrics["return_after"]
