"""Registries: what is known by a name, and what is brought from outside the package.

An id is one of

    cheetah-terrain               a name: of `register(...)`, or of an installed package's entry point
    my_package.worlds:pendulum    an attribute of a module that can be imported
    path/to/my_file.py:pendulum   an attribute of a Python file

so that whoever brings an environment, an agent, a few-shot learner, an encoder or a data set need not edit the package.
"""

import functools
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Generic, TypeVar, final

from metarl.errors import did_you_mean

Entry = TypeVar("Entry")

_FILE_MODULE = "metarl_file_"
"""How the names of such modules begin."""


@final
class Registry(Generic[Entry]):
    """Entries of one kind by id.

    Args:
        kind: what an entry is called in messages: `distribution`, `agent`.
        group: the entry-point group in which installed packages offer theirs: `metarl.agents`.
        check: gives back the object that an id from outside named as an entry; ValueError says why it is none.
    """

    def __init__(self, kind: str, group: str, check: Callable[[object], Entry]) -> None:
        self._kind = kind
        self._a_kind = f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
        self._group = group
        self._check = check
        self._entries: dict[str, Entry] = {}

    @property
    def kind(self) -> str:
        """What an entry is called in messages."""
        return self._kind

    def register(self, name: str, entry: Entry) -> None:
        """Makes an entry known by a name.

        Raises:
            ValueError: the name is taken by another entry, or looks like an id from outside.
        """
        if ":" in name or name.endswith(".py") or not name:
            raise ValueError(f"{self._a_kind}'s name must not be empty, hold a colon or end in .py, got {name!r}")
        if self._entries.get(name, entry) is not entry:
            raise ValueError(f"there is {self._a_kind} called {name!r} already; choose another name")
        self._entries[name] = self._check(entry)

    def __getitem__(self, id: str) -> Entry:
        """The entry of an id.

        Raises:
            ValueError: there is none; the message names what is near.
        """
        if id in self._entries:
            return self._entries[id]
        if ":" in id:
            return self._checked(load_object(id), id)
        offered = self._offered
        if id in offered:
            return self._checked(offered[id].load(), id)
        raise ValueError(f"unknown {self._kind} {id!r}; {self._hint(id)}")

    def __iter__(self) -> Iterator[str]:
        """The names, sorted: those registered and those that installed packages offer."""
        return iter(sorted({*self._entries, *self._offered}))

    def __contains__(self, name: str) -> bool:
        return name in self._entries or name in self._offered

    def name_of(self, entry: Entry) -> str | None:
        """The name that an entry was registered under; None where it came from outside."""
        return next((name for name, known in self._entries.items() if known is entry), None)

    @functools.cached_property
    def _offered(self) -> Mapping[str, metadata.EntryPoint]:
        return {point.name: point for point in metadata.entry_points(group=self._group)}

    def _checked(self, found: object, id: str) -> Entry:
        try:
            return self._check(found)
        except ValueError as error:
            raise ValueError(f"{id!r} is not {self._a_kind}: {error}") from error

    def _hint(self, id: str) -> str:
        known = did_you_mean(id, self, f"there are {', '.join(self)}")
        return f"{known} One of your own is named my_file.py:name or my_module:name"


def names_code(text: str) -> bool:
    """Whether a text is an id from outside: `load_object` imports what such an id names, and nothing else.

    >>> names_code("my_file.py:mine"), names_code("os:abort"), names_code("cuda:1"), names_code("maml")
    (True, True, False, False)
    """
    place, colon, attribute = text.rpartition(":")
    module = all(part.isidentifier() for part in place.split("."))
    return bool(colon) and attribute.isidentifier() and (module or place.endswith(".py")) and "\0" not in place


def load_object(id: str) -> object:
    """What `my_module:name` or `path/to/file.py:name` names.

    Raises:
        ValueError: no such module, file or attribute; the message says which. An error that the module itself raises
            while it is imported passes as it is.
    """
    if not names_code(id):
        raise ValueError(f"{id!r} names nothing: what is one's own is named path/to/file.py:name or my_module:name")
    place, _, attribute = id.rpartition(":")
    module = _file_module(Path(place)) if place.endswith(".py") else _named_module(place, id)
    try:
        return getattr(module, attribute)
    except AttributeError:
        hint = did_you_mean(attribute, vars(module), "the name after the colon must be defined there")
        raise ValueError(f"{place} has no {attribute!r}; {hint}") from None


def file_modules() -> tuple[ModuleType, ...]:
    """The modules of all Python files that ids have named so far."""
    return tuple(module for name, module in sys.modules.items() if name.startswith(_FILE_MODULE))


def canonical(id: str) -> str:
    """The id as a run remembers it: a file by its absolute path, so that it is found from every folder."""
    place, colon, attribute = id.rpartition(":")
    return f"{Path(place).resolve()}:{attribute}" if colon and place.endswith(".py") else id


def _file_module(path: Path) -> ModuleType:
    """The module of a Python file, run once for each file."""
    path = path.resolve()
    name = f"{_FILE_MODULE}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise ValueError(f"there is no Python file {path}")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses and pickle look it up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _named_module(name: str, id: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # one of the module's own imports is missing
        raise ValueError(f"there is no module {name!r} for {id!r}; a file is named path/to/file.py:name") from None
