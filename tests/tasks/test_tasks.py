"""Tasks are values; splits share none."""

import dataclasses
import json
import pickle
from typing import Any

import numpy as np
import pytest

from metarl.tasks import SPLITS, Choice, Family, Task, TaskSpace, Uniform, content_hash

COARSE = Family("goal", {"x": Uniform(0.0, 1.0, 0.01, "m")})


def space(**changes: Any) -> TaskSpace:
    return dataclasses.replace(TaskSpace("test-space", (COARSE,), (COARSE,), (COARSE,), listed=(20, 20, 30)), **changes)


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
        {"family": "ice", "parameters": {"friction": "low"}},
        {"family": "ice", "parameters": {"friction": True}},
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
        space(listed=(20, 50, 51)).sample("train", 1, np.random.default_rng(0))


def test_the_spec_decides_the_hash() -> None:
    base = content_hash(space().spec())
    assert base == content_hash(space().spec())
    wider = Family("goal", {"x": Uniform(0.0, 2.0, 0.01, "m")})
    for split in SPLITS:
        assert content_hash(space(**{split: (wider,)}).spec()) != base
    assert content_hash(space(listed=(20, 20, 31)).spec()) != base


def test_families_and_few_tasks_take_turns_in_random_order() -> None:
    other = Family("slope", {"angle": Uniform(0.0, 10.0, 0.01, "deg")})
    rng = np.random.default_rng(0)
    drawn = [space(train=(COARSE, other)).sample("train", 5, rng) for _ in range(40)]
    counts = [sum(task.family == "slope" for task in batch) for batch in drawn]
    assert set(counts) == {2, 3}
    assert {batch[0].family for batch in drawn} == {"goal", "slope"}
    both = Family("direction", {"direction": Choice((-1.0, 1.0), "1")})
    two = TaskSpace("two", (both,), (both,), (both,), held_out=False)
    directions = [[task["direction"] for task in two.sample("train", 8, rng)] for _ in range(20)]
    assert all(sum(batch) == 0 for batch in directions)
    assert len({tuple(batch) for batch in directions}) > 5
