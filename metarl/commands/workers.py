"""Where episodes are played: in this process, or by workers of a Ray cluster."""

import contextlib
import dataclasses
import importlib.util
from collections.abc import Callable, Iterator

from metarl import checks
from metarl.commands.options import ComputeOptions
from metarl.errors import UsageError
from metarl.learning.collect import CollectorFactory, InProcess

MOST_WORKERS = 10_000
EXTRA = "metarl-suite[ray]"


@dataclasses.dataclass(frozen=True)
class WorkerOptions:
    """Who plays the episodes. No result depends on it."""

    workers: int = 1
    """Workers that share the episodes; several are those of a Ray cluster (pip install metarl-suite[ray])."""
    cluster: str | None = None
    """The cluster: `local` for one on this machine alone; HOST:PORT of one that this machine is part of; `auto` for the
    one that RAY_ADDRESS names, or else `local`. Not given: none with one worker, `auto` with several."""
    worker_threads: int = 1
    """Threads that step the simulators of each worker on a cluster; as many of its CPUs are reserved. --threads is
    about this process, which then plays none."""

    def __post_init__(self) -> None:
        checks.between(1, MOST_WORKERS, workers=self.workers)
        checks.between(1, 1024, worker_threads=self.worker_threads)
        if self.cluster is None and self.workers == 1 and self.worker_threads != 1:
            raise ValueError("--worker-threads are those of workers on a cluster: give --workers or --cluster, too")

    @property
    def remote(self) -> bool:
        """Whether a cluster is wanted."""
        return self.workers > 1 or self.cluster is not None

    @contextlib.contextmanager
    def open(
        self, compute: ComputeOptions, interruption_point: Callable[[], None] = lambda: None
    ) -> Iterator[CollectorFactory]:
        """The collectors, whose workers end with the block.

        Args:
            compute: of this process.
            interruption_point: called again and again while episodes are played; what it raises ends that.

        Raises:
            UsageError: Ray is not installed, no cluster answers, or the device is not the CPU.
        """
        if not self.remote:
            yield InProcess(compute.threads, interruption_point)
            return
        cluster = self.cluster or "auto"
        need_ray(f"--workers {self.workers}" if self.cluster is None else f"--cluster {cluster}")
        if compute.device != "cpu":
            raise UsageError(f"workers play on the CPU: --device {compute.device} does not go with a cluster")
        from metarl.cluster.ray_workers import ray_collectors

        with ray_collectors(cluster, self.workers, self.worker_threads, interruption_point) as collectors:
            yield collectors


def need_ray(option: str) -> None:
    """Raises UsageError where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise UsageError(f"{option} takes Ray, which is not installed: pip install '{EXTRA}'")
