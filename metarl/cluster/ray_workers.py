"""Workers as actors of Ray: on this machine, or on those of a cluster."""

import atexit
import contextlib
import dataclasses
import os
import re
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, final

import ray
from ray import exceptions
from ray._private.worker import global_worker
from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue]  # its stubs leave it out

from metarl.cluster.collector import ClusterCollectors
from metarl.cluster.dispatch import PATIENCE, Dispatcher, Patience
from metarl.cluster.head import Head, missing
from metarl.cluster.worker import (
    Answers,
    AnyShare,
    Examination,
    HeldParts,
    Identity,
    PartsShare,
    Player,
    Result,
    Share,
    identity,
)
from metarl.errors import RunError, UsageError, WorkerLostError
from metarl.evaluation.judge import Measured
from metarl.learning.episodes import Episodes, Trials

AUTO, LOCAL = "auto", "local"
_ADDRESS = "RAY_ADDRESS"
_CONNECT = 5.0  # s in which an address must answer
_GOODBYE = 5.0  # s in which a head that does not answer may be left, twice
_QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the coming default, and no warning about it
    "RAY_USAGE_STATS_ENABLED": "0",  # a training tells nobody
}
_LOST = (
    exceptions.RayActorError,  # the actor, its process or its machine is gone
    exceptions.ObjectLostError,  # its answer went with its machine
    exceptions.WorkerCrashedError,
    exceptions.NodeDiedError,
    exceptions.OutOfMemoryError,  # Ray ended it to save the machine
)
_FULL = (exceptions.ObjectStoreFullError, exceptions.OutOfDiskError)


@final
@dataclasses.dataclass(frozen=True)
class _Stored:
    """Fetches parts from the object store when it is called. A reference within an argument is not fetched before."""

    reference: tuple[Any]

    def __call__(self) -> HeldParts:
        (found,) = ray.get(list(self.reference))
        assert isinstance(found, HeldParts)
        return found


@final
class RayWorkers:
    """Actors that play shares: `Workers` for a dispatcher.

    Args:
        threads: of each, for its simulators; as many of the cluster's CPUs are reserved for it.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._here = identity()
        self._head = connected_head()
        self._stored = weakref.WeakKeyDictionary[Examination | HeldParts, Any]()

    def start(self) -> tuple[Any, Any]:
        # A lost actor is replaced by the dispatcher, and not by Ray: it hands nothing to a worker that has not started.
        actor: Any = ray.remote(num_cpus=self._threads, max_restarts=0, max_task_retries=0)(Player)
        worker = actor.remote(self._threads)
        return worker, worker.identity.remote()

    def play(self, worker: Any, share: AnyShare) -> Any:  # noqa: ANN401  # Ray's handles have no types of their own
        with _failures():  # it may not find room
            if isinstance(share, Share):
                return worker.play.remote(share)
            if isinstance(share, PartsShare):
                load = _Stored((self._reference(share.held),))
                return worker.compute.remote(share.held.token, load, share.function)
            return worker.measure.remote(self._reference(share.examination), share.tasks, share.settings, share.trial)

    def _reference(self, value: Examination | HeldParts) -> Any:  # noqa: ANN401
        """A value in the cluster's object store, where it is put once, for as long as it is used: it may be large."""
        if value not in self._stored:
            self._stored[value] = ray.put(value)
        return self._stored[value]

    def wait(self, answers: Sequence[Any], seconds: float) -> Sequence[Any]:
        self._head.need()
        if not answers:
            return ()
        came, _ = ray.wait(list(answers), num_returns=1, timeout=seconds)
        if came:
            came, _ = ray.wait(list(answers), num_returns=len(answers), timeout=0)
        return came

    def first(self, answer: Any) -> None:  # noqa: ANN401
        found = _taken(answer)
        assert isinstance(found, Identity)
        found.need_like(self._here)

    def result(self, answer: Any) -> Result:  # noqa: ANN401
        found = _taken(answer)
        assert isinstance(found, Trials | Episodes | Measured | Answers)
        return found

    def stop(self, worker: Any) -> None:  # noqa: ANN401
        if self._head.lost:
            return  # a call to it would wait until Ray ends this process; workers end with their cluster
        with contextlib.suppress(Exception):  # it may be gone
            ray.kill(worker, no_restart=True)

    def lacking(self) -> str:
        with contextlib.suppress(Exception):
            free, there = (kind.get("CPU", 0) for kind in (ray.available_resources(), ray.cluster_resources()))
            return f"each takes {self._threads} CPUs, and {free:g} of the cluster's {there:g} are free"
        return "the cluster does not answer"


def _taken(answer: Any) -> object:  # noqa: ANN401
    """What a worker answered.

    Raises:
        WorkerLostError: it was lost instead.
        RunError: no room for answers, or no cluster any more; and what the worker itself raised.
    """
    with _failures():
        return ray.get(answer)


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    """Turns Ray's errors into ours; what a worker raised is raised here, with where it was raised as its cause."""
    try:
        yield
    except exceptions.RayError as error:
        raise _ours(error) from error


