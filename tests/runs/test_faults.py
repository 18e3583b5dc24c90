"""What is on the disk after a kill or a full disk at any moment: an operating system that fails on purpose."""

import errno
import os
import re
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
from metarl.learning.store import Store
from metarl.runs import checkpoints, files, metrics, stored
from metarl.runs.checkpoints import Checkpoint, CheckpointFolder
from tests.runs.tiny import make_run

ROOT = Path(__file__).resolve().parent.parent.parent
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
    for module in (files, checkpoints, metrics, stored):
        monkeypatch.setattr(module, "os", system)


def state(value: float) -> State:
    """Its store has a chunk for each value so far, the oldest dropped."""
    store = Store()
    for number in range(round(value)):
        store = store.append({"n": torch.tensor([number])}, 2)
    return State({"w": torch.full((3, 2), value), "b": torch.arange(4)}, {"m": torch.full((2,), -value)}, store)


def saved_twice(folder: Path) -> CheckpointFolder:
    saved = CheckpointFolder(make_run(folder))
    saved.save(1, state(1.0), env_steps=1, score=5.0, keep_last=1)
    saved.save(2, state(2.0), env_steps=2, score=1.0, keep_last=1)
    return saved


def save_third(saved: CheckpointFolder, keep_last: int = 1) -> None:
    saved.save(3, state(3.0), env_steps=3, keep_last=keep_last)


def fresh(folder: Path) -> CheckpointFolder:
    """As another process sees them."""
    return CheckpointFolder(make_run(folder))


def check_whole(loaded: Checkpoint) -> None:
    expected = state(float(loaded.env_steps))
    assert torch.equal(loaded.state.parameters["w"], expected.parameters["w"])
    assert [int(chunk["n"]) for chunk in loaded.state.store.chunks] == [int(c["n"]) for c in expected.store.chunks]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def calls_of_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    counting = FaultyOs(10**9, KilledError)
    saved = saved_twice(tmp_path / "counted")
    with monkeypatch.context() as patch:
        install(patch, counting)
        save_third(saved)
    return counting.calls


def test_a_kill_between_any_two_calls_leaves_a_whole_latest_and_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = calls_of_a_save(tmp_path, monkeypatch)
    assert calls > 20
    latest_steps = set()
    for fail_at in range(calls):
        folder = tmp_path / str(fail_at)
        saved = saved_twice(folder)
        with monkeypatch.context() as patch:
            install(patch, FaultyOs(fail_at, KilledError))
            with pytest.raises(KilledError):
                save_third(saved)
        saved = fresh(folder)
        saved.clean_up()
        assert all(name.isdigit() for name in names(folder / "checkpoints")), names(folder / "checkpoints")
        assert not [name for name in names(folder / "store") if name.startswith(".")]
        warnings: list[str] = []
        latest, best = saved.latest(None, warnings.append), saved.best(None, warnings.append)
        assert latest is not None and best is not None and best.step == 1 and not warnings
        check_whole(latest)
        check_whole(best)
        latest_steps.add(latest.step)
        resumed = fresh(folder)
        assert resumed.latest(None) is not None
        save_third(resumed)  # and the run can go on
        assert saved.steps() == (1, 3)
        check_whole(fresh(folder).load(3, None))
        assert names(folder / "store") == ["0.safetensors", "1.safetensors", "2.safetensors"]
    assert latest_steps == {2, 3}


def test_a_kill_while_the_same_step_is_saved_again_keeps_one_of_the_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = set()
    for fail_at in range(200):
        folder = tmp_path / str(fail_at)
        saved = CheckpointFolder(make_run(folder))
        saved.save(7, state(0.0), env_steps=1)
        with monkeypatch.context() as patch:
            install(patch, FaultyOs(fail_at, KilledError))
            try:
                saved.save(7, state(0.0), env_steps=2)
            except KilledError:
                pass
            else:
                break
        saved = fresh(folder)
        saved.clean_up()
        latest = saved.latest(None)
        assert latest is not None and names(folder / "checkpoints") == ["7"]
        found.add(latest.env_steps)
    assert found == {1, 2}


def test_a_kill_while_an_old_checkpoint_is_deleted_leaves_no_torn_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed_half_way(path: Path, ignore_errors: bool) -> None:
        (path / "params.safetensors").unlink()
        raise KilledError

    saved = saved_twice(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, "rmtree", killed_half_way)
        with pytest.raises(KilledError):
            save_third(saved)
    assert saved.steps() == (1, 3)
    fresh(tmp_path).clean_up()
    assert names(tmp_path / "checkpoints") == ["1", "3"]


