"""Lists what there is: distributions, agents, few-shot learners, data sets and trained agents, a line each.

The number of a distribution says how much of what can be learned there needs adaptation, where that has been
measured: 0 where a policy that never adapts does as well as one that is told the task, 1 where it is no better than
chance. A question mark stands where it has not.

`metarl list distributions` names every one of a kind; without a kind, ids that are too many share a line.

How long it takes: a quarter of a second of a processor's time.
"""

import dataclasses
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import Annotated

import tyro

from metarl.commands.catalogue import KINDS, Entry, Kind, entries
from metarl.commands.parsing import parse

TITLES: dict[Kind, str] = {
    "distributions": "task distributions, need of adaptation 0 to 1 (metarl train AGENT --env ID)",
    "agents": "agents (metarl train AGENT --env ID)",
    "learners": "few-shot learners (metarl fewshot LEARNER --data SET)",
    "data": "data sets (metarl fewshot LEARNER --data SET)",
    "zoo": "trained agents; 0 is blind, 1 informed (metarl evaluate NAME)",
}


@dataclasses.dataclass(frozen=True)
class ListOptions:
    """What to list."""

    kind: Annotated[Kind | None, tyro.conf.Positional] = None
    """Only these, each id in full."""


def program(arguments: Sequence[str], name: str) -> None:
    """Prints the list."""
    options = parse(ListOptions, arguments, name, __doc__)
    print(listing(entries(), options.kind, shutil.get_terminal_size().columns))


def listing(catalogue: Iterable[Entry], kind: Kind | None, width: int) -> str:
    """The catalogue as text of at most `width` columns: of one kind in full, or of all in short."""
    catalogue = tuple(catalogue)
    parts: list[str] = []
    for each in KINDS if kind is None else (kind,):
        chosen = [entry for entry in catalogue if entry.kind == each]
        shown = chosen if kind is not None else _without_families(chosen)
        column = max((len(entry.name) for entry in shown), default=0)
        lines = [_line(entry, column, width) for entry in shown]
        parts.append("\n".join([f"{TITLES[each]}:", *lines]) if lines else f"{TITLES[each]}: none")
    if kind is None:
        parts.append("metarl describe NAME says more; your own is named my_file.py:name")
    return "\n\n".join(parts)


def _without_families(chosen: Sequence[Entry]) -> list[Entry]:
    """The entries, those of a family as one: its first id's text, and how many there are."""
    shown: dict[str, Entry] = {}
    for entry in chosen:
        if not entry.family:
            shown[entry.name] = entry
        elif entry.family not in shown:
            count = sum(other.family == entry.family for other in chosen)
            about = f"{count} ids, named by `metarl list {entry.kind}`"
            shown[entry.family] = dataclasses.replace(entry, name=f"{entry.family}…", about=about)
    return list(shown.values())


def _line(entry: Entry, column: int, width: int) -> str:
    """An entry; of a distribution, after its id, how much it needs adaptation."""
    first = f"  {entry.name:{column}}  "
    if entry.kind == "distributions":
        first += f"{'?' if entry.need is None else f'{entry.need:.2f}':4}  "
    return first + textwrap.shorten(entry.about, max(20, width - len(first)), placeholder=" …")
