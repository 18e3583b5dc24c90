"""Finding the translation among candidates, in a language of which there are 10 to 100 sentence pairs.

A task is a language: its support are sentence pairs, its query other sentences and candidates for their translations.
"""

from metarl.fewshot.translation.adapter import Adapter, AdapterParameters, meta_train
from metarl.fewshot.translation.pairs import LANGUAGES, Language, load

__all__ = ["LANGUAGES", "Adapter", "AdapterParameters", "Language", "load", "meta_train"]
