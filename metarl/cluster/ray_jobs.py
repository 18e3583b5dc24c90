"""Programs as tasks of a Ray cluster whose machines share a file system."""

import contextlib
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, final

import ray
from ray import exceptions

from metarl.cluster.ray_workers import connected
from metarl.errors import warn
from metarl.runs import children

_RETRIES = 3  # of a program whose machine was lost: it resumes
_PATIENCE = 60.0  # s for a program to save what is done


def _call(arguments: tuple[str, ...], log: str) -> int:
    """Runs a program on this machine; its exit status."""
    process = children.start(arguments, Path(log))
    try:
        return process.wait()
    except BaseException:  # Ray cancels a task by KeyboardInterrupt
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE)
        process.kill()
        raise


@final
class RayJobs:
    """Runs programs as tasks: the `Jobs` of a sweep."""

    def __init__(self, threads: int) -> None:
        self._task: Any = ray.remote(num_cpus=threads, max_retries=_RETRIES)(_call)
        self._cancelled: set[object] = set()

    def start(self, arguments: Sequence[str], log: Path) -> object:
        return self._task.remote(tuple(arguments), str(log.resolve()))

    def status(self, job: object) -> int | None:
        came, _ = ray.wait([job], timeout=0)
        if not came:
            return None
        try:
            return int(ray.get(came[0]))
        except exceptions.TaskCancelledError:
            return 128 + signal.SIGTERM
        except exceptions.RayError as error:
            if job in self._cancelled:
                return 128 + signal.SIGTERM
            warn(f"a program on the cluster was lost: {error}")
            return 1

    def stop(self, job: object) -> None:
        if job not in self._cancelled:
            self._cancelled.add(job)
            ray.cancel(job, force=False)


@contextlib.contextmanager
def ray_jobs(cluster: str, jobs: int, threads: int) -> Iterator[RayJobs]:
    """Tasks on the cluster that `connected` describes, `threads` CPUs each."""
    with connected(cluster, jobs * threads):
        yield RayJobs(threads)
