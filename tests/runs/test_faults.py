"""What is on the disk after a kill or a full disk at any moment: an operating system that fails on purpose."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from metarl.errors import DiskFullError, RunError
from metarl.learning.protocols import State
from metarl.runs import checkpoints, files, metrics

SAVING = ("open", "write", "fsync", "replace", "rename", "mkdir", "unlink", "ftruncate")


class KilledError(BaseException):
    """The process died here. No handler may do anything more, so every later call raises it too."""


class FaultyOs:
    """Stands in for the `os` module: call number `fail_at` (from 0), and perhaps all later ones, go wrong.

    A write that goes wrong has written its first half.
    """

    def __init__(
        self, fail_at: int, fault: Callable[[], BaseException], counted: tuple[str, ...] = SAVING, forever: bool = True
    ) -> None:
        self.fail_at, self.fault, self.counted, self.forever = fail_at, fault, counted, forever
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in self.counted:
            return real

        def call(*arguments: Any) -> Any:
            number, self.calls = self.calls, self.calls + 1
            if number == self.fail_at or (self.forever and number > self.fail_at):
                if name == "write":
                    os.write(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                raise self.fault()
            return real(*arguments)

        return call


def full_disk(fail_at: int, code: int = errno.ENOSPC, forever: bool = True) -> FaultyOs:
    """Whatever needs room fails; deleting, renaming and closing still work."""
    return FaultyOs(fail_at, lambda: OSError(code, os.strerror(code)), ("open", "write", "fsync", "mkdir"), forever)


def install(monkeypatch: pytest.MonkeyPatch, system: object) -> None:
    for module in (files, checkpoints, metrics):
        monkeypatch.setattr(module, "os", system)


def state(value: float) -> State:
    return State({"w": torch.full((3, 2), value), "b": torch.arange(4)}, {"m": torch.full((2,), -value)})


def saved_twice(folder: Path) -> None:
    checkpoints.save(folder, 1, state(1.0), {"n": 1}, score=5.0, keep_last=1)
    checkpoints.save(folder, 2, state(2.0), {"n": 2}, score=1.0, keep_last=1)


def check_whole(folder: Path, step: int) -> None:
    loaded = checkpoints.load(folder, step)
    assert loaded.extra == {"n": step}
    assert torch.equal(loaded.state.parameters["w"], state(float(step)).parameters["w"])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def calls_of_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    counting = FaultyOs(10**9, KilledError)
    saved_twice(tmp_path / "counted")
    with monkeypatch.context() as patch:
        install(patch, counting)
        checkpoints.save(tmp_path / "counted", 3, state(3.0), {"n": 3}, keep_last=1)
    return counting.calls


def test_a_kill_between_any_two_calls_leaves_a_whole_latest_and_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = calls_of_a_save(tmp_path, monkeypatch)
    assert calls > 12
    latest_steps = set()
    for fail_at in range(calls):
        folder = tmp_path / str(fail_at)
        saved_twice(folder)
        with monkeypatch.context() as patch:
            install(patch, FaultyOs(fail_at, KilledError))
            with pytest.raises(KilledError):
                checkpoints.save(folder, 3, state(3.0), {"n": 3}, keep_last=1)
        checkpoints.clean_up(folder)
        assert all(name.isdigit() for name in names(folder)), names(folder)
        warnings: list[str] = []
        latest, best = checkpoints.latest(folder, warnings.append), checkpoints.best(folder, warnings.append)
        assert latest is not None and best is not None and best.step == 1 and not warnings
        check_whole(folder, latest.step)
        latest_steps.add(latest.step)
        checkpoints.save(folder, 3, state(3.0), {"n": 3}, keep_last=1)  # and the run can go on
        assert checkpoints.steps(folder) == (1, 3)
    assert latest_steps == {2, 3}


def test_a_kill_while_the_same_step_is_saved_again_keeps_one_of_the_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = set()
    for fail_at in range(200):
        folder = tmp_path / str(fail_at)
        checkpoints.save(folder, 7, state(1.0), {"n": 1})
        with monkeypatch.context() as patch:
            install(patch, FaultyOs(fail_at, KilledError))
            try:
                checkpoints.save(folder, 7, state(2.0), {"n": 2})
            except KilledError:
                pass
            else:
                break
        checkpoints.clean_up(folder)
        latest = checkpoints.latest(folder)
        assert latest is not None and names(folder) == ["7"]
        found.add(latest.extra["n"])
    assert found == {1, 2}


def test_a_kill_while_an_old_checkpoint_is_deleted_leaves_no_torn_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed_half_way(path: Path, ignore_errors: bool) -> None:
        (path / "params.safetensors").unlink()
        raise KilledError

    saved_twice(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, "rmtree", killed_half_way)
        with pytest.raises(KilledError):
            checkpoints.save(tmp_path, 3, state(3.0), {"n": 3}, keep_last=1)
    assert checkpoints.steps(tmp_path) == (1, 3)
    checkpoints.clean_up(tmp_path)
    assert names(tmp_path) == ["1", "3"]


def test_files_reach_the_disk_before_their_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut cannot be had in a test; the order of the calls that guard against it can."""
    opened: dict[int, str] = {}
    done: list[str] = []

    class Recorder(FaultyOs):
        def open(self, path: Path, *arguments: int) -> int:
            descriptor = os.open(path, *arguments)
            opened[descriptor] = Path(path).name
            return descriptor

        def fsync(self, descriptor: int) -> None:
            done.append(f"sync {opened[descriptor]}")

        def rename(self, _source: Path, target: Path) -> None:
            os.rename(_source, target)
            done.append(f"rename {target.name}")

        def replace(self, _source: Path, target: Path) -> None:
            os.replace(_source, target)
            done.append(f"replace {target.name}")

    install(monkeypatch, Recorder(10**9, KilledError))
    folder = tmp_path / "checkpoints"
    checkpoints.save(folder, 3, state(3.0), {"n": 3})
    files.write_atomically(folder / "file", b"content")
    written = [f"sync {name}" for name in ("params.safetensors", "optimizer.safetensors", "state.json", ".tmp-3")]
    assert done == [
        f"sync {tmp_path.name}", *written, "rename 3", "sync checkpoints",
        "sync .tmp-file", "replace file", "sync checkpoints",
    ]  # fmt: skip


