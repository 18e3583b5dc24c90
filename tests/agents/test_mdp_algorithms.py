"""The classical algorithms for tabular MDPs, against enumeration, linear programs and SciPy's distributions."""

import itertools
import pickle

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from metarl.agents.mdp_algorithms import (
    Known,
    MaximumLikelihood,
    ModelBasedPolicy,
    Planner,
    Psrl,
    Seen,
    Ucrl2,
)
from metarl.agents.tabular_planning import backward_induction, optimistic_induction
from metarl.commands.classical_tables import PAPER_MDPS, mdp_table
from metarl.envs.tabular_mdp import ACTIONS, HORIZON, STATES, random_mdp, tabular_mdp
from metarl.learning.collect import Collector
from metarl.learning.episodes import Episodes
from metarl.learning.protocols import AdaptationProtocol, Carry, Transition
from metarl.learning.random_streams import TaskRandom, task_seeds
from metarl.learning.spaces import one_hot

PLANNERS: tuple[Planner, ...] = (MaximumLikelihood(), Psrl(), Psrl(num_samples=3), Ucrl2())


def start(planner: Planner, num_tasks: int, epsilon: float = 0.0) -> ModelBasedPolicy:
    return ModelBasedPolicy.start(planner, num_tasks, STATES, ACTIONS, HORIZON, epsilon)


