"""Who plays which share: shares are handed to workers, and again where a worker was lost or is slow.

A share's result depends on the share alone. So it does not matter who plays it, how often, or whose answer comes first:
results are put in the order of the shares, never in that of their arrival.
"""

import dataclasses
import statistics
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, Protocol, TypeVar, final, runtime_checkable

from metarl.errors import RunError, WorkerLostError, warn

Share = TypeVar("Share")
Share_contra = TypeVar("Share_contra", contravariant=True)
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)
Worker = TypeVar("Worker")
Answer = TypeVar("Answer", bound=Hashable)
_POLL = 0.2  # s between two looks at whether somebody asked to stop


@runtime_checkable
class Workers(Protocol[Share_contra, Result_co, Worker, Answer]):
    """Where workers come from, and how one talks to them. No call waits, but for `wait`."""

    def start(self) -> tuple[Worker, Answer]:
        """A worker that is starting, and its first answer: whether it is fit for the work."""
        ...

    def play(self, worker: Worker, share: Share_contra) -> Answer:
        """Hands over a share."""
        ...

    def wait(self, answers: Sequence[Answer], seconds: float) -> Sequence[Answer]:
        """Those that have come, once there is one or the time is over."""
        ...

    def first(self, answer: Answer) -> None:
        """Takes a first answer.

        Raises:
            WorkerLostError: the worker was lost instead.
            RunError: it is not fit, and no other one of its kind will be.
        """
        ...

    def result(self, answer: Answer) -> Result_co:
        """Takes a share's result.

        Raises:
            WorkerLostError: the worker was lost instead; and whatever else went wrong with the share itself.
        """
        ...

    def stop(self, worker: Worker) -> None:
        """Ends a worker, whatever it is doing."""
        ...

    def lacking(self) -> str:
        """Why workers may not start, for a message."""
        ...


@final
@dataclasses.dataclass(frozen=True)
class Patience:
    """When a worker is given up."""

    straggler: float = 10.0
    """Least time in which a share may be played before an idle worker is handed it as well, s …"""
    factor: float = 3.0
    """… and how many times the median of the shares played so far it may take."""
    silence: float = 900.0
    """Time after which a worker that has not answered is ended and another one started, s."""
    start: float = 300.0
    """Time in which the first of the workers must have started, s."""
    losses: int = 4
    """How often one share, or a worker's start, may be lost before the work is given up."""


PATIENCE = Patience()


@final
@dataclasses.dataclass
class _Slot(Generic[Worker, Answer]):
    """A worker and what it is doing."""

    worker: Worker
    answer: Answer | None
    """What it still owes; None while it is idle."""
    since: float
    """When that was asked for, s."""
    ready: bool = False
    """Its first answer was taken."""
    share: int | None = None
    """The number of the share it plays; None where nobody waits for its answer any more."""


