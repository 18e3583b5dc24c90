"""What a program shows its user when something goes wrong, and how it ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from metarl import checks
from metarl.errors import RunError, StoppedError, UsageError, exit_status, starting_up, warn


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UsageError("no such\nid"), 2, "error: no such id\n"),
        (RunError("\x1b[2J of a stranger"), 1, "error: \\x1b[2J of a stranger\n"),
        (RunError("the disk is full"), 1, "error: the disk is full\n"),
        (StoppedError("ice: stopped after 3 of 9 steps", signal.SIGINT), 130, "ice: stopped after 3 of 9 steps\n"),
        (StoppedError("stopped", signal.SIGTERM), 143, "stopped\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (PermissionError(13, "Permission denied", "/root/x"), 1, "error: /root/x: Permission denied\n"),
        (FileNotFoundError(2, "No such file", b"/root/\xff"), 1, "error: /root/\\udcff: No such file\n"),
        (None, 0, ""),
    ],
)  # fmt: skip
def test_errors_become_one_line_and_an_exit_status(
    capsys: pytest.CaptureFixture[str], error: BaseException | None, status: int, line: str
) -> None:
    def program() -> None:
        if error is not None:
            raise error

    assert exit_status(program) == status
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(
    "error", [ZeroDivisionError(), BrokenPipeError(), ConnectionResetError(104, "Connection reset")]
)
def test_other_errors_keep_their_traceback(error: Exception) -> None:
    def program() -> None:
        raise error

    with pytest.raises(type(error)):
        exit_status(program)


def run(code: str, redirection: str = "", **environment: str) -> "subprocess.CompletedProcess[str]":
    """A program in a shell, with its streams somewhere."""
    header = "import sys; from metarl.errors import exit_status, warn, RunError"
    program = f"{header}\ndef main():\n  {code}\nsys.exit(exit_status(main))"
    command = ["/bin/sh", "-c", f'exec "$0" -c "$1" {redirection}', sys.executable, program]
    variables = {**os.environ, **environment}
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


def test_a_reader_that_has_gone_ends_the_program_in_silence() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    program = "import sys; from metarl.errors import exit_status; sys.exit(exit_status(lambda: print('x' * 9)))"
    done = subprocess.run([sys.executable, "-c", program], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_an_output_that_cannot_be_written_is_one_line() -> None:
    done = run("print('x' * 9)", ">/dev/full")
    assert (done.returncode, done.stderr) == (1, "error: the output could not be written: No space left on device\n")
    done = run("print('x' * 99999); raise RunError('never told')", ">/dev/full")
    assert done.returncode == 1 and done.stderr.count("\n") == 1


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-", "2>/dev/full", "<&- >&- 2>&-"])
def test_closed_streams_are_no_reason_to_fail(redirection: str) -> None:
    done = run("print('result'); warn('look')", redirection)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert done.stdout == ("" if ">&-" in redirection.replace("2>&-", "") else "result\n")  # and no warning in it
    assert run("raise RunError('fault')", redirection).returncode == 1


@pytest.mark.parametrize("redirection", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_no_file_of_the_users_takes_the_place_of_a_closed_stream(tmp_path: Path, redirection: str) -> None:
    """What a library in C has to complain about would be written into it."""
    opened = f"import os; f = open({str(tmp_path / 'metrics')!r}, 'w'); f.write('mine'); f.flush()"
    complain = "[os.write(number, b'complaint') for number in (1, 2)]; os.system('echo complaint; echo complaint >&2')"
    assert run(f"{opened}; {complain}", redirection).returncode == 0
    assert (tmp_path / "metrics").read_text() == "mine"


def test_a_folder_that_is_gone_is_one_line(tmp_path: Path) -> None:
    code = f"import os, pathlib; os.chdir({str(tmp_path)!r}); os.rmdir({str(tmp_path)!r}); pathlib.Path('x').resolve()"
    done = run(code)
    assert done.returncode == 1 and done.stderr.startswith("error: the folder that this runs in is not there any more")
    assert done.stderr.count("\n") == 1


def test_text_is_printed_whatever_the_locale() -> None:
    for code in ("print('Gr\\u00f6\\u00dfe')", "raise RunError('Gr\\u00f6\\u00dfe')", "print('\\\\udcff')"):
        done = run(code, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
        assert "Traceback" not in done.stderr and done.stderr.count("\n") + done.stdout.count("\n") == 1


def test_a_warning_goes_nowhere_where_there_is_no_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    warn("look")
    assert capsys.readouterr().out == ""


def test_ctrl_c_while_modules_are_imported_ends_at_once_and_in_silence(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import time\ntry:\n  print('importing', flush=True); time.sleep(60)\nexcept BaseException: pass\n"
    )
    code = "from metarl.errors import *\nwith starting_up():\n  import slow"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "importing\n"
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.communicate()[1] == "" and process.returncode == -signal.SIGINT
        assert time.monotonic() - began < 30
    before = signal.getsignal(signal.SIGINT)
    with starting_up():
        pass
    assert signal.getsignal(signal.SIGINT) is before


# Checks of options


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_no_option_is_nan_or_infinite(value: float) -> None:
    for check in (
        lambda: checks.finite(rate=value),
        lambda: checks.at_least(0, rate=value),
        lambda: checks.positive(rate=value),
        lambda: checks.fraction(rate=value),
        lambda: checks.between(0, 9, rate=value),
    ):
        with pytest.raises(ValueError, match=f"rate must be .*, got {value}"):
            check()


def test_options_outside_their_range_are_named() -> None:
    for check, told in (
        (lambda: checks.at_least(1, steps=0), "steps must be at least 1, got 0"),
        (lambda: checks.positive(rate=0.0), "rate must be positive, got 0.0"),
        (lambda: checks.between(1, 9, threads=10), "threads must be between 1 and 9, got 10"),
        (lambda: checks.seed(2**63), r"seed must be between 0 and 2\*\*63 - 1, got"),
        (lambda: checks.seed(-1), "seed must be between 0"),
        (lambda: checks.layers(()), "hidden needs at least one layer"),
    ):
        with pytest.raises(ValueError, match=told):
            check()
    checks.seed(2**63 - 1)
    checks.between(1, 9, threads=9)


def out_of_memory(error: Exception) -> Callable[[], object]:
    def program() -> None:
        raise error

    return program


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 3.00 TiB for an array"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000000000000 bytes."),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    ],
)
def test_a_lack_of_memory_is_one_line(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(out_of_memory(error)) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: there is not enough memory") and told.count("\n") == 1
    with pytest.raises(RuntimeError, match="a bug"):
        exit_status(out_of_memory(RuntimeError("a bug")))


def test_counts_and_layers_have_an_end() -> None:
    checks.count(tasks=checks.MOST)
    for wrong, told in (
        (lambda: checks.count(tasks=checks.MOST + 1), "tasks must be at most 1000000, got 1000001"),
        (lambda: checks.count(tasks=0), "tasks must be at least 1, got 0"),
        (lambda: checks.layers((8, checks.WIDEST + 1)), "at most 8192 wide"),
    ):
        with pytest.raises(ValueError, match=told):
            wrong()
