"""Learners compared over several data sets by their ranks (Demšar 2006, "Statistical comparisons of classifiers").

    r_ij   the rank of learner j on data set i, 1 for the best, the mean of ranks where several are equal
    R_j    mean over the N data sets; under the null hypothesis all are (k + 1) / 2
    χ²_F   Friedman's statistic of the R_j                                                   (§3.2.1)
    CD     q_α √(k (k + 1) / 6 N), q_α of the studentised range over √2 (Nemenyi)            (§3.2.2)

Two learners differ at the level α where their mean ranks are at least CD apart, and the first test rejects.
"""

import dataclasses
import math
from typing import final

import numpy as np
from jaxtyping import Float
from scipy import stats


@final
@dataclasses.dataclass(frozen=True, eq=False)
class RankTest:
    """Mean ranks and whether they differ."""

    mean_ranks: Float[np.ndarray, " learner"]
    p_value: float
    """Friedman's: of ranks as different as these where all learners are alike."""
    critical_difference: float
    """Nemenyi's, at the level `alpha`."""
    alpha: float

    def differ(self, one: int, other: int) -> bool:
        """Whether two learners differ at the level."""
        apart = abs(float(self.mean_ranks[one] - self.mean_ranks[other]))
        return self.p_value < self.alpha and apart >= self.critical_difference


def rank_test(scores: Float[np.ndarray, "data learner"], alpha: float = 0.05) -> RankTest:
    """The ranks of learners by their scores, higher being better.

    Raises:
        ValueError: fewer than three learners or two data sets, or scores that are not finite.
    """
    count, learners = scores.shape
    if learners < 3 or count < 2:
        raise ValueError(f"ranks are tested of at least 3 learners on 2 data sets, got {learners} on {count}")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")
    ranks = stats.rankdata(-scores, axis=1)
    alike = bool((ranks == ranks[0, 0]).all())  # no differences at all: the statistic would be 0/0
    p_value = 1.0 if alike else float(stats.friedmanchisquare(*scores.T).pvalue)
    q = float(stats.studentized_range.ppf(1 - alpha, learners, math.inf)) / math.sqrt(2)
    return RankTest(ranks.mean(0), p_value, q * math.sqrt(learners * (learners + 1) / (6 * count)), alpha)
