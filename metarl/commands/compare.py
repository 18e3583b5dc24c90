"""Compares agents on the same tasks at equal amounts of experience: `metarl compare runs/maml runs/rl2`.

Runs that differ by their seeds alone are one agent. Paired differences and probabilities of improvement, with their
95 % intervals, by the evaluations that the runs hold; nothing is played.

How long it takes: two evaluations of 40 tasks six seconds of a processor's time.
"""

import dataclasses
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from metarl.commands.parsing import parse, usage
from metarl.errors import UsageError
from metarl.evaluation.compare import compare, comparison_table, winners
from metarl.evaluation.report import material
from metarl.runs import zoo


@dataclasses.dataclass(frozen=True)
class CompareOptions:
    """What to compare."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of runs, and files of `metarl evaluate --output`; at least two."""
    evaluation: str = "test"
    """The name of the evaluation in each run's folder `evaluations`."""

    def __post_init__(self) -> None:
        if len(self.runs) < 2:
            raise ValueError(f"name at least two runs to compare, got {', '.join(map(str, self.runs)) or 'none'}")


def program(arguments: Sequence[str], name: str) -> None:
    """Prints the comparison."""
    options = parse(CompareOptions, arguments, name, __doc__)
    groups = material.groups([material.look(zoo.resolve(path)) for path in dict.fromkeys(options.runs)])
    for group in groups:
        if options.evaluation not in group.evaluations:
            there = ", ".join(group.evaluations) or "none"
            paths = " ".join(str(found.path) for found in group.members)
            raise UsageError(f"{paths} has no evaluation {options.evaluation!r}, but {there}: metarl evaluate {paths}")
    with usage():
        found = compare({group.label: group.evaluations[options.evaluation] for group in groups})
    print(comparison_table(found), *("\n".join(textwrap.wrap(f"{each}.", 80)) for each in winners(found)), sep="\n\n")
