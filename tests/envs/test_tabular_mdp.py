"""Random tabular MDPs, against the distributions of the paper in SciPy."""

import numpy as np
import pytest
from scipy import stats

from metarl.envs.tabular_mdp import ACTIONS, STATES, TabularMdpSimulator, random_mdp, tabular_mdp
from metarl.tasks import Task


def task(seed: int | float) -> Task:
    return Task.of("mdp", seed=float(seed))


def test_mdps_are_of_the_papers_distribution() -> None:
    worlds = [random_mdp(task(seed)) for seed in range(100)]
    rewards = np.array([world.rewards for world in worlds])
    transitions = np.array([world.transitions for world in worlds])
    assert np.allclose(transitions.sum(-1), 1.0)
    assert stats.kstest(rewards.ravel(), stats.norm(1, 1).cdf).pvalue > 0.01
    # One next state of each (s, a): the others of the same row would not be independent.
    assert stats.kstest(transitions[..., 4].ravel(), stats.beta(1, STATES - 1).cdf).pvalue > 0.01
    covariance = np.cov(transitions[..., 0].ravel(), transitions[..., 1].ravel())[0, 1]
    assert covariance == pytest.approx(stats.dirichlet(np.ones(STATES)).cov()[0, 1], rel=0.3)


def test_a_task_stays_what_it_is() -> None:
    world = random_mdp(task(7))
    assert world.transitions[0, 0, :3] == pytest.approx([0.08618314462917899, 0.1998561391804741, 0.13130228519823564])
    assert world.rewards[3, :2] == pytest.approx([0.8621856545240607, -0.5344953932218406])


def test_moves_and_pays_as_the_mdp_says() -> None:
    count = 5000
    simulator, world = TabularMdpSimulator(count, 1), random_mdp(task(3))
    for index in range(count):
        simulator.set_task(index, task(3))
        simulator.reset(index, np.random.default_rng(index))
    states, active = np.zeros(count, np.int64), np.ones(count, bool)
    rng = np.random.default_rng(0)
    for _ in range(4):
        observed = np.full(count, -1)
        simulator.observe(observed)
        assert np.array_equal(observed, states)
        actions = rng.integers(ACTIONS, size=count)
        outcome = simulator.step(actions, active)
        simulator.observe(following := np.full(count, -1))
        assert np.allclose(outcome.terms["mean_reward"], world.rewards[states, actions])
        assert stats.kstest(outcome.rewards - world.rewards[states, actions], "norm").pvalue > 1e-3
        state = np.bincount(states).argmax()
        for action in range(ACTIONS):
            came = following[(states == state) & (actions == action)]
            expected = len(came) * world.transitions[state, action]
            likely = expected > 5
            groups = [np.bincount(came, minlength=STATES)[likely], expected[likely]]
            rest = [[part_of.sum()] for part_of in (np.bincount(came, minlength=STATES)[~likely], expected[~likely])]
            seen, wanted = (np.concatenate([part, other]) for part, other in zip(groups, rest, strict=True))
            assert stats.chisquare(seen[wanted > 0], wanted[wanted > 0]).pvalue > 1e-4
        states = following


def test_noise_of_rewards_and_moves_is_independent() -> None:
    count = 5000
    simulator = TabularMdpSimulator(count, 1)
    for index in range(count):
        simulator.set_task(index, task(3))
        simulator.reset(index, np.random.default_rng(index))
    actions, active = np.zeros(count, np.int64), np.ones(count, bool)
    outcome = simulator.step(actions, active)
    simulator.observe(following := np.zeros(count, np.int64))
    by_state = [outcome.rewards[following == state] for state in range(STATES) if (following == state).sum() > 20]
    assert stats.f_oneway(*by_state).pvalue > 1e-3


def test_spec_is_the_papers() -> None:
    dist = tabular_mdp()
    assert (dist.horizon, dist.spaces.observation_size, dist.spaces.action_size) == (10, 10, 5)
    venv = dist.vector_env(3)
    assert venv.reset(seed=0)[0].tolist() == [0, 0, 0]
    flags = [venv.step(np.array([0, 1, 2]))[2:4] for _ in range(10)]
    assert not any(terminated.any() for terminated, _ in flags)
    assert [truncated.all() for _, truncated in flags] == [False] * 9 + [True]


def test_draws_its_states() -> None:
    env = tabular_mdp().env(task(1), render_mode="rgb_array")
    env.reset(seed=0)
    pictures = [np.asarray(env.render())]
    for _ in range(2):
        env.step(0)
        pictures.append(np.asarray(env.render()))
    assert pictures[0].shape == (360, 480, 3)
    assert not np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[1], pictures[2])
