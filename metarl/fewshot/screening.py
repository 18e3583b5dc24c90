"""How well a finding is told from everything else after a few examples of it: figures for people who screen.

    sensitivity at specificity s   share of findings flagged at the threshold that flags at most 1 − s of the others
    AUROC                          P(score of a finding > score of another)
    Brier, calibration error       of the probability of the finding
    coverage curve                 error among the share of answers that the learner is surest of; the others are
                                   "not sure" (El-Yaniv & Wiener 2010)

Each trial draws the examples that are shown anew; intervals are over trials, for one trained learner. What such figures
do not show stands in docs/medicine.md.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from metarl import checks
from metarl.evaluation.judge import OnProgress
from metarl.fewshot.datasets.medical import Screening
from metarl.maths import calibration

SPECIFICITIES = (0.9, 0.95)
COVERAGES = (1.0, 0.9, 0.75, 0.5, 0.25)


Images = Shaped[np.ndarray, "example ..."]
Detector = Callable[[Images, Bool[np.ndarray, " example"], Images], Float[np.ndarray, " query"]]
"""Is shown images and which of them have the finding, and asked about others: the probability of it in each."""


@final
@dataclasses.dataclass(frozen=True)
class ScreeningTrials:
    """How many examples are shown, and how often."""

    shots: int = 5
    """Examples of the finding that are shown."""
    negatives: int = 20
    """Examples of everything else that are shown."""
    trials: int = 50
    """How often examples are drawn anew."""
    most_asked: int = 400
    """Images that are asked about in a trial, at most, drawn by chance."""
    seed: int = 20_210_830

    def __post_init__(self) -> None:
        checks.count(shots=self.shots, negatives=self.negatives, trials=self.trials, most_asked=self.most_asked)
        checks.seed(self.seed)
        checks.at_least(2, trials=self.trials)

    def measure(
        self, data: Screening, detector: Detector, on_progress: OnProgress = lambda share: None
    ) -> Mapping[str, Float[np.ndarray, " trial"]]:
        """Each figure in every trial; the same examples for every detector.

        Raises:
            ValueError: there are too few examples.
        """
        rows: list[dict[str, float]] = []
        for trial in range(self.trials):
            shown, asked = self.draw(data, trial)
            scores = detector(data.images[shown], data.positive[shown], data.images[asked])
            rows.append(figures(scores, data.positive[asked]))
            on_progress((trial + 1) / self.trials)
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    def draw(self, data: Screening, trial: int) -> tuple[Int[np.ndarray, " shown"], Int[np.ndarray, " asked"]]:
        """The numbers of the images that are shown and asked about.

        Raises:
            ValueError: there are too few examples.
        """
        rng = np.random.default_rng([self.seed, trial])
        may_show, may_ask = data.halves(rng)
        parts: list[Int[np.ndarray, " example"]] = []
        for wanted, is_finding in ((self.shots, True), (self.negatives, False)):
            there = may_show[data.positive[may_show] == is_finding]
            if len(there) < wanted:
                what = f"of {data.finding}" if is_finding else f"other than {data.finding}"
                raise ValueError(f"{data.id}: {wanted} examples {what} are to be shown, there are {len(there)}")
            parts.append(rng.choice(there, wanted, replace=False))
        asked = rng.permutation(may_ask)[: self.most_asked]
        if data.positive[asked].all() or not data.positive[asked].any():
            raise ValueError(f"{data.id}: all {len(asked)} images asked about are alike: raise --most-asked")
        return rng.permutation(np.concatenate(parts)), asked


def figures(scores: Float[np.ndarray, " query"], positive: Bool[np.ndarray, " query"]) -> dict[str, float]:
    """All figures of one trial, from the probabilities of the finding."""
    from sklearn.metrics import brier_score_loss, roc_auc_score

    right = (scores > 0.5) == positive
    confidences = np.maximum(scores, 1 - scores)
    found = {
        "auroc": float(roc_auc_score(positive, scores)),
        "brier": float(brier_score_loss(positive, scores)),
        "calibration_error": calibration.calibration_error(calibration.reliability_bins(confidences, right)),
        "prevalence": float(positive.mean()),
    }
    for specificity in SPECIFICITIES:
        found[f"sensitivity_at_{specificity:g}"] = sensitivity_at(scores, positive, specificity)
    for coverage, error, missed in coverage_curve(confidences, right, positive):
        found[f"error_at_coverage_{coverage:g}"] = error
        found[f"missed_at_coverage_{coverage:g}"] = missed
    return found


def sensitivity_at(
    scores: Float[np.ndarray, " query"], positive: Bool[np.ndarray, " query"], specificity: float
) -> float:
    """The greatest share of findings that a threshold flags which flags at most 1 − specificity of the others."""
    from sklearn.metrics import roc_curve

    false, true, _ = roc_curve(positive, scores, drop_intermediate=False)
    return float(true[false <= 1 - specificity + 1e-12].max())


def coverage_curve(
    confidences: Float[np.ndarray, " query"],
    right: Bool[np.ndarray, " query"],
    positive: Bool[np.ndarray, " query"],
    coverages: Sequence[float] = COVERAGES,
) -> list[tuple[float, float, float]]:
    """For each coverage: it, the error among the surest answers, and the share of findings that they miss or skip."""
    order = np.argsort(-confidences, kind="stable")
    curve = []
    for coverage in coverages:
        answered = order[: max(1, round(coverage * len(order)))]
        caught = (right[answered] & positive[answered]).sum()
        curve.append((coverage, float(1 - right[answered].mean()), float(1 - caught / max(1, positive.sum()))))
    return curve