def test_files_reach_the_disk_before_their_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut cannot be had in a test; the order of the calls that guard against it can."""
    opened: dict[int, str] = {}
    done: list[str] = []

    class Recorder(FaultyOs):
        def open(self, path: Path, *arguments: int) -> int:
            descriptor = os.open(path, *arguments)
            opened[descriptor] = re.sub(r"^\.tmp-.*", ".tmp-", Path(path).name)  # what follows is random
            return descriptor

        def fsync(self, descriptor: int) -> None:
            done.append(f"sync {opened[descriptor]}")

        def rename(self, _source: Path, target: Path) -> None:
            os.rename(_source, target)
            done.append(f"rename {target.name}")

        def replace(self, _source: Path, target: Path) -> None:
            os.replace(_source, target)
            done.append(f"replace {target.name}")

    saved = CheckpointFolder(make_run(tmp_path / "run"))
    install(monkeypatch, Recorder(10**9, KilledError))
    saved.save(3, State({"w": torch.zeros(1)}, {}, Store().append({"n": torch.zeros(1)})))
    files.write_atomically(tmp_path / "file", b"content")
    written = [f"sync {name}" for name in ("params.safetensors", "optimizer.safetensors", "state.json", ".tmp-")]
    assert done == [
        "sync run", "sync .tmp-", "replace 0.safetensors", "sync store",
        "sync run", *written, "rename 3", "sync checkpoints",
        "sync .tmp-", "replace file", f"sync {tmp_path.name}",
    ]  # fmt: skip


@pytest.mark.parametrize(("code", "forever"), [(errno.ENOSPC, True), (errno.EDQUOT, False)])
def test_a_full_disk_at_any_call_is_one_line_and_leaves_no_debris(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, forever: bool
) -> None:
    failed = 0
    for fail_at in range(200):
        folder = tmp_path / str(fail_at)
        saved = saved_twice(folder)
        with monkeypatch.context() as patch:
            install(patch, full_disk(fail_at, code, forever))
            try:
                save_third(saved, keep_last=2)
            except DiskFullError as error:
                told = str(error)
            else:
                break
        failed += 1
        assert "\n" not in told and str(folder) in told
        assert names(folder / "checkpoints") in (["1", "2"], ["1", "2", "3"])
        assert not [name for name in names(folder / "store") if name.startswith(".")]
        for step in saved.steps():
            check_whole(fresh(folder).load(step, None))
        save_third(saved, keep_last=2)  # there is room again
        check_whole(fresh(folder).load(3, None))
    assert failed > 10


def test_other_faults_of_the_system_are_run_errors_and_leave_no_debris(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = saved_twice(tmp_path)
    install(monkeypatch, FaultyOs(9, lambda: OSError(errno.EIO, "Input/output error"), forever=False))
    with pytest.raises(RunError, match=r"could not write .*/3: Input/output error") as caught:
        save_third(saved)
    assert not isinstance(caught.value, DiskFullError)
    assert names(tmp_path / "checkpoints") == ["1", "2"]


def test_a_file_replaced_atomically_is_old_or_new_after_a_kill_or_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    for fail_at in range(9):
        for system in (FaultyOs(fail_at, KilledError), full_disk(fail_at)):
            path.write_bytes(b"old")
            before = names(tmp_path)
            with monkeypatch.context() as patch:
                install(patch, system)
                try:
                    files.write_atomically(path, b"new content")
                except DiskFullError:
                    assert names(tmp_path) == before
                except KilledError:
                    pass
                else:
                    assert system.calls <= fail_at and path.read_bytes() == b"new content"
            assert path.read_bytes() in (b"old", b"new content")
    assert len(names(tmp_path)) > 1  # what kills left behind
    files.clean_up(tmp_path)
    assert names(tmp_path) == ["file"]


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
from metarl import errors
from metarl.learning.protocols import State
from metarl.runs.checkpoints import CheckpointFolder
from tests.runs.tiny import make_run
saved = CheckpointFolder(make_run(pathlib.Path(sys.argv[1])))
def save(step, size):
    saved.save(step, State({"w": torch.ones(size)}, {}))
save(1, 10)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
sys.exit(errors.exit_status(lambda: save(2, 10_000)))
"""


def test_a_real_limit_on_file_size_is_one_line_and_exit_1(tmp_path: Path) -> None:
    assert hasattr(resource, "RLIMIT_FSIZE")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("error: no room to write") and done.stderr.count("\n") == 1
    assert names(tmp_path / "checkpoints") == ["1"]


def test_a_device_that_is_full_is_a_disk_full_error() -> None:
    with pytest.raises(DiskFullError, match="No space left"), files.writing(Path("/dev/full")):
        Path("/dev/full").write_bytes(b"content")
