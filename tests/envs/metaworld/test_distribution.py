# pyright: reportPrivateUsage=false
"""Which tasks Meta-World's distributions hold, and what their ids say."""

import re

import numpy as np
import pytest
from metaworld import env_dict

from metarl import envs
from metarl.envs.metaworld import IDS, goals, metaworld_api
from metarl.envs.metaworld.class_simulator import SimulationOptions, class_simulator
from metarl.envs.metaworld.goals import BENCHMARKS, RESETS, family
from metarl.envs.metaworld.simulator import rand_vec
from metarl.tasks import SPLITS, Task

# What is written down equals the installed metaworld


def test_the_classes_are_metaworlds() -> None:
    assert set(RESETS) == set(metaworld_api.class_names())
    assert len(RESETS) == 50
    official_lists = {"ml10": env_dict.ML10_V3, "ml25": env_dict.ML25_V3, "ml45": env_dict.ML45_V3}
    assert official_lists.keys() == BENCHMARKS.keys()
    for name, official in official_lists.items():
        assert BENCHMARKS[name].test == tuple(official["test"])
        assert BENCHMARKS[name].train == tuple(each for each in official["train"] if each not in official["test"])


def test_only_ml25_leaks_in_metaworld() -> None:
    for official in (env_dict.ML10_V3, env_dict.ML45_V3):
        assert not set(official["train"]) & set(official["test"])
    assert set(env_dict.ML25_V3["train"]) & set(env_dict.ML25_V3["test"]) == {"basketball-v3"}
    assert len(BENCHMARKS["ml25"].train) == 24


@pytest.mark.parametrize("name", sorted(RESETS))
def test_goals_are_drawn_as_metaworld_draws_them(name: str) -> None:
    """Metaworld's own draws, from a generator of ours: those it accepts are those that we accept."""
    reset = RESETS[name]
    env = env_dict.ALL_V3_ENVIRONMENTS[name]()
    space = env._random_reset_space
    assert space is not None
    assert reset.low == tuple(space.low)
    assert reset.high == tuple(space.high)
    env._freeze_rand_vec, env._set_task_called, env.seeded_rand_vec = False, True, True
    # Only the draws matter here, not the 250 steps that put the hand in place before them.
    env._reset_hand = lambda steps=50: setattr(env, "init_tcp", env.tcp_center)
    env.np_random = generator = np.random.default_rng(0)
    ours, constraints = np.random.default_rng(0), family(name).constraints
    for _ in range(20):
        env.reset_model()
        while True:
            drawn = ours.uniform(reset.low, reset.high)
            task = Task.of(name, **{f"rand_{index}": value for index, value in enumerate(drawn)})
            if all(constraint.holds(task) for constraint in constraints):
                break
        assert env._last_rand_vec is not None
        assert np.array_equal(env._last_rand_vec, drawn)
    assert generator.bit_generator.state == ours.bit_generator.state
    env.close()


# Splits


@pytest.mark.parametrize("id", ["metaworld-ml1-reach-v3", "metaworld-ml10", "metaworld-ml25", "metaworld-ml45"])
def test_goals_are_as_many_as_published_and_disjoint(id: str) -> None:
    dist = envs.make(id)
    single = id.startswith("metaworld-ml1-")
    classes = {split: {task.family for task in dist.tasks(split)} for split in SPLITS}
    per_class = {split: len(dist.tasks(split)) / len(classes[split]) for split in SPLITS}
    assert per_class == {"train": 50, "validation": 20 if single else 10, "test": 50 if single else 40}
    every = [task for split in SPLITS for task in dist.tasks(split)]
    assert len(set(every)) == len(every)
    assert classes["train"] == classes["validation"]
    assert classes["train"] == classes["test"] if single else not classes["train"] & classes["test"]
    for task in every:
        reset = RESETS[task.family]
        assert all(a <= b <= c for a, b, c in zip(reset.low, rand_vec(task), reset.high, strict=True))
        assert all(constraint.holds(task) for constraint in family(task.family).constraints)


def test_training_stays_on_its_goals_and_treats_classes_alike() -> None:
    dist = envs.make("metaworld-ml10")
    drawn = dist.sample("train", 1000, np.random.default_rng(0))
    assert set(drawn) == set(dist.tasks("train"))
    assert {drawn.count(task) for task in dist.tasks("train")} == {2}
    batch = dist.sample("train", 20, np.random.default_rng(1))
    assert len(set(batch)) == 20
    families = [task.family for task in batch]
    assert {families.count(name) for name in BENCHMARKS["ml10"].train} == {2}


def test_goals_are_nobodys_random_numbers() -> None:
    np.random.seed(5)  # noqa: NPY002  # metaworld's own are drawn from these
    one = envs.make("metaworld-ml10").tasks("train")
    np.random.seed(6)  # noqa: NPY002
    before = np.random.get_state(legacy=True)  # noqa: NPY002
    assert envs.make("metaworld-ml10").tasks("train") == one
    assert str(np.random.get_state(legacy=True)) == str(before)  # noqa: NPY002


# Ids


def test_options_are_in_the_hash_and_leave_the_goals() -> None:
    plain = envs.make("metaworld-ml10")
    for option in ("+reward-v1", "+goal-shown", "+reward-v1+goal-shown"):
        other = envs.make(f"metaworld-ml10{option}")
        assert other.id == f"metaworld-ml10{option}"
        assert other.hash != plain.hash
        assert [other.tasks(split) for split in SPLITS] == [plain.tasks(split) for split in SPLITS]
    moved = envs.make("metaworld-ml10+goals-1")
    assert not set(moved.tasks("test")) & set(plain.tasks("test"))
    assert moved.hash != plain.hash
    assert envs.make("metaworld-ml10+goal-shown+reward-v1").id == "metaworld-ml10+reward-v1+goal-shown"
    assert envs.make("metaworld-ml10+reward-v2+goals-0").hash == plain.hash


