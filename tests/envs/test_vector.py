"""The vector environment on simulators of every kind of space, and on simulators that do not keep their contract."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple
from gymnasium.vector.utils import create_empty_array
from jaxtyping import Bool, Shaped
from numpy import ndarray

from metarl.envs import Outcome, SimulatorError, TaskVectorEnv
from metarl.envs.observations import Observations
from metarl.tasks import Task

TASK, OTHER = Task.of("count", offset=0.0), Task.of("count", offset=5.0)
Fill = Callable[[Observations, ndarray], object]
Step = tuple[Observations, ndarray, ndarray, ndarray, dict[str, ndarray]]
ACTION = Box(-1.0, 1.0, (1,))
NUMBER = Box(-np.inf, np.inf, (2,), np.float64)
NESTED = Dict(
    {
        "body": Tuple((Box(-9, 9, (2,), np.float32), Discrete(50, start=3))),
        "bits": MultiBinary(2),
        "numbers": MultiDiscrete([60, 70], start=[1, 2]),
        "picture": Box(0, 255, (2, 2, 3), np.uint8),
    }
)


def fill_number(out: Observations, counts: ndarray) -> None:
    out[:] = counts[:, None] + [0.0, 0.5]


def fill_nested(out: Observations, counts: ndarray) -> None:
    out["body"][0][:] = counts[:, None]
    out["body"][1][:] = counts + 3
    out["bits"][:] = counts[:, None] % 2
    out["numbers"][:] = counts[:, None] + [1, 2]
    out["picture"][:] = counts[:, None, None, None]


class Counter:
    """Counts its steps, from the task's offset on; terminates at 8."""

    def __init__(
        self,
        num_envs: int = 3,
        observation_space: gym.Space[Any] = NUMBER,
        action_space: gym.Space[Any] = ACTION,
        fill: Fill = fill_number,
        spoil: Callable[[Outcome], Outcome] = lambda outcome: outcome,
    ) -> None:
        self.num_envs = num_envs
        self.observation_space = observation_space
        self.action_space = action_space
        self.fill = fill
        self.spoil = spoil
        self.counts = np.zeros(num_envs, np.int64)
        self.offsets = np.zeros(num_envs, np.int64)
        self.calls: list[tuple[str, int]] = []
        self.taken: list[ndarray] = []

    def set_task(self, index: int, task: Task) -> None:
        self.calls.append(("set_task", index))
        self.offsets[index] = int(task["offset"])
        if self.offsets[index] < 0:
            raise ValueError("no negative offsets")

    def reset(self, index: int, rng: np.random.Generator) -> None:
        self.calls.append(("reset", index))
        self.counts[index] = self.offsets[index]

    def step(self, actions: Shaped[ndarray, "env *action"], active: Bool[ndarray, " env"]) -> Outcome:
        self.taken.append(actions.copy())
        self.counts[active] += 1
        never = np.zeros(self.num_envs, bool)
        return self.spoil(Outcome(self.counts * 1.0, self.counts >= 8, never, {"success": self.counts > 6}))

    def observe(self, out: Observations) -> None:
        return cast(Any, self.fill(out, self.counts))

    def render(self, index: int, width: int, height: int) -> ndarray:
        return np.zeros((height, width, 3), np.uint8)

    def close(self) -> None:
        """Holds nothing."""


def playing(simulator: Counter, horizon: int | None = 4) -> TaskVectorEnv:
    return TaskVectorEnv(simulator, horizon, {"count": frozenset({"offset"})}, [TASK] * simulator.num_envs)


def act(venv: TaskVectorEnv) -> ndarray:
    return np.zeros((venv.num_envs, 1), np.float32)


def played(venv: TaskVectorEnv, steps: int) -> Step:
    """The last of so many steps."""
    return [venv.step(act(venv)) for _ in range(steps)][-1]


# Spaces


