"""Programs' options from their arguments. It loads nothing but tyro: small programs start at once."""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import tyro
from tyro import _docstrings

from metarl.errors import UsageError

Options = TypeVar("Options")


def parse(options: Callable[..., Options], arguments: Sequence[str], name: str, about: str | None) -> Options:
    """A program's options from its arguments; wrong ones end the process with one message and exit status 2."""
    with _flowing_texts():
        return tyro.cli(
            options,
            prog=name,
            description=about,
            args=list(arguments),
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.CascadeSubcommandArgs),
        )


@contextlib.contextmanager
def _flowing_texts() -> Iterator[None]:
    """Dedents options' texts: tyro takes what begins with a space for a paragraph."""
    parsed = _docstrings.parse_docstring_from_object

    def dedented(thing: object) -> dict[str, str]:
        return {name: inspect.cleandoc(text) for name, text in parsed(thing).items()}

    _docstrings.parse_docstring_from_object = dedented
    try:
        yield
    finally:
        _docstrings.parse_docstring_from_object = parsed


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