def _ours(error: exceptions.RayError) -> Exception:
    """What an error of Ray's means."""
    cause = getattr(error, "cause", None) if isinstance(error, exceptions.RayTaskError) else error
    if not isinstance(cause, Exception):
        return error
    if isinstance(cause, exceptions.RayActorError) and cause.actor_init_failed:
        found = re.search(r"\bip=([^\s,)]+)", str(cause))
        where = f"the worker on {found[1]}" if found else "a worker"
        return RunError(f"{where} is refused: it cannot be made there: {_last_line(cause)}")
    if isinstance(cause, _LOST):  # of a task: what it was sent is gone with some machine
        return WorkerLostError(_first_line(cause))
    if isinstance(cause, _FULL):  # of a task: there is no room for its answer
        disk = ", and the disk to which it spills" if isinstance(cause, exceptions.OutOfDiskError) else ""
        return RunError(
            f"the cluster's object store is full{disk}: `ray memory` and `df` there say with what; "
            "`ray start --object-store-memory BYTES` makes a larger one"
        )
    if cause is error:
        return RunError(f"the cluster failed: {_first_line(error)}")
    if isinstance(cause, exceptions.RaySystemError):  # before the call began: of the call's own errors Ray says so
        return RunError(f"a worker is refused: it cannot load what it was sent: {_last_line(cause)}")
    return cause


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _last_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


@contextlib.contextmanager
def connected(cluster: str, cpus: int) -> Iterator[None]:
    """A connection to a cluster within the block; one on this machine ends with it.

    Args:
        cluster: `local` for one on this machine; `host:port` for one that is there; `auto` for the one that the
            environment's RAY_ADDRESS names, or else one on this machine. Ray's own `auto` would join whatever runs
            here, also somebody's private one, which ends when they are done.
        cpus: that a cluster on this machine must have: workers may be more than cores.

    Raises:
        UsageError: no cluster answers there.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if ray.is_initialized():  # whoever connected before also disconnects
        yield
        return
    address = os.environ.get(_ADDRESS, LOCAL) if cluster == AUTO else cluster
    if address == LOCAL:
        _start_here(cpus)
    else:
        _need_answer(address)
        _join(address)
    head = _head_address()
    try:
        yield
    finally:
        _leave(head)


def _leave(head: str) -> None:
    """Disconnects. Of a head that is frozen Ray would wait for an answer for good.

    What then still waits ends with the process, which crashes unless Ray's native part has been told to end.
    """
    if not missing(head, _CONNECT):
        ray.shutdown()
        return
    for disconnect in (ray.shutdown, _shutdown_native):
        leaving = threading.Thread(target=disconnect, name="metarl-leaving", daemon=True)
        leaving.start()
        leaving.join(_GOODBYE)
        if not leaving.is_alive():
            return
    atexit.unregister(ray.shutdown)  # it would wait again at this process's end


def _shutdown_native() -> None:
    global_worker.core_worker.shutdown_driver()  # pyright: ignore[reportAttributeAccessIssue]


def _head_address() -> str:
    return ray.get_runtime_context().gcs_address


def connected_head() -> Head:
    """The head of the cluster that this process is connected to."""
    return Head(_head_address())


def _options() -> dict[str, Any]:
    return {"log_to_driver": False, "logging_level": "ERROR"}


def _start_here(cpus: int) -> None:
    """A cluster of this machine alone.

    Ray would start workers at nice 15, far below other programs, and as many as there are cores before any is wanted.
    """
    system = {"worker_niceness": 0, "prestart_worker_first_driver": False, "enable_worker_prestart": False}
    count = max(cpus, os.cpu_count() or 1)
    try:
        ray.init(address=LOCAL, num_cpus=count, include_dashboard=False, _system_config=system, **_options())
    except Exception as error:  # of whatever kind: Ray's processes did not start
        raise RunError(f"no Ray cluster could be started here: {_first_line(error)}") from error


def _join(address: str) -> None:
    """Connects to a cluster. One that will not have this program is asked once: Ray would ask for a minute, and log it.

    Raises:
        UsageError: it has other versions, or asks for a token; or this machine is not part of it.
    """
    try:
        with _silent():
            GcsClient(address=address)
    except exceptions.RpcError as error:
        raise UsageError(
            f"--cluster {address}: no head of a Ray cluster answers there: {_first_line(error)}; its port is that of "
            "`ray start --head`, 6379 unless told otherwise, and not the dashboard's or the client's"
        ) from error
    except exceptions.RayError as error:
        raise UsageError(f"--cluster {address}: it cannot be joined: {_first_line(error)}") from error
    try:
        ray.init(address=address, **_options())
    except ConnectionError as error:  # the head has just answered
        ray.shutdown()  # what there is of a connection
        reason = _first_line(error.__cause__ or error)
        raise UsageError(
            f"--cluster {address}: it cannot be joined: {reason} Is this machine part of it? "
            f"`ray start --address={address}` makes it so"
        ) from error
    except Exception as error:
        ray.shutdown()
        raise UsageError(f"--cluster {address}: it cannot be joined: {error}") from error


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Drops what Ray's native code writes to stderr: no option of Ray's does."""
    if sys.stderr is not None:
        sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _need_answer(address: str) -> None:
    """Raises UsageError where nothing listens at an address: Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) < 1 << 16) or "/" in address:
        raise UsageError(f"--cluster is auto, local or HOST:PORT, got {address!r}")
    if reason := missing(address, _CONNECT):
        raise UsageError(f"--cluster {address}: no Ray cluster answers there: {reason}")


@contextlib.contextmanager
def ray_collectors(
    cluster: str,
    workers: int,
    threads: int,
    interruption_point: Callable[[], None] = lambda: None,
    patience: Patience = PATIENCE,
) -> Iterator[ClusterCollectors[Any, Any]]:
    """Collectors on `workers` actors of `threads` threads each, of the cluster that `connected` describes.

    Raises:
        UsageError: no cluster answers there.
    """
    with connected(cluster, workers * threads):
        dispatcher = Dispatcher[AnyShare, Result, Any, Any](RayWorkers(threads), workers, patience, interruption_point)
        try:
            yield ClusterCollectors(dispatcher)
        finally:
            dispatcher.close()
