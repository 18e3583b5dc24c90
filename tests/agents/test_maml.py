"""MAML-TRPO: its parts against autograd, and the whole on the point robot."""

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl import agents, envs
from metarl.agents import policies
from metarl.agents.maml import MamlTrpo, MamlTrpoConfig, Support, policy_gradient_loss
from metarl.learning.collect import Sampler
from metarl.learning.episodes import Episodes
from metarl.learning.protocols import State
from metarl.maths.running_mean_std import Moments

SMALL = MamlTrpoConfig(meta_batch=3, episodes=4, hidden=(8,))


def agent(config: MamlTrpoConfig = SMALL) -> MamlTrpo:
    made = agents.make(config, envs.make("point-navigation"))
    assert isinstance(made, MamlTrpo)
    return made


def episodes(seed: int, lengths: Tensor | None = None) -> Episodes:
    """Noise of three tasks, four episodes of at most ten steps."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.full((3, 4), 10) if lengths is None else lengths
    mask = torch.arange(10) < lengths[..., None]

    def noise(*shape: int) -> Tensor:
        return torch.randn(3, 4, *shape, generator=generator)

    return Episodes(
        observations=noise(10, 2) * mask[..., None],
        final_observations=noise(2),
        actions=noise(10, 2) * mask[..., None],
        rewards=noise(10) * mask,
        terminated=lengths < 10,
        diverged=torch.zeros(3, 4, dtype=torch.bool),
        lengths=lengths,
    )


def test_curvature_is_the_hessian_of_the_kl() -> None:
    """Jᵀ M J + damping against a double backward pass through the KL itself, inner step included."""
    for config in (SMALL, dataclasses.replace(SMALL, learn_rates=True), dataclasses.replace(SMALL, inner_steps=2)):
        config = dataclasses.replace(config, curvature_fraction=1.0, cg_damping=1e-3)
        maml = agent(config)
        parameters = {name: value.double() for name, value in maml.init(0).parameters.items()}
        maml.policy.double()
        *supports, query = (
            Support(*(x.double() if x.is_floating_point() else x for x in maml.advantages(episodes(seed))))
            for seed in range(config.inner_steps + 1)
        )
        x = torch.cat([value.flatten() for value in parameters.values()])
        mean, log_std = maml.outputs(x, parameters, supports, query.observations)
        old = mean.detach(), log_std.detach()

        def kl(
            x: Tensor,
            maml: MamlTrpo = maml,
            parameters: dict[str, Tensor] = parameters,
            supports: list[Support] = supports,
            query: Support = query,
            old: tuple[Tensor, Tensor] = old,
        ) -> Tensor:
            return policies.gaussian_kl(*old, *maml.outputs(x, parameters, supports, query.observations)).mean()

        vector = torch.randn(x.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        _, curved = torch.autograd.functional.hvp(kl, x, vector)
        assert isinstance(curved, Tensor)
        expected = curved + 1e-3 * vector
        product = maml.curvature(x, parameters, supports, query, np.random.default_rng(0))
        torch.testing.assert_close(product(vector), expected, rtol=1e-6, atol=1e-9)


def test_an_outer_step_improves_the_surrogate_within_the_trust_region() -> None:
    maml = agent()
    state = maml.init(0)
    tasks = envs.make("point-navigation").sample("train", 3, np.random.default_rng(0))
    after, figures = maml.meta_step(state, tasks, np.random.default_rng(1))
    assert figures["accepted"] == 1.0
    assert 0 < figures["kl"] <= SMALL.max_kl
    assert figures["surrogate"] < 0  # at the start it is 0: advantages are centred and the ratio is 1
    assert figures["env_steps"] == 2 * 3 * 4 * 100
    assert any(not torch.equal(after.parameters[name], state.parameters[name]) for name in state.parameters)


def test_a_meta_step_follows_from_its_arguments_and_leaves_them_alone() -> None:
    maml = agent()
    state = maml.init(0)
    before = {name: value.clone() for name, value in state.parameters.items()}
    tasks = envs.make("point-navigation").sample("train", 3, np.random.default_rng(0))
    one, _ = maml.meta_step(state, tasks, np.random.default_rng(1))
    other, _ = agent().meta_step(state, tasks, np.random.default_rng(1))
    for name, value in before.items():
        assert torch.equal(one.parameters[name], other.parameters[name])
        assert torch.equal(state.parameters[name], value)


def test_each_stage_after_the_first_has_fresh_episodes() -> None:
    maml = agent(dataclasses.replace(SMALL, inner_steps=2))
    seeds: list[int] = []

    class Recorder:
        def collect(self, actor: object, tasks: object, episodes: int, seed: int) -> Episodes:
            seeds.append(seed)
            return globals()["episodes"](seed)

    recording = dataclasses.replace(maml, sampler=Recorder())
    tasks = envs.make("point-navigation").sample("train", 3, np.random.default_rng(0))
    recording.meta_step(maml.init(0), tasks, np.random.default_rng(1))
    assert len(set(seeds)) == 3


def test_the_actor_adapts_by_the_same_step_as_the_objective() -> None:
    """What collects the query episodes is the policy that the outer step differentiates through."""
    for config in (SMALL, dataclasses.replace(SMALL, learn_rates=True), dataclasses.replace(SMALL, anil=True)):
        maml = agent(config)
        state = maml.init(0)
        support = episodes(0)
        acting = maml.start(state, 3).adapt(support).parameters
        policy, rates = maml.split(state.parameters)
        differentiated = maml.inner_step(policy, [maml.advantages(support)], rates, shared=True)
        torch.testing.assert_close(dict(acting), differentiated)
        changed = {name for name in policy if not torch.allclose(acting[name][0], policy[name])}
        assert changed == (set(maml.policy.head) if config.anil else set(policy))


def test_first_order_is_another_gradient() -> None:
    maml, first = agent(), agent(dataclasses.replace(SMALL, first_order=True))
    state = maml.init(0)
    tasks = envs.make("point-navigation").sample("train", 3, np.random.default_rng(0))
    _, one = maml.meta_step(state, tasks, np.random.default_rng(1))
    _, other = first.meta_step(state, tasks, np.random.default_rng(1))
    assert one["return_after"] == other["return_after"]  # the same episodes
    assert one["gradient_norm"] != other["gradient_norm"]


def test_advantages_are_standardised_within_each_task_over_the_steps_taken() -> None:
    lengths = torch.tensor([[10, 10, 10, 10], [3, 10, 1, 10], [10, 5, 10, 2]])
    support = agent().advantages(episodes(0, lengths))
    for task in range(3):
        taken = support.advantages[task][support.mask[task]]
        assert support.mask[task].sum() == lengths[task].sum()
        torch.testing.assert_close(taken.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
        torch.testing.assert_close(taken.std(correction=0), torch.tensor(1.0), atol=1e-4, rtol=0)
        assert support.advantages[task][~support.mask[task]].abs().sum() == 0


def test_steps_past_an_episodes_end_change_nothing() -> None:
    lengths = torch.tensor([[10, 4, 10, 10], [3, 10, 1, 10], [10, 5, 10, 2]])
    whole = episodes(0, lengths)
    beyond = torch.where(whole.mask[..., None], whole.actions, torch.full_like(whole.actions, 7.0))
    maml = agent()
    policy, rates = maml.split(maml.init(0).parameters)
    one, other = (
        maml.inner_step(policy, [maml.advantages(each)], rates, shared=True)
        for each in (whole, dataclasses.replace(whole, actions=beyond))
    )
    torch.testing.assert_close(one, other)


def test_the_loss_has_the_policy_gradient() -> None:
    """−E[log π · A]: raising an action's probability in proportion to its advantage."""
    maml = agent()
    loss = functools.partial(policy_gradient_loss, maml.policy, maml.split(maml.init(0).parameters)[0])
    support = Support(torch.zeros(2, 2), torch.tensor([[0.5, 0.0], [-0.5, 0.0]]), torch.ones(2), torch.ones(2).bool())
    better = Support(*support[:2], torch.tensor([2.0, 1.0]), support.mask)
    mean, log_std = policies.apply(maml.policy, maml.split(maml.init(0).parameters)[0], support.observations)
    expected = torch.distributions.Normal(mean, log_std.exp()).log_prob(support.actions).sum(-1)
    torch.testing.assert_close(loss(support), -expected.mean())
    torch.testing.assert_close(loss(better), -(expected * better.advantages).mean())


