"""MAML-TRPO: its outer step against one written out with autograd, its trust region, and that it learns to adapt."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, Normal, kl_divergence

from metarl import envs
from metarl.agents import MamlTrpoConfig, PpoConfig
from metarl.agents.maml import MamlTrpo
from metarl.agents.maml_objective import Point
from metarl.agents.policy_gradient import PolicyBatch
from metarl.learning.episodes import Trials
from metarl.learning.protocols import AdaptationProtocol, State
from metarl.maths import linear_baseline, returns
from metarl.maths.distributions import Gaussian
from metarl.maths.masked import masked_mean
from metarl.maths.parameters import ravel, unravel
from metarl.maths.running_mean_std import RunningMeanStd
from tests.agents.explicit import adapted, at, distribution, in_double, replayed
from tests.agents.toys import Toy, box, discrete
from tests.agents.worlds import collect, held_out_returns, lively, trained

SMALL = MamlTrpoConfig(meta_batch=3, episodes_per_adaptation=4, hidden=(4,))
BOX, DISCRETE = Toy(box(2), ragged=True, observation_size=2), Toy(discrete(3), ragged=True, observation_size=2)
worlds = pytest.mark.parametrize("world", [BOX, DISCRETE], ids=["box", "discrete"])


def agent(world: Toy = BOX, **options: Any) -> MamlTrpo:
    made = dataclasses.replace(SMALL, **options).build(world.spaces)
    assert isinstance(made, MamlTrpo)
    return made


# The outer step, written out: loops over tasks, `torch.autograd` and `torch.distributions`.


def surrogate_and_kl(
    maml: MamlTrpo, new: dict[str, Tensor], old: dict[str, Tensor], batches: list[PolicyBatch]
) -> tuple[Tensor, Tensor]:
    *supports, query = batches
    losses, divergences = list[Tensor](), list[Tensor]()
    for task in range(len(query.mask)):
        batch = at(query, task)
        ours, theirs = (
            distribution(maml.adaptation, adapted(maml.adaptation, each, supports, task), batch.observations)
            for each in (new, old)
        )
        ratio = torch.exp(ours.log_prob(batch.actions) - theirs.log_prob(batch.actions).detach())
        losses.append(-(ratio * batch.advantages).mean())
        fixed = [parameter.detach() for parameter in parameters_of(theirs)]
        divergences.append(kl_divergence(like(theirs, fixed), ours).mean())
    return torch.stack(losses).mean(), torch.stack(divergences).mean()


def parameters_of(of: Distribution) -> list[Tensor]:
    if isinstance(of, Categorical):
        return [of.logits]
    assert isinstance(of, Independent) and isinstance(of.base_dist, Normal)
    return [of.base_dist.loc, of.base_dist.scale]


def like(of: Distribution, parameters: list[Tensor]) -> Distribution:
    if isinstance(of, Categorical):
        return Categorical(logits=parameters[0])
    return Independent(Normal(parameters[0], parameters[1]), 1)


OPTIONS = [
    {},
    {"learn_inner_lr": False},
    {"inner_steps": 3},
    {"inner_steps": 2, "inner_surrogate": "likelihood-ratio"},
    {"inner_surrogate": "likelihood-ratio"},
    {"first_order": True},
    {"anil": True},
    {"squash_mean": False},
]


def named(options: dict[str, Any]) -> str:
    return "-".join(options) or "plain"


@pytest.mark.parametrize("options", OPTIONS, ids=named)
@worlds
def test_the_outer_step_is_the_trust_regions(world: Toy, options: dict[str, Any]) -> None:
    """x − λ √(2δ / dᵀFd) F⁻¹ g, with g and the Hessian F of the mean KL by autograd through explicit loops."""
    limit, damping = 0.05, 0.1
    maml = agent(
        world, **options, curvature_fraction=1.0, cg_iterations=100, cg_damping=damping, max_kl=limit, inner_lr=0.3
    )
    state, trials = in_double(maml, world)
    after, metrics = maml.meta_step(state, trials, np.random.default_rng(0))
    batches = replayed(maml, state, trials)
    parameters = dict(state.parameters)
    x = ravel(parameters)

    def evaluate(x: Tensor) -> tuple[Tensor, Tensor]:
        leaves = unravel(x, parameters)
        old = {name: value.clone().requires_grad_() for name, value in parameters.items()}
        if not x.requires_grad:
            leaves = {name: value.clone().requires_grad_() for name, value in leaves.items()}
        return surrogate_and_kl(maml, leaves, old, batches)

    leaf = x.clone().requires_grad_()
    loss, divergence = evaluate(leaf)
    assert abs(float(divergence.detach())) < 1e-12
    (gradient,) = torch.autograd.grad(loss, leaf)
    hessian = torch.autograd.functional.hessian(lambda x: evaluate(x)[1], x)
    assert isinstance(hessian, Tensor)
    fisher = hessian + damping * torch.eye(len(x), dtype=x.dtype)
    direction = -torch.linalg.solve(fisher, gradient)
    step = (2 * limit / (direction @ fisher @ direction)).sqrt() * direction
    assert metrics["gradient_norm"] == pytest.approx(float(gradient.norm()), rel=1e-6)
    assert metrics["accepted"] == 1
    steps = [maml.config.line_search_shrink**k * step for k in range(maml.config.line_search_tries)]
    ends = [[float(value.detach()) for value in evaluate(x + each)] for each in steps]
    k = next(k for k, (reached, moved) in enumerate(ends) if reached < float(loss.detach()) and moved <= limit)
    assert metrics["backtracks"] == k
    assert metrics["surrogate"] == pytest.approx(ends[k][0], rel=1e-4)
    assert metrics["kl"] == pytest.approx(ends[k][1], rel=1e-4) and ends[k][1] > 0.1 * limit
    reached = ravel({name: after.parameters[name] for name in parameters})
    assert float((reached - x - steps[k]).norm()) < 1e-3 * float(steps[k].norm())


@worlds
def test_products_with_the_fisher_matrix_are_of_a_share_of_the_episodes(world: Toy) -> None:
    maml = agent(world, curvature_fraction=0.5, cg_damping=0.0)
    state, trials = in_double(maml, world)
    batches, rng = replayed(maml, state, trials), np.random.default_rng(3)
    x = ravel(state.parameters)
    objective, point = maml.objective(state.parameters, trials, np.random.default_rng(3)), Point(x, None)
    shares = []
    for batch in batches:
        chosen = np.sort(rng.permutation(4)[:2])
        shares.append(PolicyBatch(*(part.unflatten(1, (4, -1))[:, chosen].flatten(1, 2) for part in batch)))
    leaves = {name: value.clone().requires_grad_() for name, value in state.parameters.items()}

    def divergence(x: Tensor) -> Tensor:
        return surrogate_and_kl(maml, unravel(x, state.parameters), leaves, shares)[1]

    hessian = torch.autograd.functional.hessian(divergence, x)
    vector = torch.randn(x.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    assert isinstance(hessian, Tensor)
    torch.testing.assert_close(objective.product(point, vector, damping=0.0), hessian @ vector, rtol=1e-6, atol=1e-9)


def mean_kl(maml: MamlTrpo, old: State, new: State, trials: Trials) -> float:
    """E KL of the adapted policies before and after, in what the query episodes saw: by what they do."""
    *supports, query = replayed(maml, old, trials)
    policies = [maml.start(each, len(trials.tasks)) for each in (old, new)]
    for support in supports:
        policies = [policy.step(support) for policy in policies]
    before, after = (policy.distribution(query.observations) for policy in policies)
    return float(masked_mean(before.kl(after), query.mask, axes=-1).mean())


@pytest.mark.parametrize("world", [BOX, dataclasses.replace(BOX, noise=0.01, offset=0.5), DISCRETE])
@pytest.mark.parametrize("normalise", [False, True])
def test_policies_stay_within_the_trust_region_whatever_new_statistics_do(normalise: bool, world: Toy) -> None:
    """After the whole outer step, from the very first on, also where observations hardly vary, as Meta-World's."""
    maml = agent(world, normalise_observations=normalise, meta_batch=5, max_kl=0.02)
    state, accepted = maml.init(0), 0
    for step in range(8):
        trials = collect(maml, state, world, seed=step)
        after, metrics = maml.meta_step(state, trials, np.random.default_rng(step))
        divergence = mean_kl(maml, state, after, trials)
        assert divergence <= 0.02 * (1 + 1e-3), step
        assert divergence == pytest.approx(metrics["kl"], rel=1e-3, abs=1e-6)
        accepted += int(metrics["accepted"])
        state = after
    assert accepted >= 6
    if normalise:
        deviation = state.parameters["input_variance"].sqrt()
        torch.testing.assert_close(deviation, torch.full_like(deviation, world.noise), rtol=0.5, atol=0)