@final
class Dispatcher(Generic[Share, Result, Worker, Answer]):
    """Plays shares on a number of workers, which are started when they are first needed.

    Args:
        workers: where they come from.
        count: how many.
        patience: when one is given up.
        interruption_point: called several times a second while there is work; what it raises leaves the work undone.
        clock: s.
    """

    def __init__(
        self,
        workers: Workers[Share, Result, Worker, Answer],
        count: int,
        patience: Patience = PATIENCE,
        interruption_point: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._workers, self._count, self._patience = workers, count, patience
        self._interruption_point, self._clock = interruption_point, clock
        self._slots: list[_Slot[Worker, Answer]] = []
        self._lost_starts = 0
        self._told = False

    @property
    def count(self) -> int:
        """How many workers there are to be."""
        return self._count

    def play(self, shares: Sequence[Share]) -> list[Result]:
        """The shares' results, in the order of the shares.

        Raises:
            RunError: a share was lost again and again, no worker starts, or one is not fit.
        """
        for slot in self._slots:
            slot.share = None  # of work that was left undone
        while len(self._slots) < self._count:
            self._slots.append(self._started())
        results: dict[int, Result] = {}
        waiting, losses = deque(range(len(shares))), [0] * len(shares)
        seconds: list[float] = []
        while len(results) < len(shares):
            self._interruption_point()
            self._hand_out(shares, waiting, seconds)
            owed = {slot.answer: slot for slot in self._slots if slot.answer is not None}
            for answer in self._workers.wait(tuple(owed), _POLL):
                lost = self._take(owed[answer], answer, results, seconds)
                self._again(lost, waiting, losses, results)
            for slot in self._silent():
                lost = self._replace(slot, "it did not answer for too long")
                self._again(lost, waiting, losses, results)
        return [results[share] for share in range(len(shares))]

    def close(self) -> None:
        """Ends all workers; the next shares start new ones."""
        for slot in self._slots:
            self._workers.stop(slot.worker)
        self._slots.clear()

    def _started(self) -> _Slot[Worker, Answer]:
        worker, answer = self._workers.start()
        return _Slot(worker, answer, self._clock())

    def _hand_out(self, shares: Sequence[Share], waiting: deque[int], seconds: list[float]) -> None:
        """Gives every idle worker a share that waits, or else the one that is overdue for longest."""
        for slot in self._slots:
            if not slot.ready or slot.answer is not None:
                continue
            share = waiting.popleft() if waiting else self._overdue(seconds)
            if share is None:
                return
            slot.answer, slot.share = self._workers.play(slot.worker, shares[share]), share
            slot.since = self._clock()

    def _overdue(self, seconds: list[float]) -> int | None:
        """The share that one worker alone has been playing for too long; None before any has been played."""
        if not seconds:
            return None
        deadline = max(self._patience.straggler, self._patience.factor * statistics.median(seconds))
        playing = [slot for slot in self._slots if slot.share is not None]
        alone = [slot for slot in playing if sum(other.share == slot.share for other in playing) == 1]
        late = [slot for slot in alone if self._clock() - slot.since > deadline]
        return min(late, key=lambda slot: slot.since).share if late else None

    def _take(
        self, slot: _Slot[Worker, Answer], answer: Answer, results: dict[int, Result], seconds: list[float]
    ) -> tuple[int | None, str]:
        """Takes an answer; the share that was lost if it was, and why."""
        share, took = slot.share, self._clock() - slot.since
        try:
            if not slot.ready:
                self._workers.first(answer)
                slot.ready, self._lost_starts = True, 0
            else:
                result = self._workers.result(answer)
                if share is not None:
                    results.setdefault(share, result)
                    seconds.append(took)
        except WorkerLostError as error:
            return self._replace(slot, str(error))
        except Exception:
            if share is not None or not slot.ready:
                raise  # else another worker's answer was taken, or the work left undone: nobody waits for this share
        slot.answer = slot.share = None
        for other in self._slots:
            if share is not None and other.share == share:
                other.share = None  # it was slower: its answer is not waited for
        return None, ""

    def _replace(self, slot: _Slot[Worker, Answer], reason: str) -> tuple[int | None, str]:
        """Starts another worker in the place of one; the share that was lost with it, and why.

        Raises:
            RunError: workers have been lost while starting again and again.
        """
        if not slot.ready:
            self._lost_starts += 1
            if self._lost_starts > self._patience.losses:
                raise RunError(f"{self._lost_starts} workers in a row were lost while they started; the last: {reason}")
        self._workers.stop(slot.worker)
        lost = slot.share
        worker, answer = self._workers.start()
        slot.worker, slot.answer, slot.since, slot.ready, slot.share = worker, answer, self._clock(), False, None
        return lost, reason

    def _again(
        self, lost: tuple[int | None, str], waiting: deque[int], losses: list[int], results: dict[int, Result]
    ) -> None:
        """Lets a share that was lost wait once more, before all others.

        Raises:
            RunError: it was lost too often.
        """
        share, reason = lost
        if share is None or share in results or any(slot.share == share for slot in self._slots):
            return
        losses[share] += 1
        if losses[share] > self._patience.losses:
            raise RunError(
                f"share {share + 1} of {len(losses)} was lost with its worker {losses[share]} times: it may be what "
                f"ends them; the last: {reason}"
            )
        warn(f"a worker was lost ({reason}); its share is played again by another")
        waiting.appendleft(share)

    def _silent(self) -> list[_Slot[Worker, Answer]]:
        """Workers that have owed an answer for too long.

        Raises:
            RunError: none has started in time.
        """
        now = self._clock()
        starting = [slot for slot in self._slots if not slot.ready and now - slot.since > self._patience.start]
        if len(starting) == len(self._slots):
            raise RunError(
                f"none of {self._count} workers has started within {self._patience.start:g} s: "
                f"{self._workers.lacking()}"
            )
        if starting and not self._told:
            self._told = True
            warn(f"{len(starting)} of {self._count} workers have not started: {self._workers.lacking()}")
        return [slot for slot in self._slots if slot.ready and slot.answer is not None and self._overslept(slot, now)]

    def _overslept(self, slot: _Slot[Worker, Answer], now: float) -> bool:
        return now - slot.since > self._patience.silence
