"""Repeats a figure of the results page: trains, evaluates, and says whether it came out within the recorded interval.

`reproduce.py --list` shows what there is and about how long each takes; `reproduce.py --only
maze-navigation-random` repeats one.

How long it takes: what `--list` says of each.
"""

import dataclasses
import json
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import msgspec

from metarl.commands.parsing import parse
from metarl.errors import RunError, UsageError, did_you_mean
from metarl.runs import files

ROWS = "rows.toml"
OUTPUT, RUNS = "{output}", "{runs}"


@final
class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A figure of the results page and how it was made."""

    name: str
    about: str
    """A line on what it is."""
    raw: str
    """The file of raw numbers in the results' folder."""
    figures: tuple[str, ...]
    """Where the figures that are held against are in that file: `figures/ice/after/return`; in a list by an item's
    own words, `rows/trial: n=10, k=5; algorithm: RL²/reward`. Each has a value, low and high."""
    commands: tuple[str, ...]
    """What makes the raw numbers, one after the other. `{runs}` is the folder of runs, `{output}` the new file."""
    minutes: float
    """About how long it takes on two cores."""


@dataclasses.dataclass(frozen=True)
class ReproduceOptions:
    """What to repeat."""

    list: bool = False
    """Only show what there is."""
    only: tuple[str, ...] = ()
    """The names of what to repeat; everything if none is given, which takes days."""
    results: Path = Path("docs/results")
    """The folder with rows.toml and the raw numbers, in a checkout of the repository."""
    runs: Path = Path("runs/reproduced")
    """Where runs and new raw numbers go. Runs that are there already are gone on with."""

    def __post_init__(self) -> None:
        if self.list and self.only:
            raise ValueError("--list shows everything; --only repeats")


def program(arguments: Sequence[str], name: str) -> None:
    """Lists, or repeats and compares; ends with status 1 where a figure is outside its interval."""
    options = parse(ReproduceOptions, arguments, name, __doc__)
    rows = read_rows(options.results)
    if options.list:
        for row in rows.values():
            print(f"{row.name:32} {_duration(row.minutes):>8}  {row.about}")
        return
    for asked in options.only:
        if asked not in rows:
            hint = did_you_mean(asked, rows, "--list shows what there is")
            raise UsageError(f"{options.results / ROWS} has no {asked!r}; {hint}")
    outside = [row for row in map(rows.__getitem__, options.only or rows) if not _repeat(row, options)]
    if outside:
        raise RunError(f"outside the recorded interval: {', '.join(row.name for row in outside)}")


def read_rows(results: Path) -> dict[str, Row]:
    """What the results' folder says can be repeated, by name.

    Raises:
        UsageError: there is no such file, or it is not one of these.
    """
    path = results / ROWS
    if not path.is_file():
        raise UsageError(f"there is no {path}: say --results, or type this in a checkout of the repository")
    try:
        content = tomllib.loads(files.read_bytes(path).decode())
        rows = msgspec.convert(content.get("row", []), tuple[Row, ...])
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise UsageError(f"{path}: {error}") from error
    for row in rows:
        for command in row.commands:
            if command.split()[:1] != ["metarl"]:
                raise UsageError(f"{path}: {row.name} may run metarl's programs only, not {command!r}")
    return {row.name: row for row in rows}


def figure(content: object, place: str) -> tuple[float, float, float]:
    """Value, low and high of the figure at a place in raw numbers, `figures/ice/after/return`.

    Raises:
        UsageError: there is none.
    """
    found: Any = content
    try:
        for key in place.split("/"):
            found = _item(found, key) if isinstance(found, list) else found[key]
        return float(found["value"]), float(found["low"]), float(found["high"])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UsageError(f"no figure with an interval at {place}") from error


def _item(items: list[dict[str, object]], key: str) -> object:
    """The item whose fields are as the key says, `trial: n=10; algorithm: RL²`."""
    wanted = dict(part.split(": ", 1) for part in key.split("; "))
    (found,) = (item for item in items if all(str(item[name]) == value for name, value in wanted.items()))
    return found


def _repeat(row: Row, options: ReproduceOptions) -> bool:
    """Whether every figure came out within its interval."""
    options.runs.mkdir(parents=True, exist_ok=True)
    output = options.runs / row.raw
    places = {RUNS: str(options.runs), OUTPUT: str(output)}
    print(f"{row.name}: {row.about}; about {_duration(row.minutes)}", flush=True)
    for command in row.commands:
        words = shlex.split(command)
        for place, value in places.items():
            words = [word.replace(place, value) for word in words]
        print(f"  {shlex.join(words)}", flush=True)
        code = "from metarl.commands.main import main; main()"
        done = subprocess.run([sys.executable, "-c", code, *words[1:]], check=False)
        if done.returncode:
            raise RunError(f"{shlex.join(words)} ended with status {done.returncode}")
    recorded = json.loads(files.read_bytes(options.results / row.raw))
    found = json.loads(files.read_bytes(output))
    inside = True
    for place in row.figures:
        value, low, high = figure(recorded, place)
        now, _, _ = figure(found, place)
        here = low <= now <= high
        inside &= here
        said = "within" if here else "OUTSIDE"
        print(f"  {place}: {now:.4g}, {said} the recorded {value:.4g} [{low:.4g}, {high:.4g}]", flush=True)
    return inside


def _duration(minutes: float) -> str:
    return f"{minutes:g} min" if minutes < 90 else f"{minutes / 60:.1f} h"
