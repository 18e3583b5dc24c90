"""Evaluations as they stand in files, which may come from strangers."""

from collections.abc import Mapping
from pathlib import Path

from metarl.evaluation.results import Evaluation
from metarl.runs import files
from metarl.runs.decoding import read_object

_EXTRAS = frozenset({"official"})
"""What `metarl evaluate` may write beside an evaluation."""


def evaluation_of(content: Mapping[str, object]) -> Evaluation:
    """The evaluation in a JSON object, whatever else `metarl evaluate` wrote beside it.

    Raises:
        ValueError: it is none; the message says where.
    """
    return Evaluation.from_json({name: value for name, value in content.items() if name not in _EXTRAS})


def read_evaluation(path: Path) -> Evaluation:
    """The evaluation in a file of a run's folder `evaluations`.

    Raises:
        OSError: it cannot be read, or it or its folder is a link.
        ValueError: it is no evaluation.
    """
    files.need_folder(path.parent)
    return evaluation_of(read_object(path))
