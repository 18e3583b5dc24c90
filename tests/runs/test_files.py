"""Files in a folder that a stranger made, and several writers at once."""

import contextlib
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from metarl.errors import RunError, UsageError
from metarl.learning.protocols import State
from metarl.runs import files, metrics, run_folder
from metarl.runs.checkpoints import CheckpointFolder
from metarl.runs.run_folder import Run
from tests.runs import tiny
from tests.runs.tiny import EXPERIMENT, HERE, make_state

SECRET = b"of the user, in another folder"


def a_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def a_dangling_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim.with_name("not there yet"))


def a_link_to_a_folder(path: Path, victim: Path) -> None:
    path.symlink_to(victim.with_name("folder"))


def a_pipe(path: Path, _victim: Path) -> None:
    os.mkfifo(path)


def a_device(path: Path, _victim: Path) -> None:
    path.symlink_to("/dev/zero")


def a_folder(path: Path, _victim: Path) -> None:
    path.mkdir()


STRANGE = [a_link, a_link_to_a_folder, a_dangling_link, a_pipe, a_device, a_folder]
Plant = Callable[[Path, Path], None]


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_bytes(SECRET)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "test.json").write_bytes(SECRET)
    return path


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run that trained for a while."""
    with run_folder.open_run(tmp_path / "run", EXPERIMENT, steps=9, environment=HERE) as run:
        CheckpointFolder(run).save(4, make_state(chunks=2))
        with metrics.recording(run.folder, 1) as log:
            log.log(1, {"score": 1.0})
        run.write_evaluation("test", {"score": 1.0})
    return run


def check_untouched(victim: Path) -> None:
    """Nothing of the user's was written, and nothing was made outside of the run's folder."""
    assert victim.read_bytes() == SECRET == (victim.parent / "folder" / "test.json").read_bytes()
    assert sorted(path.name for path in victim.parent.iterdir()) == ["folder", "run", "victim"]
    assert os.listdir(victim.parent / "folder") == ["test.json"]


def train(run: Run) -> None:
    with run_folder.open_run(run.folder, EXPERIMENT, steps=9, environment=HERE, warning=lambda _: None) as opened:
        checkpoints = CheckpointFolder(opened)
        checkpoints.clean_up()
        saved = checkpoints.latest(make_state(), lambda _: None)
        state = make_state() if saved is None else saved.state
        with metrics.recording(opened.folder, 5, warning=lambda _: None) as log:
            log.log(5, {"score": 1.0})
            log.sync()
        checkpoints.save(
            5, State(state.parameters, state.optimizer, state.store.append({"a": state.parameters["count"]}))
        )
        opened.write_evaluation("test", {"score": 2.0})


@pytest.mark.parametrize("plant", STRANGE)
@pytest.mark.parametrize(
    "name",
    ["config.json", ".lock", "metrics.jsonl", "checkpoints", "checkpoints/4", "checkpoints/4/state.json",
     "checkpoints/4/params.safetensors", "checkpoints/4/optimizer.safetensors", "checkpoints/5", "store",
     "store/0.safetensors", "store/2.safetensors", "evaluations", "evaluations/test.json",
     "events.out.tfevents.000002"],
)  # fmt: skip
def test_nothing_is_written_or_read_through_what_a_stranger_left(
    run: Run, victim: Path, name: str, plant: Plant
) -> None:
    path = run.folder / name
    if path.is_dir():
        path.rename(victim.parent / "kept")
    else:
        path.unlink(missing_ok=True)
    plant(path, victim)
    with contextlib.suppress(RunError, UsageError):  # or it is replaced, or a checkpoint from before is used
        train(run)
    if (victim.parent / "kept").exists():
        (victim.parent / "kept").rename(run.folder / "kept")
    check_untouched(victim)


@pytest.mark.parametrize("name", ["config.json", ".lock", "metrics.jsonl", "evaluations/test.json"])
def test_the_message_names_the_file_and_what_it_is(run: Run, victim: Path, name: str) -> None:
    (run.folder / name).unlink(missing_ok=True)
    (run.folder / name).symlink_to(victim)
    with pytest.raises(RunError, match=f"{name}.*: it is a symbolic link, and none is followed here"):
        train(run)


@pytest.mark.parametrize("folder", ["", "checkpoints", "store", "evaluations", "videos"])
def test_what_killed_processes_left_is_removed_and_links_are_not_followed(run: Run, victim: Path, folder: str) -> None:
    run.videos.mkdir()
    place = run.folder / folder
    (place / ".tmp-test.json").symlink_to(victim)
    (place / ".tmp-folder").symlink_to(victim.parent)
    (place / ".tmp-123.json").write_bytes(b"half")
    os.mkfifo(place / ".tmp-pipe")
    train(run)
    assert not [name for name in os.listdir(place) if name.startswith(".tmp-")]
    check_untouched(victim)


def test_hard_links_do_not_share_what_is_written(run: Run, victim: Path) -> None:
    (run.folder / "metrics.jsonl").unlink()
    os.link(victim, run.folder / "metrics.jsonl")
    train(run)
    check_untouched(victim)
    (run.folder / ".lock").unlink()
    os.link(victim, run.folder / ".lock")
    with pytest.raises(RunError, match=r"\.lock: it has another name \(a hard link\); delete it"):
        train(run)
    check_untouched(victim)


def test_what_is_appended_does_not_show_under_a_files_other_names(tmp_path: Path, victim: Path) -> None:
    os.link(victim, tmp_path / "log")
    descriptor = files.open_to_append(tmp_path / "log")
    os.write(descriptor, b"!")
    os.close(descriptor)
    assert victim.read_bytes() == SECRET and (tmp_path / "log").read_bytes() == SECRET + b"!"


def test_a_configs_link_is_no_reason_to_begin_anew(tmp_path: Path, victim: Path) -> None:
    """It once let another seed take over what was there."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").symlink_to(victim.with_name("not there"))
    with pytest.raises(RunError, match=r"config.json cannot be read: it is a symbolic link"):
        train(Run(folder, tiny.make_run(folder).config))


