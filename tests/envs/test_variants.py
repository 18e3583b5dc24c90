"""Variants of distributions: told the task, or trained on one family; the test's list stays the same."""

import numpy as np
import pytest

from metarl import envs, testing
from metarl.envs.variants import TaskCode, informed, specialist, split_variant
from metarl.tasks import Choice, Family, Task, Uniform


@pytest.mark.parametrize(
    ("id", "base", "variant"),
    [
        ("cheetah-terrain", "cheetah-terrain", ""),
        ("cheetah-terrain+informed", "cheetah-terrain", "+informed"),
        ("cheetah-terrain+only-icy-slope", "cheetah-terrain", "+only-icy-slope"),
        ("metaworld-ml10+goal-shown", "metaworld-ml10+goal-shown", ""),
        ("cheetah-terrain+informed+only-ice", "cheetah-terrain+informed", "+only-ice"),
        ("my_file.py:world+informed", "my_file.py:world", "+informed"),
    ],
)
def test_an_id_is_split_where_its_variant_begins(id: str, base: str, variant: str) -> None:
    assert split_variant(id) == (base, variant)


def test_a_code_has_a_column_for_each_family_and_parameter_within_its_range() -> None:
    code = TaskCode.of(
        [
            Family("ice", {"friction": Uniform(0.0, 0.2, 0.01, "")}),
            Family("flat", {"friction": Uniform(0.4, 1.2, 0.01, ""), "side": Choice(("left", "right"), "")}),
            Family("ice", {"friction": Uniform(0.1, 0.4, 0.01, "")}),  # the same one in another split
        ]
    )
    assert code.encode(Task.of("ice", friction=0.4)) == pytest.approx([1, 0, 1, 0, 0, 0])
    assert code.encode(Task.of("flat", friction=0.6, side="right")) == pytest.approx([0, 1, 0, -0.5, 0, 1])


def test_ranges_of_two_kinds_have_no_code() -> None:
    numbers, words = Uniform(0.0, 1.0, 0.1, ""), Choice(("a", "b"), "")
    with pytest.raises(ValueError, match="ranges of two kinds"):
        TaskCode.of([Family("f", {"x": numbers}), Family("f", {"x": words})])


@pytest.mark.parametrize("id", ["cheetah-terrain", "point-navigation", "cheetah-direction"])
def test_the_informed_variant_observes_the_task_and_has_the_same_test_list(id: str) -> None:
    dist, told = envs.make(id), envs.make(f"{id}+informed")
    assert told.tasks("test") == dist.tasks("test")
    assert told.hash != dist.hash
    assert {task.family for task in told.sample("train", 40, np.random.default_rng(0))} == set(dist.families)
    test = told.tasks("test")[:2]
    if told.held_out:
        assert not set(test) & set(told.tasks("train"))
    venv, plain = told.vector_env(2), dist.vector_env(2)
    try:
        venv.set_tasks(test)
        plain.set_tasks(test)
        (observations, codes), _ = venv.reset(seed=3)
        np.testing.assert_array_equal(observations, plain.reset(seed=3)[0])
        assert not np.array_equal(codes[0], codes[1])
        actions = np.stack([venv.single_action_space.sample() for _ in range(2)])
        (observations, later), rewards, *_ = venv.step(actions)
        expected, expected_rewards, *_ = plain.step(actions)
        np.testing.assert_array_equal(observations, expected)
        np.testing.assert_array_equal(rewards, expected_rewards)
        np.testing.assert_array_equal(later, codes)
    finally:
        venv.close()
        plain.close()


def test_a_specialist_is_trained_on_one_family_and_none_of_the_test_s_tasks() -> None:
    dist = envs.make("cheetah-terrain")
    ice = envs.make("cheetah-terrain+only-ice")
    assert ice.tasks("test") == dist.tasks("test")
    drawn = ice.sample("train", 200, np.random.default_rng(0))
    assert {task.family for task in drawn} == {"ice"}
    assert not set(drawn) & set(dist.tasks("test"))
    assert {task.family for task in ice.tasks("validation")} == {"ice"}


def test_a_specialist_may_be_told_the_task() -> None:
    told = envs.make("cheetah-terrain+informed+only-ice")
    assert told.spaces == envs.make("cheetah-terrain+informed").spaces
    assert told.tasks("test") == envs.make("cheetah-terrain").tasks("test")
    assert {task.family for task in told.sample("train", 20, np.random.default_rng(0))} == {"ice"}


def test_the_informed_variant_keeps_the_contract() -> None:
    testing.check_distribution(informed(envs.make("point-navigation")))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: specialist(envs.make("cheetah-terrain"), "lava"), "no family 'lava'; there are flat, slope-up"),
        (lambda: specialist(envs.make("cheetah-direction"), "direction"), "all trained on"),
        (lambda: informed(envs.make("metaworld-ml1-reach-v3")), "published list"),
    ],
)
def test_what_has_no_variant_says_why(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()
