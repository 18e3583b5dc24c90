"""Texts: read from files, turned into vectors by a fixed encoder, and from there on data like any other.

`register("mine", make)` adds an encoder; `--text-encoder` names one.
"""

from metarl.fewshot.texts.dataset import TextDataset
from metarl.fewshot.texts.encoders import AUTO, TEXT_ENCODERS, TextEncoder, chosen, register, text_encoder, why
from metarl.fewshot.texts.features import features

__all__ = [
    "AUTO",
    "TEXT_ENCODERS",
    "TextDataset",
    "TextEncoder",
    "chosen",
    "features",
    "register",
    "text_encoder",
    "why",
]
