"""The `metarl` command: every program as a sub-command. Only the one asked for is loaded."""

import importlib
import sys
from collections.abc import Sequence

import metarl
from metarl.errors import UsageError, did_you_mean, exit_status, starting_up

PROGRAMS = {
    "train": "train an agent on a task distribution",
    "sweep": "train with several seeds and options, several at a time",
    "evaluate": "adaptation curves on held-out tasks",
    "record_video": "(or `video`) an agent before and after adaptation",
    "report": "one page about runs: headline, curves, tables, videos",
    "compare": "agents side by side, with paired differences",
    "fewshot": "train and evaluate a few-shot learner",
    "rl2_tables": "bandits and random MDPs: agents beside classical algorithms",
    "classify": "classify texts, tables, images from a few examples",
    "translation": "find translations from a few sentence pairs of a language",
    "benchmark": "speed ratios against peers, in one run",
    "reproduce": "repeat a figure of the results page, and compare",
    "list": "distributions, agents, learners, data sets, zoo",
    "describe": "one of those: what varies, splits, options",
    "doctor": "what works on this machine, and what to do",
    "completion": "a script that completes words in bash, zsh or fish",
    "publish": "put a trained agent into the zoo, with its card",
}
"""The programs by name, and what each does."""
SHORT = {"video": "record_video"}
"""Shorter names."""


def main() -> None:
    """`metarl <program> ...`."""
    sys.exit(exit_status(lambda: _dispatch(sys.argv[1:])))


def script(name: str) -> None:
    """`python scripts/<name>.py ...`."""
    sys.exit(exit_status(lambda: _run(name, sys.argv[1:], f"{name}.py")))


def _dispatch(arguments: Sequence[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, PROGRAMS))
        lines = (f"  {name:{width}}  {about}" for name, about in PROGRAMS.items())
        print("usage: metarl <program> ...; metarl <program> --help says more", "", *lines, sep="\n")
        return
    if arguments[0] == "--version":
        print(f"metarl {metarl.__version__}")
        return
    name = SHORT.get(arguments[0], arguments[0].replace("-", "_"))
    if name not in PROGRAMS:
        hint = did_you_mean(name, [*PROGRAMS, *SHORT], f"there are {', '.join(PROGRAMS)}", most=2)
        raise UsageError(f"unknown program {arguments[0]!r}; {hint}")
    _run(name, arguments[1:], f"metarl {arguments[0]}")


def _run(name: str, arguments: Sequence[str], shown_as: str) -> None:
    if list(arguments) == ["--version"]:
        print(f"metarl {metarl.__version__}")
        return
    with starting_up():
        module = importlib.import_module(f"metarl.commands.{name}")
    module.program(arguments, shown_as)
