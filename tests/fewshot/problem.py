"""A small problem for every few-shot learner: classes differ along a few directions, distractions go along others.

An input is S z + 2 D u + 0.3 ε: z belongs to the class, u and ε are drawn for each example; S and D are the same for
all classes. Who knows S from D, and only many tasks tell, needs one example of a class. As vectors, or as images.
"""

import dataclasses

import numpy as np
import torch

from metarl.fewshot.examples import Batch, Examples, TaskSignature

WAYS, SIDE, CLASSES = 3, 8, 60
IMAGES = TaskSignature("classification", (1, SIDE, SIDE), WAYS, 1, WAYS, CLASSES)
VECTORS = dataclasses.replace(IMAGES, shape=(16,))


def _inputs(signature: TaskSignature, classes: np.ndarray, seed: int, rng: np.random.Generator) -> torch.Tensor:
    pixels = int(np.prod(signature.shape))
    fixed = np.random.default_rng(0)
    signal, distraction = fixed.normal(size=(4, pixels)), fixed.normal(size=(4, pixels))
    own = 1.5 * np.random.default_rng(seed).normal(size=(CLASSES, 4))
    found = own[classes] @ signal + 2 * rng.normal(size=(*classes.shape, 4)) @ distraction
    found = found + 0.3 * rng.normal(size=found.shape)
    return torch.from_numpy(found.astype(np.float32) / 4).unflatten(-1, signature.shape)


def tasks(
    signature: TaskSignature,
    count: int,
    shots: int,
    queries: int,
    rng: np.random.Generator,
    *,
    held_out: bool = False,
    ways: int = WAYS,
) -> Batch:
    """Tasks of the training classes, or of classes that are never trained on."""
    parts = []
    chosen = np.stack([rng.choice(CLASSES, ways, replace=False) for _ in range(count)])
    for number in (shots, queries):
        targets = rng.permuted(np.tile(np.repeat(np.arange(ways), number), (count, 1)), axis=1)
        inputs = _inputs(signature, np.take_along_axis(chosen, targets, axis=1), 2 if held_out else 1, rng)
        parts.append(Examples(inputs, torch.from_numpy(targets)))
    return Batch(*parts)


def by_class(signature: TaskSignature, count: int, rng: np.random.Generator) -> Batch:
    """Examples of all training classes under their own numbers."""
    classes = rng.integers(CLASSES, size=(1, count))
    nothing = Examples(torch.empty(1, 0, *signature.shape), torch.empty(1, 0, dtype=torch.int64))
    return Batch(nothing, Examples(_inputs(signature, classes, 1, rng), torch.from_numpy(classes)))
