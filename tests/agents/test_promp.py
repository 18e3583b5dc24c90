"""ProMP: its steps of Adam against gradients written out with autograd, and that it learns to adapt."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from metarl.agents import PrompConfig
from metarl.agents.policy_gradient import PolicyBatch
from metarl.agents.promp import Promp
from metarl.maths import adam
from tests.agents.explicit import adapted, at, distribution, in_double, replayed
from tests.agents.toys import Toy, box, discrete
from tests.agents.worlds import collect, held_out_returns, trained

SMALL = PrompConfig(meta_batch=3, episodes_per_adaptation=4, hidden=(4,))
BOX, DISCRETE = Toy(box(2), ragged=True, observation_size=2), Toy(discrete(3), ragged=True, observation_size=2)
worlds = pytest.mark.parametrize("world", [BOX, DISCRETE], ids=["box", "discrete"])


def agent(world: Toy = BOX, **options: Any) -> Promp:
    made = dataclasses.replace(SMALL, **options).build(world.spaces)
    assert isinstance(made, Promp)
    return made


def written_out(
    promp: Promp, leaves: dict[str, Tensor], old: dict[str, Tensor], batches: list[PolicyBatch]
) -> tuple[Tensor, Tensor, Tensor]:
    """−J, the share of clipped samples, and the inner policies' mean KL."""
    config, losses, clipped, divergences = promp.config, list[Tensor](), list[Tensor](), list[Tensor]()
    for task in range(config.meta_batch):
        for stage, batch in enumerate(at(batch, task) for batch in batches):
            stages = (adapted(promp.adaptation, each, batches[:stage], task) for each in (leaves, old))
            new, acted = (distribution(promp.adaptation, each, batch.observations) for each in stages)
            if stage < len(batches) - 1:
                divergences.append(kl_divergence(acted, new).mean())
                continue
            ratio = torch.exp(new.log_prob(batch.actions) - acted.log_prob(batch.actions))
            inside = torch.clip(ratio, 1 - config.clip, 1 + config.clip)
            losses.append(-torch.minimum(ratio * batch.advantages, inside * batch.advantages).mean())
            clipped.append((ratio != inside).double().mean())
    penalty = torch.stack(divergences).mean()
    return torch.stack(losses).mean() + config.kl_penalty * penalty, torch.stack(clipped).mean(), penalty


@pytest.mark.parametrize("options", [{}, {"inner_steps": 2}, {"inner_surrogate": "log-likelihood"}], ids=str)
@worlds
def test_the_outer_step_is_adams_on_the_clipped_objective(world: Toy, options: dict[str, Any]) -> None:
    """Three steps, each on the gradient there: the ratios have left their bounds, and the inner policies moved."""
    promp = agent(
        world, **options, epochs=3, learning_rate=0.1, clip=0.05, kl_penalty=2.0, inner_lr=0.3, learn_inner_lr=True
    )
    state, trials = in_double(promp, world)
    batches = replayed(promp, state, trials)
    after, metrics = promp.meta_step(state, trials, np.random.default_rng(0))
    learned, moments = dict(state.parameters), dict(state.optimizer)
    old = {name: value.clone().requires_grad_() for name, value in learned.items()}
    log = torch.zeros(())
    clipped = torch.zeros(())
    for _ in range(3):
        leaves = {name: value.clone().requires_grad_() for name, value in learned.items()}
        loss, clipped, log = written_out(promp, leaves, old, batches)
        gradients = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
        learned, moments = adam.step(learned, gradients, moments, 0.1)
    assert float(clipped) > 0.2 and float(log.detach()) > 1e-3
    assert metrics["inner_kl"] == pytest.approx(float(log.detach()), rel=1e-6)
    for there, here in ((learned, after.parameters), (moments, after.optimizer)):
        assert there.keys() == here.keys()
        for name, value in there.items():
            torch.testing.assert_close(here[name], value, rtol=1e-6, atol=1e-9)


def test_a_heavier_penalty_holds_the_inner_policies_back() -> None:
    divergences = []
    for weight in (0.0, 10.0):
        promp = agent(epochs=10, learning_rate=0.03, kl_penalty=weight)
        state, trials = in_double(promp, BOX)
        _, metrics = promp.meta_step(state, trials, np.random.default_rng(0))
        divergences.append(float(metrics["inner_kl"]))
    assert divergences[1] < 0.5 * divergences[0]


def test_new_statistics_do_not_change_what_a_policy_does_before_it_adapts() -> None:
    """They are folded into the first layer. A rate next to nothing stands for no step."""
    world = dataclasses.replace(BOX, noise=0.3, offset=0.5)
    promp = agent(world, normalise_observations=True, learning_rate=1e-12)
    state = promp.init(0)
    trials = collect(promp, state, world)
    after, _ = promp.meta_step(state, trials, np.random.default_rng(0))
    seen = torch.cat([each.observations[each.mask] for each in trials.episodes])
    torch.testing.assert_close(after.parameters["input_mean"], seen.double().mean(0))
    observations = seen.expand(3, *seen.shape)
    before, now = (promp.start(each, 3).distribution(observations) for each in (state, after))
    torch.testing.assert_close(now.mode(), before.mode(), rtol=1e-4, atol=1e-5)


def test_its_defaults_are_the_papers() -> None:
    config = PrompConfig()
    assert (config.inner_surrogate, config.learn_inner_lr) == ("likelihood-ratio", False)
    assert (config.inner_lr, config.epochs, config.learning_rate, config.clip, config.kl_penalty) == (
        0.1, 5, 1e-3, 0.3, 5e-4
    )  # fmt: skip


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"clip": 0.0}, {"kl_penalty": -0.1}, {"learning_rate": 0.0}])
def test_wrong_options_are_refused_with_the_number(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        dataclasses.replace(SMALL, **wrong)


def test_it_learns_to_adapt_to_held_out_tasks() -> None:
    """What an inner step gains, after training more than before; returns are at most 6 times the strength."""
    world = Toy(box(2))
    config = PrompConfig(meta_batch=8, episodes_per_adaptation=8, hidden=(8,), learning_rate=0.01, learn_inner_lr=True)
    promp = config.build(world.spaces)
    _, untrained = held_out_returns(promp, promp.init(0), world)
    _, gain = held_out_returns(promp, trained(promp, world, 20), world)
    assert gain.low > 2.0 and gain.low > untrained.high, (untrained, gain)
