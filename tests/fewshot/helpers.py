"""What tests of few-shot learners share."""

import numpy as np

from metarl.fewshot.dataset import FewShotDataset, from_arrays
from metarl.learning.protocols import State


def doubled(state: State) -> State:
    """The same in float64."""
    parameters, optimizer = ({k: v.double() for k, v in part.items()} for part in (state.parameters, state.optimizer))
    return State(parameters, optimizer)


def blobs(classes: int = 30, examples: int = 25) -> FewShotDataset:
    """Classes of vectors around centres of their own."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), examples)
    centres = rng.normal(size=(classes, 4))[labels]
    return from_arrays("blobs", centres + 0.6 * rng.normal(size=(len(labels), 4)), labels)


def pictures(classes: int = 24, examples: int = 12, side: int = 8) -> FewShotDataset:
    """Classes of noisy grey images."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), examples)
    means = rng.integers(40, 216, size=(classes, side, side))[labels]
    noise = rng.normal(0, 40, size=(len(labels), side, side))
    return from_arrays("pictures", np.clip(means + noise, 0, 255).astype(np.uint8), labels)
