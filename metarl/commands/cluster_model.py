"""A collection on many workers, event by event: how long an outer step takes, from the times of its parts.

    driver     pickles and sends the shares one after the other, each in d₀ + d₁·bytes seconds
    worker     plays a share of k tasks in p₀ + p₁·k seconds, times a log-normal factor of its own
    network    carries the results to the driver one after the other, at a bandwidth
    driver     takes in each result in d₀ + d₁·bytes seconds, and in the end updates in u₀ + u₁·tasks seconds

Or the workers compute what the update sums: the driver sends each the results of its own tasks, then a question with a
vector of parameters again and again, and takes in a vector from each.

Every resource does one thing at a time, first come, first served. Not in it: losses, stragglers that are played again,
and the way out to the workers, whose messages are small beside the results.
"""

import dataclasses
import math
from typing import final

import numpy as np


@final
@dataclasses.dataclass(frozen=True)
class Line:
    """a + b·x, of something that takes time."""

    fixed: float
    """s"""
    slope: float
    """s for each unit of x"""

    def __call__(self, x: float | int) -> float:
        return self.fixed + self.slope * x

    @classmethod
    def through(cls, times: dict[int, float]) -> "Line":
        """The least-squares line through times by x; neither part is negative."""
        if len(times) < 2:
            raise ValueError(f"a line takes two points, got {len(times)}")
        slope, fixed = np.polyfit(list(times), list(times.values()), 1)
        return cls(max(0.0, float(fixed)), max(0.0, float(slope)))


@final
@dataclasses.dataclass(frozen=True)
class Costs:
    """What the parts of an outer step take."""

    play: Line
    """Of a worker, by the tasks of a share."""
    spread: float
    """Standard deviation of the logarithm of a share's time."""
    message: Line
    """Of the driver, for a message by its bytes; sending and taking in are alike."""
    share_bytes: float
    """That a task adds to a share."""
    result_bytes: float
    """That a task adds to a result."""
    update: Line
    """Of the driver, by tasks."""
    bandwidth: float = 1.25e9
    """Bytes a second into the driver: 10 Gbit/s. Assumed: the others are measured."""
    questions: int = 15
    """Of an update: a gradient, eleven products of conjugate gradients, and a line search that is soon over."""
    vector_bytes: float = 46e3
    """Of a question and an answer: θ and α of a policy of two layers of 64."""


@final
@dataclasses.dataclass(frozen=True)
class Simulated:
    """An outer step on a number of workers."""

    workers: int
    tasks: int
    collecting: float
    """s until the last result is taken in"""
    step: float
    """s with the update"""
    driver: float
    """s of the collection in which the driver was busy with messages"""
    step_by_workers: float
    """s with an update that the workers compute"""


def simulate(costs: Costs, workers: int, tasks: int, seed: int = 0) -> Simulated:
    """One outer step of so many tasks, cut as `metarl.learning.sharding.shares` cuts them."""
    if workers < 1 or tasks < 1:
        raise ValueError(f"need at least one worker and one task, got {workers} and {tasks}")
    count, rng = min(workers, tasks), np.random.default_rng(seed)
    sizes = [tasks // count + (share < tasks % count) for share in range(count)]
    clock, played = 0.0, list[tuple[float, int]]()
    for size in sizes:
        clock += costs.message(size * costs.share_bytes)
        factor = math.exp(costs.spread * rng.standard_normal())
        played.append((clock + costs.play(size) * factor, size))
    sent = busy = clock
    network, driver = 0.0, sent
    for end, size in sorted(played):
        network = max(network, end) + size * costs.result_bytes / costs.bandwidth
        taking = costs.message(size * costs.result_bytes)
        driver, busy = max(driver, network) + taking, busy + taking
    sending = sum(costs.message(size * costs.result_bytes) for size in sizes)
    asking = 2 * costs.questions * count * costs.message(costs.vector_bytes)
    by_workers = driver + sending + costs.update(max(sizes)) + asking
    return Simulated(workers, tasks, driver, driver + costs.update(tasks), busy, by_workers)


def efficiency(costs: Costs, workers: int, tasks: int, *, whole: bool, seed: int = 0) -> float:
    """t(1) / (workers · t(workers)), of the collection, or of the whole step with its update."""
    one, many = (simulate(costs, count, tasks, seed) for count in (1, workers))
    return (one.step / many.step if whole else one.collecting / many.collecting) / workers
