"""Places that are not as usual: folders without permission, odd names, no home, no locale, damaged tensors.

Each is one line, or nothing that a program needs.
"""

import ctypes
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from metarl.tasks import content_hash
from tests.commands.conftest import FEWSHOT
from tests.commands.test_programs import AGENTS
from tests.fuzz.harness import in_child
from tests.programs import call

ROOT = Path(__file__).resolve().parent.parent.parent
EVALUATE = ("--num-tasks", "2", "--threads", "1")
SMALL = ("--width", "32", "--height", "32", "--every", "50", "--threads", "1")


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that programs run in, with the runs `agent` and `fewshot` and `photos.npz`."""
    folder = tmp_path / "here"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


# Permission


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Capabilities(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def give_up_privileges() -> None:
    """From now on files' permissions hold for this process, root's too (capset(2))."""
    header, none = _Header(0x20080522, 0), (_Capabilities * 2)()
    assert ctypes.CDLL(None).capset(ctypes.byref(header), ctypes.byref(none)) == 0


def call_without_privileges(output: Path, program: str, *arguments: str | Path) -> tuple[int, str]:
    """A program's exit status and all that it printed, in a process that may do what permissions say."""

    def play() -> int:
        give_up_privileges()
        return call(program, *arguments)

    status, hangs = in_child(play, output, 120.0)
    text = output.read_text()
    assert not hangs and "Traceback" not in text, text
    return status, text


TRAIN = (*AGENTS["maml"], "--steps", "2", "--run")
LEARN = (*FEWSHOT, "--data", "photos.npz", "--steps", "2", "--run")
FORBIDDEN = [
    (".", 0o555, ("train", *TRAIN, "new"), 1, "could not write new: Permission denied"),
    (".", 0o555, ("fewshot", *LEARN, "new"), 1, "could not write new: Permission denied"),
    ("agent", 0o555, ("train", *TRAIN, "agent"), 1, "could not write agent/config.json: Permission denied"),
    ("agent", 0, ("train", *TRAIN, "agent"), 2, "--run agent cannot be opened (Permission denied)"),
    ("agent", 0, ("evaluate", "agent", *EVALUATE), 2, "agent cannot be opened (Permission denied)"),
    ("fewshot", 0, ("evaluate", "fewshot", *EVALUATE), 2, "fewshot cannot be opened (Permission denied)"),
    ("agent", 0, ("report", "agent"), 2, "agent cannot be opened (Permission denied)"),
    ("agent/config.json", 0, ("evaluate", "agent", *EVALUATE), 1, "config.json cannot be read: Permission denied"),
    ("agent/metrics.jsonl", 0, ("train", *TRAIN, "agent"), 1, "could not read agent/metrics.jsonl: Permission denied"),
    ("agent/checkpoints", 0o555, ("train", *TRAIN, "agent"), 1, "could not write agent/checkpoints/2: Permission"),
    ("agent/checkpoints", 0, ("evaluate", "agent", *EVALUATE), 1, "agent/checkpoints cannot be opened: Permission"),
    ("agent/checkpoints/1", 0, ("evaluate", "agent", *EVALUATE), 1, "state.json cannot be read: Permission denied"),
    ("agent/checkpoints/1/params.safetensors", 0, ("train", *TRAIN, "agent"), 1, "params.safetensors cannot be read"),
    ("agent", 0o555, ("report", "agent"), 1, "could not write agent/report.html: Permission denied"),
    (".", 0o555, ("evaluate", "agent", *EVALUATE, "--output", "x.json"), 2, "the folder does not permit it"),
    (".", 0o555, ("record_video", "agent", *SMALL, "--output", "x.mp4"), 2, "the folder does not permit it"),
    ("photos.npz", 0, ("fewshot", *LEARN, "new"), 2, "photos.npz cannot be read (Permission denied)"),
]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(("place", "mode", "command", "status", "message"), FORBIDDEN)
def test_what_is_not_permitted_is_one_line(
    here: Path, tmp_path: Path, place: str, mode: int, command: tuple[str, ...], status: int, message: str
) -> None:
    (here / place).chmod(mode)
    try:
        ended, text = call_without_privileges(tmp_path / "output", *command)
    finally:
        (here / place).chmod(0o755)
    assert ended == status and message in " ".join(text.replace("│", " ").split()), text
    assert text.count("error:") <= 1
    assert not (here / "new").exists()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("kind", ["agent", "fewshot"])
