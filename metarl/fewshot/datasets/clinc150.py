"""CLINC150 (Larson et al. 2019): short questions to an assistant, 150 of each of 150 intents, in ten domains.

A task's intents are all of one domain, and so are hard to tell apart; the domains of the splits are disjoint. There is
no published split of this kind: this one was drawn once, with seed 0, from the sorted names. Out-of-scope questions are
left out.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from metarl.errors import UsageError
from metarl.fewshot.datasets.storage import SourceFile
from metarl.fewshot.texts.dataset import TextDataset
from metarl.tasks import SPLITS, Split

_HOME = "https://github.com/clinc/oos-eval/raw/master/data"
SENTENCES = SourceFile(
    "text/clinc150/data_full.json",
    ("sha256:36923c3705a59e08fe9c3883d8bc2dd966ef93e22cb78ac41171782a698d56e0",),
    f"{_HOME}/data_full.json",
)
DOMAINS = SourceFile(
    "text/clinc150/domains.json",
    ("sha256:b947b579d3b8e74b06f93b01083d8efaff2888b43a3e362533bd88a6e1211b3a",),
    f"{_HOME}/domains.json",
)
SPLITTING: Mapping[Split, tuple[str, ...]] = {
    "train": ("credit_cards", "home", "kitchen_and_dining", "small_talk", "travel"),
    "validation": ("meta", "work"),
    "test": ("auto_and_commute", "banking", "utility"),
}
"""The domains of each split."""


def load(root: Path, *, download: bool = False) -> TextDataset:
    """All sentences within scope: those published for training, validation and test are one pool of a class.

    Raises:
        UsageError: a file is missing or another one.
        RunError: a file could not be fetched.
    """
    sentences, domains = (_read(file.find(root, download=download)) for file in (SENTENCES, DOMAINS))
    return assemble(
        cast(Mapping[str, Sequence[Sequence[str]]], sentences), cast(Mapping[str, list[str]], domains), SPLITTING
    )


def assemble(
    sentences: Mapping[str, Sequence[Sequence[str]]],
    domains: Mapping[str, list[str]],
    splitting: Mapping[Split, tuple[str, ...]],
) -> TextDataset:
    """The data set of lists of (text, intent) and of the intents of each domain."""
    homes = {intent: domain for domain in sorted(domains) for intent in domains[domain]}
    classes = tuple(homes)
    numbers = {intent: number for number, intent in enumerate(classes)}
    pairs = [(text, numbers[intent]) for part in ("train", "val", "test") for text, intent in sentences[part]]
    splits: dict[Split, tuple[int, ...]] = {
        split: tuple(numbers[intent] for intent in classes if homes[intent] in splitting[split]) for split in SPLITS
    }
    return TextDataset(
        "clinc150",
        tuple(text for text, _ in pairs),
        np.array([number for _, number in pairs]),
        classes,
        splits,
        groups=tuple(homes.values()),
    )


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error})") from error
