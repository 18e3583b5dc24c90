"""Describes a distribution, agent, learner, data set or trained agent on a page: `metarl describe cheetah-terrain`.

One of your own is named `my_file.py:name`.

How long it takes: four seconds of a processor's time, for PyTorch and MuJoCo to start.
"""

import dataclasses
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, cast

import tyro

from metarl.commands.catalogue import KINDS, Kind, adaptation, entries
from metarl.commands.parsing import first_line, parse, usage
from metarl.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import gymnasium as gym

_TASKS_SHOWN = 3  # examples of a split's list


@dataclasses.dataclass(frozen=True)
class DescribeOptions:
    """What to describe."""

    id: Annotated[str, tyro.conf.Positional]
    """The name of a distribution, agent, learner, data set or trained agent (`metarl list` names them);
    of your own, `my_file.py:name`."""


def program(arguments: Sequence[str], name: str) -> None:
    """Prints a page for each thing of that name: `maml` is an agent and a few-shot learner."""
    options = parse(DescribeOptions, arguments, name, __doc__)
    width = shutil.get_terminal_size().columns
    pages = [_PAGES[kind](options.id) for kind in kinds_of(options.id)]
    print("\n\n".join(as_text(page, width) for page in pages))


def kinds_of(id: str) -> list[Kind]:
    """What kinds of things have this id.

    Raises:
        UsageError: none; the message names what is near.
    """
    catalogue = entries()
    found: list[Kind] = [kind for kind in KINDS if any((entry.kind, entry.name) == (kind, id) for entry in catalogue)]
    families = {entry.family for entry in catalogue if entry.family} | {"metaworld-"}
    if not found and (":" in id or id.startswith(tuple(families))):
        return ["distributions"]  # made up of options, or of one's own: its registry knows
    if not found:
        known = dict.fromkeys(entry.name for entry in catalogue)
        hint = did_you_mean(id, known, "`metarl list` names what there is")
        raise UsageError(f"nothing is called {id!r}; {hint}")
    return found


Page = Mapping[str, str | Sequence[str]]
"""A page by headings, the first one being its title; a text, or a line for each of several things."""


def as_text(page: Page, width: int) -> str:
    """A page as aligned text of at most `width` columns."""
    (title, about), *rest = page.items()
    column = max(len(heading) for heading, _ in rest)
    lines = textwrap.wrap(f"{title}: {about}", width)
    for heading, content in rest:
        for number, line in enumerate([content] if isinstance(content, str) else content):
            first = f"  {heading if number == 0 else '':{column}}  "
            lines += textwrap.wrap(
                line, width, initial_indent=first, subsequent_indent=" " * (column + 6), break_on_hyphens=False
            ) or [first.rstrip()]
    return "\n".join(lines)


def distribution_page(id: str) -> Page:
    """What there is to know of a distribution."""
    from metarl import envs
    from metarl.tasks import SPLITS

    with usage():
        dist = envs.make(id)
    found = envs.describe(dist)
    splits: dict[str, list[str]] = {}
    for split in SPLITS:
        part = found.splits[split]
        alike = split != "train" and part.families == found.splits["train"].families
        lines = [f"{part.num_tasks} tasks: {'drawn as in training' if alike else ', '.join(part.families)}"]
        for family, parameters in () if alike else part.families.items():
            if parameters:
                lines.append(f"{family}: {', '.join(f'{name} {values}' for name, values in parameters.items())}")
        splits[split] = lines
    examples = [str(task) for task in dist.tasks("test")[:_TASKS_SHOWN]]
    period = f", {found.horizon * found.control_period:g} s at {found.control_period:g} s a step"
    return {
        f"{dist.id} (task distribution)": found.about,
        "body": found.body,
        "varies": [f"{name}, {unit}" for name, unit in found.varies.items()],
        **splits,
        "held out": "yes: no test task is ever trained on" if found.held_out else "no: every split has the same tasks",
        "horizon": f"{found.horizon} environment steps{period}",
        "score": found.score,
        "needs adaptation": _need(dist.id),
        "observation": _space(dist.observation_space),
        "action": _space(dist.action_space),
        "pictures": "yes" if dist.renders else "no",
        "hash": dist.hash,
        "test tasks": examples,
        "try": f"metarl train rl2 --env {id} --run runs/mine",
    }


def _need(id: str) -> str:
    """How much only those reach who know the task, where that has been measured."""
    from metarl.runs import zoo

    need = zoo.need(id)
    if need is None:
        return "not measured: the zoo has no informed policy of it"
    return f"{need:.2f}: the share of what can be learned that only a policy reaches which is told the task"


def agent_page(id: str) -> Page:
    """What there is to know of an agent."""
    from metarl import agents, envs

    config = agents.config_class(id)
    agent = config().build(envs.make("point-navigation").spaces)
    return {
        f"{id} (agent)": first_line(config),
        "adaptation": adaptation(agent.protocol),
        "tasks a step": str(agent.meta_batch),
        "options": _options(config),
        "more": f"metarl train {id} --help",
        "try": f"metarl train {id} --env point-navigation --run runs/mine",
    }


def learner_page(id: str) -> Page:
    """What there is to know of a few-shot learner."""
    from metarl.fewshot.registry import LEARNERS

    config = LEARNERS[id]
    return {
        f"{id} (few-shot learner)": first_line(sys.modules[config.__module__]),
        "options": _options(config),
        "more": f"metarl fewshot {id} --help",
        "try": f"metarl fewshot {id} --data omniglot --ways 5 --shots 1 --run runs/mine",
    }


def data_page(id: str) -> Page:
    """What there is to know of a data set."""
    from metarl.fewshot.datasets.storage import ROOT_VARIABLE, data_root

    about = next(entry.about for entry in entries() if (entry.kind, entry.name) == ("data", id))
    return {
        f"{id} (data set)": about,
        "data root": f"{data_root()} (--data-root or {ROOT_VARIABLE} names another)",
        "try": f"metarl fewshot prototypical --data {id} --ways 5 --shots 1 --run runs/mine",
    }


def zoo_page(id: str) -> Page:
    """The card of a trained agent."""
    from metarl.runs import zoo

    card = (zoo.resolve(id) / "card.md").read_text(encoding="utf-8")
    about = next(entry.about for entry in entries() if (entry.kind, entry.name) == ("zoo", id))
    return {
        f"{id} (trained agent)": about,
        "made": [line.removeprefix("- ") for line in card.partition("```")[0].splitlines()[2:] if line],
        "card": str(zoo.resolve(id) / "card.md"),
        "try": f"metarl evaluate {id}",
    }


_PAGES: dict[Kind, Callable[[str], Page]] = {
    "distributions": distribution_page,
    "agents": agent_page,
    "learners": learner_page,
    "data": data_page,
    "zoo": zoo_page,
}


def _options(config: type) -> list[str]:
    """The options of a config with their defaults."""
    value = config()
    fields = dataclasses.fields(cast(Any, config))
    return [f"{field.name.replace('_', '-')} = {getattr(value, field.name)}" for field in fields]


def _space(space: "gym.Space[Any]") -> str:
    """A space in a line; bounds that differ from number to number are left out."""
    text = str(space)
    return text if len(text) < 80 else f"{type(space).__name__} of shape {space.shape}, {space.dtype}"
