"""Writes one page about runs that opens without a network: `report.py runs/ice runs/dir`.

Runs that differ by their seeds alone are taken together, others are compared. Also takes the files of
`metarl evaluate --output`, so that a policy's evaluation can stand beside: `report.py runs/ice random.json`.

How long it takes: ten seeds of 45 tasks, with eleven points each, 17 s of a processor's time.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from metarl.commands.parsing import parse
from metarl.errors import UsageError
from metarl.evaluation.report import material, page
from metarl.runs import zoo
from metarl.runs.files import write_atomically


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """What to report, and where to."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of runs, and evaluations' files."""
    output: Path | None = None
    """The page; `report.html` in the first run's folder if not given."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("name at least one run's folder")
        if self.output is not None and not self.output.absolute().parent.is_dir():
            raise ValueError(f"--output {self.output}: there is no folder {self.output.absolute().parent}")
        if self.output is None and self.runs[0].suffix == ".json":
            raise ValueError(f"{self.runs[0]} is a file: say where the page goes, --output report.html")


def program(arguments: Sequence[str], name: str) -> None:
    """Writes the page, and says where it is and what was missing."""
    options = parse(ReportOptions, arguments, name, __doc__)
    paths = [zoo.resolve(path) for path in dict.fromkeys(options.runs)]
    groups = material.groups([material.look(path) for path in paths])
    if options.output is None and zoo.contains(paths[0]):
        raise UsageError("name the page by --output: the zoo is only read")
    path = options.output or paths[0] / "report.html"
    content = page.render(groups).encode(errors="backslashreplace")  # paths may be no UTF-8
    write_atomically(path, content)
    for line in (line for group in groups for line in (*group.problems, *_of_members(group))):
        print(f"missing: {line}")
    print(f"{path}: {len(content) / 1e6:.1f} MB; open it in a browser")


def _of_members(group: material.Group) -> list[str]:
    return [line for found in group.members for line in found.problems]
