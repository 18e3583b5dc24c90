"""Docstrings as Markdown, for the site's reference: what stands in columns or is typed at a prompt becomes code."""

import re
from typing import Any, final

import griffe

_COLUMNS = re.compile(r"\S.*\S {2,}\S")


@final
class Docstrings(griffe.Extension):
    """Brings every docstring into Markdown."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:  # noqa: ANN401  # as griffe calls it
        """Called with each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(docstring: str) -> str:
    """The text with a fence around each example, and around each table that is one by its spaces alone.

    >>> as_markdown("Adds.")
    'Adds.'
    """
    return "\n\n".join(_paragraph(part) for part in docstring.split("\n\n"))


def _paragraph(text: str) -> str:
    lines = text.splitlines()
    if lines and lines[0].startswith(">>> "):
        return f"```pycon\n{text}\n```"
    if len(lines) > 1 and all(_COLUMNS.match(line) for line in lines):
        return f"```text\n{text}\n```"
    return text