def test_the_table_is_printed_where_a_folder_permits_no_evaluation(here: Path, tmp_path: Path, kind: str) -> None:
    shutil.rmtree(here / kind / "evaluations", ignore_errors=True)
    (here / kind).chmod(0o555)
    try:
        ended, text = call_without_privileges(tmp_path / "output", "evaluate", kind, *EVALUATE)
    finally:
        (here / kind).chmod(0o755)
    assert ended == 1 and "one seed: the interval says nothing about" in text
    assert "evaluations/test-num-tasks-2.json: Permission denied" in text


# Names


@pytest.mark.parametrize("name", ["file:x", os.fsdecode(b"r\xff\xfe"), "100 % [x] {y} \u2026\nb"])
def test_every_program_works_under_an_odd_name(
    made: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made / "agent", name)
    shutil.copyfile(made / "photos.npz", f"{name}.npz")
    for program, *arguments in (
        ("train", *TRAIN, name),
        ("evaluate", name, *EVALUATE, "--output", f"{name}.json"),
        ("report", name, f"{name}.json"),
        ("compare", name, f"{name}.json", "--evaluation", "test"),
        ("train", *TRAIN, f"{name} 2", "--start-from", name),
        ("fewshot", *FEWSHOT, "--data", f"{name}.npz", "--steps", "1", "--run", f"{name} 3"),
    ):
        status = call(program, *arguments)
        told = capsys.readouterr().err
        kept = program == "fewshot" or "--start-from" in arguments  # the run remembers the name
        if program == "compare":  # the evaluation that it asks for is not there
            assert status == 2 and told.count("\n") == 1
        elif kept and "\udcff" in name:  # in JSON, which is UTF-8
            assert status == 2 and told.count("\n") == 1 and "UTF-8" in told
        elif program == "fewshot" and ":" in name:  # that is how data of one's own code are named
            assert status == 2 and told.count("\n") == 1 and "names nothing" in told
        else:
            assert status == 0, told
    assert (tmp_path / name / "report.html").stat().st_size > 1000


@pytest.mark.parametrize("name", ["x" * 300, "y/" * 2500])
def test_a_name_that_no_file_can_have_is_one_line(
    made: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(made / "agent", tmp_path / "run")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for program, *arguments in (
        ("train", *TRAIN, name),
        ("train", *TRAIN, "new", "--start-from", name),
        ("fewshot", *FEWSHOT, "--data", made / "photos.npz", "--steps", "1", "--run", name),
        ("fewshot", *FEWSHOT, "--data", name, "--steps", "1", "--run", "new"),
        ("fewshot", *FEWSHOT, "--data", "omniglot", "--data-root", name, "--steps", "1", "--run", "new"),
        ("evaluate", name, *EVALUATE),
        ("evaluate", run, *EVALUATE, "--output", name),
        ("record_video", name, *SMALL),
        ("record_video", run, *SMALL, "--output", f"{name}.mp4"),
        ("report", name),
        ("report", run, "--output", name),
        ("compare", name, run),
        ("describe", name),
        ("publish", name, "--as", "point-navigation/blind"),
    ):
        assert call(program, *arguments) in (1, 2), program
        told = capsys.readouterr().err
        assert told.strip() and "Traceback" not in told
    assert os.listdir() == []


# Nothing around


NOTHING = """
import itertools, pwd, sys
def nobody(_):
    raise KeyError("uid not found")
pwd.getpwuid = nobody  # as in a container whose user has no entry in /etc/passwd
from metarl.commands import main
from metarl.errors import exit_status
for semicolon, words in itertools.groupby(sys.argv[1:], ";".__eq__):
    if not semicolon:
        line = list(words)
        print(line[0], "ended with", exit_status(lambda: main._dispatch(line)))
"""


def test_programs_need_no_home_no_locale_and_no_entry_in_passwd(made: Path, tmp_path: Path) -> None:
    run, photos = tmp_path / "r\u00fcn", made / "photos.npz"
    commands: tuple[tuple[str | Path, ...], ...] = (
        ("train", *AGENTS["maml"], "--steps", "1", "--run", run),
        ("evaluate", run, *EVALUATE),
        ("report", run),
        ("fewshot", *FEWSHOT, "--data", photos, "--steps", "1", "--run", f"{run}2"),
        ("list",),
    )
    words = [str(word) for command in commands for word in (*command, ";")]
    bare = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PATH": os.defpath, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", NOTHING, *words],
        cwd=tmp_path,
        env=bare | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    assert b"Traceback" not in done.stderr and done.stdout.count(b"ended with 0") == len(commands), done.stderr


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_folder_that_is_gone_is_no_traceback(made: Path, tmp_path: Path) -> None:
    gone, run = tmp_path / "gone", shutil.copytree(made / "agent", tmp_path / "run")
    for program, *arguments in (
        ("train", *TRAIN, tmp_path / "a"),
        ("train", *TRAIN, "a"),
        ("evaluate", run, *EVALUATE),
        ("report", run, "--output", tmp_path / "x.html"),
        ("fewshot", *FEWSHOT, "--data", made / "photos.npz", "--steps", "1", "--run", tmp_path / "b"),
        ("fewshot", *FEWSHOT, "--data", "photos.npz", "--steps", "1", "--run", tmp_path / "c"),
        ("train", "maml", "--env", "mine.py:world", "--run", tmp_path / "d"),
    ):

        def play(program: str = program, arguments: list[str | Path] = arguments) -> int:
            gone.mkdir()
            os.chdir(gone)
            gone.rmdir()
            return call(program, *arguments)

        status, hangs = in_child(play, tmp_path / "output", 120.0)
        text = (tmp_path / "output").read_text()
        assert not hangs and status in (0, 1, 2) and "Traceback" not in text and text.strip(), text