def test_nested_observations_come_as_gymnasium_batches_them_and_stay_where_an_episode_ends() -> None:
    venv = playing(Counter(observation_space=NESTED, fill=fill_nested), horizon=4)
    venv.set_tasks([TASK, OTHER, TASK])
    first, _ = venv.reset(seed=0)
    copies = create_empty_array(NESTED, 3)
    fill_nested(copies, np.array([0, 5, 0]))
    np.testing.assert_equal(first, copies)
    assert venv.observation_space.contains(first)
    observations, rewards, terminated, truncated, infos = played(venv, 5)
    fill_nested(copies, np.array([4, 8, 4]))  # the one terminated at 8, the others were truncated after 4 steps
    np.testing.assert_equal(observations, copies)
    assert (terminated.tolist(), truncated.tolist()) == ([False, True, False], [True, False, True])
    assert rewards.tolist() == infos["success"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_a_number_that_is_not_finite_ends_one_episode_with_its_last_good_observation(kind: type) -> None:
    space = Dict({"a": Box(-np.inf, np.inf, (), kind), "b": Discrete(9)})

    def fill(out: Observations, counts: ndarray) -> None:
        out["a"][:] = np.where((counts == 2) & (np.arange(3) == 1), np.nan, counts)
        out["b"][:] = counts

    venv = playing(Counter(observation_space=space, fill=fill))
    venv.reset(seed=0)
    observations, rewards, terminated, truncated, infos = played(venv, 3)
    assert observations["a"].tolist() == observations["b"].tolist() == [3, 1, 3]
    assert terminated.tolist() == infos["diverged"].tolist() == [False, True, False]
    assert rewards.tolist() == [3, 0, 3]
    assert not truncated.any()


def test_discrete_actions_are_integers_within_their_range() -> None:
    simulator = Counter(action_space=Discrete(3, start=2))
    venv = playing(simulator, horizon=2)
    venv.reset(seed=0)
    venv.step(np.array([2, 3, 4]))
    for wrong, message in (
        (np.array([2, 3, 5]), "action 5 of sub-environment 2 is outside of 2 to 4"),
        (np.array([2, 0, 4]), "action 0 of sub-environment 1 is outside of 2 to 4"),
        (np.array([2.0, 3.0, 4.0]), "must be integers from 2 to 4, got float64"),
        (np.array([[2], [3], [4]]), r"must have the shape \(3,\) \[env\], got \(3, 1\)"),
    ):
        with pytest.raises(ValueError, match=message):
            venv.step(wrong)
    assert len(simulator.taken) == 1
    venv.step(np.array([2, 3, 4]))
    venv.step(np.array([0, 99, 4]))  # all have ended: whatever comes is not taken
    assert simulator.taken[-1].tolist() == [2, 2, 4]


def test_simulators_never_meet_a_nan() -> None:
    simulator = Counter()
    venv = playing(simulator)
    venv.reset(seed=0)
    actions = np.array([[0.5], [np.nan], [np.inf]], np.float32)
    venv.step(actions)
    assert simulator.taken[0].tolist() == [[0.5], [0], [0]]
    assert simulator.taken[0].dtype == np.float32
    with pytest.raises(ValueError, match="must be real numbers, got bool"):
        venv.step(actions > 0)


def test_other_spaces_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got Text in \['words'\]"):
        playing(Counter(observation_space=Dict({"words": Text(5)})))
    with pytest.raises(ValueError, match="actions can be Box or Discrete, got MultiBinary"):
        playing(Counter(action_space=MultiBinary(2)))


# Simulators that do not keep their contract


def returns_it(out: Observations, counts: ndarray) -> ndarray:
    return np.stack([counts, counts], 1)


def half_of_it(out: Observations, counts: ndarray) -> None:
    out[:, 0] = counts


def puts_another_in_place(out: Observations, counts: ndarray) -> None:
    fill_nested(out, counts)
    out["bits"] = np.zeros((3, 2), np.int8)


def takes_one_out(out: Observations, counts: ndarray) -> None:
    fill_nested(out, counts)
    del out["picture"]


def forgets_a_number(out: Observations, counts: ndarray) -> None:
    fill_nested(out, counts)
    out["body"][1][1] = 99


@pytest.mark.parametrize(
    ("space", "fill", "message"),
    [
        (NUMBER, returns_it, "Counter.observe must fill `out` and return nothing, it returned ndarray"),
        (NUMBER, half_of_it, r"Counter.observe: out\[0, 1\] = nan was left unwritten"),
        (NUMBER, lambda out, counts: None, r"out\[0, 0\] = nan was left unwritten"),
        (NESTED, puts_another_in_place, r"another array in place of out\['bits'\]; write out\['bits'\]\[:\] ="),
        (NESTED, takes_one_out, "took an entry out of `out`: 'picture'"),
        (NESTED, forgets_a_number, r"out\['body'\]\[1\]\[1\] = 99 was left unwritten, or is outside"),
        (Discrete(5), lambda out, counts: None, r"out\[0\] = -1 was left unwritten"),
        (Discrete(5, start=-3), lambda out, counts: None, r"out\[0\] = -4 was left unwritten"),
        (MultiBinary(2), lambda out, counts: None, r"out\[0, 0\] = -1 was left unwritten"),
        (MultiDiscrete([3, 2]), lambda out, counts: None, r"out\[0, 0\] = -1 was left unwritten"),
        (Box(0, 200, (2,), np.uint8), lambda out, counts: None, r"out\[0, 0\] = 201 was left unwritten"),
        (Box(-128, 127, (2,), np.int8), lambda out, counts: None, None),  # any value could have been written
    ],
)
def test_observations_that_are_not_written_are_an_error(space: gym.Space[Any], fill: Fill, message: str | None) -> None:
    venv = playing(Counter(observation_space=space, fill=fill))
    if message is None:
        assert not venv.reset(seed=0)[0].any()  # but at least not what happened to be in memory
        return
    with pytest.raises(SimulatorError, match=message):
        venv.reset(seed=0)


def test_a_first_observation_that_is_not_finite_is_an_error() -> None:
    venv = playing(Counter(fill=lambda out, counts: np.copyto(out, np.inf)))
    with pytest.raises(SimulatorError, match=r"Counter: the first observation .* 0 on count\(offset=0\) is not finite"):
        venv.reset(seed=0)


def spoiled(**arrays: object) -> Callable[[Outcome], Outcome]:
    """The outcome with other arrays; past the checks of annotations that the tests switch on."""

    def spoil(outcome: Outcome) -> Outcome:
        other = object.__new__(Outcome)
        for field in dataclasses.fields(Outcome):
            object.__setattr__(other, field.name, arrays.get(field.name, getattr(outcome, field.name)))
        return other

    return spoil


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"rewards": np.zeros((3, 1))},
            r"rewards must be an array of floats of shape \(3,\).*float64 of shape \(3, 1\)",
        ),
        ({"rewards": np.zeros(3, np.int64)}, "rewards must be an array of floats"),
        ({"rewards": [0.0, 0.0, 0.0]}, "rewards must be .*; got list"),
        ({"terminated": np.zeros(3)}, "terminated must be an array of bool"),
        ({"terminated": np.zeros(2, bool)}, "terminated must be"),
        ({"diverged": np.zeros((), bool)}, "diverged must be"),
        ({"terms": {"success": np.zeros(4)}}, "success must be an array of numbers"),
        ({"terms": {"diverged": np.zeros(3)}}, "a term must not be called 'diverged'"),
    ],
)
def test_outcomes_of_another_shape_or_type_are_an_error(arrays: dict[str, object], message: str) -> None:
    venv = playing(Counter(spoil=spoiled(**arrays)))
    venv.reset(seed=0)
    with pytest.raises(SimulatorError, match=f"Counter.step: {message}"):
        venv.step(act(venv))


