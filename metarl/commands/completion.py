"""Prints a script by which a shell completes programs, options and ids: `metarl completion bash >> ~/.bashrc`.

zsh: `metarl completion zsh >> ~/.zshrc`. fish: `metarl completion fish > ~/.config/fish/completions/metarl.fish`.
Write it anew after an update.

How long it takes: ten seconds of a processor's time, for every program is asked for its options.
"""

import dataclasses
import importlib
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, final, get_args

import tyro

from metarl.commands.catalogue import Entry, Kind, entries
from metarl.commands.help_texts import help_text
from metarl.commands.main import PROGRAMS, SHORT
from metarl.commands.parsing import parse

Shell = Literal["bash", "zsh", "fish"]
_ALWAYS = ("--help", "--version")
_LEARNS: Mapping[str, Kind] = {"train": "agents", "fewshot": "learners"}
"""Programs whose first word names a learner, which has options of its own."""
_NAMED: Mapping[str, Kind] = {"--env": "distributions", "--data": "data"}
"""Options whose value is an id."""
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


@dataclasses.dataclass(frozen=True)
class CompletionOptions:
    """For which shell."""

    shell: Annotated[Shell, tyro.conf.Positional]
    """The shell that reads the script."""


def program(arguments: Sequence[str], name: str) -> None:
    """Prints the script."""
    options = parse(CompletionOptions, arguments, name, __doc__)
    print(script(options.shell, Words.known()))


@final
@dataclasses.dataclass(frozen=True)
class Words:
    """What there is to complete."""

    first: Mapping[str, Sequence[str]]
    """By program, the words that may follow it at once: ids, shells, kinds."""
    options: Mapping[str, Sequence[str]]
    """By program, or program and learner (`train maml`), its options."""
    values: Mapping[str, Sequence[str]]
    """By option, the ids that it takes."""

    @classmethod
    def known(cls) -> "Words":
        """Of this installation; the programs are loaded and asked for their help."""
        catalogue = entries()
        first: dict[str, Sequence[str]] = {
            "completion": get_args(Shell),
            "list": list(dict.fromkeys(entry.kind for entry in catalogue)),
            "describe": list(dict.fromkeys(entry.name for entry in catalogue if ":" not in entry.name)),
        }
        first |= {name: [*_ids(catalogue, kind), *_parts(name)] for name, kind in _LEARNS.items()}
        options: dict[str, Sequence[str]] = {}
        for name in PROGRAMS:
            options[name] = flags(name)
            for word in first[name] if name in _LEARNS else ():
                options[f"{name} {word}"] = flags(name, word)
        options |= {short: options[name] for short, name in SHORT.items()}
        return cls(first, options, {option: _ids(catalogue, kind) for option, kind in _NAMED.items()})


def _ids(catalogue: Sequence[Entry], kind: Kind) -> list[str]:
    return [entry.name for entry in catalogue if entry.kind == kind]


def _parts(name: str) -> Sequence[str]:
    """The first words by which a program does something else than train: `fewshot ranks`."""
    return list(getattr(importlib.import_module(f"metarl.commands.{name}"), "PROGRAMS", ()))


def flags(name: str, *words: str) -> list[str]:
    """The options that a program's help names."""
    return sorted({*_FLAG.findall(help_text(name, *words, columns=400)), *_ALWAYS})


def script(shell: Shell, words: Words) -> str:
    """The script for a shell, which ends with the registration."""
    if shell == "fish":
        return _fish(words)
    return "\n".join(["autoload -U +X bashcompinit && bashcompinit"] * (shell == "zsh") + [_bash(words)])


def _bash(words: Words) -> str:
    """A function that zsh's `bashcompinit` understands too."""
    first = "\n".join(f"        {name}) words={_quoted(names)} ;;" for name, names in words.first.items())
    values = "\n".join(f"        {option}) words={_quoted(names)} ;;" for option, names in words.values.items())
    options = "\n".join(
        # `train maml` before `train`: the first pattern that fits is taken.
        f'        "{name}"{"" if " " in name else "*"}) words={_quoted(names)} ;;'
        for name, names in sorted(words.options.items(), key=lambda item: -item[0].count(" "))
    )
    return f"""_metarl() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}" words=
    if [ "$COMP_CWORD" -eq 1 ]; then
        words={_quoted([*PROGRAMS, *SHORT, *_ALWAYS])}
    elif case "$word" in -*) false ;; esac; then
        [ "$COMP_CWORD" -eq 2 ] && case "${{COMP_WORDS[1]}}" in
{first}
        esac
        case "$previous" in
{values}
        esac
    else
        case "${{COMP_WORDS[1]}} ${{COMP_WORDS[2]}}" in
{options}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _metarl metarl"""


def _fish(words: Words) -> str:
    begun = "__fish_seen_subcommand_from"
    lines = [
        f"complete -c metarl -n __fish_use_subcommand -f -a {shlex.quote(name)} -d {shlex.quote(about)}"
        for name, about in (PROGRAMS | {short: PROGRAMS[name] for short, name in SHORT.items()}).items()
    ]
    lines += [
        f"complete -c metarl -n '{begun} {name}; and test (count (commandline -opc)) -eq 2' -a {_quoted(names)}"
        for name, names in words.first.items()
    ]
    for name, options in words.options.items():
        program, _, learner = name.partition(" ")
        condition = f"{begun} {program}" + (f"; and {begun} {learner}" if learner else "")
        for option in options:
            takes = f" -x -a {_quoted(words.values[option])}" if option in words.values else ""
            lines.append(f"complete -c metarl -n {shlex.quote(condition)} -l {option.removeprefix('--')}{takes}")
    return "\n".join(lines)


def _quoted(names: Sequence[str]) -> str:
    return shlex.quote(" ".join(names))