@pytest.mark.parametrize("forever", [True, False])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_at_any_call_is_one_line_and_leaves_no_debris(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, forever: bool
) -> None:
    failed = 0
    for fail_at in range(200):
        folder = tmp_path / str(fail_at)
        saved_twice(folder)
        with monkeypatch.context() as patch:
            install(patch, full_disk(fail_at, code, forever))
            try:
                checkpoints.save(folder, 3, state(3.0), {"n": 3}, keep_last=2)
            except DiskFullError as error:
                told = str(error)
            else:
                break
        failed += 1
        assert "\n" not in told and str(folder / "3") in told
        assert names(folder) in (["1", "2"], ["1", "2", "3"])
        for step in checkpoints.steps(folder):
            check_whole(folder, step)
    assert failed > 10


def test_other_faults_of_the_system_are_run_errors_and_leave_no_debris(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved_twice(tmp_path)
    fault = FaultyOs(3, lambda: OSError(errno.EIO, "Input/output error"), forever=False)
    install(monkeypatch, fault)
    with pytest.raises(RunError, match=r"could not write .*/3: Input/output error") as caught:
        checkpoints.save(tmp_path, 3, state(3.0), {"n": 3})
    assert not isinstance(caught.value, DiskFullError)
    assert names(tmp_path) == ["1", "2"]


def test_a_file_replaced_atomically_is_old_or_new_after_a_kill_or_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    for fail_at in range(9):
        for system in (FaultyOs(fail_at, KilledError), full_disk(fail_at)):
            path.write_bytes(b"old")
            with monkeypatch.context() as patch:
                install(patch, system)
                try:
                    files.write_atomically(path, b"new content")
                except DiskFullError:
                    assert names(tmp_path) == ["file"]
                except KilledError:
                    pass
                else:
                    assert system.calls <= fail_at and path.read_bytes() == b"new content"
            assert path.read_bytes() in (b"old", b"new content")
    files.write_atomically(path, b"newer")  # over whatever a kill left behind
    assert names(tmp_path) == ["file"] and path.read_bytes() == b"newer"


def test_short_writes_are_carried_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class ShortWrites(FaultyOs):
        def write(self, descriptor: int, content: memoryview) -> int:
            return os.write(descriptor, content[:3])

    monkeypatch.setattr(files, "os", ShortWrites(10**9, KilledError))
    files.write_atomically(tmp_path / "file", bytes(range(100)))
    assert (tmp_path / "file").read_bytes() == bytes(range(100))


def test_a_full_disk_takes_the_metrics_line_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with metrics.recording(tmp_path, 0) as log:
        log.log(0, {"score": 1.0})
        for fail_at, file in enumerate((metrics.FILE, f"{metrics.EVENTS}000001")):
            before = (tmp_path / file).read_bytes()
            with monkeypatch.context() as patch:
                install(patch, FaultyOs(fail_at, lambda: OSError(errno.ENOSPC, "No space left"), ("write",)))
                with pytest.raises(DiskFullError):
                    log.log(1, {"score": 2.0})
            assert (tmp_path / file).read_bytes() == before
    with metrics.recording(tmp_path, 1) as log:
        log.log(1, {"score": 2.0})
    assert [(row["step"], row["score"]) for row in metrics.read(tmp_path)] == [(0, 1.0), (1, 2.0)]


LIMITED = """
import resource, sys, pathlib, torch
from metarl.runs import checkpoints
from metarl import errors
from metarl.learning import protocols
folder = pathlib.Path(sys.argv[1])
def save(step, size):
    checkpoints.save(folder, step, protocols.State({"w": torch.ones(size)}, {}), {})
save(1, 10)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
sys.exit(errors.exit_status(lambda: save(2, 10_000)))
"""


def test_a_real_limit_on_file_size_is_one_line_and_exit_1(tmp_path: Path) -> None:
    assert hasattr(resource, "RLIMIT_FSIZE")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "checkpoints")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("error: no room to write") and done.stderr.count("\n") == 1
    assert names(tmp_path / "checkpoints") == ["1"]


def test_a_device_that_is_full_is_a_disk_full_error() -> None:
    with pytest.raises(DiskFullError, match="No space left"), files.writing(Path("/dev/full")):
        files.write_synced(Path("/dev/full"), b"content")
