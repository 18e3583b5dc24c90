"""Few-shot learning: tasks of examples instead of episodes, adapted by the same inner loop.

The names here are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metarl.fewshot import encoders
    from metarl.fewshot.dataset import from_arrays
    from metarl.fewshot.registry import LEARNERS, register

__all__ = ["LEARNERS", "encoders", "from_arrays", "register"]

_HOMES = {
    "LEARNERS": "metarl.fewshot.registry",
    "from_arrays": "metarl.fewshot.dataset",
    "register": "metarl.fewshot.registry",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in __all__:
        return import_module(f"metarl.fewshot.{name}")
    raise AttributeError(f"module 'metarl.fewshot' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
