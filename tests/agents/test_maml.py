"""MAML-TRPO: its parts against autograd and formulas, and that it learns to adapt."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl import envs
from metarl.agents.maml import MamlTrpo, MamlTrpoConfig
from metarl.agents.policy_gradient import PolicyBatch, PolicyOutputs, build_batch, mean_kl, surrogate_loss
from metarl.learning.episodes import Episodes
from metarl.maths import linear_baseline, returns
from metarl.maths.distributions import Gaussian
from metarl.maths.parameters import ravel, unravel
from metarl.maths.running_mean_std import RunningMeanStd
from metarl.testing import check_agent
from tests.agents.toys import Toy, box, discrete
from tests.agents.worlds import collect, double, held_out_returns, lively, trained

SMALL = MamlTrpoConfig(meta_batch=3, episodes_per_adaptation=4, hidden=(8,))
TOY = Toy(box(2), horizon=10, ragged=True)


def build(config: MamlTrpoConfig = SMALL, toy: Toy = TOY) -> MamlTrpo:
    return config.build(toy.spaces)


def episodes(seed: int) -> Episodes:
    """Noise of three tasks, four episodes of at most ten steps."""
    maml = build()
    return collect(maml, lively(maml.init(0)), TOY, seed).query


@pytest.mark.parametrize("change", [{}, {"normalise_observations": True, "inner_steps": 2}, {"anil": True}])
@pytest.mark.parametrize("toy", [TOY, Toy(discrete(3), horizon=7, ragged=True)], ids=["box", "discrete"])
def test_the_contract_holds(change: dict[str, Any], toy: Toy) -> None:
    check_agent(dataclasses.replace(SMALL, **change), toy)


@pytest.mark.parametrize("change", [{}, {"learn_inner_lr": False}, {"inner_steps": 2}, {"first_order": True}])
def test_the_meta_gradient_is_autograds_through_an_explicit_loop(change: dict[str, Any]) -> None:
    """Task by task: the inner step by `torch.autograd.grad`, and the gradient of the surrogate through it."""
    maml = build(dataclasses.replace(SMALL, **change))
    maml.policy.double()
    parameters = {name: value.double() for name, value in lively(maml.init(0)).parameters.items()}
    *supports, query = (maml.build_batch(double(episodes(seed))) for seed in range(maml.config.inner_steps + 1))
    with torch.no_grad():
        old = maml.outputs(parameters, supports, query)
        old = PolicyOutputs(old.distribution, old.log_probs + 0.1)  # so that the ratio is not 1
    x = ravel(parameters).requires_grad_()
    loss = surrogate_loss(maml.outputs(unravel(x, parameters), supports, query), old, query)
    (ours,) = torch.autograd.grad(loss, x)

    y = ravel(parameters).requires_grad_()
    theta, losses = unravel(y, parameters), list[Tensor]()
    for task in range(3):
        adapted = {name: theta[name] for name, _ in maml.policy.named_parameters()}
        for support in supports:
            log_probs = _log_probs(maml, adapted, support, task)
            inner = -(log_probs * support.advantages[task])[support.mask[task]].mean()
            gradients = torch.autograd.grad(inner, list(adapted.values()), create_graph=not maml.config.first_order)
            rates = [theta[f"inner_lr.{name}"] if maml.config.learn_inner_lr else 0.1 for name in adapted]
            adapted = {
                name: value - rate * gradient
                for (name, value), rate, gradient in zip(adapted.items(), rates, gradients, strict=True)
            }
        ratio = (_log_probs(maml, adapted, query, task) - old.log_probs[task]).exp()
        losses.append(-(ratio * query.advantages[task])[query.mask[task]].mean())
    (expected,) = torch.autograd.grad(torch.stack(losses).mean(), y)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)
    assert float(ours.abs().max()) > 1e-3


def _log_probs(maml: MamlTrpo, parameters: dict[str, Tensor], batch: PolicyBatch, task: int) -> Tensor:
    policy = torch.func.functional_call(maml.policy, parameters, (batch.observations[task],))
    normal = torch.distributions.Normal(policy.mean, policy.log_std.exp())
    return normal.log_prob(batch.actions[task]).sum(-1)


@pytest.mark.parametrize("change", [{}, {"learn_inner_lr": False}, {"inner_steps": 2}])
def test_fisher_products_are_the_hessian_of_the_kl_averaged_over_tasks(change: dict[str, Any]) -> None:
    """J' M J + damping against a double backward pass through the KL itself, inner step included."""
    maml = build(dataclasses.replace(SMALL, curvature_fraction=1.0, cg_damping=1e-3, **change))
    maml.policy.double()
    parameters = {name: value.double() for name, value in lively(maml.init(0)).parameters.items()}
    *supports, query = (maml.build_batch(double(episodes(seed))) for seed in range(maml.config.inner_steps + 1))
    x = ravel(parameters)
    with torch.no_grad():
        old = maml.outputs(parameters, supports, query).distribution

    def kl(x: Tensor) -> Tensor:
        new = maml.outputs(unravel(x, parameters), supports, query).distribution
        tasks = [old.kl(new)[task][query.mask[task]].mean() for task in range(3)]
        return torch.stack(tasks).mean()

    vector = torch.randn(x.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    _, product = torch.autograd.functional.hvp(kl, x, vector)
    assert isinstance(product, Tensor)
    ours = maml.fisher_vector_product(x, parameters, supports, query, np.random.default_rng(0))(vector)
    torch.testing.assert_close(ours, product + 1e-3 * vector, rtol=1e-6, atol=1e-9)


def test_the_surrogate_and_the_kl_are_means_over_tasks_of_means_over_steps() -> None:
    """So a task whose episodes are short counts as much as the others."""
    mask = torch.tensor([[True, True, True, True], [True, False, False, False]])
    old, new = (Gaussian(torch.full((2, 4, 1), mean), torch.zeros(2, 4, 1)) for mean in (0.0, 0.5))
    query = PolicyBatch(torch.zeros(2, 4, 3), torch.zeros(2, 4, 1), torch.tensor([[1.0] * 4, [-3.0] * 4]), mask)
    ratio = torch.tensor([[2.0] * 4, [0.5] * 4])
    outputs = [PolicyOutputs(d, log) for d, log in ((old, torch.zeros(2, 4)), (new, ratio.log()))]
    assert float(surrogate_loss(outputs[1], outputs[0], query)) == pytest.approx(-(2.0 * 1.0 + 0.5 * -3.0) / 2)
    assert float(mean_kl(outputs[1], outputs[0], query)) == pytest.approx(0.5**2 / 2)
    far = Gaussian(torch.tensor([[[0.0]] * 4, [[2.0]] * 4]), torch.zeros(2, 4, 1))
    assert float(mean_kl(PolicyOutputs(far, ratio.log()), outputs[0], query)) == pytest.approx((0.0 + 2.0) / 2)


def test_advantages_are_gae_over_the_linear_baseline_standardised_within_each_task() -> None:
    played = episodes(0)
    batch = build_batch(played, discount=0.9, gae_lambda=0.8)
    discounted = returns.discounted_returns(played.rewards, 0.9 * played.mask.float())
    values = linear_baseline.fit(played.observations, discounted, played.mask)
    for task in range(3):
        expected = list[float]()
        for episode in range(4):
            length, following = int(played.lengths[task, episode]), 0.0
            rewards, v = played.rewards[task, episode].tolist(), [*values[task, episode].tolist(), 0.0]
            v[length] = 0.0  # past the end nothing is expected
            advantages = [0.0] * length
            for t in reversed(range(length)):
                following = rewards[t] + 0.9 * v[t + 1] - v[t] + 0.9 * 0.8 * following
                advantages[t] = following
            expected.extend(advantages)
        raw = torch.tensor(expected)
        taken = batch.advantages[task][batch.mask[task]]
        torch.testing.assert_close(taken, (raw - raw.mean()) / raw.std(correction=0), rtol=1e-3, atol=1e-3)
        assert not batch.advantages[task][~batch.mask[task]].any()


def test_steps_past_an_episodes_end_change_nothing() -> None:
    whole, maml = episodes(0), build()
    beyond = torch.where(whole.mask[..., None], whole.actions, torch.full_like(whole.actions, 7.0))
    policy, rates = maml.split(maml.init(0).parameters)
    one, other = (
        maml.inner_step(policy, [maml.build_batch(each)], rates, shared=True)
        for each in (whole, dataclasses.replace(whole, actions=beyond))
    )
    torch.testing.assert_close(one, other)


def test_the_acting_policy_adapts_by_the_same_step_as_the_objective() -> None:
    """What collects the query episodes is the policy that the outer step differentiates through."""
    for config in (SMALL, dataclasses.replace(SMALL, anil=True), dataclasses.replace(SMALL, learn_inner_lr=False)):
        maml, support = build(config), episodes(0)
        state = maml.init(0)
        acting = maml.start(state, 3).adapt(support).parameters
        policy, rates = maml.split(state.parameters)
        differentiated = maml.inner_step(policy, [maml.build_batch(support)], rates, shared=True)
        torch.testing.assert_close(dict(acting), differentiated)
        changed = {name for name in policy if not torch.allclose(acting[name][0], policy[name])}
        assert changed == (set(maml.policy.head_names) if config.anil else set(policy))


@pytest.mark.parametrize("normalised", [False, True])
def test_an_outer_step_lowers_the_surrogate_and_keeps_the_whole_kl_within_the_trust_region(normalised: bool) -> None:
    """The KL is recomputed here from the two states, statistics of observations included."""
    config = dataclasses.replace(SMALL, meta_batch=8, normalise_observations=normalised)
    toy = Toy(box(2), noise=1.5)
    maml, accepted = build(config, toy), 0
    state = maml.init(0)
    for step in range(3):
        trials = collect(maml, state, toy, step)
        after, metrics = maml.meta_step(state, trials, np.random.default_rng(step))
        assert metrics["kl"] <= config.max_kl
        accepted += metrics["accepted"]
        assert metrics["surrogate"] < 0 or not metrics["accepted"]  # 0 where nothing moves: advantages are centred
        old, new = (maml.start(each, 8).adapt(trials.supports[0]) for each in (state, after))
        with torch.no_grad():
            shown = trials.query.observations.flatten(1, 2)
            kl = old.distribution(shown).kl(new.distribution(shown)).mean()
        assert float(kl) == pytest.approx(metrics["kl"], rel=1e-2, abs=1e-6)
        state = after
    assert accepted >= 2


def test_statistics_of_observations_take_in_every_step_and_standardise_where_it_acts() -> None:
    config = dataclasses.replace(SMALL, normalise_observations=True)
    toy = Toy(box(2), noise=3.0)
    maml = build(config, toy)
    state = maml.init(0)
    trials = collect(maml, state, toy)
    after, metrics = maml.meta_step(state, trials, np.random.default_rng(0))
    assert metrics["accepted"] == 1
    statistics = maml.statistics(after)
    assert statistics is not None
    seen = torch.cat([episodes.observations[episodes.mask] for episodes in trials.episodes])
    initial, share = RunningMeanStd.initial(3), config.line_search_shrink ** metrics["backtracks"]
    torch.testing.assert_close(statistics.variance, initial.toward(initial.merge(seen), share).variance)
    assert float(statistics.variance.min()) > 1.1
    shown = trials.query.observations.flatten(1, 2)
    plain = dataclasses.replace(maml.start(after, 3), statistics=None)
    expected = plain.distribution(statistics.standardise(shown))
    torch.testing.assert_close(maml.start(after, 3).distribution(shown).mean, expected.mean)


def test_first_order_is_another_gradient() -> None:
    maml, first = build(), build(dataclasses.replace(SMALL, first_order=True))
    state = lively(maml.init(0))
    trials = collect(maml, state, TOY)
    norms = [each.meta_step(state, trials, np.random.default_rng(1))[1]["gradient_norm"] for each in (maml, first)]
    assert norms[0] != norms[1]


def test_every_point_of_a_trial_has_episodes_of_its_own() -> None:
    maml = build(dataclasses.replace(SMALL, inner_steps=2, inner_lr=1e-9))
    points = collect(maml, maml.init(0), TOY).episodes
    first = [episodes.actions[:, 0, 0] for episodes in points]
    assert len(points) == 3
    assert all(not torch.allclose(first[i], first[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_the_rates_are_learned_from_where_they_start() -> None:
    maml = build()
    state = maml.init(0)
    rates = {name: value for name, value in state.parameters.items() if name.startswith("inner_lr.")}
    assert len(rates) == len(state.parameters) / 2
    assert all(bool((value == 0.1).all()) for value in rates.values())
    after, _ = maml.meta_step(state, collect(maml, state, TOY), np.random.default_rng(0))
    assert any(not torch.equal(after.parameters[name], value) for name, value in rates.items())
    fixed = build(dataclasses.replace(SMALL, learn_inner_lr=False))
    assert not [name for name in fixed.init(0).parameters if name.startswith("inner_lr.")]


@pytest.mark.parametrize(
    "wrong",
    [
        {"meta_batch": 0},
        {"episodes_per_adaptation": -1},
        {"inner_steps": 0},
        {"inner_lr": 0.0},
        {"max_kl": -0.1},
        {"discount": 1.1},
        {"curvature_fraction": 0.0},
        {"hidden": ()},
    ],
)
def test_options_out_of_range_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        dataclasses.replace(SMALL, **wrong)


@pytest.mark.parametrize("toy", [Toy(box(1), horizon=5), Toy(discrete(2), horizon=5)], ids=["box", "discrete"])
def test_it_learns_to_adapt(toy: Toy) -> None:
    """Observations say nothing, so that before adapting no policy is good at all tasks."""
    config = MamlTrpoConfig(
        meta_batch=20, episodes_per_adaptation=10, hidden=(16,), inner_lr=0.3, minimum_std=0.3, initial_log_std=-0.5
    )
    maml = build(config, toy)
    after, gain = held_out_returns(maml, trained(maml, toy, 25), toy)
    untrained, _ = held_out_returns(maml, maml.init(0), toy)
    assert gain.low > 0.5, gain
    assert after.low > untrained.high, (after, untrained)


def test_it_learns_to_adapt_to_held_out_goals() -> None:
    """A small version of a real result."""
    dist = dataclasses.replace(envs.make("point-navigation"), horizon=50)
    config = MamlTrpoConfig(meta_batch=10, episodes_per_adaptation=10, hidden=(32, 32), max_kl=0.05)
    maml = config.build(dist.spaces)
    after, gain = held_out_returns(maml, trained(maml, dist, 25), dist, trials=1)
    untrained, _ = held_out_returns(maml, maml.init(0), dist, trials=1)
    assert gain.low > 2.0, gain
    assert after.low > untrained.high, (after, untrained)
