"""Sentence pairs of Tatoeba with English (Artetxe & Schwenk 2019, app. D), as what an adapter computes with.

The sentence encoder was trained on none of these languages. Test languages are never trained on, nor choices made by.
"""

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.errors import UsageError
from metarl.fewshot.datasets.sources import ZIP_FAULTS
from metarl.fewshot.datasets.storage import SourceFile
from metarl.fewshot.texts.encoders import NgramEncoder, TextEncoder
from metarl.fewshot.texts.features import features
from metarl.tasks import Split

ARCHIVE = SourceFile(
    "translation/tatoeba_v1/tatoeba_v1.zip",
    ("sha256:ad01b0a4fe184b53ca6f37c7a213b1ed1f041341d1221a53544d95f6a568e812",),
)
LANGUAGES: Mapping[Split, tuple[str, ...]] = {
    "train": (
        "bul",
        "cat",
        "dan",
        "ell",
        "epo",
        "glg",
        "hrv",
        "ind",
        "lit",
        "lvs",
        "mkd",
        "nob",
        "slk",
        "slv",
        "sqi",
        "srp",
        "vie",
    ),
    "validation": ("est", "ron", "swe"),
    "test": ("ukr", "ces", "hun", "fin"),
}
"""By their ISO 639-3 codes."""
MOST_PAIRS = 600
"""Pairs of a language that are used, the first of its file."""
_HASHED_FEATURES = 8192


@final
class Language(NamedTuple):
    """The pairs of one language: everything about them that is computed with, float64."""

    name: str
    sources: Float[Tensor, "pair feature"]
    """φ(x) of each sentence, of unit length."""
    targets: Float[Tensor, "pair feature"]
    """φ(y) of each translation, of unit length."""
    ngrams: Float[Tensor, "pair pair"]
    """ψ(x) · ψ(x′) of each two sentences, ψ their hashed n-grams of unit length."""
    surface: Float[Tensor, "pair pair"]
    """ψ(x) · ψ(y) of each sentence and each translation."""
    meanings: Int[np.ndarray, " pair"]
    """A number of each translation; equal texts have the same."""

    @property
    def num_pairs(self) -> int:
        return len(self.sources)


def load(root: Path, encoder: TextEncoder, names: tuple[str, ...], told: Callable[[str], object]) -> list[Language]:
    """The languages of these names.

    Args:
        encoder: what makes features of sentences.
        told: is told of each language that is encoded.

    Raises:
        UsageError: the archive is missing, another one, or has no such language.
    """
    path, found = ARCHIVE.find(root, download=False), list[Language]()
    try:
        with zipfile.ZipFile(path) as archive:
            for name in names:
                told(name)
                member = f"tatoeba/v1/tatoeba.{name}-eng."
                sources, targets = (_lines(archive.read(member + side)) for side in (name, "eng"))
                found.append(language(name, sources, targets, encoder))
    except KeyError as error:
        raise UsageError(f"{path} has no language {error.args[0]}") from error
    except ZIP_FAULTS as error:
        raise UsageError(f"{path} cannot be read ({error})") from error
    return found


def language(name: str, sources: list[str], targets: list[str], encoder: TextEncoder) -> Language:
    """A language of its sentence pairs.

    Raises:
        ValueError: there are not as many of both, or none.
    """
    if len(sources) != len(targets) or not sources:
        raise ValueError(f"{name} has {len(sources)} sentences, but {len(targets)} translations")
    x, y = (_unit(features(encoder, texts)) for texts in (sources, targets))
    hashed = NgramEncoder(num_features=_HASHED_FEATURES)
    hashed_x, hashed_y = (torch.from_numpy(hashed.encode(texts)) for texts in (sources, targets))
    _, meanings = np.unique(targets, return_inverse=True)
    return Language(name, x, y, (hashed_x @ hashed_x.T).double(), (hashed_x @ hashed_y.T).double(), meanings)


def _unit(rows: Float[np.ndarray, "pair feature"]) -> Float[Tensor, "pair feature"]:
    return torch.nn.functional.normalize(torch.from_numpy(rows).double(), dim=-1)


def _lines(content: bytes) -> list[str]:
    return content.decode().rstrip("\n").split("\n")[:MOST_PAIRS]
