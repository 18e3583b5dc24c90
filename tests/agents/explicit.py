"""Inner steps of policies written out: loops over tasks, `torch.autograd` and `torch.distributions`, in float64."""

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, Normal

from metarl.agents.maml import MamlTrpo
from metarl.agents.policy_adaptation import PolicyAdaptation
from metarl.agents.policy_gradient import PolicyBatch
from metarl.agents.promp import Promp
from metarl.learning.episodes import Trials
from metarl.learning.protocols import State
from tests.agents.toys import Toy
from tests.agents.worlds import collect, double, lively

Adapting = MamlTrpo | Promp
"""Agents whose policies adapt by gradient steps."""


def in_double(agent: Adapting, world: Toy) -> tuple[State, Trials]:
    """A state and the trials of its policies, both in float64, so that comparisons can be sharp."""
    state = lively(agent.init(0))
    trials = collect(agent, state, world)
    trials = Trials(trials.tasks, tuple(double(episodes) for episodes in trials.episodes))
    parameters, optimizer = (
        {name: value.double() for name, value in part.items()} for part in (state.parameters, state.optimizer)
    )
    return State(parameters, optimizer), trials


def distribution(adaptation: PolicyAdaptation, parameters: dict[str, Tensor], observations: Tensor) -> Distribution:
    x = observations
    for layer in range(len(adaptation.config.hidden)):
        x = torch.tanh(x @ parameters[f"body.{2 * layer}.weight"].T + parameters[f"body.{2 * layer}.bias"])
    outputs = x @ parameters["head.linear.weight"].T + parameters["head.linear.bias"]
    if adaptation.spaces.discrete:
        return Categorical(logits=outputs)
    deviation = parameters["head.log_std"].exp().clamp_min(adaptation.config.minimum_std)
    return Independent(Normal(torch.tanh(outputs) if adaptation.config.squash_mean else outputs, deviation), 1)


def replayed(agent: Adapting, state: State, trials: Trials) -> list[PolicyBatch]:
    """The trials' batches, observations as they were."""
    batches, _ = agent.adaptation.replay(state.parameters, trials)
    return batches


def at(batch: PolicyBatch, task: int) -> PolicyBatch:
    return PolicyBatch(*(part[task][batch.mask[task]] for part in batch))


def adapted(
    adaptation: PolicyAdaptation, parameters: dict[str, Tensor], supports: list[PolicyBatch], task: int
) -> dict[str, Tensor]:
    """θ_𝓣 = θ − α ∘ ∇ L_𝓣(θ), once for each support."""
    policy = {name: value for name, value in parameters.items() if not name.startswith("inner_lr.")}
    names = [name for name in policy if not adaptation.config.anil or name.startswith("head.")]
    for support in supports:
        batch = at(support, task)
        log_probs = distribution(adaptation, policy, batch.observations).log_prob(batch.actions)
        likelihood = (
            log_probs if adaptation.config.inner_surrogate == "log-likelihood" else (log_probs - batch.log_probs).exp()
        )
        loss = -(likelihood * batch.advantages).mean()
        keep = not adaptation.config.first_order
        gradients = torch.autograd.grad(loss, [policy[name] for name in names], create_graph=keep)
        for name, gradient in zip(names, gradients, strict=True):
            rate = parameters.get(f"inner_lr.{name}", torch.tensor(adaptation.config.inner_lr, dtype=torch.float64))
            policy[name] = policy[name] - rate * gradient
    return policy
