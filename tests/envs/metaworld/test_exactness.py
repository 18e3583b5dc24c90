# pyright: reportPrivateUsage=false
"""Every number equals the installed metaworld's: observations, rewards, info and truncation, of all 50 classes.

The default is a part of it, for everyday use. `--exhaustive` plays whole episodes of all classes, with both reward
functions, scripted and random actions, goals hidden and shown.
"""

import warnings
from collections.abc import Callable

import metaworld
import numpy as np
import pytest
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from scipy.spatial.transform import Rotation

from metarl import envs
from metarl.envs.metaworld import fast_math, metaworld_api
from metarl.envs.metaworld.class_simulator import SimulationOptions, class_simulator
from metarl.envs.metaworld.fast_math import Rotation as FastRotation
from metarl.envs.metaworld.fast_math import norm, numpy_with_fast_norm, tolerance
from metarl.envs.metaworld.goals import RESETS, family
from metarl.envs.metaworld.simulator import rand_vec
from metarl.tasks import Task

WHOLE = ("reach-v3", "peg-insert-side-v3", "stick-pull-v3")  # whole episodes by default: contacts, two objects
SHORT, V1 = 60, 30  # steps otherwise
QUATERNIONS = np.array([*range(7, 11), *range(14, 18), *range(25, 29), *range(32, 36)])

Act = Callable[[np.ndarray], np.ndarray]


def actors(name: str) -> list[tuple[Act, bool]]:
    """Scripted actions, which ask for the goal to be shown, and random ones."""
    rng = np.random.default_rng(0)
    return [(metaworld_api.expert(name), True), (lambda _: rng.uniform(-1, 1, 4).astype(np.float32), False)]


def check(name: str, task: Task, act: Act, steps: int, options: SimulationOptions) -> None:
    official = ALL_V3_ENVIRONMENTS[name](reward_function_version=options.reward)
    official.set_task(metaworld_api.official_task(name, np.array(rand_vec(task)), goal_shown=options.goal_shown))
    observation, _ = official.reset()
    ours = class_simulator(name, options)
    snapshot = ours.reset(rand_vec(task))
    assert np.array_equal(observation, snapshot.initial.observation)
    for step in range(steps):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the scripts ask for more than the arm can do, and say so
            action = act(observation)
        observation, score, terminated, truncated, info = official.step(action)
        result = ours.step(snapshot, action)
        where = f"{name}, {task}, step {step}"
        others = np.delete(np.arange(39), QUATERNIONS)
        assert np.array_equal(result.observation[others], observation[others]), where
        np.testing.assert_allclose(result.observation[QUATERNIONS], observation[QUATERNIONS], rtol=0, atol=1e-12)
        assert result.reward == score, where
        assert result.terms == tuple(float(info[term]) for term in metaworld_api.TERMS), where
        assert info["unscaled_reward"] == score
        assert not terminated
        assert not result.diverged
        assert truncated == (step + 1 == 500)
    official.close()


@pytest.mark.parametrize("name", sorted(RESETS))
def test_every_class_is_as_in_metaworld(name: str, request: pytest.FixtureRequest) -> None:
    exhaustive = request.config.getoption("--exhaustive")
    rng = np.random.default_rng(0)
    for act, goal_shown in actors(name):
        for _ in range(2 if exhaustive else 1):
            task = family(name).draw(rng)
            check(
                name, task, act, 500 if exhaustive or name in WHOLE else SHORT, SimulationOptions(goal_shown=goal_shown)
            )


@pytest.mark.parametrize("name", sorted(RESETS))
def test_the_first_reward_functions_are_as_in_metaworld(name: str, request: pytest.FixtureRequest) -> None:
    exhaustive = request.config.getoption("--exhaustive")
    if not exhaustive and name not in WHOLE:
        pytest.skip("a part by default; --exhaustive has all")
    for act, goal_shown in actors(name):
        task = family(name).draw(np.random.default_rng(1))
        check(name, task, act, 500 if exhaustive else V1, SimulationOptions("v1", goal_shown))


@pytest.mark.parametrize("name", WHOLE)
def test_metaworld_as_it_is_moves_alike(name: str) -> None:
    for act, goal_shown in actors(name):
        check(
            name,
            family(name).draw(np.random.default_rng(2)),
            act,
            SHORT,
            SimulationOptions("v2", goal_shown, stock=True),
        )


def refuse(*_: object) -> type:
    raise AssertionError("metaworld's functions are to be left as they are")


