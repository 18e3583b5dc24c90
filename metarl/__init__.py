"""Meta-reinforcement learning, and few-shot learning with the same core.

>>> from metarl import envs
>>> dist = envs.make("cheetah-terrain")

The names here are loaded when they are first used, so that `import metarl` costs nothing.
"""

import os
from importlib import import_module, metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metarl.evaluation.evaluate import evaluate
    from metarl.runs.curves import learning_curves
    from metarl.runs.trained import load

# MKL reads it at its first call. Without it, on some processors, a task's sums depend on where in the computer's memory
# its numbers lie, and so on the tasks beside it: see `metarl.agents.batching`. No slower, where it was measured.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

__version__: str

__all__ = ["__version__", "evaluate", "learning_curves", "load"]

_HOMES = {
    "evaluate": "metarl.evaluation.evaluate",
    "learning_curves": "metarl.runs.curves",
    "load": "metarl.runs.trained",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return metadata.version("metarl-suite")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'metarl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
