"""Few-shot learning: tasks of examples instead of episodes, adapted by the same inner loop.

The names here are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metarl.fewshot.dataset import from_arrays
    from metarl.fewshot.evaluation import evaluate
    from metarl.fewshot.trained import load

__all__ = ["evaluate", "from_arrays", "load"]

_HOMES = {
    "evaluate": "metarl.fewshot.evaluation",
    "from_arrays": "metarl.fewshot.dataset",
    "load": "metarl.fewshot.trained",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'metarl.fewshot' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