@pytest.mark.parametrize("threads", [1, 2])
def test_the_switch_leaves_metaworlds_functions_as_they_are(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dist = envs.make("metaworld-ml1-push-v3")
    actions = np.random.default_rng(0).uniform(-1, 1, (10, 2, 4)).astype(np.float32)
    fast = dist.vector_env(2, threads)
    fast.reset(seed=0)
    with monkeypatch.context() as patch:
        patch.setenv("METARL_METAWORLD_STOCK", "1")
        patch.setattr(fast_math, "fast_class", refuse)
        stock = dist.vector_env(2, threads)
        stock.reset(seed=0)
        if threads == 1:
            metaworld_api.stepped_class.cache_clear()
            env = class_simulator("push-v3", SimulationOptions(stock=True))._env
            assert type(env).__name__ == "StockSawyerPushEnvV3"
            assert type(env).evaluate_state is ALL_V3_ENVIRONMENTS["push-v3"].evaluate_state
            with pytest.raises(AssertionError, match="left as they are"):
                metaworld_api.stepped_class("push-v3", stock=False)
        for action in actions:
            one, other = fast.step(action), stock.step(action)
            assert np.array_equal(one[1], other[1])
            np.testing.assert_allclose(one[0], other[0], rtol=0, atol=1e-12)
        patch.setenv("METARL_METAWORLD_STOCK", "yes")
        with pytest.raises(ValueError, match="can be 0 .* or 1 .*, got 'yes'"):
            dist.vector_env(1)
    for venv in (fast, stock):
        venv.close()


def test_the_vector_env_is_metaworlds_train_benchmark() -> None:
    """Through all of it, and with tasks of metaworld's own making."""
    benchmark = metaworld.ML1("push-v3", seed=3)
    official = benchmark.train_classes["push-v3"]()
    dist = envs.make("metaworld-ml1-push-v3")
    actions = np.random.default_rng(0).uniform(-1, 1, (500, 4)).astype(np.float32)
    official_task = benchmark.train_tasks[7]
    official.set_task(official_task)
    observation, _ = official.reset()
    vector = official._last_rand_vec
    assert vector is not None
    env = dist.env(Task.of("push-v3", **{f"rand_{index}": value for index, value in enumerate(vector)}))
    first, _ = env.reset(seed=9)
    assert np.array_equal(first, observation)
    for action in actions:
        one, other = official.step(action), env.step(action)
        others = np.delete(np.arange(39), QUATERNIONS)
        assert np.array_equal(one[0][others], other[0][others])
        np.testing.assert_allclose(one[0], other[0], rtol=0, atol=1e-12)
        assert one[1:4] == other[1:4]
        assert {name: other[4][name] for name in metaworld_api.TERMS} == {
            name: one[4][name] for name in metaworld_api.TERMS
        }
    env.close()
    official.close()


def test_nothing_of_what_was_played_before_is_left() -> None:
    """Kept resets, one made anew and metaworld's own environment after other episodes: all the same."""
    name = "basketball-v3"  # its goal is a view into the simulation
    rng = np.random.default_rng(0)
    one, other = (rand_vec(family(name).draw(rng)) for _ in range(2))
    ours, official = class_simulator(name, SimulationOptions(goal_shown=True)), ALL_V3_ENVIRONMENTS[name]()
    action = np.array([0.3, 0.5, -0.2, 1.0])

    def episode(vector: tuple[float, ...]) -> list[np.ndarray]:
        snapshot = ours.reset(vector)
        return [ours.step(snapshot, action).observation for _ in range(20)]

    def official_episode(vector: tuple[float, ...]) -> list[np.ndarray]:
        official.set_task(metaworld_api.official_task(name, np.array(vector), goal_shown=True))
        official.reset()
        return [official.step(action)[0] for _ in range(20)]

    first = episode(one)
    assert not np.array_equal(episode(other), first)
    assert np.array_equal(episode(one), first)
    ours._initial.cache_clear()
    assert np.array_equal(episode(one), first)
    for _ in range(2):
        assert np.array_equal(official_episode(one), first)
        official_episode(other)
    official.close()


def test_snapshots_do_not_meet() -> None:
    """Sub-environments of one class share a simulation; each goes its own way."""
    name = "soccer-v3"
    rng = np.random.default_rng(0)
    vectors = [rand_vec(family(name).draw(rng)) for _ in range(2)]
    actions = rng.uniform(-1, 1, (2, 40, 4))
    ours = class_simulator(name, SimulationOptions())
    alone = []
    for vector, mine in zip(vectors, actions, strict=True):
        snapshot = ours.reset(vector)
        alone.append([ours.step(snapshot, action).observation for action in mine])
    snapshots = [ours.reset(vector) for vector in vectors]
    for step in range(40):
        for index, snapshot in enumerate(snapshots):
            assert np.array_equal(ours.step(snapshot, actions[index, step]).observation, alone[index][step])


def test_fast_helpers_equal_the_slow_ones() -> None:
    from metaworld.utils import reward_utils

    rng, fast = np.random.default_rng(0), tolerance(reward_utils.tolerance)
    for x, margin in rng.exponential(0.3, (500, 2)):
        for sigmoid in ("long_tail", "gaussian"):
            for value in (float(x), np.float64(x)):
                slow = reward_utils.tolerance(value, bounds=(0, 0.05), margin=margin, sigmoid=sigmoid)
                assert fast(value, bounds=(0, 0.05), margin=margin, sigmoid=sigmoid) == slow
    assert fast(0.01, bounds=(0, 0.05), margin=0.0) == reward_utils.tolerance(0.01, bounds=(0, 0.05))
    with pytest.raises(ValueError, match="Lower bound"):
        fast(0.1, bounds=(1.0, 0.0), margin=0.1, sigmoid="long_tail")
    with pytest.raises(ValueError, match="non-negative"):
        fast(0.1, margin=-0.1, sigmoid="long_tail")
    for vector in (*rng.normal(size=(50, 3)), rng.normal(size=(4, 3))[:, 1], np.float64(-0.3)):
        assert norm(vector) == np.linalg.norm(vector)
    assert norm(np.ones((2, 3)), axis=1).tolist() == np.linalg.norm(np.ones((2, 3)), axis=1).tolist()
    assert numpy_with_fast_norm().clip is np.clip
    for matrix in Rotation.random(200, rng=rng).as_matrix():
        np.testing.assert_allclose(
            FastRotation.from_matrix(matrix).as_quat(), Rotation.from_matrix(matrix).as_quat(), rtol=0, atol=1e-12
        )
