"""Files of data sets are found, fetched and verified; decoded images are kept, by many writers, after any kill."""

import dataclasses
import fcntl
import hashlib
import http.server
import os
import pwd
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarl.errors import RunError, UsageError
from metarl.fewshot import datasets
from metarl.fewshot.datasets import decoding, storage
from metarl.fewshot.datasets.storage import SourceFile
from tests.fewshot.pictures import FIVE, one_line, picture, write


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of its own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "metarl"


def checked(path: str, content: bytes) -> SourceFile:
    return SourceFile(path, (f"sha256:{hashlib.sha256(content).hexdigest()}",))


# The cache


def test_images_are_decoded_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "mine", FIVE)
    first = datasets.load(folder)
    with monkeypatch.context() as patched:
        patched.setattr(decoding, "decode", lambda *_: pytest.fail("decoded again"))
        assert datasets.load(folder).hash == first.hash
    write(folder, {"class0/0.png": picture()})
    assert datasets.load(folder).hash != first.hash and len(list(cache.iterdir())) == 2


def test_a_damaged_cache_is_made_anew(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "mine", FIVE)
    first = datasets.load(folder)
    (path,) = cache.iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    for damaged in (bytes(content), bytes(content[:100]), b""):
        path.write_bytes(damaged)
        assert datasets.load(folder).hash == first.hash
        printed = capsys.readouterr().err
        assert "making the decoded images again" in printed and printed.count("\n") == 1


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "mine", FIVE)
    (tmp_path / "a file").write_bytes(b"")
    for place in (tmp_path / "a file", Path("/proc/nothing"), tmp_path / ("a" * 300)):
        monkeypatch.setenv("XDG_CACHE_HOME", str(place))
        assert len(datasets.load(folder).labels) == 15
        printed = capsys.readouterr().err
        assert printed.startswith("warning: decoded images are not kept for the next start: could not write")
        assert printed.count("\n") == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")

    def nobody(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert len(datasets.load(folder).labels) == 15
    printed = capsys.readouterr().err
    assert "there is no home folder; set HOME or XDG_CACHE_HOME" in printed and printed.count("\n") == 1


def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert len(datasets.load(write(tmp_path / "mine", FIVE)).labels) == 15
    assert "no room to write" in capsys.readouterr().err and os.listdir(cache) == []


def test_what_a_killed_writer_left_is_deleted_by_the_next(tmp_path: Path, cache: Path) -> None:
    folder = write(tmp_path / "mine", FIVE)
    killed = (
        "import os, signal, sys; from metarl.fewshot import datasets;"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL);"
        "datasets.load(sys.argv[1])"
    )
    result = subprocess.run([sys.executable, "-c", killed, str(folder)])
    assert result.returncode == -signal.SIGKILL
    (left,) = os.listdir(cache)
    assert re.fullmatch(r"\.tmp-[0-9a-f]{32}-images-[0-9a-f]{16}\.npz", left)
    data = datasets.load(folder)
    (kept,) = os.listdir(cache)
    assert not kept.startswith(".tmp-") and datasets.load(folder).hash == data.hash


def test_what_another_writer_still_writes_is_left_alone(tmp_path: Path) -> None:
    held, left, others = f".tmp-{1:032x}-a.npz", f".tmp-{2:032x}-b.npz", {".tmp-notes", ".tmp-12-a", "3"}
    write(tmp_path, dict.fromkeys((held, left, *others), b"x"))
    with (tmp_path / held).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with storage.replacing(tmp_path / "a.npz") as written:
            written.write(b"y")
    assert set(os.listdir(tmp_path)) == {held, "a.npz"} | others


def test_two_writers_of_one_file_do_not_tear_it(tmp_path: Path) -> None:
    path = tmp_path / "set" / "file"
    with storage.replacing(path) as first:
        first.write(b"1" * 50_000)
        with storage.replacing(path) as second:
            second.write(b"2" * 70_000)
            second.flush()
            first.write(b"1" * 50_000)
            first.flush()
        assert path.read_bytes() == b"2" * 70_000
    assert path.read_bytes() == b"1" * 100_000 and os.listdir(path.parent) == ["file"]


def test_many_writers_may_begin_at_once(cache: Path) -> None:
    together, found = threading.Barrier(8), list[int]()

    def make() -> storage.Arrays:
        together.wait()
        return {"images": np.arange(100_000)}

    def load() -> None:
        found.append(int(storage.cached("x", {}, make)["images"].sum()))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (path,) = cache.iterdir()
    assert found == 8 * [4_999_950_000] and storage.read_arrays(path, 10**6)["images"].sum() == found[0]


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write_some() -> None:
        with storage.replacing(path) as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_some()
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


def test_the_cache_holds_any_arrays(cache: Path) -> None:
    arrays = {"images": np.eye(3, dtype=np.uint8), "names": np.array(["a", "é"]), "none": np.zeros(0, "U1")}
    for make in (lambda: arrays, lambda: pytest.fail("made again")):
        found = storage.cached("x", {}, make)
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
    assert len(list(cache.iterdir())) == 1


# Published files