# Tensors


def without(tensors: dict[str, torch.Tensor], name: str) -> str:
    del tensors[name]
    return f"parameter '{name}' is missing, the learner has it"


def longer(tensors: dict[str, torch.Tensor], name: str) -> str:
    tensors[name] = torch.cat([tensors[name].flatten()] * 2)
    return f"parameter '{name}' has the shape"


def in_double(tensors: dict[str, torch.Tensor], name: str) -> str:
    tensors[name] = tensors[name].double()
    return f"parameter '{name}' has the type float64, in the learner float32"


def not_a_number(tensors: dict[str, torch.Tensor], name: str) -> str:
    tensors[name] = torch.full_like(tensors[name], torch.nan)
    return f"parameter '{name}' holds values that are not finite"


def beyond(tensors: dict[str, torch.Tensor], name: str) -> str:
    tensors[name] = torch.full_like(tensors[name], 1e35)
    return f"parameter '{name}' holds 1e+35, absurdly much"


def signed(checkpoint: Path, damage: Callable[[dict[str, torch.Tensor], str], str]) -> str:
    """Damages a tensor as a stranger would, checksums put right; the message that is due."""
    tensors = load_file(checkpoint / "params.safetensors")
    name = next(name for name in sorted(tensors) if tensors[name].is_floating_point() and tensors[name].numel() > 1)
    message = damage(tensors, name)
    save_file(tensors, checkpoint / "params.safetensors")
    state = json.loads((checkpoint / "state.json").read_text())
    order = [each for each in state["parameters"]["order"] if each in tensors]
    digest = hashlib.sha256((checkpoint / "params.safetensors").read_bytes()).hexdigest()
    state["parameters"] = {"sha256": digest, "order": order}
    del state["checksum"]
    (checkpoint / "state.json").write_text(json.dumps({**state, "checksum": content_hash(state)}))
    return message


@pytest.mark.parametrize("kind", ["agent", "fewshot"])
@pytest.mark.parametrize("damage", [without, longer, in_double, not_a_number, beyond])
def test_no_program_uses_damaged_tensors(
    made: Path,
    here: Path,
    kind: str,
    damage: Callable[[dict[str, torch.Tensor], str], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    message = signed(here / kind / "checkpoints" / "1", damage)
    learn = (*FEWSHOT, "--data", made / "photos.npz", "--steps", "2", "--run")  # a run knows its data by their path
    resume = ("train", *TRAIN, kind) if kind == "agent" else ("fewshot", *learn, kind)
    capsys.readouterr()
    for command in (("evaluate", kind, *EVALUATE), resume):
        assert call(str(command[0]), *command[1:]) == 1, command[0]
        told = capsys.readouterr()
        assert message in told.err and told.err.count("\n") == 1 and "return" not in told.out, told
    assert call(str(resume[0]), *resume[1:-1], "new", "--start-from", kind) in (1, 2)
    assert not (here / "new").exists()


@pytest.mark.parametrize("damage", [without, not_a_number])
def test_no_video_is_made_of_damaged_tensors(
    here: Path, damage: Callable[[dict[str, torch.Tensor], str], str], drawing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = signed(here / "agent" / "checkpoints" / "1", damage)
    capsys.readouterr()
    assert call("record_video", "agent", *SMALL) == 1
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1 and not (here / "agent" / "videos").exists()
