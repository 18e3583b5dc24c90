"""The script that measures the tests: `make mutants`."""

import os
from pathlib import Path

import pytest

from scripts import mutants

ROOT = Path(__file__).resolve().parent.parent
CODE = """
def double(x):
    return 2 * x

def half(x):
    return x / 2
"""
TESTS = """
from pack.code import double, half

def test_double():
    assert double(3) == 6

def test_half():
    half(3)
"""


def mutant(name: str, old: str, new: str, test: str = "test_double") -> str:
    return (
        f'[[mutant]]\nname = "{name}"\nfile = "pack/code.py"\nold = "{old}"\nnew = "{new}"\n'
        f'tests = ["tests/test_code.py::{test}"]\n'
    )


KILLED = mutant("killed", "2 * x", "3 * x")
SURVIVES = mutant("survives", "x / 2", "x / 3", "test_half")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A package, seen through a symlink only, with its tests; and an environment that is not to be copied."""
    root = tmp_path / "checkout"
    for folder in ("real", "tests/mutants", ".venv"):
        (root / folder).mkdir(parents=True)
    (root / "pack").symlink_to("real")
    (root / "real" / "code.py").write_text(CODE)
    (root / "tests" / "test_code.py").write_text(TESTS)
    (root / ".venv" / "loop").symlink_to(root)
    return root


def run(checkout: Path, *tables: str, arguments: tuple[str, ...] = ()) -> int:
    (checkout / "tests" / "mutants" / "code.toml").write_text("\n".join(tables))
    status = mutants.main(arguments, checkout)
    assert (checkout / "real" / "code.py").read_text() == CODE  # bugs go into a copy
    return status


def test_a_bug_that_the_tests_catch_is_killed(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(checkout, KILLED) == 0
    assert capsys.readouterr().out == "killed     killed\n1 of 1 killed\n"


def test_a_bug_that_survives_is_reported(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(checkout, KILLED, SURVIVES, arguments=("--jobs", "2")) == 1
    told = capsys.readouterr().out
    assert "killed     killed\n" in told and "survived   survives\n" in told and told.endswith("1 of 2 killed\n")


@pytest.mark.parametrize(("old", "count"), [("3 * x", 0), ("return", 2)])
def test_a_text_that_is_not_there_exactly_once_is_reported(
    checkout: Path, capsys: pytest.CaptureFixture[str], old: str, count: int
) -> None:
    assert run(checkout, mutant("lost", old, "")) == 1
    assert f"misplaced  lost\n    pack/code.py has its text {count} times, not once\n" in capsys.readouterr().out


def test_a_bug_that_keeps_tests_from_running_is_not_killed(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A module that cannot be imported fails every test, whatever it tests."""
    assert run(checkout, mutant("broken", "2 * x", "2 *")) == 1
    assert "broken     broken\n" in capsys.readouterr().out


def test_only_the_named_are_run(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(checkout, KILLED, SURVIVES, arguments=("--only", "killed")) == 0
    assert "survives" not in capsys.readouterr().out
    assert run(checkout, KILLED, arguments=("--only", "kiled")) == 1
    assert capsys.readouterr().err == "error: there is no mutant 'kiled' in tests/mutants/*.toml\n"


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        ((KILLED, KILLED), "two mutants called 'killed'"),
        ((KILLED.replace("new =", "knew ="),), "a mutant needs file, name, new, old, tests"),
        ((mutant("none", "2 * x", "3 * x", "test_nothing"),), "the tests fail without any bug"),
    ],
)
def test_a_list_that_measures_nothing_is_refused(
    checkout: Path, capsys: pytest.CaptureFixture[str], tables: tuple[str, ...], told: str
) -> None:
    assert run(checkout, *tables) == 1
    assert told in capsys.readouterr().err


def test_the_bugs_of_this_checkout_have_their_place_and_their_tests() -> None:
    for bug in mutants.read_mutants(ROOT / mutants.FOLDER):
        assert (ROOT / bug.file).read_text().count(bug.old) == 1, bug.name
        assert bug.old != bug.new
        for test in bug.tests:
            file, _, function = test.partition("::")
            assert f"def {function.partition('[')[0]}" in (ROOT / file).read_text() or not function, bug.name


def test_a_copy_keeps_symlinks_and_leaves_out_what_is_large(checkout: Path, tmp_path: Path) -> None:
    mutants.copy_checkout(checkout, tmp_path / "copy")
    assert os.readlink(tmp_path / "copy" / "pack") == "real"  # noqa: PTH115  # as written, not resolved
    assert not (tmp_path / "copy" / ".venv").exists()