def test_a_missing_file_says_where_to_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(storage.ROOT_VARIABLE, raising=False)
    for name in datasets.DATASETS:
        with pytest.raises(UsageError, match="is missing: put") as error:
            datasets.load(name, tmp_path)
        assert one_line(error) and str(tmp_path) in str(error.value) and "METARL_DATA" in str(error.value)
    with pytest.raises(UsageError, match="or add --download"):
        datasets.load("omniglot", tmp_path)
    assert storage.data_root() == Path("data")
    monkeypatch.setenv(storage.ROOT_VARIABLE, "/somewhere")
    assert storage.data_root() == Path("/somewhere") and storage.data_root(tmp_path) == tmp_path


def test_either_checksum_is_accepted_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    md5 = f"md5:{hashlib.md5(b'content', usedforsecurity=False).hexdigest()}"
    sha = f"sha256:{hashlib.sha256(b'content').hexdigest()}"
    for accepted in ((md5,), (sha,), ("md5:0", md5), ("md5:0", sha)):
        storage.verify(path, accepted)
    with pytest.raises(UsageError, match=f"has checksum {md5}, which should be md5:0 or md5:1: it is damaged") as error:
        storage.verify(path, ("md5:0", "md5:1"))
    assert one_line(error)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on this machine and its folder."""
    folder = tmp_path / "site"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, format: str, *args: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
        thread.join()


def test_a_download_is_verified_before_it_has_its_name(site: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = site
    (folder / "file").write_bytes(b"content")
    source = dataclasses.replace(checked("set/file", b"content"), url=f"{address}/file")
    path = source.find(tmp_path / "root", download=True)
    assert path.read_bytes() == b"content" and os.listdir(path.parent) == ["file"]
    (folder / "file").unlink()
    assert source.find(tmp_path / "root", download=True) == path  # it is there
    (folder / "file").write_bytes(b"another")
    with pytest.raises(UsageError, match="has checksum"):
        source.find(tmp_path / "other", download=True)
    with pytest.raises(RunError, match="could not download .*File not found"):
        dataclasses.replace(source, url=f"{address}/nothing").find(tmp_path / "other", download=True)
    assert os.listdir(tmp_path / "other" / "set") == []


@pytest.mark.parametrize(
    ("limits", "message"),
    [({"max_bytes": 6}, "sends more than 6 bytes"), ({"max_seconds": -1.0}, "sent 7 bytes in -1 s, which is too slow")],
)
def test_a_download_has_limits(site: tuple[str, Path], tmp_path: Path, limits: dict[str, float], message: str) -> None:
    address, folder = site
    (folder / "file").write_bytes(b"content")
    file = checked("set/file", b"content")
    with pytest.raises(RunError, match=message) as error:
        storage.fetch(f"{address}/file", tmp_path / "set" / "file", file.checksums, **limits)  # pyright: ignore[reportArgumentType]
    assert one_line(error) and os.listdir(tmp_path / "set") == []


def test_a_download_that_ends_too_early_is_no_file(
    site: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = site
    (folder / "file").write_bytes(b"content")
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "copyfile", lambda _, source, out: out.write(b"con"))
    with pytest.raises(RunError, match="ended 4 bytes too early") as error:
        storage.fetch(f"{address}/file", tmp_path / "set" / "file", checked("file", b"content").checksums)
    assert one_line(error) and os.listdir(tmp_path / "set") == []


def test_the_machine_says_how_much_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "data.npz", images=np.zeros((30, 4, 4), np.uint8), labels=np.arange(30) % 10)
    assert len(datasets.load(tmp_path / "data.npz").labels) == 30
    monkeypatch.setenv("METARL_MAX_BYTES", "479")
    with pytest.raises(
        UsageError, match="takes 480 bytes; the limit is 479 bytes: raise max_bytes, or METARL_MAX_BYTES"
    ):
        datasets.load(tmp_path / "data.npz")
    for wrong in ("4G", "-1", "0", "1e9", "9" * 30, "²"):
        monkeypatch.setenv("METARL_MAX_BYTES", wrong)
        with pytest.raises(UsageError, match="METARL_MAX_BYTES must be a number of bytes"):
            datasets.load(tmp_path / "data.npz")


def test_without_a_network_a_download_is_one_line(tmp_path: Path) -> None:
    source = SourceFile("file", ("md5:0",), "http://127.0.0.1:9/file")
    with pytest.raises(RunError, match="is there a network") as error:
        source.find(tmp_path, download=True)
    assert one_line(error) and list(tmp_path.iterdir()) == []


# The data root


def test_a_data_root_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(storage.ROOT_VARIABLE, raising=False)
    assert storage.existing_data_root() == Path("data")  # what is missing is then told with its full name
    for root, message in (
        (tmp_path / "nothing", "there is no folder .*nothing, which --data-root names"),
        (tmp_path / "file", "the data root .*file is not a folder"),
        (tmp_path / "file" / "x", "the data root .* cannot be read .Not a directory"),
        (tmp_path / ("a" * 300), "the data root .* cannot be read .File name too long"),
    ):
        with pytest.raises(UsageError, match=message) as error:
            datasets.load("omniglot", root)
        assert one_line(error)
    assert storage.existing_data_root(tmp_path / "new", download=True) == tmp_path / "new"
    monkeypatch.setenv(storage.ROOT_VARIABLE, str(tmp_path / "nothing"))
    with pytest.raises(UsageError, match="no folder .*nothing, which METARL_DATA names as the data root"):
        datasets.load("omniglot")
    assert storage.existing_data_root(tmp_path) == tmp_path
