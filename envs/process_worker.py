"""What a worker process runs: `python -m metarl.envs.process_worker`, started by `process_simulator.py`.

It is told what it plays by the first message that it reads from its socket, then reads commands, and plays its share of
the sub-environments in shared memory. It ends when the process that started it does, however that ended, and whatever
it is doing itself: a thread waits for the end of a pipe, and on Linux the kernel kills it (a stopped process has no
thread that could). It imports no PyTorch.
"""

import ctypes
import mmap
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from metarl.envs.simulator import Outcome
from metarl.errors import RunError
from metarl.tasks import Task

Arrays = Mapping[str, ndarray]
"""What goes in and out of every step, by name: `actions`, `active`, …"""
Layout = Mapping[str, tuple[tuple[int, ...], Any]]
"""Shape and type of each of them."""

STEP, STEP_SINGLE, RESET, RENDER = b"s", b"f", b"r", b"p"
"""Commands, by their first byte; the rest, where there is one, is pickled."""
DONE, FAILED, TOLD = b"k", b"e", b"t"
"""Answers: a picture may follow the first, a traceback the second, an error's message for the user the third."""
_PR_SET_PDEATHSIG = 1
_ALIGNMENT = 64  # bytes


@runtime_checkable
class Shard(Protocol):
    """Some of the sub-environments, played one after the other; each is announced before."""

    def reset(self, index: int, task: Task, seed: int) -> None: ...

    def step(self, single_precision: bool) -> None:
        """Steps those of them that are active; `single_precision` says that the actions came in float32."""
        ...

    def render(self, index: int, width: int, height: int) -> UInt8[ndarray, "height width 3"]: ...


@runtime_checkable
class Game(Protocol):
    """What worker processes play; it is pickled."""

    @property
    def name(self) -> str:
        """What it is called in messages."""
        ...

    def layout(self, num_envs: int) -> Layout: ...

    def shard(self, arrays: Arrays, announce: Callable[[int], None]) -> Shard:
        """Some of the sub-environments, in a worker; `announce` is told which it is about to play."""
        ...

    def check(self, task: Task) -> None:
        """Raises ValueError for a task that it does not have."""
        ...

    def outcome(self, arrays: Arrays) -> Outcome:
        """What the arrays say of the last step."""
        ...

    def observe(self, arrays: Arrays, out: Any) -> None:  # noqa: ANN401  # a type that follows from a value, the space
        """Copies the observations into what `Simulator.observe` is given."""
        ...


class Share(NamedTuple):
    """What a worker is told on its command line."""

    memory: int
    """File descriptor of the shared memory."""
    commands: int
    """... of the socket."""
    lifeline: int
    """... of a pipe that nothing is written to."""
    parent: int
    """Process id of whoever started it."""
    bound: int
    """1 if it may ask the kernel to be killed with its parent (which counts the parent's threads as parents)."""
    num_envs: int
    """Sub-environments of all workers together."""
    workers: int
    """How many there are."""
    rank: int
    """Which one it is: sub-environments rank, rank + workers, ... are its own."""


class Memory(NamedTuple):
    """The shared memory, as arrays."""

    arrays: Arrays
    at: ndarray
    """[worker], the sub-environment that it is busy with."""
    beats: ndarray
    """[worker], grows whenever that changes."""


def memory_size(layout: Layout, workers: int) -> int:
    """Bytes of shared memory."""
    return sum(_bytes(shape, kind) for shape, kind in _all(layout, workers).values())


def map_memory(buffer: mmap.mmap, layout: Layout, workers: int) -> Memory:
    """The arrays in a buffer of `memory_size` bytes."""
    offset, views = 0, dict[str, ndarray]()
    for name, (shape, kind) in _all(layout, workers).items():
        views[name] = np.frombuffer(buffer, kind, int(np.prod(shape)), offset).reshape(shape)
        offset += _bytes(shape, kind)
    return Memory(at=views.pop("_at"), beats=views.pop("_beats"), arrays=views)


def _all(layout: Layout, workers: int) -> Layout:
    return {"_at": ((workers,), np.int64), "_beats": ((workers,), np.int64), **layout}


def _bytes(shape: tuple[int, ...], kind: Any) -> int:  # noqa: ANN401  # whatever NumPy takes for a type
    """Of an array, up to where the next one begins."""
    return -(-int(np.prod(shape)) * np.dtype(kind).itemsize // _ALIGNMENT) * _ALIGNMENT


def main(arguments: Sequence[str]) -> None:
    """Obeys until the socket ends."""
    share = Share(*map(int, arguments))
    _end_with_parent(share)
    commands = Connection(share.commands)
    try:
        game = pickle.loads(commands.recv_bytes())
    except EOFError:
        return
    assert isinstance(game, Game)
    layout = game.layout(share.num_envs)
    buffer = mmap.mmap(share.memory, memory_size(layout, share.workers))
    memory = map_memory(buffer, layout, share.workers)

    def announce(index: int) -> None:
        memory.at[share.rank] = index
        memory.beats[share.rank] += 1

    shard = game.shard(memory.arrays, announce)
    while True:
        try:
            command = commands.recv_bytes()
        except EOFError:
            return
        try:
            answer = DONE + _obey(shard, command)
        except RunError as error:  # a sentence for the user
            answer = TOLD + str(error).encode()
        except Exception:  # whatever it is, the other side says it, with the task
            answer = FAILED + traceback.format_exc().encode()
        commands.send_bytes(answer)


def _obey(shard: Shard, command: bytes) -> bytes:
    kind, content = command[:1], command[1:]
    if kind == RESET:
        for index, task, seed in pickle.loads(content):
            assert isinstance(task, Task)
            shard.reset(index, task, seed)
    elif kind == RENDER:
        return shard.render(*pickle.loads(content)).tobytes()
    else:
        assert kind in (STEP, STEP_SINGLE)
        shard.step(kind == STEP_SINGLE)
    return b""


def _end_with_parent(share: Share) -> None:
    if share.bound and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != share.parent:  # it had ended before
            os._exit(1)

    def wait() -> None:
        os.read(share.lifeline, 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1:])
