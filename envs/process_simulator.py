"""Sub-environments in worker processes: numbers go through shared memory, commands through sockets.

Processes, for worlds of which a step is mostly Python. Each worker plays every n-th sub-environment. A worker that dies
or that makes no progress is noticed and named with its task (`WorkerLostError`); whoever collects episodes starts anew.
"""

import contextlib
import mmap
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple, Never, final

import cloudpickle
import gymnasium as gym
import numpy as np
from jaxtyping import Bool, Shaped, UInt8
from numpy import ndarray

from metarl.envs import process_worker
from metarl.envs.observations import Observations
from metarl.envs.process_worker import Game
from metarl.envs.simulator import Outcome
from metarl.errors import RunError, WorkerLostError
from metarl.registry import file_modules
from metarl.tasks import Task

PATIENCE = 10.0  # s without progress; a step takes a thousandth of one, and building a model one on a busy machine
START_PATIENCE = 60.0  # s for a process to start and import
_TICK = 0.25  # s
_SHUTDOWN = 2.0  # s
_ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # a worker each core: more threads would only take turns


class _Worker(NamedTuple):
    process: subprocess.Popen[bytes]
    commands: Connection
    lifeline: int
    """The pipe's end that is held open as long as the worker is wanted."""


@final
class WorkerSimulator:
    """A batch of simulations, spread over processes.

    Args:
        num_envs: sub-environments.
        workers: processes.
        spaces: the observations' and the actions'.
        game: what they play. Files that `metarl.registry` has loaded and lambdas may be part of it.
        patience: seconds without progress after which a worker is given up.

    Raises:
        ValueError: the game cannot be pickled.
    """

    def __init__(
        self,
        num_envs: int,
        workers: int,
        spaces: tuple[gym.Space[Any], gym.Space[Any]],
        game: Game,
        patience: float = PATIENCE,
    ) -> None:
        self.num_envs = num_envs
        self.observation_space, self.action_space = spaces
        self._game = game
        self._patience = patience
        pickled, layout = _pickled(game), game.layout(num_envs)
        size = process_worker.memory_size(layout, workers)
        descriptor = _memory_file(size)
        self._memory = process_worker.map_memory(mmap.mmap(descriptor, size), layout, workers)
        self._tasks: dict[int, Task] = {}
        self._pending: dict[int, tuple[Task, int]] = {}
        self._heard_of: set[int] = set()
        started: list[_Worker] = []
        self._workers: Sequence[_Worker] = started
        # At the latest when this object is forgotten or Python ends.
        self._finalizer = weakref.finalize(self, _end, started, os.getpid())
        started.extend(_start(descriptor, num_envs, workers, rank) for rank in range(workers))
        os.close(descriptor)
        for worker in started:
            with contextlib.suppress(OSError):  # it has died already, which is noticed when it is first asked
                worker.commands.send_bytes(pickled)

    def set_task(self, index: int, task: Task) -> None:
        self._game.check(task)
        self._tasks[index] = task

    def reset(self, index: int, rng: np.random.Generator) -> None:
        """Put off until something is asked for, so that all workers reset at once."""
        self._pending[index] = self._tasks[index], int(rng.integers(2**31))

    def step(self, actions: Shaped[ndarray, "env *action"], active: Bool[ndarray, " env"]) -> Outcome:
        self._catch_up()
        arrays = self._memory.arrays
        arrays["actions"][:], arrays["active"][:] = actions, active
        arrays["diverged"][:] = False
        command = process_worker.STEP_SINGLE if actions.dtype == np.float32 else process_worker.STEP
        self._all([command] * len(self._workers), "stepping")
        return self._game.outcome(arrays)

    def observe(self, out: Observations) -> None:
        self._catch_up()
        self._game.observe(self._memory.arrays, out)

    def render(self, index: int, width: int, height: int) -> UInt8[ndarray, "height width 3"]:
        self._catch_up()
        rank = index % len(self._workers)
        command = process_worker.RENDER + pickle.dumps((index, width, height))
        self._memory.at[rank] = index
        picture = self._all([command if other == rank else None for other in range(len(self._workers))], "drawing")
        return np.frombuffer(picture[rank], np.uint8).reshape(height, width, 3).copy()

    def close(self) -> None:
        """Ends the workers."""
        self._finalizer()

    @property
    def processes(self) -> tuple[int, ...]:
        """The workers' process ids."""
        return tuple(worker.process.pid for worker in self._workers)

    def _catch_up(self) -> None:
        """Does the resets that were put off."""
        if not self._pending:
            return
        count = len(self._workers)
        shares = [
            [(index, task, seed) for index, (task, seed) in self._pending.items() if index % count == rank]
            for rank in range(count)
        ]
        self._pending.clear()
        self._all([process_worker.RESET + pickle.dumps(share) if share else None for share in shares], "resetting")

    def _all(self, commands: Sequence[bytes | None], doing: str) -> dict[int, bytes]:
        """Gives each worker its command and waits for the answers."""
        if not self._finalizer.alive:
            raise RuntimeError("this simulator is closed")
        waiting: dict[Connection, int] = {}
        for rank, (worker, command) in enumerate(zip(self._workers, commands, strict=True)):
            if command is not None:
                waiting[worker.commands] = rank
                try:
                    worker.commands.send_bytes(command)
                except OSError:
                    self._lost(rank, doing)
        answers: dict[int, bytes] = {}
        idle, beats = 0.0, self._memory.beats.copy()
        while waiting:
            speaking = wait(list(waiting), _TICK)
            ready = [rank for connection, rank in waiting.items() if connection in speaking]
            for rank in ready:
                del waiting[self._workers[rank].commands]
                answers[rank] = self._answer(rank, doing)
            # Counted in waits, not by the clock: this process may have been asleep as well.
            idle = 0.0 if ready or (beats != self._memory.beats).any() else idle + _TICK
            beats = self._memory.beats.copy()
            late = [rank for rank in waiting.values() if idle >= self._patience_with(rank)]
            if late:
                self._give_up(late[0], f"has made no progress for {idle:g} s", doing)
        return answers

    def _patience_with(self, rank: int) -> float:
        return self._patience if rank in self._heard_of else max(START_PATIENCE, self._patience)

    def _answer(self, rank: int, doing: str) -> bytes:
        try:
            answer = self._workers[rank].commands.recv_bytes()
        except (EOFError, OSError):
            self._lost(rank, doing)
        self._heard_of.add(rank)
        if answer[:1] == process_worker.FAILED:
            task = self._tasks[int(self._memory.at[rank])]
            self.close()
            raise RunError(f"{self._game.name} failed while {doing} {task}: {answer[1:].decode()}")
        if answer[:1] == process_worker.TOLD:
            self.close()
            raise RunError(answer[1:].decode())
        return answer[1:]

    def _lost(self, rank: int, doing: str) -> Never:
        """Reports a worker whose socket has ended."""
        try:
            status = self._workers[rank].process.wait(_SHUTDOWN)
        except subprocess.TimeoutExpired:
            status = 0
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        self._give_up(rank, how, doing)

    def _give_up(self, rank: int, what: str, doing: str) -> Never:
        task = self._tasks.get(int(self._memory.at[rank]))
        self.close()
        raise WorkerLostError(
            f"{self._game.name} worker {rank + 1} of {len(self._workers)} {what} while {doing}"
            + (f" {task}" if self._memory.beats[rank] else " its first task")
        )


