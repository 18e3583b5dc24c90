"""Whether a classifier knows how sure it may be.

    NLL = −log p(y)                                             with p = softmax(logits)
    ECE = Σ_b n_b / n · |acc_b − conf_b|                        (Guo et al. 2017, "On calibration", eq. 3)

over b equal bins of the confidence maxₖ pₖ; acc_b is the share of right answers in a bin, conf_b its mean confidence.
The bins are kept as counts and sums, which add up over tasks and runs as the error itself does not.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special

BINS = 15


def log_probabilities(logits: Float[np.ndarray, "*batch way"]) -> Float[np.ndarray, "*batch way"]:
    """log softmax, in float64."""
    return special.log_softmax(logits.astype(np.float64), axis=-1)


def negative_log_likelihood(
    log_p: Float[np.ndarray, "*batch way"], targets: Int[np.ndarray, "*batch"]
) -> Float[np.ndarray, "*batch"]:
    """−log p(y) of each answer, in nats."""
    return -np.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]


def reliability_bins(
    confidences: Float[np.ndarray, " answer"], right: Bool[np.ndarray, " answer"], bins: int = BINS
) -> Float[np.ndarray, "bin 3"]:
    """Of each bin (b / bins, (b + 1) / bins]: its answers, the sum of their confidences, the right ones among them."""
    if bins < 1:
        raise ValueError(f"need at least one bin, got {bins}")
    places = np.clip(np.ceil(confidences * bins).astype(np.int64) - 1, 0, bins - 1)
    columns = (np.ones_like(confidences), confidences, right.astype(np.float64))
    sums = [np.bincount(places, weights=column, minlength=bins) for column in columns]
    return np.stack(sums, axis=1).astype(np.float64)  # of no answers NumPy counts in integers


def calibration_error(bins: Float[np.ndarray, "bin 3"]) -> float:
    """The expected calibration error of `reliability_bins`, or of sums of them."""
    answers, confidence, right = bins.T
    if answers.sum() == 0:
        raise ValueError("a calibration error needs at least one answer, got 0")
    return float(np.abs(right - confidence).sum() / answers.sum())
