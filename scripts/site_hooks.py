"""What MkDocs is told beyond mkdocs.yml: pages made of the README, the changelog, the catalogue and the docstrings.

Links to sources, which are no pages, lead to the reference; the comments that tell tests/readme.py how to run a snippet
are left out.
"""

import functools
import html
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from metarl.commands import fewshot
from metarl.commands.catalogue import Entry, entries
from metarl.commands.help_texts import help_text
from metarl.commands.main import PROGRAMS

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {
    "metarl": ("metarl", "What `import metarl` offers, and the modules at the top."),
    "tasks": ("metarl/tasks", ""),
    "envs": ("envs", ""),
    "agents": ("agents", ""),
    "fewshot": ("metarl/fewshot", ""),
    "learning": ("metarl/learning", ""),
    "cluster": ("metarl/cluster", ""),
    "evaluation": ("metarl/evaluation", ""),
    "runs": ("metarl/runs", ""),
    "maths": ("metarl/maths", ""),
    "testing": ("metarl/testing", ""),
}
"""The rooms whose docstrings are shown: where each stands, and what is said first."""
PAGES = {"README.md": "quick-start.md", "CHANGELOG.md": "changelog.md"}
"""Pages that stand outside docs/."""
COMMANDS = "commands.md"
"""The page of the programs."""
PICTURES = "images/distributions"
_ON_PROGRAMS = """\
Every program is `metarl PROGRAM` and, in a checkout, `python scripts/PROGRAM.py`; here is what `--help` says. A slip of
the keyboard is answered by what may have been meant; `metarl completion bash` (zsh, fish) prints a script by which the
shell completes programs, options and ids, and `metarl doctor` says what works on a machine and what to do."""
_LINK = re.compile(r"\[([^\]]*)\]\((?!https?://|#|mailto:)([^)\s]+)\)")
_MARK = re.compile(r"^<!-- ci: .*? -->\n", re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts a page for each room into the navigation."""
    assert config.nav is not None
    for part in config.nav:
        if isinstance(part, dict) and "Reference" in part:
            part["Reference"] = [{f"metarl.{room}" if room != "metarl" else room: page_of(room)} for room in ROOMS]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made."""
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=linked(text, source)))
    files.append(File.generated(config, COMMANDS, content=commands()))
    for room in ROOMS:
        files.append(File.generated(config, page_of(room), content=reference(room)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leaves out what is for the tests, and puts the distributions in."""
    path = page.file.src_uri
    if path not in made_pages():
        markdown = linked(markdown, f"docs/{path}")
    return _MARK.sub("", markdown).replace("<!-- distributions -->", distributions())


def made_pages() -> tuple[str, ...]:
    """Pages that no file of docs/ is."""
    return (*PAGES.values(), COMMANDS, *map(page_of, ROOMS))


def linked(markdown: str, source: str) -> str:
    """The text of a file of the repository with its links as they are between pages."""

    def there(match: re.Match[str]) -> str:
        found = target(match[2], source)
        return match[1] if found is None else f"[{match[1]}]({found})"

    return _LINK.sub(there, markdown)


def target(link: str, source: str) -> str | None:
    """Where a link of a file leads on the site: sources are in the reference. None for what the site has not."""
    path, _, anchor = link.partition("#")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    anchor = f"#{anchor}" if anchor else ""
    if path in PAGES:
        return f"{PAGES[path]}{anchor}"
    page = path.removeprefix("docs/")
    if path != page and ((ROOT / path).is_file() or page in made_pages()):
        return f"{page}{anchor}"
    module = modules_by_file().get(path)
    if module is None:
        return None
    room = module.split(".")[1] if "." in module else ""
    return f"{page_of(room if room in ROOMS else 'metarl')}#{module}"


def page_of(room: str) -> str:
    """The page of a room."""
    return f"reference/{room}.md"


@functools.cache
def modules_by_file() -> dict[str, str]:
    """The modules of the reference by their files in the repository: `envs/body.py`: `metarl.envs.body`."""
    return {file: module for room in ROOMS for file, module in modules(room)}


def modules(room: str) -> Iterator[tuple[str, str]]:
    """The files of a room and the names of their modules, the package itself first."""
    folder = ROOMS[room][0]
    files = sorted((ROOT / folder).glob("*.py" if room == "metarl" else "**/*.py"))
    files.sort(key=lambda file: (file.name != "__init__.py" or file.parent != ROOT / folder, str(file)))
    for file in files:
        path = file.relative_to(ROOT).as_posix()
        parts = path.removesuffix(".py").split("/")
        parts = parts if parts[0] == "metarl" else ["metarl", *parts]
        yield path, ".".join(parts).removesuffix(".__init__")


def reference(room: str) -> str:
    """The page of a room: each module with its docstrings."""
    lines = [f"# {'metarl' if room == 'metarl' else f'metarl.{room}'}", "", ROOMS[room][1], ""]
    for _, module in modules(room):
        lines += [f"::: {module}", ""]
    return "\n".join(lines)


def commands() -> str:
    """The page of the programs: what each prints when it is asked for its help."""
    lines = ["# Command line", "", _ON_PROGRAMS]
    for name, about in PROGRAMS.items():
        lines += ["", f"## metarl {name}", "", about[0].upper() + about[1:] + ".", ""]
        lines += _help(name)
        for part in fewshot.PROGRAMS if name == "fewshot" else ():
            lines += ["", f"### metarl {name} {part}", "", *_help(name, part)]
    return "\n".join([*lines, ""])


def _help(name: str, *words: str) -> list[str]:
    shown = help_text(name, *words, columns=76, shown_as=f"metarl {name}")
    return ["```text", *map(str.rstrip, shown.strip().splitlines()), "```"]


@functools.cache
def distributions() -> str:
    """Every distribution with its picture: ids of a family together."""
    sections: dict[str, list[Entry]] = {}
    for entry in entries():
        if entry.kind == "distributions":
            sections.setdefault(entry.family or entry.name, []).append(entry)
    return "\n\n".join(_section(found) for found in sections.values())


def _section(found: list[Entry]) -> str:
    first = found[0]
    names = ", ".join(f"`{entry.name}`" for entry in found)
    title = f"{first.family}…" if first.family else first.name
    lines = [f"## {title}", "", first.about.partition(": ")[2] + ".", ""]
    lines += [f"Score: {first.about.partition(': ')[0]}.", ""]
    picture, film = f"{PICTURES}/{first.name}.jpg", f"{PICTURES}/{first.name}.mp4"
    if (ROOT / "docs" / picture).exists():
        lines += [f"![Test tasks of {html.escape(first.name)}]({picture})", ""]
    if (ROOT / "docs" / film).exists():
        lines += [f'<video controls loop muted playsinline preload="metadata" src="{film}"></video>', ""]
    lines += (
        [f'??? note "{len(found)} ids"', f"    {names}", ""] if first.family else [f"`metarl describe {first.name}`"]
    )
    return "\n".join(lines)
