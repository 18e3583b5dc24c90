"""The surrogates of inner steps: their gradients, and their second derivatives against those of the return itself."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, Normal

from metarl.agents import policies
from metarl.agents.policies import MlpPolicy
from metarl.agents.policy_gradient import (
    INNER_LOSSES,
    PolicyBatch,
    likelihood_ratio_loss,
    log_likelihood_loss,
)
from metarl.learning.spaces import Spaces
from metarl.maths.parameters import ravel, unravel
from tests.agents.toys import Toy, box, discrete

SPACES = [Toy(box(2), observation_size=2).spaces, Toy(discrete(3), observation_size=2).spaces]
worlds = pytest.mark.parametrize("spaces", SPACES, ids=["box", "discrete"])


def policy_of(spaces: Spaces) -> tuple[MlpPolicy, dict[str, Tensor]]:
    """A policy and parameters in float64 on which all of its actions depend."""
    policy = MlpPolicy(spaces, (4,), -1.0, 0.1, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    drawn = {
        name: value.double() + 0.3 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in policies.parameters_of(policy).items()
    }
    return policies.architecture(policy), drawn


def written_out(spaces: Spaces, parameters: dict[str, Tensor], observations: Tensor) -> Distribution:
    x = torch.tanh(observations @ parameters["body.0.weight"].T + parameters["body.0.bias"])
    outputs = x @ parameters["head.linear.weight"].T + parameters["head.linear.bias"]
    if spaces.discrete:
        return Categorical(logits=outputs)
    return Independent(Normal(torch.tanh(outputs), parameters["head.log_std"].exp()), 1)


def steps(spaces: Spaces, policy: MlpPolicy, parameters: dict[str, Tensor], count: int = 12) -> PolicyBatch:
    """What the policy did, some of it only padding."""
    generator = torch.Generator().manual_seed(2)
    observations = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    actions = (
        torch.arange(count) % 3
        if spaces.discrete
        else torch.randn(count, 2, generator=generator, dtype=torch.float64).mul(0.5)
    )
    log_probs = policies.apply(policy, parameters, observations).log_prob(actions).detach()
    advantages = torch.randn(count, generator=generator, dtype=torch.float64)
    return PolicyBatch(observations, actions, advantages, log_probs, torch.arange(count) != 4)


@worlds
def test_both_surrogates_have_the_policy_gradient_and_only_one_its_derivative(spaces: Spaces) -> None:
    """Their gradients and Hessians, against autograd through torch.distributions."""
    policy, parameters = policy_of(spaces)
    batch = steps(spaces, policy, parameters)
    x, taken = ravel(parameters), batch.mask

    def score(x: Tensor) -> Tensor:
        own = written_out(spaces, unravel(x, parameters), batch.observations[taken])
        return own.log_prob(batch.actions[taken])

    def likelihood(x: Tensor) -> Tensor:
        return -(score(x) * batch.advantages[taken]).mean()

    jacobian = torch.autograd.functional.jacobian(score, x)
    gradient = torch.autograd.functional.jacobian(likelihood, x)
    hessian = torch.autograd.functional.hessian(likelihood, x)
    assert isinstance(jacobian, Tensor) and isinstance(gradient, Tensor) and isinstance(hessian, Tensor)
    sampling = -torch.einsum("s,si,sj->ij", batch.advantages[taken], jacobian, jacobian) / int(taken.sum())
    assert float(sampling.norm()) > 0.1 * float(hessian.norm())
    for loss, extra in ((log_likelihood_loss, 0.0), (likelihood_ratio_loss, 1.0)):

        def flat(x: Tensor, loss: Any = loss) -> Tensor:
            return loss(policy, unravel(x, parameters), batch)

        torch.testing.assert_close(torch.func.grad(flat)(x), gradient, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(
            torch.func.jacrev(torch.func.jacrev(flat))(x), hessian + extra * sampling, rtol=1e-8, atol=1e-10
        )


@worlds
def test_far_from_the_policy_that_acted_the_ratio_corrects_for_it(spaces: Spaces) -> None:
    policy, parameters = policy_of(spaces)
    batch = steps(spaces, policy, parameters)
    away = {name: value + 0.1 for name, value in parameters.items()}
    log_probs = written_out(spaces, away, batch.observations).log_prob(batch.actions)
    ratio = (log_probs - batch.log_probs).exp()
    taken = batch.mask
    torch.testing.assert_close(
        likelihood_ratio_loss(policy, away, batch), -(ratio * batch.advantages)[taken].mean(), rtol=1e-9, atol=0
    )
    torch.testing.assert_close(
        log_likelihood_loss(policy, away, batch), -(log_probs * batch.advantages)[taken].mean(), rtol=1e-9, atol=0
    )


def test_the_likelihood_ratio_has_the_second_derivative_of_a_bandits_return() -> None:
    """All that can happen happens as often as the policy says: the mean over it is the expectation itself.

    J(z) = Σ p_a r_a with p = softmax(z):   ∂J/∂z_i = p_i (r_i − J),
    ∂²J/∂z_i∂z_j = p_i (δ_ij − p_j) (r_i − J) − p_i p_j (r_j − J).
    """
    spaces = Toy(discrete(3), observation_size=1).spaces
    policy = MlpPolicy(spaces, (1,), -1.0, 0.1, torch.Generator().manual_seed(0))
    p, rewards = torch.tensor([0.5, 0.25, 0.25]).double(), torch.tensor([1.0, -2.0, 4.0]).double()
    head = "head.linear.bias"
    parameters = {name: torch.zeros_like(value).double() for name, value in policies.parameters_of(policy).items()}
    actions = torch.tensor([0, 0, 1, 2])
    batch = PolicyBatch(
        torch.ones(4, 1, dtype=torch.float64), actions, rewards[actions], p[actions].log(), torch.ones(4) > 0
    )
    value = float(p @ rewards)
    gradient = p * (rewards - value)
    hessian = torch.diag(gradient) - torch.outer(gradient, p) - torch.outer(p, gradient)
    architecture = policies.architecture(policy)
    found = {}
    for name, loss in INNER_LOSSES.items():

        def objective(logits: Tensor, loss: Any = loss) -> Tensor:
            return -loss(architecture, {**parameters, head: logits}, batch)

        torch.testing.assert_close(torch.func.grad(objective)(p.log()), gradient, rtol=1e-12, atol=1e-12)
        found[name] = torch.func.jacrev(torch.func.jacrev(objective))(p.log())
    torch.testing.assert_close(found["likelihood-ratio"], hessian, rtol=1e-12, atol=1e-12)
    assert float((found["log-likelihood"] - hessian).norm()) > 0.5 * float(hessian.norm())


def test_a_likelihood_ratio_of_one_is_the_mean_advantage() -> None:
    policy, parameters = policy_of(SPACES[1])
    batch = steps(SPACES[1], policy, parameters)
    loss = float(likelihood_ratio_loss(policy, parameters, batch))
    assert math.isclose(loss, -float(batch.advantages[batch.mask].mean()), rel_tol=1e-9)
