"""What a score is beside other policies' on the same tasks: above blind, between blind and informed."""

import dataclasses
from collections.abc import Mapping
from typing import final

import numpy as np
from jaxtyping import Float

from metarl.evaluation.intervals import Intervals
from metarl.evaluation.records import BLIND, INFORMED, RANDOM, Yardstick
from metarl.maths import statistics
from metarl.maths.statistics import Estimate


@final
@dataclasses.dataclass(frozen=True, eq=False)
class YardstickFigures:
    """The figures made of an evaluation's yardsticks; None where one is missing on one of the tasks."""

    yardsticks: Mapping[str, Yardstick]
    intervals: Intervals

    def level(self, name: str) -> Estimate | None:
        """The mean score of a yardstick."""
        scores = self._known(name)
        return None if scores is None else self.intervals.of_rows(scores, statistics.mean)

    def above(self, rows: Float[np.ndarray, "row task"], name: str) -> Estimate | None:
        """Mean of the rows − the yardstick's."""
        scores = self._known(name)
        return None if scores is None else self.intervals.of_means([rows, scores], lambda means: means[0] - means[1])

    def normalised(self, rows: Float[np.ndarray, "row task"]) -> Estimate | None:
        """(mean of the rows − blind) / (informed − blind); None too where knowing the task brings nothing."""
        blind, informed, room = self._known(BLIND), self._known(INFORMED), self.room()
        if blind is None or informed is None or room is None or not room.low > 0:
            return None
        return self.intervals.of_means(
            [rows, blind, informed], lambda means: (means[0] - means[1]) / (means[2] - means[1])
        )

    def need(self) -> Estimate | None:
        """(informed − blind) / (informed − random)."""
        levels = [self._known(name) for name in (INFORMED, BLIND, RANDOM)]
        known = [level for level in levels if level is not None]
        if len(known) < len(levels):
            return None
        return self.intervals.of_means(known, lambda means: (means[0] - means[1]) / (means[0] - means[2]))

    def room(self) -> Estimate | None:
        """informed − blind."""
        blind, informed = self._known(BLIND), self._known(INFORMED)
        if blind is None or informed is None:
            return None
        return self.intervals.of_means([informed, blind], lambda means: means[0] - means[1])

    def _known(self, name: str) -> Float[np.ndarray, "seed task"] | None:
        """A yardstick's scores, where it has one on every task."""
        yardstick = self.yardsticks.get(name)
        return None if yardstick is None or not np.isfinite(yardstick.scores).all() else yardstick.scores
