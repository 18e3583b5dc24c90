"""Tasks are values; splits share none."""

import dataclasses
import json
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from metarl.tasks import (
    SPLITS,
    Choice,
    Family,
    LinearInequality,
    MinDistance,
    Scalar,
    Task,
    TaskSpace,
    Uniform,
    content_hash,
)

COARSE = Family("goal", {"x": Uniform(0.0, 1.0, 0.01, "m")})


def space(**changes: Any) -> TaskSpace:
    return dataclasses.replace(
        TaskSpace("test-space", (COARSE,), (COARSE,), (COARSE,), split_sizes=(20, 20, 30)), **changes
    )


def test_a_task_is_a_value() -> None:
    task = Task.of("ice", slope=3.0, friction=0.04)
    assert task == Task.of("ice", friction=0.04, slope=3.0)
    assert len({task, Task.of("ice", friction=0.04, slope=3.0), Task.of("ice", friction=0.05, slope=3.0)}) == 2
    assert task["friction"] == 0.04
    assert str(task) == "ice(friction=0.04, slope=3)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        task.family = "sand"  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(KeyError, match="no parameter 'depth'"):
        task["depth"]


def test_a_task_goes_to_json_and_back_unchanged() -> None:
    task = Task.of("goal", x=0.1 + 0.2, y=-1e-17)
    assert Task.from_json(json.loads(json.dumps(task.to_json()))) == task
    assert pickle.loads(pickle.dumps(task)) == task
    assert Task.from_json(json.loads(json.dumps(task.to_json()))).id == task.id


def test_parameters_are_any_scalars_of_json() -> None:
    task = Task.of("x", a=1, b="text", c=True, d=1.0, e=np.float64(0.5))
    again = Task.from_json(json.loads(json.dumps(task.to_json())))
    assert again == task and hash(again) == hash(task) and again.id == task.id
    assert again.parameters == task.parameters
    assert [type(again[name]) for name in "abcde"] == [int, str, bool, float, float]
    assert str(task) == "x(a=1, b=text, c=True, d=1, e=0.5)"
    assert pickle.loads(pickle.dumps(task)) == task


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (1, True), (0.0, False), (1, "1")])
def test_equal_tasks_are_those_with_equal_ids(one: Scalar, other: Scalar) -> None:
    tasks = [Task.of("x", a=value) for value in (one, other)]
    assert tasks[0] != tasks[1] and tasks[0].id != tasks[1].id and len(set(tasks)) == 2


def test_numbers_are_asked_for_as_numbers() -> None:
    task = Task.of("x", a=1, b="text", c=True, d=0.5)
    assert [type(task.number(name)) for name in "ad"] == [float, float]
    assert (task.number("a"), task.number("d")) == (1.0, 0.5)
    for name in "bc":
        with pytest.raises(ValueError, match=rf"parameter '{name}' of task x\(.*\) must be a number"):
            task.number(name)
    with pytest.raises(KeyError, match="no parameter 'e'"):
        task.number("e")


def test_ids_of_tasks_of_floats_are_what_they_were() -> None:
    assert Task.of("ice", friction=0.04).id == "ice-730b6a3a"
    assert Task.of("velocity", velocity=1.0).id == "velocity-53424db7"


