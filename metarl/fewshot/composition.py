"""How large a task is, by Meta-Dataset's rule (Triantafillou et al. 2020, "Meta-Dataset", §3.2 and app. B.2).

    N ~ U{5, …, min(50, |𝓒|)}                                            ways; N distinct classes of the source 𝓒
    q = min(10, min_c ⌊n_c / 2⌋)                                         queries of each class; n_c its examples
    |S| = min(500, Σ_c ⌈β min(100, n_c − q)⌉),   β ~ U(0, 1]             examples of the support, about
    R_c ∝ n_c exp(α_c),   α_c ~ U[log ½, log 2)                          share of class c in it
    k_c = min(⌊R_c (|S| − N)⌋ + 1, n_c − q)                              its shots

So queries are balanced, and supports are not. Deviations: a source of fewer than five classes gives tasks of all of
them (X-rays with and without a finding), and no hierarchy of the classes is followed.
"""

import dataclasses
import math
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Int

from metarl import checks


@final
class Composition(NamedTuple):
    """How many examples of each of a task's classes there are."""

    shots: Int[np.ndarray, " way"]
    queries: int
    """Of each class."""


@final
@dataclasses.dataclass(frozen=True)
class CompositionRule:
    """The bounds of the rule; the defaults are the paper's."""

    min_ways: int = 5
    """The fewest classes of a task; a source of fewer gives tasks of all that it has."""
    max_ways: int = 50
    """The most classes of a task."""
    max_queries: int = 10
    """The most queries of each class."""
    max_support: int = 500
    """The most examples of a support."""
    max_contribution: int = 100
    """The most that one class adds to the size of the support."""

    def __post_init__(self) -> None:
        checks.at_least(2, min_ways=self.min_ways)
        checks.at_least(self.min_ways, max_ways=self.max_ways)
        checks.count(max_queries=self.max_queries, max_contribution=self.max_contribution)
        checks.at_least(self.max_ways, max_support=self.max_support)

    def ways(self, classes: int, rng: np.random.Generator) -> int:
        """N, of a source of so many classes."""
        checks.at_least(2, classes=classes)
        most = min(self.max_ways, classes)
        return int(rng.integers(min(self.min_ways, most), most, endpoint=True))

    def compose(self, counts: Int[np.ndarray, " way"], rng: np.random.Generator) -> Composition:
        """Shots and queries of classes that have so many examples.

        Raises:
            ValueError: a class has fewer than two examples, one to show and one to ask about.
        """
        if counts.min() < 2:
            raise ValueError(f"a class of a task needs at least 2 examples, got one with {counts.min()}")
        queries = min(self.max_queries, int(counts.min()) // 2)
        left = counts - queries
        beta = 1 - rng.random()  # in (0, 1]
        size = min(self.max_support, int(np.ceil(beta * np.minimum(self.max_contribution, left)).sum()))
        weights = counts * np.exp(rng.uniform(math.log(0.5), math.log(2), size=len(counts)))
        shots = np.floor(weights / weights.sum() * (size - len(counts))).astype(np.int64) + 1
        return Composition(np.minimum(shots, left), queries)