def test_a_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="/dev/null: it is not a regular file"):
        files.write_atomically(Path("/dev/null"), b"content")
    assert not Path("/dev/null").is_file()


def test_a_pipe_or_a_device_never_hangs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), Path("/dev/stdin")):
        with pytest.raises(OSError, match="it is not a regular file|it is a symbolic link"):
            files.read_bytes(path)
        with pytest.raises(OSError, match="it is not a regular file|it is a symbolic link"):
            files.open_to_append(path)


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert files.read_bytes(tmp_path / "file", 5) == b"12345"
    with pytest.raises(OSError, match="it has 5 bytes, the limit is 4"):
        files.read_bytes(tmp_path / "file", 4)


# Names


def test_temporary_names_cannot_be_guessed_and_keep_the_suffix(tmp_path: Path) -> None:
    names = {files.temporary_beside(tmp_path / f"{'x' * 240}.mp4").name for _ in range(100)}
    assert len(names) == 100
    assert all(name.startswith(files.TEMPORARY) and name.endswith(".mp4") and len(name) < 40 for name in names)
    assert (
        files.temporary_beside(tmp_path / "file.").suffix == ""
        and "…" not in files.temporary_beside(tmp_path / "a.…").name
    )


def test_a_new_file_never_takes_a_name_that_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: Path
) -> None:
    (tmp_path / ".tmp-planted").symlink_to(victim)
    monkeypatch.setattr(files, "temporary_beside", lambda _: tmp_path / ".tmp-planted")
    with pytest.raises(RunError, match="File exists"):
        files.write_atomically(tmp_path / "file", b"content")
    assert victim.read_bytes() == SECRET


@pytest.mark.parametrize("name", ["x" * 300, "y/" * 3000])
def test_names_that_are_too_long_are_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match="File name too long"):
        files.write_atomically(tmp_path / name, b"content")
    with (
        pytest.raises((RunError, UsageError), match="File name too long"),
        run_folder.open_run(tmp_path / name, EXPERIMENT, steps=1, environment=HERE),
    ):
        pytest.fail("opened")
    with pytest.raises((RunError, UsageError), match="File name too long"):
        run_folder.read(tmp_path / name)


def test_a_name_that_is_no_text_is_as_good_as_others(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"r\xff\xfe")
    with run_folder.open_run(folder, EXPERIMENT, steps=1, environment=HERE) as run:
        CheckpointFolder(run).save(1, make_state())
        run.write_evaluation("test", {})
    assert CheckpointFolder(run_folder.read(folder)).load(1, make_state()).step == 1


# Several at once


WRITER = """
import pathlib, sys
from metarl.runs import files
path, content = pathlib.Path(sys.argv[1]), sys.argv[2].encode() * 5000
for _ in range(150):
    files.write_atomically(path, content)
"""


def test_two_writers_of_one_file_never_tear_it_and_nobody_fails(tmp_path: Path) -> None:
    path = tmp_path / "test.json"
    files.write_atomically(path, b"a" * 5000)
    commands = [[sys.executable, "-c", WRITER, str(path), letter] for letter in "ab"]
    writers = [subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ) for command in commands]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        seen.add(path.read_bytes())
        files.clean_up(tmp_path)  # what is being written stays
    assert [writer.communicate()[1] for writer in writers] == [b"", b""]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen <= {b"a" * 5000, b"b" * 5000}
    assert os.listdir(tmp_path) == ["test.json"]


def test_a_file_that_is_cleaned_up_before_it_is_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock
    cleaned: list[list[str]] = []

    def too_late(descriptor: int, operation: int) -> None:
        if not cleaned and operation == fcntl.LOCK_EX:
            cleaned.append(os.listdir(tmp_path))
            files.clean_up(tmp_path)
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", too_late)
    files.write_atomically(tmp_path / "file", b"content")
    assert cleaned[0][0].startswith(".tmp-") and os.listdir(tmp_path) == ["file"]


def test_what_another_program_writes_is_put_in_place(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    with files.replacing(path) as temporary:
        subprocess.run(["cp", "/bin/true", str(temporary)], check=True)
        assert not path.exists() and temporary.suffix == ".mp4"
        thread = threading.Thread(target=files.clean_up, args=(tmp_path,))
        thread.start()
        thread.join()
    assert path.read_bytes() == Path("/bin/true").read_bytes() and os.listdir(tmp_path) == ["video.mp4"]
    with pytest.raises(ZeroDivisionError), files.replacing(path):
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == ["video.mp4"]
