"""Fetches tables of OpenML into a folder that `--data` reads: `fewshot.py openml 31 37 1462 --output tables`.

Needs the package openml and a network. Categories become numbers; rows with missing values are left out.

How long it takes: as long as the network needs.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from metarl.commands.parsing import parse
from metarl.errors import RunError
from metarl.fewshot.tables import openml


@dataclasses.dataclass(frozen=True)
class OpenmlOptions:
    """Which tables, and where to."""

    numbers: Annotated[tuple[int, ...], tyro.conf.Positional]
    """OpenML's numbers of the data sets, as in the address of their pages."""
    output: Path
    """The folder; made if it is not there."""

    def __post_init__(self) -> None:
        if not self.numbers or min(self.numbers) < 1:
            raise ValueError("give the numbers of data sets of OpenML, 1 or more each")


def program(arguments: Sequence[str], name: str) -> None:
    """Fetches and says where each table is."""
    options = parse(OpenmlOptions, arguments, name, __doc__)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{options.output} cannot be made ({error.strerror})") from error
    for path in openml.fetch(options.numbers, options.output):
        print(f"written to {path}")