def random_model(*batch: int, states: int, actions: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    transitions = rng.dirichlet(np.ones(states), size=(*batch, states, actions))
    return torch.from_numpy(transitions), torch.from_numpy(rng.normal(size=(*batch, states, actions)))


def experience(seed: int = 0, num_tasks: int = 2, visits: int = 40) -> Seen:
    rng = np.random.default_rng(seed)
    transitions = rng.multinomial(visits, np.ones(3 * 2 * 3) / 18, size=num_tasks).reshape(num_tasks, 3, 2, 3)
    transitions[0, 1, 1] = 0  # never taken
    rewards = rng.normal(size=(num_tasks, 3, 2)) * (transitions.sum(-1) > 0)
    return Seen(torch.from_numpy(transitions).double(), torch.from_numpy(rewards))


def test_backward_induction_is_the_best_of_all_policies() -> None:
    states, actions, horizon = 2, 2, 3
    transitions, rewards = random_model(states=states, actions=actions)
    best = np.full(states, -np.inf)
    for choice in itertools.product(range(actions), repeat=states * horizon):
        policy = np.array(choice).reshape(horizon, states)
        value = np.zeros(states)
        for step in reversed(range(horizon)):
            value = np.array(
                [
                    float(rewards[s, policy[step, s]]) + transitions[s, policy[step, s]].numpy() @ value
                    for s in range(states)
                ]
            )
        best = np.maximum(best, value)
    assert np.allclose(backward_induction(transitions, rewards, horizon)[0].amax(-1), best)


def test_optimism_is_the_best_next_state_within_the_radius() -> None:
    states, actions = 4, 3
    transitions, rewards = random_model(states=states, actions=actions)
    radius = torch.tensor([0.0, 0.3, 1.1]).double().expand(states, actions)
    q_values = optimistic_induction(transitions, radius, rewards, 2)
    value = rewards.amax(-1).numpy()
    for s, a in itertools.product(range(states), range(actions)):
        # max p·v,  p = p̂ + u − w,  Σu + Σw ≤ d,  Σp = 1,  p ≥ 0
        ones, none = np.ones(states), np.zeros(states)
        program = optimize.linprog(
            np.concatenate([-value, none, none]),
            A_ub=[np.concatenate([none, ones, ones])],
            b_ub=[float(radius[s, a])],
            A_eq=np.vstack(
                [np.concatenate([ones, none, none]), np.hstack([np.eye(states), -np.eye(states), np.eye(states)])]
            ),
            b_eq=np.concatenate([[1.0], transitions[s, a].numpy()]),
        )
        assert float(q_values[0, s, a]) == pytest.approx(float(rewards[s, a]) - program.fun)


def test_optimism_without_a_radius_is_backward_induction() -> None:
    transitions, rewards = random_model(3, states=4, actions=2)
    exact = backward_induction(transitions, rewards, 5)
    assert torch.allclose(optimistic_induction(transitions, torch.zeros_like(rewards), rewards, 5), exact)
    seen = experience()
    planned = (planner.plan(seen, 5, 1, None) for planner in (Ucrl2(scale=0.0), MaximumLikelihood()))
    assert torch.allclose(next(planned), next(planned))


def test_ucrl2_widens_by_the_papers_intervals() -> None:
    seen, scale, delta = experience(), 0.1, 0.05
    visits, time = float(seen.visits[1, 0, 0]), float(seen.visits[1].sum())
    last = Ucrl2(scale, delta).plan(seen, 4, 1, None)[1, 0, -1, 0, 0]
    radius = np.sqrt(7 * np.log(2 * 3 * 2 * time / delta) / (2 * visits))
    assert float(last) == pytest.approx(float(seen.rewards[1, 0, 0]) / visits + scale * radius)
    assert float(MaximumLikelihood().plan(seen, 4, 1, None)[0, 0, -1, 1, 1]) == 0.0  # never taken
    visits, time = seen.visits[:1], seen.visits[:1].sum()
    transitions = torch.where(visits[..., None] > 0, seen.transitions[:1] / visits[..., None], 1 / 3)
    widths = [
        scale * (factor * torch.log(number * 2 * time / delta) / visits.clamp(min=1)).sqrt()
        for factor, number in ((7 / 2, 2 * 3), (14 * 3, 2))
    ]
    mean = seen.rewards[:1] / visits.clamp(min=1)
    wanted = optimistic_induction(transitions, widths[1], mean + widths[0], 4)
    assert torch.allclose(Ucrl2(scale, delta).plan(Seen(*(part[:1] for part in seen)), 4, 1, None)[:, 0], wanted)


def test_posterior_of_rewards_is_bayes_rule() -> None:
    rewards = np.array([1.3, -0.2, 2.1])
    options = Psrl(reward_mean=0.5, reward_precision=2.0, noise_precision=0.7)
    transitions = torch.zeros(1, 1, 1, 1, dtype=torch.float64) + len(rewards)
    _, mean, precision = options.posterior(Seen(transitions, torch.tensor([[[rewards.sum()]]])))
    grid = np.linspace(-5, 6, 20_001)
    density = np.exp(-2.0 / 2 * (grid - 0.5) ** 2 - 0.7 / 2 * ((rewards[:, None] - grid) ** 2).sum(0))
    density /= density.sum()
    wanted = density @ grid
    assert float(mean) == pytest.approx(wanted)
    assert 1 / float(precision) == pytest.approx(density @ (grid - wanted) ** 2)


def test_psrl_draws_mdps_from_the_posterior() -> None:
    """Where r̄ is known to be 1 in the state 0 and 0 elsewhere, Q₀(s, a) − r̄(s) is the drawn p(0 | s, a)."""
    draws, visits = 4000, [[3, 0, 1], [0, 2, 0], [5, 5, 0]]
    transitions = torch.tensor(visits).double()[None, :, None]
    rewards = transitions.sum(-1) * torch.tensor([1.0, 0.0, 0.0]).double()[:, None]
    known = Psrl(noise_precision=1e12)
    q_values = known.plan(Seen(transitions, rewards), 2, draws, TaskRandom([0], draws))[0, ..., 0]
    for state, counts in enumerate(visits):
        drawn = q_values[:, 0, state] - float(state == 0)
        law = stats.beta(1 + counts[0], 2 + counts[1] + counts[2])  # the marginal of Dirichlet(1 + counts)
        assert stats.kstest(drawn, law.cdf).pvalue > 0.01
    rewards = torch.tensor([[[4.0], [0.5], [-3.0]]]).double()
    plans = Psrl().plan(Seen(transitions, rewards), 1, draws, TaskRandom([1], draws))[0, :, 0, :, 0]
    for state in range(3):
        precision = 1 + sum(visits[state])
        law = stats.norm((1 + float(rewards[0, state])) / precision, precision**-0.5)
        assert stats.kstest(plans[:, state], law.cdf).pvalue > 0.01
    assert np.abs(np.corrcoef(plans.T) - np.eye(3)).max() < 0.05


def test_several_samples_are_optimistic() -> None:
    seen, episodes = experience(), 200
    one, many = (Psrl(num).plan(seen, 4, episodes, TaskRandom([0, 1], episodes)) for num in (1, 8))
    assert bool((many.mean(1) > one.mean(1)).all())
    first = Psrl(1).plan(seen, 4, episodes, TaskRandom([0, 1], episodes))
    assert torch.equal(first, one)


def test_much_experience_makes_all_of_them_optimal() -> None:
    transitions, rewards = random_model(2, states=3, actions=2)
    visits = 1e9
    seen = Seen(transitions * visits, rewards * visits)
    optimal = backward_induction(transitions, rewards, 4)[:, None]
    for planner in (MaximumLikelihood(), Psrl(), Ucrl2(), Known(transitions, rewards)):
        planned = planner.plan(seen, 4, 1, TaskRandom([0, 1], 1))
        assert torch.allclose(planned, optimal, atol=1e-2), planner


def test_counts_what_happened() -> None:
    """Two episodes of one task, the second of 2 steps only."""
    states, actions, lengths = [[0, 2, 1], [0, 1, 0]], [[1, 0, 1], [0, 1, 0]], [3, 2]
    finals, rewards = [2, 1], [[0.5, -1.0, 2.0], [3.0, 4.0, 0.0]]
    support = Episodes(
        observations=torch.from_numpy(one_hot(np.array(states).ravel(), 3)).view(1, 2, 3, 3),
        final_observations=torch.from_numpy(one_hot(np.array(finals), 3)).view(1, 2, 3),
        actions=torch.tensor([actions]),
        rewards=torch.tensor([rewards]),
        terminated=torch.tensor([[False, True]]),
        diverged=torch.zeros(1, 2).bool(),
        lengths=torch.tensor([lengths]),
    )
    policy = ModelBasedPolicy.start(MaximumLikelihood(), 1, 3, 2, 3)
    seen = policy.adapt(support).seen
    wanted = torch.zeros(1, 3, 2, 3).double()
    for s, a, s_next in ((0, 1, 2), (2, 0, 1), (1, 1, 2), (0, 0, 1), (1, 1, 1)):
        wanted[0, s, a, s_next] += 1
    assert torch.equal(seen.transitions, wanted)
    assert seen.rewards[0].tolist() == [[3.0, 0.5], [0.0, 6.0], [-1.0, 0.0]]
    assert torch.equal(policy.adapt(support).adapt(support).seen.transitions, 2 * wanted)
    assert float(policy.seen.visits.sum()) == 0


@pytest.mark.parametrize("planner", PLANNERS, ids=str)
def test_a_task_is_played_alike_alone_and_among_others(planner: Planner) -> None:
    dist, seeds, protocol = tabular_mdp(), task_seeds(3, num_tasks=4), AdaptationProtocol(3, 2)
    tasks, collector = dist.tasks("test")[:4], Collector(dist)
    policy = pickle.loads(pickle.dumps(start(planner, 4, 0.2)))
    together = collector.collect_trials(policy, tasks, protocol, seeds)
    alone = collector.collect_trials(start(planner, 1, 0.2), tasks[2:3], protocol, seeds[2:3])
    for one, other in zip(together.episodes, alone.episodes, strict=True):
        assert torch.equal(one.actions[2], other.actions[0])
        assert torch.equal(one.rewards[2], other.rewards[0])
    assert len(together.query.actions.unique()) > 1


def test_acts_by_the_plan_of_its_step_episode_and_state() -> None:
    """Action 1 pays at once, action 0 leads to the state that pays more: the last step is for action 1."""
    transitions = torch.tensor([[[[0, 1], [1, 0]], [[0, 1], [0, 1]]]]).double()
    rewards = torch.tensor([[[0.0, 1.0], [5.0, 5.5]]]).double()
    policy = ModelBasedPolicy.start(Known(transitions, rewards), 1, 2, 2, 3)
    plan, actions = policy.initial_carry(3, None), []
    # The third episode's plan is the other way round.
    carry: Carry = plan._replace(q_values=plan.q_values * torch.tensor([1, 1, -1])[:, None, None, None])
    states = torch.eye(2)[None, [0, 1, 1]]  # of the three episodes, at every step
    for _ in range(3):
        chosen, carry = policy.act(states, carry, None)
        actions.append(chosen[0].tolist())
        carry = policy.observe(carry, Transition(chosen, torch.zeros(1, 3), torch.zeros(1, 3).bool(), states))
    assert actions == [[0, 1, 0], [0, 1, 0], [1, 1, 0]]


def test_the_optimal_policy_earns_its_value() -> None:
    dist, num_tasks, episodes = tabular_mdp(), 20, 200
    tasks = dist.tasks("test")[:num_tasks]
    worlds = [random_mdp(task) for task in tasks]
    known = Known(
        torch.from_numpy(np.stack([world.transitions for world in worlds])),
        torch.from_numpy(np.stack([world.rewards for world in worlds])),
    )
    value = backward_induction(known.transitions, known.rewards, HORIZON)[:, 0, 0].amax(-1)
    played = Collector(dist).collect_episodes(start(known, num_tasks), tasks, episodes, range(num_tasks))
    error = (played.returns.double().mean(1) - value) / (played.returns.double().std(1) / episodes**0.5)
    assert stats.kstest(error, "norm").pvalue > 0.01
    silent = Collector(dist).collect_episodes(start(known, num_tasks), tasks, 1, range(num_tasks), noise=False)
    assert silent.actions.shape == (num_tasks, 1, HORIZON)


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        Psrl(num_samples=0)
    with pytest.raises(ValueError, match="reward_precision must be positive"):
        Psrl(reward_precision=0.0)
    with pytest.raises(ValueError, match="delta must be in"):
        Ucrl2(delta=1.0)
    with pytest.raises(ValueError, match=r"epsilon must be in \[0, 1\]"):
        start(Psrl(), 1, -0.1)


def test_table_2_is_the_papers() -> None:
    algorithms = ("random", "PSRL", "greedy", "optimal")
    rows = {row.algorithm: row for row in mdp_table((10,), num_tasks=100, num_tuning=2, algorithms=algorithms)}
    assert tuple(rows) == algorithms
    for row in rows.values():
        if row.paper is not None:
            # The paper's own figures are of 1000 MDPs: another ± 2.
            assert row.reward.low - 4 < row.paper < row.reward.high + 4, str(row)
    assert rows["random"].reward.high < rows["PSRL"].reward.low
    assert rows["PSRL"].reward.high < rows["optimal"].reward.low
    assert set(PAPER_MDPS[10]) - {"RL²"} <= {row.algorithm for row in mdp_table((1,), num_tasks=2, num_tuning=2)}


def test_table_2_chooses_an_option_for_each_length() -> None:
    name = "UCRL2, tuned c"
    rows = mdp_table((1, 6), num_tasks=5, num_tuning=60, algorithms=(name,))
    assert [(row.algorithm, row.trial) for row in rows] == [(name, "n=1"), (name, "n=6")]
    assert rows[1].option in ("c=0.032", "c=0.1", "c=0.32")  # of 0.0001 … 1
    assert rows[0].reward.value < rows[1].reward.value
    with pytest.raises(ValueError, match="there is no algorithm 'BEB'; there are random, PSRL"):
        mdp_table((1,), algorithms=("BEB",))