def test_the_id_comes_from_the_content() -> None:
    assert Task.of("ice", friction=0.04).id != Task.of("ice", friction=0.041).id
    assert Task.of("ice", friction=0.04).id != Task.of("mud", friction=0.04).id
    assert Task.of("ice", friction=0.04).id.startswith("ice-")


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"family": "ice"},
        {"family": 3, "parameters": {}},
        {"family": "ice", "parameters": {"friction": None}},
        {"family": "ice", "parameters": {"friction": [0.1]}},
        {"family": "ice", "parameters": {}, "more": 1},
    ],
)
def test_what_is_not_a_task_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="task"):
        Task.from_json(value)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_parameters_are_finite(number: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Task.of("ice", friction=number)


def test_parameters_are_sorted() -> None:
    with pytest.raises(ValueError, match="sorted"):
        Task("ice", (("b", 1.0), ("a", 2.0)))


def test_uniform_draws_stand_on_the_grid_and_fill_the_range() -> None:
    source, rng = Uniform(-0.5, 0.5, 0.001, "m"), np.random.default_rng(0)
    draws = np.array([source.draw(rng) for _ in range(5000)])
    assert draws.min() >= -0.5 and draws.max() <= 0.5
    np.testing.assert_allclose(draws * 1000, np.round(draws * 1000), atol=1e-9)
    counts, _ = np.histogram(draws, bins=10, range=(-0.5, 0.5))
    assert counts.min() > 400 and counts.max() < 600


@pytest.mark.parametrize("arguments", [(1.0, 0.0, 0.1), (0.0, 1.0, 0.0), (0.0, 1.0, -1.0), (0.0, 1.0, 2.0)])
def test_wrong_ranges_are_refused(arguments: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="low < high"):
        Uniform(*arguments, "m")


def test_splits_share_no_task_even_on_a_coarse_grid() -> None:
    tasks = space()
    held_out = set(tasks.tasks("validation")) | set(tasks.tasks("test"))
    assert len(held_out) == 50
    drawn = set(tasks.sample("train", 3000, np.random.default_rng(0)))
    assert not drawn & held_out
    assert len(drawn) == 51  # the whole rest of the 101 values: nothing else is kept from training


def test_without_held_out_tasks_all_splits_hold_all_of_them() -> None:
    both = Family("direction", {"direction": Choice((-1.0, 1.0), "1")})
    tasks = TaskSpace("two", (both,), (both,), (both,), held_out=False)
    assert tasks.tasks("train") == tasks.tasks("validation") == tasks.tasks("test")
    assert {task["direction"] for task in tasks.tasks("test")} == {-1.0, 1.0}
    assert len(set(tasks.sample("test", 50, np.random.default_rng(0)))) == 2


def test_lists_are_frozen_and_samples_follow_the_generator() -> None:
    assert space().tasks("test") == space().tasks("test")
    assert space().tasks("test") != space(id="other").tasks("test")
    one, two = (space().sample("train", 10, np.random.default_rng(7)) for _ in range(2))
    assert one == two != space().sample("train", 10, np.random.default_rng(8))


def test_held_out_samples_are_of_the_list_without_repetition() -> None:
    tasks = space()
    drawn = tasks.sample("test", 30, np.random.default_rng(0))
    assert set(drawn) == set(tasks.tasks("test")) and len(set(drawn)) == 30
    with pytest.raises(ValueError, match="30 test tasks; 31"):
        tasks.sample("test", 31, np.random.default_rng(0))


def test_families_take_turns_in_a_list() -> None:
    other = Family("slope", {"angle": Uniform(0.0, 10.0, 0.01, "deg")})
    listed = space(test=(COARSE, other)).tasks("test")
    assert [task.family for task in listed[:4]] == ["goal", "slope", "goal", "slope"]


def test_wrong_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="-1 tasks"):
        space().sample("train", -1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="outside the"):
        space(split_sizes=(20, 50, 51)).sample("train", 1, np.random.default_rng(0))


