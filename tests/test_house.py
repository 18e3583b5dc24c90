"""What the house promises: names, packages, pins, the wheel, the set-up, and that the checks are on."""

import ast
import doctest
import importlib
import importlib.metadata
import importlib.util
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import pytest
import torch
from gymnasium.envs.registration import namespace
from jaxtyping import TypeCheckError
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import metarl
from metarl.commands.main import PROGRAMS
from metarl.maths import returns

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = {"metarl": "metarl", "envs": "metarl/envs", "agents": "metarl/agents", "zoo": "metarl/zoo"}
"""Of the packages, in the checkout: in the wheel."""


def module_names() -> list[str]:
    return ["metarl", *(module.name for module in pkgutil.walk_packages(metarl.__path__, "metarl."))]


def sources() -> Iterator[tuple[Path, str]]:
    """Every Python file of the packages, and its name in the wheel."""
    for folder, name in FOLDERS.items():
        for path in (ROOT / folder).rglob("*.py"):  # does not follow the symlinks
            yield path, f"{name}/{path.relative_to(ROOT / folder).as_posix()}"


def python(code: str, folder: Path) -> str:
    """What a new process prints that knows only what is installed, and for which warnings are errors."""
    result = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", code], cwd=folder, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


# The packages


@pytest.mark.parametrize("name", module_names())
def test_a_module_is_imported_and_its_examples_hold(name: str) -> None:
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module)
    assert failed == 0


def test_envs_and_agents_are_seen_through_relative_symlinks() -> None:
    for name in ("envs", "agents", "zoo"):
        assert os.readlink(ROOT / "metarl" / name) == f"../{name}"  # noqa: PTH115  # as written, not resolved
        assert name not in sys.modules


def test_no_general_name_is_installed(tmp_path: Path) -> None:
    code = "import importlib.util as u; print(*(u.find_spec(n) for n in ('envs', 'agents', 'scripts', 'tests')))"
    assert python(code, tmp_path).split() == ["None"] * 4
    assert "envs/__init__.py" in python("import metarl.envs, metarl.agents; print(metarl.envs.__file__)", tmp_path)


@pytest.mark.parametrize("statement", ["import envs", "from agents import maml_trpo", "from ..tasks import Task"])
def test_ruff_bans_the_general_names_and_relative_imports(statement: str) -> None:
    command = [sys.executable, "-m", "ruff", "check", "--select", "TID", "--stdin-filename", "metarl/envs/x.py", "-"]
    result = subprocess.run(command, input=f"{statement}\n", cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1
    assert "TID25" in result.stdout


def test_importing_metarl_costs_nothing_and_its_names_come_when_used(tmp_path: Path) -> None:
    heavy = "import sys, metarl; print(sorted({'torch', 'numpy', 'mujoco'} & set(sys.modules)))"
    assert python(heavy, tmp_path) == "[]\n"
    for name in metarl.__all__:
        assert name in dir(metarl)
        assert getattr(metarl, name) is not None
    assert metarl.__version__ == PYPROJECT["project"]["version"]
    with pytest.raises(AttributeError, match="no attribute 'evaluat'"):
        getattr(metarl, "evaluat")  # noqa: B009  # a type checker knows that it is not there


LOWEST = ("adapt", "checks", "errors", "registry")
"""Modules at the top of the package, which everybody may import."""
MAY_IMPORT = {
    "adapt": (),
    "checks": (),
    "errors": (),
    "registry": (),
    "tasks": (),
    "maths": ("learning",),  # the noise that a distribution is sampled with
    "learning": ("tasks", "maths"),
    "envs": ("learning", "tasks", "evaluation"),  # Meta-World's own evaluation is one of ours
    "agents": ("learning", "tasks", "maths"),
    "fewshot": ("learning", "tasks", "maths", "evaluation", "runs"),
    "cluster": ("learning", "tasks", "envs", "evaluation", "runs"),  # and nobody but the programs needs it
    "evaluation": ("learning", "tasks", "maths", "runs"),
    "runs": ("learning", "tasks", "maths", "evaluation", "envs", "agents", "fewshot"),
}
"""What the modules of each room may import of metarl, besides its own; whoever is not named may import everything."""


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_the_arrows_between_rooms_point_one_way(room: str) -> None:
    folder = ROOT / ("metarl" if room not in ("envs", "agents") else "") / room
    files = folder.rglob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]
    strange = set()
    for path in files:
        for name in re.findall(r"^ *(?:from|import) metarl\.?(\w*)", path.read_text(), re.MULTILINE):
            if name and name not in (room, *LOWEST, *MAY_IMPORT[room]):
                strange.add(f"{path.relative_to(ROOT)} imports metarl.{name}")
    assert not strange