@pytest.mark.parametrize(
    "wrong",
    [
        {"meta_batch": 0},
        {"episodes": -1},
        {"inner_steps": 0},
        {"inner_rate": 0.0},
        {"max_kl": -0.1},
        {"discount": 1.1},
        {"curvature_fraction": 0.0},
        {"hidden": ()},
    ],
)
def test_wrong_options_are_refused_with_the_number(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        dataclasses.replace(SMALL, **wrong)


LEARNING_STEPS, LEARNING_MARGIN = 30, 2.0


def test_it_learns_to_adapt_to_held_out_goals() -> None:
    """A small version of the result in docs/results.md; on one free core it takes some 20 seconds."""
    from metarl.evaluation.evaluate import Candidate, evaluate
    from metarl.evaluation.results import Source

    dist = envs.make("point-navigation")
    config = MamlTrpoConfig(meta_batch=10, episodes=10, hidden=(32, 32), max_kl=0.05, learn_rates=True)
    maml = MamlTrpo(config, 2, 2, Sampler(dist))
    state = maml.init(0)
    for step in range(LEARNING_STEPS):
        rng = np.random.default_rng([0, step])
        state, _ = maml.meta_step(state, dist.sample("train", config.meta_batch, rng), rng)
    trained = Candidate(maml, state, Source("maml", "test", 0, "last", LEARNING_STEPS), dist.hash)
    gain = evaluate(trained, dist, "test").gain().mean
    assert gain.low > LEARNING_MARGIN, gain
    untrained = Candidate(maml, maml.init(0), Source("maml", "test", 0, "last", 0), dist.hash)
    assert evaluate(untrained, dist, "test").gain().mean.value < gain.low


def test_the_state_is_plain_tensors() -> None:
    state = agent(dataclasses.replace(SMALL, learn_rates=True)).init(0)
    assert isinstance(state, State) and not state.optimizer
    rates = {name: value for name, value in state.parameters.items() if name.startswith("inner_rate.")}
    assert len(rates) == len(state.parameters) / 2
    assert all(bool((value == 0.1).all()) for value in rates.values())


def test_observations_are_standardised_alike_where_it_acts_and_where_it_learns() -> None:
    config = dataclasses.replace(SMALL, normalise_observations=True)
    maml, dist = agent(config), envs.make("point-navigation")
    state, rng = maml.init(0), np.random.default_rng(0)
    for step in range(2):
        state, figures = maml.meta_step(state, dist.sample("train", config.meta_batch, rng), rng)
        assert float(state.parameters["input_count"]) == (step + 1) * figures["env_steps"]
    moments = maml.moments(state)
    assert moments is not None and bool(moments.mean.abs().gt(1e-3).all())
    seen = episodes(0)
    standardised = moments.standardised(seen.observations)
    torch.testing.assert_close(maml.advantages(seen, moments).observations, standardised.flatten(1, 2))
    plain = dataclasses.replace(maml.start(state, 3), moments=None)
    acted, _ = maml.start(state, 3).act(seen.observations[:, :, 0], (), torch.Generator().manual_seed(0))
    expected, _ = plain.act(standardised[:, :, 0], (), torch.Generator().manual_seed(0))
    torch.testing.assert_close(acted, expected)


def test_the_moments_are_those_of_everything_seen() -> None:
    generator = torch.Generator().manual_seed(0)
    parts = [3 + 2 * torch.randn(size, 4, generator=generator) for size in (5, 1, 70)]
    found = Moments.start(4)
    untouched = torch.tensor([[0.5, -2.0, 11.0, -30.0]])
    torch.testing.assert_close(found.standardised(untouched), untouched.clamp(-10, 10), rtol=1e-5, atol=0)
    for part in parts:
        found = found.merged(part)
    together = torch.cat(parts).double()
    torch.testing.assert_close(found.mean, together.mean(0))
    torch.testing.assert_close(found.variance, together.var(0, correction=0))
    assert float(found.total) == 76
    standard = found.standardised(together)
    torch.testing.assert_close(standard.mean(0), torch.zeros(4, dtype=torch.float64), atol=1e-5, rtol=0)
    torch.testing.assert_close(standard.std(0, correction=0), torch.ones(4, dtype=torch.float64), atol=1e-5, rtol=0)
