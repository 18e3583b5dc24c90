"""What can be wrong with the examples of a task: labels, noise, blur, too few of some classes."""

import math

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage


def exchanged_labels(
    targets: Int[np.ndarray, " example"], share: float, rng: np.random.Generator
) -> Int[np.ndarray, " example"]:
    """The labels of a support, of which a share is wrong.

    Pairs of examples of different classes exchange their labels, so that each class keeps its number of examples, also
    where that is one, and nothing but the labels' truth changes. Where the share is no whole number of pairs, chance
    rounds it up or down, so that its mean is right.

    Raises:
        ValueError: the share is not between 0 and 1/2: more than that cannot always be exchanged.
    """
    if not 0 <= share <= 0.5:
        raise ValueError(f"the share of wrong labels must be between 0 and 0.5, got {share}")
    wanted = share * len(targets) / 2
    pairs = math.floor(wanted) + int(rng.random() < wanted % 1)
    labels, free = targets.copy(), list(rng.permutation(len(targets)))
    for _ in range(pairs):
        one = free.pop()
        others = [place for place in free if targets[place] != targets[one]]
        if not others:  # the rest is of one class
            break
        other = others[int(rng.integers(len(others)))]
        free.remove(other)
        labels[one], labels[other] = targets[other], targets[one]
    return labels


def blurred(images: Float[np.ndarray, "*image height width"], sigma: float) -> Float[np.ndarray, "*image height width"]:
    """Each image under a Gaussian of this standard deviation, px; beyond an edge its pixels go on."""
    axes = (images.ndim - 2, images.ndim - 1)
    return ndimage.gaussian_filter(images, sigma, axes=axes, mode="nearest", truncate=3.0)


def linear_shots(ways: int, shots: int, spread: float) -> tuple[int, ...]:
    """Examples of each class, rising linearly from shots·(1 − spread) to shots·(1 + spread), as many in all as before.

    "Linear imbalance" of Ochal et al. 2021 ("Few-shot learning with class imbalance", §3.2): 1 to 9 where it was 5.
    """
    rising = np.linspace(shots * (1 - spread), shots * (1 + spread), ways)
    counts = [max(1, round(number)) for number in rising]
    for place in range(ways // 2):  # rounding must not change the sum
        counts[-1 - place] = 2 * shots - counts[place]
    if ways % 2:
        counts[ways // 2] = shots
    return tuple(counts)


def first_of_each(targets: Int[np.ndarray, "task example"], counts: tuple[int, ...]) -> Int[np.ndarray, "task chosen"]:
    """The numbers of the first so many examples of each class, in the order of the support."""
    chosen = []
    for labels in targets:
        order = np.argsort(labels, kind="stable")
        firsts = np.searchsorted(labels[order], labels[order], side="left")
        ranks = np.empty_like(order)
        ranks[order] = np.arange(len(labels)) - firsts
        chosen.append(np.flatnonzero(ranks < np.asarray(counts)[labels]))
    return np.stack(chosen)
