"""How often the translation is found among candidates, after so many pairs of a language."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Bool, Float

from metarl import checks
from metarl.fewshot.translation.adapter import Numbers
from metarl.fewshot.translation.baselines import FITTED, RIDGES, Scores
from metarl.fewshot.translation.pairs import Language


@final
class Draw(NamedTuple):
    """Which pairs are support, and which are queries and candidates both."""

    support: Numbers
    candidates: Numbers


def draws(language: Language, most: int, candidates: int, count: int, seed: int) -> list[Draw]:
    """Random partitions; the first n of a support are the support of n pairs.

    Raises:
        ValueError: the language has too few pairs.
    """
    checks.count(candidates=candidates, draws=count)
    checks.at_least(1, pairs=most)
    if most + candidates > language.num_pairs:
        raise ValueError(
            f"{most} pairs and {candidates} candidates need {most + candidates} pairs; "
            f"{language.name} has {language.num_pairs}"
        )
    found: list[Draw] = []
    for number in range(count):
        order = np.random.default_rng([seed, number]).permutation(language.num_pairs)
        found.append(Draw(order[:most], order[most : most + candidates]))
    return found


def retrieved(language: Language, scores: Scores, support: Numbers, candidates: Numbers) -> Bool[np.ndarray, " query"]:
    """Whether the best candidate of each query is its translation, or one with the same text."""
    best = scores(language, support, candidates, candidates).argmax(1).numpy()
    meanings = language.meanings[candidates]
    return meanings[best] == meanings


def accuracy(language: Language, scores: Scores, drawn: Sequence[Draw], pairs: int) -> Float[np.ndarray, " draw"]:
    """Retrieval@1 of each draw, after so many pairs."""
    return np.array([retrieved(language, scores, draw.support[:pairs], draw.candidates).mean() for draw in drawn])


def best_ridges(
    languages: Mapping[str, tuple[Language, Sequence[Draw]]], pairs: int
) -> dict[str, tuple[float, Scores]]:
    """Of each baseline with a λ the one that is best on average over (validation) languages."""
    found: dict[str, tuple[float, Scores]] = {}
    for name, make in FITTED.items():
        means = [
            np.mean([accuracy(language, make(strength), drawn, pairs).mean() for language, drawn in languages.values()])
            for strength in RIDGES
        ]
        strength = RIDGES[int(np.argmax(means))]
        found[name] = (strength, make(strength))
    return found
