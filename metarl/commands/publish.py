"""Puts a trained agent into the zoo, with a card: `publish.py runs/blind --as cheetah-terrain/blind`.

For those who maintain a checkout: the zoo is part of it, and goes into the wheel.

How long it takes: five seconds of a processor's time.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from metarl.commands.options import ComputeOptions, parse
from metarl.errors import UsageError
from metarl.evaluation.reading import read_evaluation
from metarl.runs.decoding import unreadable
from metarl.runs.publishing import publish
from metarl.runs.trained import load_agent


@dataclasses.dataclass(frozen=True)
class PublishOptions:
    """Which run, and what it is to be called."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder. It must have been evaluated on the whole test list, with the default settings."""
    name: Annotated[str, tyro.conf.arg(name="as")]
    """Its name in the zoo: the distribution's id, a slash, and a word, such as cheetah-terrain/blind."""
    compute: ComputeOptions = ComputeOptions()


def program(arguments: Sequence[str], name: str) -> None:
    """Copies the run into the zoo."""
    options = parse(PublishOptions, arguments, name, __doc__)
    run = load_agent(options.run, device=options.compute.device)
    path = run.run.evaluation_path("test")
    try:
        evaluation = read_evaluation(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"the evaluation {path} {unreadable(error)}: metarl evaluate {options.run}") from error
    print(f"published as {publish(run, options.name, evaluation)}")