# The wheel


def test_the_packages_listed_are_those_there_are() -> None:
    folders = {Path(name).parent for _, name in sources()}
    assert {".".join(folder.parts) for folder in folders} == set(PYPROJECT["tool"]["setuptools"]["packages"])
    names = {name for _, name in sources()}
    assert {f"{folder.as_posix()}/__init__.py" for folder in folders} <= names


def test_the_wheel_holds_every_source_once_and_nothing_else(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    for name in (*FOLDERS, "tests", "scripts"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, checkout / name, symlinks=True, ignore=ignored)
    build = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    subprocess.run([*build, "--no-build-isolation", "--wheel-dir", tmp_path, checkout], check=True)
    (wheel,) = tmp_path.glob("metarl_suite-*-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert len(names) == len(set(names))
    code = {name for name in names if not name.partition("/")[0].endswith(".dist-info")}
    data = {f"metarl/envs/{path.name}" for path in (ROOT / "envs").glob("*.xml")}
    data |= {"metarl/commands/catalogue.json"}
    entries = (path for path in (ROOT / "zoo").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    data |= {f"metarl/zoo/{path.relative_to(ROOT / 'zoo').as_posix()}" for path in entries}
    data |= {f"metarl/evaluation/report/{name}" for name in ("page.html", "script.js", "style.css")}
    assert code == {name for _, name in sources()} | data | {"metarl/py.typed"}


# Versions


def requirements() -> list[Requirement]:
    project = PYPROJECT["project"]
    extras = (line for lines in project["optional-dependencies"].values() for line in lines)
    return [Requirement(line) for line in (*project["dependencies"], *extras) if not line.startswith("metarl-suite")]


def test_every_requirement_is_pinned_within_its_range() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    assert not [version for version in pins.values() if "+" in version]
    for requirement in requirements():
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_what_is_installed_is_within_the_ranges() -> None:
    peers = {Requirement(line).name for line in PYPROJECT["project"]["optional-dependencies"]["benchmark"]}
    for requirement in requirements():
        if requirement.name in peers and importlib.util.find_spec(requirement.name.replace("-", "_")) is None:
            continue  # peers of the benchmark are named where they are missing
        assert requirement.specifier.contains(importlib.metadata.version(requirement.name)), requirement


def test_mujoco_is_as_metaworld_pins_it() -> None:
    theirs = [Requirement(line) for line in importlib.metadata.requires("metaworld") or []]
    assert {str(r.specifier) for r in requirements() if r.name == "mujoco"} == {
        str(requirement.specifier) for requirement in theirs if requirement.name == "mujoco"
    }


# Entry points


def test_the_plug_in_registers_ids_of_the_namespace() -> None:
    (plug_in,) = importlib.metadata.entry_points(group="gymnasium.envs", name="metarl")
    with namespace(plug_in.name):  # as Gymnasium below 1.0 loads it
        plug_in.load()()
    ours = [id for id in gymnasium.registry if id.startswith("metarl/")]
    assert "metarl/CheetahTerrain-v0" in ours
    assert not [id for id in gymnasium.registry if "metarl/metarl" in id]


def test_gymnasium_makes_our_environments_without_being_told_more(tmp_path: Path) -> None:
    code = "import gymnasium; env = gymnasium.make('metarl.envs:metarl/PointNavigation-v0'); print(env.spec.id)"
    assert python(code, tmp_path) == "metarl/PointNavigation-v0\n"


def test_the_command_names_every_program(tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("metarl")
    result = subprocess.run([command, "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert all(f"  {name} " in result.stdout for name in PROGRAMS)
    assert set(PROGRAMS) <= {path.stem for path in (ROOT / "scripts").glob("*.py")}
    wrong = subprocess.run([command, "trian"], cwd=tmp_path, capture_output=True, text=True)
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1


# The set-up: make with an environment of its own, and pythons that only pretend

PRETENDER = """#!/bin/sh
echo "$(basename "$0") $*" >> "{log}"
case "$*" in
    "-m venv --clear .venv") mkdir -p .venv/bin; cp "$0" .venv/bin/python;;
    --version) echo Python 3.12.7;;
esac
"""
SHIM = "#!/bin/sh\necho 'command not found' >&2\nexit 127\n"


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A checkout with its Makefile, on a machine whose pythons are all shims of versions that are not there."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "bin").mkdir()
    for name in ("python3.13", "python3.12", "python3.11", "python3", "python"):
        write_program(tmp_path / "bin" / name, SHIM)
    return tmp_path


def write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def make(house: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": f"{house / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(["make", *arguments], cwd=house, env=environment, capture_output=True, text=True)


def test_make_takes_the_newest_python_that_runs_and_sets_up_once(house: Path) -> None:
    log = house / "log"
    for name in ("python3.12", "python3.11"):
        write_program(house / "bin" / name, PRETENDER.format(log=log))
    result = make(house, "setup")
    assert result.returncode == 0, result.stderr
    calls = log.read_text()
    assert "python3.12 -m venv --clear .venv\n" in calls
    assert "python3.11" not in calls
    assert "--editable .[dev]\n" in calls
    assert calls.count("--constraint constraints.txt") == 2

    assert make(house, "setup").returncode == 0
    assert log.read_text() == calls

    newer = (house / ".venv" / "ready").stat().st_mtime + 1  # s; clocks of file systems tick slowly
    os.utime(house / "constraints.txt", (newer, newer))
    assert make(house, "setup").returncode == 0
    again = log.read_text().removeprefix(calls)
    assert "-m venv" not in again  # the environment is kept, and brought up to date
    assert "--editable" in again


def test_make_says_what_is_missing_where_no_python_runs(house: Path) -> None:
    result = make(house, "setup")
    assert result.returncode == 2
    assert "PYTHON=/path/to/python3" in result.stderr
    assert not (house / ".venv").exists()


def test_make_takes_the_python_it_is_given(house: Path) -> None:
    write_program(house / "mine", PRETENDER.format(log=house / "log"))
    assert make(house, "setup", f"PYTHON={house / 'mine'}").returncode == 0
    assert "mine -m venv --clear .venv" in (house / "log").read_text()


# The checks are on


def test_options_read_as_one_text_in_the_help() -> None:
    """tyro begins a new line in the help where a line of an option's text begins with anything but a letter."""
    for path in sorted((ROOT / "metarl").rglob("*.py")):
        for each in ast.walk(ast.parse(path.read_text())):
            if isinstance(each, ast.ClassDef) and each.name.endswith(("Options", "Config", "Choice", "OtherTasks")):
                for part in each.body[1:]:
                    if isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant):
                        lines = [line.strip() for line in str(part.value.value).splitlines()[1:]]
                        broken = [line for line in lines if line and not line[0].isalpha()]
                        assert not broken, f"{path}, line {part.lineno}: {broken[0]}"


def test_a_wrong_shape_is_an_error_in_the_tests() -> None:
    with pytest.raises(TypeCheckError):
        returns.discounted_returns(torch.zeros(2, 3), torch.zeros(2, 4))


def test_a_warning_is_an_error_in_the_tests() -> None:
    with pytest.raises(DeprecationWarning):
        warnings.warn("old", DeprecationWarning, stacklevel=1)
