"""What there is: distributions, agents, few-shot learners, data sets and trained agents, with a line each.

`metarl list` should answer at once, and loading every distribution takes seconds. So what comes with the package stands
in `catalogue.json`, which a test holds against the registries. `python -m metarl.commands.catalogue` writes it anew.
What other installed packages offer is found by its entry points, and is not loaded.
"""

import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal, final, get_args

import metarl

if TYPE_CHECKING:
    from metarl.learning.protocols import AdaptationProtocol

Kind = Literal["distributions", "agents", "learners", "data", "zoo"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FILE = Path(__file__).with_name("catalogue.json")
_ZOO = Path(metarl.__file__).parent / "zoo"
_GROUPS: dict[Kind, str] = {
    "distributions": "metarl.envs",
    "agents": "metarl.agents",
    "learners": "metarl.learners",
    "data": "metarl.datasets",
}
"""The entry-point groups in which installed packages offer theirs."""


@final
@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of the catalogue."""

    kind: Kind
    name: str
    """The id that programs know it by."""
    about: str
    """What it is, in a line."""
    family: str = ""
    """What the ids of its family have in common, where there are many that begin alike: `metaworld-ml1-`."""
    need: float | None = None
    """Of distributions: how much only those reach who know the task (`metarl.runs.zoo.need`), where it was measured."""


def entries() -> tuple[Entry, ...]:
    """What comes with the package, then what other packages offer."""
    own = tuple(Entry(**entry) for entry in json.loads(FILE.read_text(encoding="utf-8")))
    known = {(entry.kind, entry.name) for entry in own}
    return (*own, *(entry for entry in _offered() if (entry.kind, entry.name) not in known), *_trained())


def _trained() -> Iterator[Entry]:
    """The entries of the zoo, by what their evaluations say."""
    for file in sorted(_ZOO.glob("*/*/evaluation.json")):
        found = json.loads(file.read_text(encoding="utf-8"))
        source, figures, config = found["sources"][0], found["figures"]["all"], found["config"]
        ends = [figures["curve"][index]["mean"]["value"] for index in (0, -1)]
        score = f"{config['score']} {ends[0]:.4g}" + (f" → {ends[1]:.4g}" if len(figures["curve"]) > 1 else "")
        scale = figures["normalised"]
        place = f"{scale['value']:.2f}, " if scale else ""
        name = f"zoo:{file.parent.parent.name}/{file.parent.name}"
        yield Entry("zoo", name, f"{place}{config['split']} {score}, {source['learner']}")


def _offered() -> Iterator[Entry]:
    for kind, group in _GROUPS.items():
        for point in sorted(metadata.entry_points(group=group), key=lambda point: point.name):
            package = point.dist.name if point.dist is not None else point.module
            yield Entry(kind, point.name, f"of the installed package {package}")


def made() -> tuple[Entry, ...]:
    """The catalogue of what comes with the package, from the registries; loads everything."""
    from metarl import agents, envs
    from metarl.commands.parsing import first_line
    from metarl.envs import registry
    from metarl.fewshot import datasets
    from metarl.fewshot.data_options import SINUSOID
    from metarl.fewshot.registry import LEARNERS
    from metarl.runs import zoo

    found: list[Entry] = []
    for id in envs.list():
        dist = envs.make(id)
        about = f"{dist.score}, {dist.horizon} steps: {dist.about.removesuffix('.')}"
        need = zoo.need(id)
        measured = None if need is None else round(need.value, 2)
        found.append(Entry("distributions", id, about, registry.family_of(id), measured))
    spaces = envs.make("point-navigation").spaces
    for name in agents.list():
        config = agents.config_class(name)
        protocol = config().build(spaces).protocol
        found.append(Entry("agents", name, f"{adaptation(protocol)}: {first_line(config)}"))
    for name in LEARNERS:
        module = sys.modules[LEARNERS[name].__module__]
        found.append(Entry("learners", name, first_line(module)))
    found.append(Entry("data", SINUSOID, "regression: amplitudes and phases, 600 test tasks"))
    found += [Entry("data", name, datasets.DATASETS[name].about) for name in datasets.DATASETS]
    offered = {(kind, point.name) for kind, group in _GROUPS.items() for point in metadata.entry_points(group=group)}
    return tuple(entry for entry in found if (entry.kind, entry.name) not in offered)


def adaptation(protocol: "AdaptationProtocol") -> str:
    """How much experience an agent adapts to, in words."""
    if not protocol.num_adaptations:
        return "does not adapt"
    episodes = protocol.num_adaptations * protocol.episodes_per_adaptation
    return f"adapts to {episodes} episode{'s' * (episodes > 1)}"


def encoded(catalogue: Sequence[Entry]) -> str:
    """The content of the file: an entry a line."""
    lines = ",\n".join(json.dumps(dataclasses.asdict(entry), ensure_ascii=False) for entry in catalogue)
    return f"[\n{lines}\n]\n"


if __name__ == "__main__":
    FILE.write_text(encoded(made()), encoding="utf-8")