def test_a_seed_is_no_generator() -> None:
    """In a process of its own: here beartype would refuse it first, with a message of its own."""
    code = """
from metarl.tasks import *
goals = (Family("goal", {"x": Uniform(0.0, 1.0, 0.01, "m")}),)
for split in SPLITS:
    try:
        TaskSpace("s", goals, goals, goals, split_sizes=(5, 5, 5)).sample(split, 3, 0)
    except TypeError as error:
        print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    line = "sample needs a numpy.random.Generator, such as np.random.default_rng(0); got 0"
    assert result.stdout.splitlines() == [line] * 3


def test_constraints_hold_for_every_task() -> None:
    square = {name: Uniform(-1.0, 1.0, 0.01, "m") for name in ("x", "y", "u", "v")}
    far, above = MinDistance(("x", "y"), ("u", 0.5), 0.4, "m"), LinearInequality((("x", 2.0), ("v", -1.0)), 0.3, "m")
    family, rng = Family("goal", square, (far, above)), np.random.default_rng(0)
    drawn = [family.draw(rng) for _ in range(2000)]
    x, y, u, v = np.array([[task.number(name) for name in "xyuv"] for task in drawn]).T
    assert 0.4 <= np.hypot(x - u, y - 0.5).min() < 0.43
    assert 0.3 - 1e-12 <= (2 * x - v).min() < 0.33
    with pytest.raises(ValueError, match=r"no task of family 'goal' fulfils .*LinearInequality.* in 1000 draws"):
        Family("goal", square, (LinearInequality((("x", 1.0),), 1.5, "m"),)).draw(rng)


def test_constraints_are_part_of_the_spec() -> None:
    bounds = [LinearInequality((("x", 1.0),), minimum, "m") for minimum in (0.2, 0.3)]
    families = [dataclasses.replace(COARSE, constraints=constraints) for constraints in ((), *((b,) for b in bounds))]
    assert len({content_hash(space(train=(family,)).spec()) for family in families}) == 3
    assert families[1].spec()["constraints"] == [
        {"kind": "LinearInequality", "weights": [["x", 1.0]], "minimum": 0.2, "unit": "m"}
    ]


def test_texts_and_numbers_are_listed_together() -> None:
    both = Family("robot", {"body": Choice(("ant", "walker"), "name"), "legs": Choice((2, "many", True), "count")})
    tasks = TaskSpace("robots", (both,), (both,), (both,), held_out=False).tasks("test")
    assert [(task["body"], task["legs"]) for task in tasks] == [
        (body, legs) for body in ("ant", "walker") for legs in (True, 2, "many")
    ]


def test_variants_share_their_lists() -> None:
    one, other = space(id="a", list_seed_id="shared"), space(id="b", list_seed_id="shared")
    assert all(one.tasks(split) == other.tasks(split) for split in SPLITS)
    assert one.tasks("test") != space(id="a").tasks("test")
    assert one.spec()["list_seed_id"] == "shared"


def test_a_fixed_training_list_is_all_there_is() -> None:
    fixed = space(fixed_training_list=True)
    drawn = fixed.sample("train", 60, np.random.default_rng(0))
    assert {drawn.count(task) for task in fixed.tasks("train")} == {3}
    assert set(drawn) == set(fixed.tasks("train"))
    assert content_hash(fixed.spec()) != content_hash(space().spec())


def test_the_spec_decides_the_hash() -> None:
    base = content_hash(space().spec())
    assert base == content_hash(space().spec())
    wider = Family("goal", {"x": Uniform(0.0, 2.0, 0.01, "m")})
    for split in SPLITS:
        assert content_hash(space(**{split: (wider,)}).spec()) != base
    assert content_hash(space(split_sizes=(20, 20, 31)).spec()) != base


def test_families_and_few_tasks_take_turns_in_random_order() -> None:
    other = Family("slope", {"angle": Uniform(0.0, 10.0, 0.01, "deg")})
    rng = np.random.default_rng(0)
    drawn = [space(train=(COARSE, other)).sample("train", 5, rng) for _ in range(40)]
    counts = [sum(task.family == "slope" for task in batch) for batch in drawn]
    assert set(counts) == {2, 3}
    assert {batch[0].family for batch in drawn} == {"goal", "slope"}
    both = Family("direction", {"direction": Choice((-1.0, 1.0), "1")})
    two = TaskSpace("two", (both,), (both,), (both,), held_out=False)
    directions = [[task.number("direction") for task in two.sample("train", 8, rng)] for _ in range(20)]
    assert all(sum(batch) == 0 for batch in directions)
    assert len({tuple(batch) for batch in directions}) > 5
