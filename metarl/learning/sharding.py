"""Parts of a batch of tasks, each of which can be played elsewhere.

A task's trial depends on its policy, the task and its seed alone. So a collection can be cut into shares in any way,
played anywhere, and put together again in the tasks' order with the same result.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar, final, runtime_checkable

from jaxtyping import Shaped
from torch import Tensor

from metarl.errors import UsageError
from metarl.learning.protocols import AdaptedPolicy, Agent

Part = TypeVar("Part")
Answer = TypeVar("Answer")


@runtime_checkable
class ShardablePolicy(AdaptedPolicy, Protocol):
    """A policy that can be divided among workers."""

    def shard(self, tasks: slice) -> AdaptedPolicy:
        """The policies of some of its tasks: each acts, observes and adapts as it does in the whole, bit for bit."""
        ...


@runtime_checkable
class PartExecutor(Protocol):
    """Who computes something of each of several parts."""

    def map(self, function: Callable[[Part], Answer], parts: Sequence[Part]) -> list[Answer]:
        """The function's value of each part, in the parts' order; the same parts are asked again and again."""
        ...


@runtime_checkable
class PartWorkers(Protocol):
    """Workers that can compute parts, beside whatever else they do."""

    @property
    def executor(self) -> PartExecutor: ...


@runtime_checkable
class ShardableLearner(Protocol):
    """A learner whose outer step asks the same of several parts of the tasks, in whichever process."""

    def with_executor(self, executor: PartExecutor) -> Agent:
        """The same learner, whose parts this executor computes: its results are the same bit for bit."""
        ...


@final
@dataclasses.dataclass(frozen=True)
class InTurn:
    """This process does, one part after the other: a `PartExecutor`."""

    def map(self, function: Callable[[Part], Answer], parts: Sequence[Part]) -> list[Answer]:
        return [function(part) for part in parts]


def rows_of(x: Shaped[Tensor, "task *rest"], tasks: slice) -> Shaped[Tensor, "shard *rest"]:
    """The rows of some tasks, without the others' numbers behind them.

    A view pickles with all of the memory that it is a view of; one value that was expanded over the tasks stays one.
    """
    rows = x[tasks]
    return rows if rows.untyped_storage().nbytes() <= rows.nbytes else rows.clone()


def shares(num_tasks: int, num_shares: int) -> tuple[slice, ...]:
    """Neighbouring tasks for each share, as many in each as in any other, or one more; no share is empty.

    >>> shares(5, 2), shares(2, 8)
    ((slice(0, 3, None), slice(3, 5, None)), (slice(0, 1, None), slice(1, 2, None)))
    """
    count = min(num_tasks, num_shares)
    least, more = divmod(num_tasks, count)
    sizes = [least + (share < more) for share in range(count)]
    ends = [sum(sizes[: share + 1]) for share in range(count)]
    return tuple(slice(end - size, end) for size, end in zip(sizes, ends, strict=True))


def need_shardable(policy: AdaptedPolicy) -> ShardablePolicy:
    """The policy, if it can be divided.

    Raises:
        UsageError: it cannot.
    """
    if not isinstance(policy, ShardablePolicy):
        name = type(policy).__name__
        raise UsageError(f"{name} cannot be divided among workers: give it a method shard(tasks: slice) -> {name}")
    return policy
