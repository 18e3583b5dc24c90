"""Gradients that workers compute for parts of the tasks are those of one process, bit for bit."""

import dataclasses
import functools
import itertools
import operator
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from metarl.agents import MamlTrpoConfig
from metarl.agents.maml import MamlTrpo
from metarl.agents.maml_objective import Point
from metarl.cluster.collector import ClusterCollectors
from metarl.cluster.dispatch import Dispatcher
from metarl.cluster.worker import Answers, AnyShare, HeldParts, PartsShare, Player, Result
from metarl.errors import WorkerLostError
from metarl.learning.protocols import Metrics, State
from metarl.learning.sharding import InTurn, PartExecutor, PartWorkers, ShardableLearner
from tests.agents.toys import Toy, box
from tests.agents.worlds import collect

WORLD = Toy(box(2), ragged=True)


class Remote:
    """Workers of another process, as far as these know: all that they are given and give is pickled. The last answer
    first.
    """

    def __init__(self, lose: Sequence[int] = ()) -> None:
        self._numbers, self._lose = itertools.count(), lose
        self.asked, self.sent = 0, list[str]()

    def start(self) -> tuple[Player, tuple[int, Any]]:
        return Player(1), (next(self._numbers), None)

    def play(self, worker: Player, share: AnyShare) -> tuple[int, Any]:
        assert isinstance(share, PartsShare)
        function = pickle.loads(pickle.dumps(share.function))
        self.asked += 1
        if self.asked in self._lose:
            return next(self._numbers), None

        def load() -> HeldParts:
            self.sent.append(share.held.token)
            return pickle.loads(pickle.dumps(share.held))

        return next(self._numbers), lambda: pickle.loads(pickle.dumps(worker.compute(share.held.token, load, function)))

    def wait(self, answers: Sequence[Any], seconds: float) -> Sequence[Any]:
        return answers[::-1]

    def first(self, answer: Any) -> None: ...

    def result(self, answer: tuple[int, Callable[[], Answers] | None]) -> Answers:
        if answer[1] is None:
            raise WorkerLostError("it was killed")
        return answer[1]()

    def stop(self, worker: Player) -> None: ...

    def lacking(self) -> str:
        return ""


def executor(workers: Remote, count: int) -> PartExecutor:
    collectors = ClusterCollectors(Dispatcher[AnyShare, Result, Player, Any](workers, count))
    assert isinstance(collectors, PartWorkers)
    return collectors.executor


def learner(parts: int, **options: Any) -> MamlTrpo:
    small = {"hidden": (8,), "meta_batch": 5, "episodes_per_adaptation": 4, "cg_iterations": 4}
    config = MamlTrpoConfig(**small, gradient_parts=parts, **options)
    return config.build(WORLD.spaces)


def outer_step(agent: MamlTrpo, parts_by: PartExecutor | None = None) -> tuple[State, Metrics]:
    state = agent.init(0)
    trials = collect(agent, state, WORLD)
    by = agent if parts_by is None else agent.with_executor(parts_by)
    return by.meta_step(state, trials, np.random.default_rng(0))


def need_same(one: tuple[State, Metrics], other: tuple[State, Metrics]) -> None:
    assert one[1] == other[1] and int(one[1]["accepted"]) == 1
    for name, value in one[0].parameters.items():
        assert torch.equal(value, other[0].parameters[name]), name


def test_answers_are_in_the_order_of_the_parts_and_parts_are_sent_once() -> None:
    workers = Remote()
    by, parts = executor(workers, 3), [10, 20, 30, 40, 50]
    for term in (1, 2):
        assert by.map(functools.partial(operator.add, term), parts) == [part + term for part in parts]
    assert len(workers.sent) == len(set(workers.sent)) == 3
    assert by.map(functools.partial(operator.add, 1), [7]) == [8]
    assert len(workers.sent) == 4
    assert InTurn().map(functools.partial(operator.add, 1), parts) == [11, 21, 31, 41, 51]


@pytest.mark.parametrize(
    ("count", "options"), [(1, {}), (8, {}), (2, {"normalise_observations": True, "inner_steps": 2})]
)
def test_an_outer_step_on_workers_is_that_of_one_process(count: int, options: dict[str, Any]) -> None:
    agent, workers = learner(3, **options), Remote()
    assert isinstance(agent, ShardableLearner)
    need_same(outer_step(agent), outer_step(agent, executor(workers, count)))
    assert len(workers.sent) == min(count, 3)
    assert workers.asked > 6 * min(count, 3)  # a gradient, conjugate gradients, a line search


def test_lost_workers_are_sent_their_parts_again(capsys: pytest.CaptureFixture[str]) -> None:
    agent, workers = learner(3), Remote(lose=(2, 9, 20))
    need_same(outer_step(agent), outer_step(agent, executor(workers, 3)))
    assert len(workers.sent) > 3 and "its share is played again" in capsys.readouterr().err


def test_a_part_that_is_asked_at_another_point_forgets_the_last() -> None:
    agent = learner(2, normalise_observations=True)
    state = agent.init(0)
    trials = collect(agent, state, WORLD)
    objective = agent.objective(state.parameters, trials, np.random.default_rng(0))
    x = torch.cat([value.flatten() for value in agent.adaptation.learned(state.parameters).values()])
    statistics = agent.adaptation.statistics(state.parameters)
    assert statistics is not None
    points = [Point(x, statistics), Point(1.1 * x, statistics), Point(x, statistics._replace(mean=statistics.mean + 1))]
    vector = torch.linspace(-1, 1, len(x))
    found = [objective.product(point, vector, 0.0) for point in (*points, *points)]
    for first, again in zip(found[:3], found[3:], strict=True):
        assert torch.equal(first, again)
    assert not torch.allclose(found[0], found[1]) and not torch.allclose(found[0], found[2])


def test_parts_change_an_outer_step_by_rounding_alone() -> None:
    (one, figures), *others = (outer_step(learner(parts)) for parts in (1, 2, 5))
    for other, found in others:
        assert found["kl"] == pytest.approx(figures["kl"], rel=1e-3)
        for name, value in one.parameters.items():
            torch.testing.assert_close(other.parameters[name], value, rtol=1e-3, atol=1e-4)


def test_one_part_is_computed_here() -> None:
    agent = learner(1)
    assert agent.with_executor(executor(Remote(), 3)) is agent
    with pytest.raises(ValueError, match="gradient_parts"):
        dataclasses.replace(agent.config, gradient_parts=0)
