"""What a worker process runs: `python -m metarl.envs.metaworld.process_worker`, started by `process_simulator.py`.

It reads commands from a socket and plays its share of the sub-environments in shared memory. It ends when the process
that started it does, however that ended, and whatever it is doing itself: a thread waits for the end of a pipe, and on
Linux the kernel kills it (a stopped process has no thread that could). It imports no PyTorch.
"""

import ctypes
import json
import mmap
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from metarl.envs.metaworld.class_simulator import SimulationOptions
from metarl.envs.metaworld.simulator import Arrays, EnvShard, layout
from metarl.tasks import Task

STEP, STEP_SINGLE, RESET, RENDER = b"s", b"f", b"r", b"p"
"""Commands, by their first byte; the rest, where there is one, is pickled."""
DONE, FAILED = b"k", b"e"
"""Answers: a picture may follow the one, a traceback the other."""
_PR_SET_PDEATHSIG = 1


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


def memory_size(num_envs: int, workers: int) -> int:
    """Bytes of shared memory."""
    return sum(int(np.prod(shape)) * np.dtype(kind).itemsize for shape, kind in _all(num_envs, workers).values())


def map_memory(buffer: mmap.mmap, num_envs: int, workers: int) -> Memory:
    """The arrays in a buffer of `memory_size` bytes."""
    offset, views = 0, dict[str, ndarray]()
    for name, (shape, kind) in _all(num_envs, workers).items():
        views[name] = np.frombuffer(buffer, kind, int(np.prod(shape)), offset).reshape(shape)
        offset += views[name].nbytes
    return Memory(at=views.pop("at"), beats=views.pop("beats"), arrays=Arrays(**views))


def _all(num_envs: int, workers: int) -> Mapping[str, tuple[tuple[int, ...], type]]:
    counters = {"at": ((workers,), np.int64), "beats": ((workers,), np.int64)}
    return {**counters, **layout(num_envs)}


def main(arguments: Sequence[str]) -> None:
    """Obeys until the socket ends."""
    share = Share(*map(int, arguments[:-1]))
    options = SimulationOptions(**json.loads(arguments[-1]))
    _end_with_parent(share)
    buffer = mmap.mmap(share.memory, memory_size(share.num_envs, share.workers))
    memory = map_memory(buffer, share.num_envs, share.workers)

    def announce(index: int) -> None:
        memory.at[share.rank] = index
        memory.beats[share.rank] += 1

    shard = EnvShard(memory.arrays, options, announce)
    commands = Connection(share.commands)
    while True:
        try:
            command = commands.recv_bytes()
        except EOFError:
            return
        try:
            answer = DONE + _obey(shard, command)
        except Exception:  # whatever it is, the other side says it, with the task
            answer = FAILED + traceback.format_exc().encode()
        commands.send_bytes(answer)


def _obey(shard: EnvShard, command: bytes) -> bytes:
    kind, content = command[:1], command[1:]
    if kind == RESET:
        for index, task in pickle.loads(content):
            assert isinstance(task, Task)
            shard.reset(index, task)
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
