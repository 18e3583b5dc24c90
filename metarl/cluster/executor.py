"""Outer steps whose gradients are computed by workers, each for parts of the tasks."""

from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar, cast, final

from metarl.cluster.dispatch import Dispatcher
from metarl.cluster.worker import Answers, AnyShare, HeldParts, PartsShare, Result
from metarl.learning.sharding import shares

Part = TypeVar("Part")
Value = TypeVar("Value")
Worker = TypeVar("Worker")
Answer = TypeVar("Answer", bound=Hashable)


@final
class ClusterExecutor(Generic[Worker, Answer]):
    """Asks workers about parts: a `PartExecutor`. What comes out is what one process would compute.

    A worker is sent its parts with the first question about them, and keeps them, and what it computed of them. Later
    questions and answers are a vector of parameters each. Which worker has which parts does not matter: one that is
    asked about others than before, in the place of a lost one, say, is sent them then.
    """

    def __init__(self, dispatcher: Dispatcher[AnyShare, Result, Worker, Answer]) -> None:
        self._dispatcher = dispatcher
        self._last: tuple[Sequence[object], list[HeldParts]] | None = None

    def map(self, function: Callable[[Part], Value], parts: Sequence[Part]) -> list[Value]:
        found = self._dispatcher.play([PartsShare(held, function) for held in self._held(parts)])
        answers = [part for part in found if isinstance(part, Answers)]
        assert len(answers) == len(found), "a worker did another thing than was asked for"
        return [cast(Value, value) for answer in answers for value in answer.values]

    def _held(self, parts: Sequence[object]) -> list[HeldParts]:
        """The parts by worker; the same objects as long as the parts are."""
        if self._last is None or self._last[0] is not parts:
            cut = shares(len(parts), self._dispatcher.count)
            self._last = parts, [HeldParts(tuple(parts[share])) for share in cut]
        return self._last[1]
