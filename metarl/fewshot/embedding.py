"""What an evaluation gives to predictors: examples themselves or, where features are each example's own, these.

Such features are computed once for all tasks of an evaluation, however many an example is in.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.evaluation.judge import OnProgress
from metarl.fewshot import judging
from metarl.fewshot.dataset import FewShotDataset
from metarl.fewshot.learner import AdaptedPredictor, EmbeddingLearner, FewShotLearner
from metarl.fewshot.sampler import inputs
from metarl.learning.protocols import State

_EMBEDDED_AT_ONCE = 256  # examples
_EMBEDDING_SHARE = 0.8  # of an evaluation's time, about


@final
class Prepared(NamedTuple):
    """How examples reach predictors."""

    start: Callable[[State, int], AdaptedPredictor]
    """Starts a predictor from a state, for a number of tasks."""
    look_up: Callable[[Int[np.ndarray, "task example"]], Tensor]
    """What a predictor is given of the examples with these numbers, [task, example, ...]."""
    done: float
    """Which share of the evaluation's work is done with that."""


def prepared(
    learner: FewShotLearner,
    state: State,
    mode: str,
    data: FewShotDataset,
    needed: Int[np.ndarray, " example"],
    on_progress: OnProgress,
) -> Prepared:
    """The examples themselves, or, embedded once, their features.

    Args:
        needed: the numbers of the examples of all tasks, any number of times each.
    """
    if not (isinstance(learner, EmbeddingLearner) and learner.embeds_alone(mode)):
        return Prepared(learner.start, functools.partial(inputs, data), 0.0)
    needed = np.unique(needed)
    parts = list[Tensor]()
    for number, chunk in enumerate(judging.chunks(len(needed), _EMBEDDED_AT_ONCE)):
        kept = min(_EMBEDDED_AT_ONCE, len(needed) - number * _EMBEDDED_AT_ONCE)
        parts.append(learner.embed(state, inputs(data, needed[chunk][None])[0])[:kept])
        on_progress(_EMBEDDING_SHARE * (number * _EMBEDDED_AT_ONCE + kept) / len(needed))
    features = torch.cat(parts)

    def look_up(numbers: Int[np.ndarray, "task example"]) -> Float[Tensor, "task example feature"]:
        return features[torch.from_numpy(np.searchsorted(needed, numbers)).to(features.device)]

    return Prepared(learner.start_embedded, look_up, _EMBEDDING_SHARE)
