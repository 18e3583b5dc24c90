"""A small problem for every few-shot learner: images of classes that share their distractions."""

import numpy as np
import torch

from metarl.fewshot.examples import Batch, Examples, TaskSignature

WAYS, SIDE, CLASSES = 3, 8, 40
SIGNATURE = TaskSignature("classification", (1, SIDE, SIDE), WAYS, 1, WAYS, CLASSES)


def _images(classes: np.ndarray, seed: int, rng: np.random.Generator) -> torch.Tensor:
    """Each class's own picture, under three pictures that all classes share, at random strengths."""
    own = np.random.default_rng(seed).normal(size=(CLASSES, SIDE, SIDE))
    shared = np.random.default_rng(0).normal(size=(3, SIDE, SIDE))
    strengths = 1.2 * rng.normal(size=(*classes.shape, 3))
    noise = 0.4 * rng.normal(size=(*classes.shape, SIDE, SIDE))
    found = own[classes] + np.einsum("...k,kij->...ij", strengths, shared) + noise
    return torch.from_numpy(found.astype(np.float32))[..., None, :, :]


def tasks(
    count: int, shots: int, queries: int, rng: np.random.Generator, *, held_out: bool = False, ways: int = WAYS
) -> Batch:
    """Tasks of the training classes, or of classes that are never trained on."""
    seed = 2 if held_out else 1
    parts = []
    chosen = np.stack([rng.choice(CLASSES, ways, replace=False) for _ in range(count)])
    for number in (shots, queries):
        targets = rng.permuted(np.tile(np.repeat(np.arange(ways), number), (count, 1)), axis=1)
        inputs = _images(np.take_along_axis(chosen, targets, axis=1), seed, rng)
        parts.append(Examples(inputs, torch.from_numpy(targets)))
    return Batch(*parts)


def by_class(count: int, rng: np.random.Generator) -> Batch:
    """Examples of all training classes under their own numbers."""
    classes = rng.integers(CLASSES, size=(1, count))
    nothing = Examples(torch.empty(1, 0, 1, SIDE, SIDE), torch.empty(1, 0, dtype=torch.int64))
    return Batch(nothing, Examples(_images(classes, 1, rng), torch.from_numpy(classes)))