def test_new_statistics_do_not_change_what_a_policy_does_before_it_adapts() -> None:
    """They are folded into the first layer. Without rewards there is no gradient, and the parameters take no step."""
    world = dataclasses.replace(BOX, noise=0.3, offset=0.5)
    maml = agent(world, normalise_observations=True)
    state = maml.init(0)
    trials = collect(maml, state, world)
    still = Trials(trials.tasks, tuple(dataclasses.replace(each, rewards=0 * each.rewards) for each in trials.episodes))
    after, metrics = maml.meta_step(state, still, np.random.default_rng(0))
    assert metrics["accepted"] == 0 and metrics["gradient_norm"] == 0
    seen = torch.cat([each.observations[each.mask] for each in trials.episodes])
    torch.testing.assert_close(after.parameters["input_mean"], seen.double().mean(0))
    torch.testing.assert_close(after.parameters["input_variance"], seen.double().var(0, correction=0))
    assert float(after.parameters["input_total"]) == len(seen)
    observations = seen.expand(3, *seen.shape)
    before, now = (maml.start(each, 3).distribution(observations) for each in (state, after))
    torch.testing.assert_close(now.mode(), before.mode(), rtol=1e-4, atol=1e-5)


# The inner step.


@pytest.mark.parametrize("options", OPTIONS, ids=named)
def test_the_policy_adapts_by_the_same_step_as_the_objective(options: dict[str, Any]) -> None:
    """What collects the query episodes is the policy that the outer step differentiates through."""
    maml = agent(**options)
    state, trials = in_double(maml, BOX)
    policy, supports = maml.start(state, 3), replayed(maml, state, trials)[:-1]
    for support in trials.supports:
        policy = policy.adapt(support)
    for task in range(3):
        leaves = {name: value.clone().requires_grad_() for name, value in state.parameters.items()}
        for name, expected in adapted(maml.adaptation, leaves, supports, task).items():
            torch.testing.assert_close(policy.parameters[name][task], expected.detach(), rtol=1e-9, atol=1e-12)
            changed = not torch.equal(policy.parameters[name][task], state.parameters[name])
            assert changed == (not maml.config.anil or name.startswith("head."))