def test_a_custom_id_says_everything() -> None:
    dist = envs.make("metaworld-custom:reach-v3,push-v3/door-open-v3+reward-v1")
    assert {task.family for task in dist.tasks("train")} == {"reach-v3", "push-v3"}
    assert {task.family for task in dist.tasks("test")} == {"door-open-v3"}
    assert dist.physics["reward"] == "v1"
    assert envs.make(dist.id).hash == dist.hash


def test_fresh_training_goals_are_other_ones_every_time_and_never_held_out() -> None:
    listed, fresh = envs.make("metaworld-ml1-reach-v3"), envs.make("metaworld-ml1-reach-v3+fresh")
    assert fresh.hash != listed.hash and fresh.id == "metaworld-ml1-reach-v3+fresh"
    assert all(fresh.tasks(split) == listed.tasks(split) for split in SPLITS)
    drawn = fresh.sample("train", 2000, np.random.default_rng(0))
    assert len(set(drawn)) == 2000
    assert not set(drawn) & {task for split in SPLITS[1:] for task in fresh.tasks(split)}
    assert len(set(listed.sample("train", 2000, np.random.default_rng(0)))) == 50


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("metaworld-ml11", "did you mean metaworld-ml1"),
        ("metaworld-xyzzy", "unknown distribution"),
        ("metaworld-ml1-rech-v3", "no class 'rech-v3'; did you mean reach-v3"),
        ("metaworld-ml1-9", "its classes are assembly-v3, "),
        ("metaworld-ml10+fast", "unknown option +fast; there are +reward-v1, +goal-shown, +goals-N and +fresh"),
        ("metaworld-ml10+goals-x", "unknown option +goals-x"),
        ("metaworld-ml10+goal-shown+goal-shown", "the option +goal-shown twice"),
        ("metaworld-ml10+goals-1+goals-2", "the option +goals twice"),
        ("metaworld-custom", "names no classes"),
        ("metaworld-custom:reach-v3", "training and test classes"),
        ("metaworld-custom:/reach-v3", "training and test classes"),
        ("metaworld-custom:reach-v3/push-v3/door-open-v3", "training and test classes"),
        ("metaworld-custom:reach-v3/psh-v3", "no class 'psh-v3'; did you mean push-v3"),
        ("metaworld-custom:reach-v3,push-v3/push-v3", "names push-v3 twice"),
    ],
)
def test_wrong_ids_say_what_is_wrong(id: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        envs.make(id)


def test_all_are_listed_and_the_hint_stays_short() -> None:
    assert set(IDS) <= set(envs.list())
    assert len(IDS) == 53
    with pytest.raises(ValueError, match="metaworld-ml1-CLASS \\(one of 50 classes\\)") as error:
        envs.make("zzz")
    assert len(str(error.value)) < 700


# Tasks that cannot be reset


@pytest.mark.parametrize("threads", [1, 2])
def test_an_object_on_its_goal_is_refused(threads: int) -> None:
    """Metaworld would draw the same vector for ever."""
    dist = envs.make("metaworld-ml1-reach-v3")
    near = {"rand_0": 0.0, "rand_1": 0.65, "rand_2": 0.02, "rand_3": 0.0, "rand_4": 0.79, "rand_5": 0.1}
    venv = dist.vector_env(2, threads)
    venv.set_tasks([dist.tasks("train")[0], Task.of("reach-v3", **near)])
    with pytest.raises(ValueError, match="0.14 m apart in the plane; metaworld needs at least 0.15 m"):
        venv.reset(seed=0)
    far = Task.of("reach-v3", **{**near, "rand_4": 0.81})
    venv.set_tasks([dist.tasks("train")[0], far])
    venv.reset(seed=0)
    venv.close()
    with pytest.raises(ValueError, match="has its object and its goal 0.1"):
        goals.check_task(Task.of("sweep-into-v3", **{**near, "rand_1": 0.74}))


@pytest.mark.parametrize("name", sorted(name for name, reset in RESETS.items() if reset.apart))
def test_metaworlds_own_search_is_cut_short(name: str) -> None:
    """Where the table is silent, or a hair's breadth from its limit."""
    reset = RESETS[name]
    goal = reset.keep_off or reset.low[3:5]
    vector = (*goal, *reset.low[2:3], *(goal if len(reset.low) > 3 else ()), *reset.low[5:])[: len(reset.low)]
    with pytest.raises(ValueError, match="reset would never end"):
        class_simulator(name, SimulationOptions()).reset(tuple(map(float, vector)))


# Observations


def test_the_goal_is_hidden_unless_asked_for() -> None:
    hidden, shown = envs.make("metaworld-ml1-reach-v3"), envs.make("metaworld-ml1-reach-v3+goal-shown")
    task = hidden.tasks("test")[0]
    action = np.zeros(4, np.float32)
    observations = []
    for dist in (hidden, shown):
        env = dist.env(task)
        first, _ = env.reset()
        observations.append((first, env.step(action)[0]))
        assert env.step(action)[0] in dist.observation_space
    for one, other in zip(*observations, strict=True):
        assert np.array_equal(one[:36], other[:36])
        assert not one[36:].any()
        assert other[36:].tolist() == list(rand_vec(task)[3:])
