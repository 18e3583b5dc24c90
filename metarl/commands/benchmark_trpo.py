"""How long MAML-TRPO's update takes, ours and a task loop's, in alternating rounds on one thread.

The loop does what people write first: for each task PyTorch's own `autograd.grad(create_graph=True)` for the inner
step, the gradient of the surrogate, and products with the Hessian of the KL by a gradient of a gradient (reverse over
reverse). Ours computes all tasks at once, and products by the Fisher matrix's factors.
"""

import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from metarl import envs
from metarl.agents import MamlTrpoConfig, policies
from metarl.agents.maml import MamlTrpo
from metarl.agents.maml_objective import Values
from metarl.agents.policy_gradient import INNER_LOSSES, PolicyBatch
from metarl.commands.timing import Update, updates_in_turns
from metarl.learning.collect import Collector
from metarl.learning.episodes import Trials
from metarl.learning.protocols import Parameters, State
from metarl.learning.sources import TrialSource
from metarl.maths import trust_region
from metarl.maths.distributions import Distribution
from metarl.maths.masked import masked_mean
from metarl.maths.parameters import ravel, unravel

OURS, LOOP = "metarl", "task loop"
NAME = "20 tasks of 10 + 10 episodes"
WORLD, CONFIG = "cheetah-direction", MamlTrpoConfig(meta_batch=20, episodes_per_adaptation=10)


def update_seconds(rounds: int, clock: Callable[[], float] = time.process_time) -> dict[str, list[float]]:
    """Seconds of an update from the same trials, ours and the loop's, in each round."""
    dist = envs.make(WORLD)
    agent = CONFIG.build(dist.spaces)
    state, collector = agent.init(0), Collector(dist)
    trials = TrialSource(dist, collector).collect(agent, state, 0, 0)
    collector.close()
    updates: dict[str, Update] = {
        OURS: lambda: agent.meta_step(state, trials, np.random.default_rng(0)),
        LOOP: lambda: by_loop(agent, state, trials, np.random.default_rng(0)),
    }
    return updates_in_turns(updates, rounds, clock, repeats=1)


def by_loop(agent: MamlTrpo, state: State, trials: Trials, rng: np.random.Generator) -> State:
    """`agent.meta_step` of an agent that takes observations as they are, task by task."""
    config, like = agent.config, agent.adaptation.learned(state.parameters)
    raw, played = agent.adaptation.replay(state.parameters, trials)
    chosen = agent.objective(state.parameters, trials, rng).parts[0].chosen
    tasks = range(len(trials.tasks))
    whole = [[_of_task(batch, task) for batch in raw] for task in tasks]
    some = [
        [_some(batch, each, config.episodes_per_adaptation) for batch, each in zip(own, chosen, strict=True)]
        for own in whole
    ]
    old = [_row(played[-1].distribution, task) for task in tasks]
    point = ravel(like)

    def distribution(x: Tensor, batches: list[PolicyBatch]) -> Distribution:
        *supports, query = batches
        return policies.apply(agent.adaptation.policy, _adapted(agent, unravel(x, like), supports), query.observations)

    def objective(x: Tensor, task: int) -> Values:
        query, new = whole[task][-1], distribution(x, whole[task])
        ratio = torch.exp(new.log_prob(query.actions) - query.log_probs)
        return Values(-masked_mean(ratio * query.advantages, query.mask), masked_mean(old[task].kl(new), query.mask))

    def total(x: Tensor) -> tuple[Tensor, Tensor]:
        leaf = x.detach().requires_grad_()
        terms = [objective(leaf, task) for task in tasks]
        return (
            torch.stack([term.loss for term in terms]).mean().detach(),
            torch.stack([term.kl for term in terms]).mean().detach(),
        )

    gradient, values = torch.zeros_like(point), list[Values]()
    for task in tasks:
        x = point.clone().requires_grad_()
        values.append(objective(x, task))
        gradient += torch.autograd.grad(values[-1].loss, x)[0] / len(tasks)

    x, slopes = point.clone().requires_grad_(), list[Tensor]()
    for task in tasks:
        new = distribution(x, some[task])
        fixed = type(new)(*(part.detach() for part in new))
        kl = masked_mean(fixed.kl(new), some[task][-1].mask)
        slopes.append(torch.autograd.grad(kl, x, create_graph=True)[0])

    def product(vector: Tensor) -> Tensor:
        curved = torch.zeros_like(vector)
        for slope in slopes:
            curved += torch.autograd.grad(slope @ vector, x, retain_graph=True)[0] / len(tasks)
        return curved + config.cg_damping * vector

    step = trust_region.natural_gradient_step(gradient, product, config.max_kl, config.cg_iterations)
    start = [float(torch.stack(column).detach().mean()) for column in zip(*values, strict=True)]
    found = trust_region.line_search(
        lambda share: total(point + share * step),
        limit=config.max_kl,
        start=(start[0], start[1]),
        shrink=config.line_search_shrink,
        tries=config.line_search_tries,
    )
    return State(unravel(point + found.share * step, like), {})


def _adapted(agent: MamlTrpo, learned: Parameters, supports: list[PolicyBatch]) -> dict[str, Tensor]:
    """θ_𝓣 of one task, differentiable."""
    config = agent.config
    policy, rates = agent.adaptation.split(learned)
    for support in supports:
        loss = INNER_LOSSES[config.inner_surrogate](agent.adaptation.policy, policy, support)
        gradients = torch.autograd.grad(loss, list(policy.values()), create_graph=True)
        policy = {
            name: value - (rates[name] if isinstance(rates, Mapping) else rates) * gradient
            for (name, value), gradient in zip(policy.items(), gradients, strict=True)
        }
    return policy


def _of_task(batch: PolicyBatch, task: int) -> PolicyBatch:
    return PolicyBatch(*(part[task] for part in batch))


def _row(distribution: Distribution, task: int) -> Distribution:
    return type(distribution)(*(part[task] for part in distribution))


def _some(batch: PolicyBatch, chosen: tuple[int, ...], episodes: int) -> PolicyBatch:
    """The samples of some of the episodes."""
    return PolicyBatch(*(part.unflatten(0, (episodes, -1))[list(chosen)].flatten(0, 1) for part in batch))