# Starting episodes


def test_starting_episodes_leaves_the_others_alone() -> None:
    simulator = Counter(num_envs=4)
    venv = playing(simulator, horizon=3)
    observations, _ = venv.start_episodes([OTHER, TASK], [7, 8])
    assert simulator.calls == [("set_task", 0), ("reset", 0), ("set_task", 1), ("reset", 1)]
    assert observations[:, 0].tolist() == [5, 0, 0, 0]
    venv.step(act(venv))
    simulator.calls.clear()
    venv.start_episodes([OTHER], [7])
    assert simulator.calls == [("reset", 0)]
    for step, terminates in enumerate((False, False, True), 1):
        observations, rewards, terminated, truncated, _ = venv.step(act(venv))
        assert rewards.tolist() == [5 + step, 0, 0, 0]
        assert observations[:, 0].tolist() == [5 + step, 1, 0, 0]
        assert truncated.tolist() == [False, True, True, True]
        assert terminated.tolist() == [terminates, False, False, False]
    venv.reset(seed=0)  # all of them, with the tasks that they have
    assert venv.step(act(venv))[1].tolist() == [6, 1, 1, 1]
    for tasks, seeds in (([TASK] * 5, [0] * 5), ([TASK] * 2, [0])):
        with pytest.raises(ValueError, match=f"at most 4 tasks and a seed for each, got {len(tasks)} and {len(seeds)}"):
            venv.start_episodes(tasks, seeds)


def test_a_task_that_could_not_be_set_leaves_nothing_behind() -> None:
    simulator = Counter()
    venv = playing(simulator)
    venv.reset(seed=0)
    venv.set_tasks([Task.of("count", offset=-1.0), TASK, TASK])
    with pytest.raises(ValueError, match="no negative"):
        venv.reset(seed=0)
    venv.set_tasks([TASK] * 3)
    simulator.calls.clear()
    venv.reset(seed=0)
    assert ("set_task", 0) in simulator.calls
    assert venv.step(act(venv))[1].tolist() == [1, 1, 1]


def test_without_a_horizon_nothing_is_truncated() -> None:
    venv = playing(Counter(), horizon=None)
    venv.reset(seed=0)
    for _ in range(7):
        *_, terminated, truncated, _ = venv.step(act(venv))
        assert not terminated.any() and not truncated.any()


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_must_make_its_own() -> None:
    venv = playing(Counter())
    venv.reset(seed=0)
    child = os.fork()
    if not child:  # nothing of pytest may run here
        try:
            venv.step(act(venv))
        except RuntimeError as error:
            os._exit(0 if "make it anew there, after the fork" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    venv.step(act(venv))