def test_observations_are_standardised_where_it_acts_and_where_it_adapts() -> None:
    maml = agent(normalise_observations=True)
    state = lively(maml.init(0))
    statistics = maml.adaptation.statistics(state.parameters)
    assert statistics is not None
    trials = collect(maml, state, BOX)
    support, batch = trials.episodes[0], replayed(maml, state, trials)[0]
    policy = maml.start(state, 3)
    plain = dataclasses.replace(policy, statistics=None)
    observations = support.observations[:, :, 0]
    torch.testing.assert_close(
        policy.distribution(observations).mode(), plain.distribution(statistics.standardise(observations)).mode()
    )
    shown = batch._replace(observations=statistics.standardise(batch.observations))
    policy_parameters, rates = maml.adaptation.split(state.parameters)
    expected = maml.adaptation.inner_step(policy_parameters, shown, rates, shared=True)
    torch.testing.assert_close(dict(policy.adapt(support).parameters), expected)


def test_batches_hold_the_log_probabilities_of_the_policies_that_played() -> None:
    """Of every stage its own: θ, then the policy after one inner step, then after two."""
    maml = agent(inner_steps=2)
    state, trials = in_double(maml, BOX)
    batches, outputs = maml.adaptation.replay(state.parameters, trials)
    for task in range(3):
        for stage, batch in enumerate(batches):
            leaves = {name: value.clone().requires_grad_() for name, value in state.parameters.items()}
            played = distribution(
                maml.adaptation, adapted(maml.adaptation, leaves, batches[:stage], task), batch.observations[task]
            )
            log_probs = played.log_prob(batch.actions[task])
            torch.testing.assert_close(batch.log_probs[task], log_probs.detach(), rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(outputs[stage].log_probs[task], batch.log_probs[task], rtol=0, atol=0)


# Advantages.


def test_advantages_are_gaes_of_the_linear_baseline_standardised_within_each_task() -> None:
    maml = agent()
    state, trials = in_double(maml, BOX)
    episodes = trials.query
    batch = replayed(maml, state, trials)[-1]
    discount = maml.config.discount * episodes.mask.double()
    discounted = returns.discounted_returns(episodes.rewards, discount)
    values = linear_baseline.fit(episodes.observations, discounted, episodes.mask)
    for task in range(3):
        raw = []
        for episode, length in enumerate(episodes.lengths[task].tolist()):
            following = 0.0
            own = list[float]()
            for t in reversed(range(length)):
                v_tp1 = float(values[task, episode, t + 1]) if t + 1 < length else 0.0  # the time limit ends the task
                delta = float(episodes.rewards[task, episode, t]) + maml.config.discount * v_tp1
                delta -= float(values[task, episode, t])
                following = delta + maml.config.discount * maml.config.gae_lambda * following
                own.append(following)
            raw += own[::-1]
        expected = torch.tensor(raw, dtype=torch.float64)
        expected = (expected - expected.mean()) / expected.std(correction=0)
        torch.testing.assert_close(batch.advantages[task][batch.mask[task]], expected, rtol=1e-6, atol=1e-9)
        assert not batch.advantages[task][~batch.mask[task]].any()
        assert int(batch.mask[task].sum()) == int(episodes.lengths[task].sum())


def test_steps_past_an_episodes_end_change_nothing() -> None:
    maml = agent()
    state = lively(maml.init(0))
    episodes = collect(maml, state, BOX).episodes[0]
    beyond = torch.where(episodes.mask[..., None], episodes.actions, torch.full_like(episodes.actions, 7.0))
    one, other = (
        maml.start(state, 3).adapt(each).parameters
        for each in (episodes, dataclasses.replace(episodes, actions=beyond))
    )
    assert all(torch.equal(value, other[name]) for name, value in one.items())


# Beginning with the task-blind policy.


@pytest.mark.parametrize("normalise", [False, True])
@worlds
def test_before_it_adapts_it_acts_as_the_task_blind_policy_that_it_began_with(world: Toy, normalise: bool) -> None:
    ppo = PpoConfig(hidden=(5, 4), normalise_observations=normalise).build(world.spaces)
    blind = lively(ppo.init(3))
    if not normalise:  # its statistics of observations are then the identity
        blind = State({**blind.parameters, **RunningMeanStd.initial(3).named()}, blind.optimizer)
    maml = agent(world, hidden=(5, 4), squash_mean=False, normalise_observations=normalise)
    warm = maml.warm_start(maml.init(0), ppo, blind)
    assert {name: value.shape for name, value in warm.parameters.items()} == {
        name: value.shape for name, value in maml.init(0).parameters.items()
    }
    assert all(bool((value == 0.1).all()) for name, value in warm.parameters.items() if name.startswith("inner_lr."))
    observations = torch.randn(3, 7, 2, generator=torch.Generator().manual_seed(0))
    before, policy = maml.start(warm, 3).distribution(observations), ppo.start(blind, 3)
    mean, _ = policy.act(observations, (), None)
    torch.testing.assert_close(before.mode(), mean)
    if isinstance(before, Gaussian):
        deviation = blind.parameters["heads.policy.log_std"].expand_as(before.log_std)
        torch.testing.assert_close(before.log_std, deviation)
    trials = collect(maml, warm, world)
    after, _ = maml.meta_step(warm, trials, np.random.default_rng(0))
    assert after.parameters.keys() == maml.init(0).parameters.keys()
    if normalise:
        assert float(after.parameters["input_total"]) > float(blind.parameters["input_total"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": (6, 4)}, "its layers are 5 4 wide, here 6 4: give --hidden 5 4"),
        ({"normalise_observations": True}, "its observations are not standardised, here they are"),
        ({"squash_mean": True}, "its mean actions are not squashed, here they are: give --no-squash-mean"),
        ({"minimum_std": 0.9}, r"its least σ is 0\.607, here 0\.9: give a smaller --minimum-std"),
    ],
)
def test_a_policy_that_would_act_otherwise_is_refused_with_both_sides(options: dict[str, Any], message: str) -> None:
    ppo = PpoConfig(hidden=(5, 4), normalise_observations=False).build(BOX.spaces)
    maml = agent(**({"hidden": (5, 4), "squash_mean": False} | options))
    with pytest.raises(ValueError, match=message):
        maml.warm_start(maml.init(0), ppo, ppo.init(0))
    with pytest.raises(ValueError, match="its own kind or with ppo, not with MamlTrpo"):
        maml.warm_start(maml.init(0), maml, maml.init(0))


# States, options, learning.


def test_the_state_is_plain_tensors_with_a_rate_for_each_parameter() -> None:
    state = agent(inner_lr=0.2).init(0)
    assert not state.optimizer
    rates = {name: value for name, value in state.parameters.items() if name.startswith("inner_lr.")}
    assert len(rates) == len(state.parameters) / 2
    assert all(bool((value == 0.2).all()) for value in rates.values())
    assert not any(name.startswith("inner_lr.") for name in agent(learn_inner_lr=False).init(0).parameters)


def test_the_protocol_is_the_inner_steps() -> None:
    assert agent(inner_steps=2).protocol == AdaptationProtocol(2, 4)


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
def test_wrong_options_are_refused_with_the_number(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        dataclasses.replace(SMALL, **wrong)


@pytest.mark.parametrize(
    ("action", "options", "margin"),
    [
        (box(2), {}, 2.0),
        (box(2), {"first_order": True}, 2.0),
        (box(2), {"normalise_observations": True}, 2.0),
        (discrete(3), {}, 1.0),
    ],
)
def test_it_learns_to_adapt_to_held_out_tasks(action: Any, options: dict[str, Any], margin: float) -> None:
    """What an inner step gains, after training more than before; returns are at most 6 times the strength."""
    world = Toy(action)
    config = MamlTrpoConfig(meta_batch=8, episodes_per_adaptation=8, hidden=(8,), **options)
    maml = config.build(world.spaces)
    _, untrained = held_out_returns(maml, maml.init(0), world)
    _, gain = held_out_returns(maml, trained(maml, world, 20), world)
    assert gain.low > margin and gain.low > untrained.high, (untrained, gain)


def test_it_learns_to_adapt_to_held_out_goals_of_the_point_robot() -> None:
    dist = dataclasses.replace(envs.make("point-navigation"), horizon=40)
    maml = MamlTrpoConfig(meta_batch=8, episodes_per_adaptation=8, hidden=(32,)).build(dist.spaces)
    before, _ = held_out_returns(maml, maml.init(0), dist, trials=1)
    after, gain = held_out_returns(maml, trained(maml, dist, 15), dist, trials=1)
    assert gain.low > 2.0 and after.low > before.high + 3.0, (before, after, gain)
