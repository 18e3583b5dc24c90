"""Programs' options from their arguments. It loads nothing but tyro: small programs start at once."""

import contextlib
import inspect
import shutil
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import tyro
from tyro import _docstrings, _strings

from metarl.errors import UsageError

Options = TypeVar("Options")
_WIDEST = 100  # columns of text; longer lines are hard to read


def parse(options: Callable[..., Options], arguments: Sequence[str], name: str, about: str | None) -> Options:
    """A program's options from its arguments; wrong ones end the process with one message and exit status 2."""
    description = _wrapped(about or "")
    with _texts_as_they_are(description):
        return tyro.cli(
            options,
            prog=name,
            description=description,
            args=list(arguments),
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.CascadeSubcommandArgs),
        )


def _wrapped(about: str) -> str:
    """A program's docstring in lines that fit the terminal, examples as they are."""
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    paragraphs = inspect.cleandoc(about).split("\n\n")
    return "\n\n".join(
        text if text.startswith(" ") else textwrap.fill(" ".join(text.split()), width, break_on_hyphens=False)
        for text in paragraphs
    )


@contextlib.contextmanager
def _texts_as_they_are(description: str) -> Iterator[None]:
    """Leaves the description's lines alone, and dedents options' texts.

    Tyro joins the lines of the first, and takes what begins with a space for a paragraph.
    """
    parsed, joined = _docstrings.parse_docstring_from_object, _strings.remove_single_line_breaks

    def dedented(thing: object) -> dict[str, str]:
        return {name: inspect.cleandoc(text) for name, text in parsed(thing).items()}

    def kept(text: str) -> str:
        return text if text == description else joined(text)

    _docstrings.parse_docstring_from_object, _strings.remove_single_line_breaks = dedented, kept
    try:
        yield
    finally:
        _docstrings.parse_docstring_from_object, _strings.remove_single_line_breaks = parsed, joined


@contextlib.contextmanager
def usage() -> Iterator[None]:
    """Makes the `ValueError` of a wrong option the user's error: one line, exit status 2."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error


def first_line(thing: object) -> str:
    """The first line of a docstring."""
    return (thing.__doc__ or "").strip().partition("\n")[0].removesuffix(".")
