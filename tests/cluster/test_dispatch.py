"""Shares come back whole and in order, whoever is lost, slow or late: on workers whose faults a script decides."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import pytest

from metarl.cluster.dispatch import Dispatcher, Patience
from metarl.errors import RunError, WorkerLostError

NEVER = float("inf")


@dataclasses.dataclass
class Scripted:
    """Workers in a time of their own: worker n takes `speed(n)` for a share and `start(n)` to start; inf is never.

    `faults` are raised instead of the answers of (worker, its how-manieth call); a start is its call 0.
    """

    speed: Callable[[int], float] = lambda worker: 1.0
    starting: Callable[[int], float] = lambda worker: 0.0
    faults: dict[tuple[int, int], Exception] = dataclasses.field(default_factory=dict)
    now: float = 0.0
    played: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    stopped: list[int] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self._numbers, self._answers = itertools.count(), itertools.count()
        self._calls: dict[int, int] = {}
        self._due: dict[int, tuple[float, int, int, int]] = {}

    def _ask(self, worker: int, seconds: float, share: int) -> int:
        answer, call = next(self._answers), self._calls.get(worker, 0)
        self._calls[worker] = call + 1
        self._due[answer] = (self.now + seconds, worker, call, share)
        return answer

    def start(self) -> tuple[int, int]:
        worker = next(self._numbers)
        return worker, self._ask(worker, self.starting(worker), -1)

    def play(self, worker: int, share: int) -> int:
        self.played.append((worker, share))
        return self._ask(worker, self.speed(worker), share)

    def wait(self, answers: Sequence[int], seconds: float) -> Sequence[int]:
        soonest = min((self._due[answer][0] for answer in answers), default=NEVER)
        self.now = min(max(self.now, soonest), self.now + seconds)
        return [answer for answer in answers if self._due[answer][0] <= self.now]

    def _taken(self, answer: int) -> int:
        _, worker, call, share = self._due[answer]
        if (worker, call) in self.faults:
            raise self.faults[worker, call]
        return share

    def first(self, answer: int) -> None:
        self._taken(answer)

    def result(self, answer: int) -> str:
        return f"result {self._taken(answer)}"

    def stop(self, worker: int) -> None:
        self.stopped.append(worker)

    def lacking(self) -> str:
        return "there is no room"


def dispatcher(
    workers: Scripted, count: int, interruption_point: Callable[[], None] = lambda: None
) -> Dispatcher[int, str, int, int]:
    return Dispatcher(workers, count, Patience(), interruption_point, clock=lambda: workers.now)


def expected(count: int) -> list[str]:
    return [f"result {share}" for share in range(count)]


LOST = WorkerLostError("it was killed")


@pytest.mark.parametrize("count", [1, 3, 8])
def test_results_are_in_the_order_of_the_shares(count: int) -> None:
    workers = Scripted(speed=lambda worker: 5.0 - worker % 4)  # later workers answer first
    play = dispatcher(workers, count)
    for number in (1, 5, 9):
        assert play.play(range(number)) == expected(number)
    assert len(workers.played) == 15  # none of them twice


def test_a_lost_share_is_played_by_another_and_a_new_worker_takes_the_place(capsys: pytest.CaptureFixture[str]) -> None:
    workers = Scripted(faults={(0, 1): LOST, (2, 1): LOST})
    play = dispatcher(workers, 2)
    assert play.play(range(4)) == expected(4)
    assert workers.stopped == [0, 2]
    assert "its share is played again" in capsys.readouterr().err
    assert play.play(range(4)) == expected(4)


def test_a_share_that_ends_its_workers_is_given_up() -> None:
    workers = Scripted(faults={(worker, 1): WorkerLostError("out of memory") for worker in range(50)})
    with pytest.raises(RunError, match=r"share 1 of 1 was lost with its worker 5 times.*out of memory"):
        dispatcher(workers, 2).play([0])


def test_workers_that_never_start_are_given_up() -> None:
    workers = Scripted(faults={(worker, 0): LOST for worker in range(50)})
    with pytest.raises(RunError, match=r"5 workers in a row were lost while they started; the last: it was killed"):
        dispatcher(workers, 2).play([0])
    waiting = Scripted(starting=lambda worker: NEVER)
    with pytest.raises(RunError, match=r"none of 2 workers has started within 300 s: there is no room"):
        dispatcher(waiting, 2).play([0])


def test_those_that_have_started_do_the_work_of_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    workers = Scripted(starting=lambda worker: NEVER if worker else 0.0, speed=lambda worker: 200.0)
    assert dispatcher(workers, 3).play(range(3)) == expected(3)
    assert {worker for worker, _ in workers.played} == {0}
    assert capsys.readouterr().err.count("2 of 3 workers have not started: there is no room") == 1


def test_a_worker_that_is_not_fit_ends_the_work() -> None:
    workers = Scripted(faults={(1, 0): RunError("the worker on b is refused: mujoco is 3.2 there, 3.3 here")})
    with pytest.raises(RunError, match=r"on b is refused"):
        dispatcher(workers, 2).play(range(2))


def test_a_stragglers_share_is_reissued_and_its_late_answer_is_nobodys(capsys: pytest.CaptureFixture[str]) -> None:
    workers = Scripted(speed=lambda worker: 100.0 if worker == 1 else 1.0)
    play = dispatcher(workers, 3)
    assert play.play(range(3)) == expected(3)
    assert workers.played == [(0, 0), (1, 1), (2, 2), (0, 1)]
    assert 10.0 < workers.now < 13.0  # reissued after 10 s, and answered 1 s later
    assert play.play(range(3, 6)) == [f"result {share}" for share in (3, 4, 5)]
    assert (1, 4) not in workers.played  # it is still busy with its old share
    workers.now = 200.0
    assert play.play(range(6, 9)) == [f"result {share}" for share in (6, 7, 8)]
    assert capsys.readouterr().err == ""


def test_a_worker_that_never_answers_is_replaced() -> None:
    workers = Scripted(speed=lambda worker: NEVER if worker < 2 else 1.0)
    assert dispatcher(workers, 2).play(range(2)) == expected(2)
    assert workers.stopped == [0, 1]


def test_what_a_share_raises_is_raised_and_the_workers_go_on() -> None:
    workers = Scripted(faults={(0, 1): ValueError("a wrong task")})
    play = dispatcher(workers, 1)
    with pytest.raises(ValueError, match="a wrong task"):
        play.play([0])
    assert play.play([0]) == expected(1)


def test_whoever_asks_to_stop_is_heard_while_work_is_in_flight() -> None:
    workers = Scripted(speed=lambda worker: 50.0)
    asked = iter(range(10))

    def interruption_point() -> None:
        if next(asked) > 4:
            raise KeyboardInterrupt

    play = dispatcher(workers, 2, interruption_point)
    with pytest.raises(KeyboardInterrupt):
        play.play(range(2))
    assert workers.now < 2.0
    play.close()
    assert workers.stopped == [0, 1]
