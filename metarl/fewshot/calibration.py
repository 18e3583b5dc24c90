"""Whether a classifier knows how sure it may be.

    NLL = −log p(y)                                             with p = softmax(logits)
    ECE = Σ_b n_b / n · |acc_b − conf_b|                        (Guo et al. 2017, "On calibration", eq. 3)

over b equal bins of the confidence maxₖ pₖ; acc_b is the share of right answers in a bin, conf_b its mean confidence.
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


def calibration_error(
    confidences: Float[np.ndarray, " answer"], right: Bool[np.ndarray, " answer"], bins: int = BINS
) -> float:
    """The expected calibration error; a bin holds the confidences in (b / bins, (b + 1) / bins]."""
    if len(confidences) == 0 or bins < 1:
        raise ValueError(f"need at least one answer and one bin, got {len(confidences)} and {bins}")
    places = np.clip(np.ceil(confidences * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(places, weights=right - confidences, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidences))
