"""The intervals of an evaluation's figures: what is resampled is decided once, for all of them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import final

import numpy as np
from jaxtyping import Float

from metarl.evaluation.records import SHARES
from metarl.maths import statistics
from metarl.maths.statistics import Estimate, Resampling, Statistic

Combine = Callable[[Sequence[Float[np.ndarray, "*batch"]]], Float[np.ndarray, "*batch"]]
"""Makes one figure of the means of several samples."""


@final
@dataclasses.dataclass(frozen=True)
class Intervals:
    """Estimates with 95 % intervals. A fresh generator for each: none depends on which others were asked for before."""

    seed: int
    """The evaluation's own seed."""
    tasks_vary: bool
    """Whether the tasks are a sample of more, so that intervals have to cover others."""
    strata: tuple[str, ...]
    """Each task's family: tasks are redrawn within it."""

    def of_rows(self, rows: Float[np.ndarray, "row task"], statistic: Statistic) -> Estimate:
        """A statistic of all scores; seeds are resampled, and tasks where they vary."""
        resample: Resampling = "seeds and tasks" if self.tasks_vary else "seeds"
        rng = np.random.default_rng(self.seed)
        return statistics.bootstrap(rows, statistic, rng, resample=resample, strata=self.strata)

    def of_metric(self, metric: str, rows: Float[np.ndarray, "row task"], statistic: Statistic) -> Estimate:
        """`of_rows`; of outcomes that are all alike, Wilson's interval: nothing that is resampled can differ."""
        if metric in SHARES and rows.min() == rows.max() and rows.max() in (0, 1):
            return _wilson(float(rows.max()), rows.shape[1] if self.tasks_vary else rows.shape[0])
        return self.of_rows(rows, statistic)

    def of_means(self, samples: Sequence[Float[np.ndarray, "_ task"]], combine: Combine) -> Estimate:
        """A figure of the means of several samples of the same tasks, each with seeds of its own."""
        rng = np.random.default_rng(self.seed)
        return statistics.bootstrap_of_means(samples, combine, rng, tasks_vary=self.tasks_vary, strata=self.strata)


def _wilson(share: float, count: int) -> Estimate:
    """Wilson's score interval (1927)."""
    from scipy import stats  # it takes a second to import, and few evaluations need it

    interval = stats.binomtest(round(share * count), count).proportion_ci(method="wilson")
    return Estimate(share, float(interval.low), float(interval.high))
