"""Completion: what the scripts offer, typed into the shells that are here."""

import subprocess
from pathlib import Path

import pytest

from metarl.commands.completion import Words, flags, script
from metarl.commands.main import PROGRAMS, SHORT

WORDS = Words(
    first={"train": ["maml", "rl2"], "list": ["agents"]},
    options={"train": ["--env", "--help"], "train maml": ["--env", "--inner-lr"], "list": ["--help"]},
    values={"--env": ["cheetah-terrain", "cheetah-velocity", "point-navigation"]},
)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["trai"], ["train"]),
        (["train", ""], ["maml", "rl2"]),
        (["train", "maml", "--in"], ["--inner-lr"]),
        (["train", "rl2", "--he"], ["--help"]),
        (["train", "maml", "--env", "cheetah-"], ["cheetah-terrain", "cheetah-velocity"]),
        (["list", "a"], ["agents"]),
        (["train", "maml", "run"], []),  # a file: the shell's own completion
    ],
)
def test_bash_completes(typed: list[str], offered: list[str], tmp_path: Path) -> None:
    path = tmp_path / "completion"
    path.write_text(script("bash", WORDS))
    words = " ".join(f"'{word}'" for word in ["metarl", *typed])
    code = f"source {path}; COMP_WORDS=({words}); COMP_CWORD={len(typed)}; _metarl; "
    shown = subprocess.run(["bash", "-c", code + 'echo "${COMPREPLY[@]}"'], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == offered
    assert shown.stderr == ""


def test_zsh_reads_the_same_function() -> None:
    first, _, rest = script("zsh", WORDS).partition("\n")
    assert first == "autoload -U +X bashcompinit && bashcompinit"
    assert rest == script("bash", WORDS)


def test_fish_is_told_every_program_and_option() -> None:
    lines = script("fish", WORDS).splitlines()
    for name in PROGRAMS:
        assert any(f"-f -a {name} -d " in line for line in lines)
    (option,) = [line for line in lines if line.endswith("-l inner-lr")]
    assert "__fish_seen_subcommand_from train; and __fish_seen_subcommand_from maml" in option
    assert any(line.endswith("-l env -x -a 'cheetah-terrain cheetah-velocity point-navigation'") for line in lines)


def test_options_are_those_of_the_help() -> None:
    assert flags("completion") == ["--help", "--version"]
    assert {"--split", "--where", "--blind", "--no-blind", "--output"} <= set(flags("record_video"))
    assert {"--env", "--inner-lr"} <= set(flags("train", "maml"))


def test_what_else_there_is_to_do_with_few_shot_learners_is_completed() -> None:
    words = Words.known()
    assert {"prototypical", "robustness", "ranks"} <= set(words.first["fewshot"])
    assert "--label-noise" in words.options["fewshot robustness"]


def test_short_names_are_of_programs() -> None:
    assert set(SHORT.values()) <= set(PROGRAMS)
    assert not set(SHORT) & set(PROGRAMS)
