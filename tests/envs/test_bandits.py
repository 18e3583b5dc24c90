"""Bernoulli bandits and the two modules that both worlds of the RL² paper share, against SciPy and plain integers."""

import numpy as np
import pytest
from scipy import stats

from metarl.envs.bandits import IDS, BanditSimulator, arm_probabilities, bernoulli_bandit, named_bandit
from metarl.envs.batch_random import BatchRandom
from metarl.envs.seeded_tasks import MAX_SEED, task_generator
from metarl.tasks import Task

ARMS = 5


def task(seed: int | float) -> Task:
    return Task.of("bandit", seed=float(seed))


def split_mix(state: int, count: int) -> list[int]:
    """SplitMix64 in unbounded integers (Vigna's splitmix64.c, public domain)."""
    numbers = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        mixed = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % 2**64
        numbers.append(mixed ^ (mixed >> 31))
    return numbers


def test_streams_are_split_mix() -> None:
    assert split_mix(1234567, 2) == [6457827717110365317, 3203168211198807973]  # published test values
    starts = [int(np.random.default_rng(seed).integers(2**64, dtype=np.uint64)) for seed in range(3)]
    random = BatchRandom(3)
    for index in range(3):
        random.restart(index, np.random.default_rng(index))
    drawn = np.array([random.bits(np.ones(3, bool)) for _ in range(4)])
    assert drawn.T.tolist() == [split_mix(start, 4) for start in starts]


def test_streams_are_uniform_and_normal_and_wait_while_inactive() -> None:
    random, twin = BatchRandom(20_000), BatchRandom(20_000)
    for index in range(20_000):
        random.restart(index, np.random.default_rng(index))
        twin.restart(index, np.random.default_rng(index))
    every, some = np.ones(20_000, bool), np.arange(20_000) % 2 == 0
    first = random.uniform(every)
    assert stats.kstest(first, "uniform").pvalue > 0.01
    assert stats.kstest(random.normal(every), "norm").pvalue > 0.01
    twin.uniform(some)
    assert np.array_equal(twin.uniform(every)[~some], first[~some])


def test_arms_are_uniform_and_follow_from_the_seed_alone() -> None:
    seeds = np.random.default_rng(0).integers(MAX_SEED, size=2000)
    arms = np.array([arm_probabilities(task(int(seed)), ARMS) for seed in seeds])
    assert stats.kstest(arms.ravel(), "uniform").pvalue > 0.01
    assert np.abs(np.corrcoef(arms.T) - np.eye(ARMS)).max() < 0.08
    # What a task is must not change with versions: figures of old runs would be of other tasks.
    assert arm_probabilities(task(7), 3) == pytest.approx([0.625095466604667, 0.8972138009695755, 0.7756856902451935])
    assert np.array_equal(arm_probabilities(task(7), 50)[:ARMS], arm_probabilities(task(7), ARMS))


@pytest.mark.parametrize("seed", [-1, 0.5, MAX_SEED + 1])
def test_other_seeds_are_refused(seed: int | float) -> None:
    with pytest.raises(ValueError, match=r"a whole number from 0 to 4294967295, got"):
        task_generator(task(seed))


def test_pays_as_often_as_the_arm_says() -> None:
    count = 4000
    simulator, probabilities = BanditSimulator(count, 1, ARMS), arm_probabilities(task(3), ARMS)
    for index in range(count):
        simulator.set_task(index, task(3))
        simulator.reset(index, np.random.default_rng(index))
    actions, active = np.arange(count) % ARMS, np.ones(count, bool)
    for _ in range(3):
        outcome = simulator.step(actions, active)
        assert set(outcome.rewards) <= {0.0, 1.0}
        paid = [int(outcome.rewards[actions == arm].sum()) for arm in range(ARMS)]
        for arm, probability in enumerate(probabilities):
            assert stats.binomtest(paid[arm], count // ARMS, probability).pvalue > 1e-3
        assert np.allclose(outcome.terms["regret"], probabilities.max() - probabilities[actions])
        assert not outcome.terminated.any()


def test_an_episode_is_the_whole_trial() -> None:
    venv = bernoulli_bandit(ARMS, 4).vector_env(2)
    observations, _ = venv.reset(seed=0)
    for step in range(4):
        assert observations.tolist() == [0, 0]
        observations, _, terminated, truncated, _ = venv.step(np.array([step % ARMS, 1]))
        assert not terminated.any()
        assert truncated.all() == (step == 3)


def test_setups_share_their_tasks_and_differ_in_what_they_ask() -> None:
    dists = [named_bandit(id) for id in IDS]
    assert [dist.id for dist in dists] == list(IDS)
    assert len({dist.hash for dist in dists}) == len(dists)
    assert all(dist.tasks("test") == dists[0].tasks("test") for dist in dists)
    assert (dists[5].id, dists[5].horizon, dists[5].spaces.action_size) == ("bernoulli-bandit-k10-n500", 500, 10)
    assert len(set(dists[0].tasks("test"))) == 1000


@pytest.mark.parametrize("id", ["bernoulli-bandit-k5", "bernoulli-bandit-k0-n10", "bernoulli-bandit-k5-n10-x"])
def test_other_ids_are_refused(id: str) -> None:
    with pytest.raises(ValueError, match=r"bandits are called bernoulli-bandit-kARMS-nPULLS"):
        named_bandit(id)


@pytest.mark.parametrize(("arms", "pulls"), [(1, 10), (5, 0)])
def test_needs_a_choice_and_a_pull(arms: int, pulls: int) -> None:
    with pytest.raises(ValueError, match=f"got {arms} arms and {pulls} pulls"):
        bernoulli_bandit(arms, pulls)


@pytest.mark.parametrize(("arms", "width", "height"), [(5, 480, 360), (50, 480, 360), (50, 40, 30), (2, 160, 120)])
def test_draws_its_arms(arms: int, width: int, height: int) -> None:
    env = bernoulli_bandit(arms, 10).env(task(1), render_mode="rgb_array", width=width, height=height)
    env.reset(seed=0)
    before = env.render()
    env.step(np.argmax(arm_probabilities(task(1), arms)))
    after = env.render()
    assert before is not None and after is not None
    assert before.shape == after.shape == (height, width, 3)
    assert not np.array_equal(before, after)
