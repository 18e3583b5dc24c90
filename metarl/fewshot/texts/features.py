"""The features of texts, each computed once: they are kept by the content of the texts and the encoder's key."""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from metarl.errors import UsageError, say
from metarl.fewshot.texts.encoders import TextEncoder

_AT_ONCE = 1000  # texts
_SHOWN_FROM = 2000  # texts that take a while
_FORMAT = 1  # raise it when features come out differently


def content_of(texts: Sequence[str]) -> str:
    """A digest of texts in their order."""
    digest = hashlib.sha256()
    for text in texts:
        content = text.encode()
        digest.update(len(content).to_bytes(8, "big"))
        digest.update(content)
    return digest.hexdigest()


def features(encoder: TextEncoder, texts: Sequence[str], *, keep: bool = True) -> Float[np.ndarray, "text feature"]:
    """The features of each text, float32; equal texts are encoded once.

    Args:
        keep: whether they are looked for in the user's cache folder first, and kept there. What is found is verified
            by its checksum, and computed again where it is damaged.

    Raises:
        ValueError: there are no texts.
        UsageError: the encoder gave something else than a row of finite numbers for each.
    """
    from metarl.fewshot.datasets.storage import cached  # which imports the data sets, and these the texts

    if not texts:
        raise ValueError("there are no texts")
    different = sorted(set(texts))
    key = {"format": _FORMAT, "encoder": encoder.key, "texts": content_of(different)}
    if keep:
        stored = cached("texts", key, lambda: {"features": _encoded(encoder, different)}, what="features of texts")
        rows = stored.get("features", np.empty(0))
    else:
        rows = _encoded(encoder, different)
    if rows.ndim != 2 or len(rows) != len(different):  # a file of the same name that another program wrote
        rows = _encoded(encoder, different)
    places = {text: place for place, text in enumerate(different)}
    return rows[[places[text] for text in texts]]


def _encoded(encoder: TextEncoder, texts: Sequence[str]) -> Float[np.ndarray, "text feature"]:
    parts: list[np.ndarray] = []
    for first in range(0, len(texts), _AT_ONCE):
        part = texts[first : first + _AT_ONCE]
        found = np.asarray(encoder.encode(part))
        if found.ndim != 2 or len(found) != len(part) or not np.isfinite(found).all():
            raise UsageError(f"{encoder.key} gave {list(found.shape)} for {len(part)} texts, or numbers not finite")
        parts.append(found.astype(np.float32))
        if len(texts) >= _SHOWN_FROM:
            say(f"encoding texts: {first + len(part)} of {len(texts)}")
    return np.concatenate(parts)