def _pickled(game: Game) -> bytes:
    """By value, what files hold that `metarl.registry` has loaded: workers do not know them."""
    with contextlib.ExitStack() as stack:
        for module in file_modules():
            cloudpickle.register_pickle_by_value(module)
            stack.callback(cloudpickle.unregister_pickle_by_value, module)
        try:
            return cloudpickle.dumps(game)
        except Exception as error:  # whatever stands in somebody's file
            what = f"{type(error).__name__}: {error}"
            raise ValueError(f"{game.name} cannot be sent to worker processes: {what}") from error


def _memory_file(size: int) -> int:
    """A file of zeros without a name."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("metarl")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor


def _start(memory: int, num_envs: int, workers: int, rank: int) -> _Worker:
    """A worker process; `memory` is the shared memory's file descriptor."""
    own_end, worker_end = socket.socketpair()
    listening, lifeline = os.pipe()
    with worker_end:
        share = process_worker.Share(
            memory=memory,
            commands=worker_end.fileno(),
            lifeline=listening,
            parent=os.getpid(),
            bound=int(threading.current_thread() is threading.main_thread()),
            num_envs=num_envs,
            workers=workers,
            rank=rank,
        )
        process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-W",
                "ignore",
                "-m",
                process_worker.__name__,
                *map(str, share),
            ],
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(str(Path(path).absolute()) for path in sys.path)}
            | _ONE_THREAD,
            pass_fds=(memory, worker_end.fileno(), listening),
            stdin=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C is this process's business
        )
    os.close(listening)
    return _Worker(process, Connection(own_end.detach()), lifeline)


def _end(workers: Sequence[_Worker], process: int) -> None:
    """Ends the workers: by the end of their sockets, or, where they do not notice, at once."""
    if os.getpid() != process:
        return  # a forked child of whoever started them
    for worker in workers:
        worker.commands.close()
        os.close(worker.lifeline)
    for worker in workers:
        try:
            worker.process.wait(_SHUTDOWN)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
