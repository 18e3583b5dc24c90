"""A user's own images, a folder, a zip or arrays: all of them are read, or what is not is named."""

import errno
import io
import os
import re
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from metarl.errors import UsageError
from metarl.fewshot import datasets
from metarl.fewshot.datasets import Splitting, sources
from metarl.tasks import SPLITS
from tests.fewshot.pictures import FIVE, one_line, picture, write, zipped

RNG = np.random.default_rng(0)
PIXELS, LABELS = RNG.integers(256, size=(12, 8, 8, 3), dtype=np.uint8), np.arange(12) % 4


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of its own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "metarl"


# Folders and zips


def test_a_folder_of_images_becomes_a_data_set(tmp_path: Path) -> None:
    data = datasets.load(write(tmp_path / "mine", FIVE))
    assert data.classes == tuple(f"class{number}" for number in range(5)) and data.shape == (3, 8, 8)
    assert [len(data.splits[split]) for split in SPLITS] == [3, 1, 1]
    for name, content in FIVE.items():
        pixels = np.asarray(Image.open(io.BytesIO(content))).transpose(2, 0, 1)
        (place,) = np.flatnonzero((data.examples.numpy() == pixels).all((1, 2, 3)))
        assert data.classes[data.labels[place]] == name.partition("/")[0]
    moved = datasets.load(write(tmp_path / "elsewhere", FIVE))
    assert moved.hash == data.hash
    other = datasets.load(tmp_path / "mine", splitting=Splitting((0.4, 0.2, 0.4), 3))
    assert [len(other.splits[split]) for split in SPLITS] == [2, 1, 2]


@pytest.mark.parametrize("top", ["", "mine/", "deep/mine/"])
def test_a_zip_of_it_is_the_same(tmp_path: Path, top: str) -> None:
    extra = {"__MACOSX/class0/._0.png": b"x", f"{top}class0/notes.txt": b"x", f"{top}class0/.hidden.png": b"x"}
    zipped(tmp_path / "mine.zip", {f"{top}{name}": content for name, content in FIVE.items()} | extra)
    if top.count("/") > 1:
        with pytest.raises(ValueError, match="is not where images should be"):
            datasets.load(tmp_path / "mine.zip")
        return
    assert datasets.load(tmp_path / "mine.zip").hash == datasets.load(write(tmp_path / "mine", FIVE)).hash


def test_folders_of_splits_are_taken_as_the_splits(tmp_path: Path) -> None:
    homes = {"class0": "train", "class1": "train", "class2": "val", "class3": "test", "class4": "train"}
    files = {f"{homes[name.partition('/')[0]]}/{name}": content for name, content in FIVE.items()}
    data = datasets.load(write(tmp_path / "mine", files))
    assert data.splits == {"train": (0, 1, 4), "validation": (2,), "test": (3,)}
    write(tmp_path / "mine", {"test/class1/9.png": picture()})
    with pytest.raises(ValueError, match="class 'class1' is in train and in test"):
        datasets.load(tmp_path / "mine")
    part = {name: content for name, content in files.items() if not name.startswith("val")}
    with pytest.raises(ValueError, match="has folders for test, train but none for validation"):
        datasets.load(write(tmp_path / "part", part))


def test_grey_images_have_one_channel_unless_one_is_coloured(tmp_path: Path) -> None:
    grey = {f"class{number}/0.{suffix}": picture(mode="L") for number, suffix in enumerate(("png", "PNG", "png"))}
    folder = write(tmp_path / "mine", grey)
    assert datasets.load(folder).shape == (1, 8, 8)
    write(folder, {"class0/1.jpeg": picture(format="JPEG"), "class1/1.jpg": picture(format="JPEG")})
    data = datasets.load(folder)
    assert data.shape == (3, 8, 8) and len(data.labels) == 5
    first = data.examples[0]
    assert (first[0] == first[1]).all() and (first[0] == first[2]).all()


def test_images_are_scaled_where_a_size_is_given(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", FIVE | {"class2/odd.png": picture((12, 10))})
    with pytest.raises(ValueError, match="several sizes: class0/0.png is 8×8, class2/odd.png 12×10; .*--image-size 8"):
        datasets.load(folder)
    assert datasets.load(folder, image_size=6).shape == (3, 6, 6)


def test_images_of_every_suffix_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kinds = {"png": "PNG", "JPG": "JPEG", "jpeg": "JPEG", "webp": "WEBP", "tif": "TIFF", "TIFF": "TIFF", "bmp": "BMP"}
    kinds["gif"] = "GIF"
    files = {f"class{each}/0.{suffix}": picture(format=kind) for each in range(3) for suffix, kind in kinds.items()}
    folder = write(tmp_path / "mine", files)
    assert datasets.load(folder).counts.tolist() == [8, 8, 8]
    assert datasets.load(zipped(tmp_path / "mine.zip", files)).counts.tolist() == [8, 8, 8]
    assert capsys.readouterr().err == ""


def test_links_are_followed(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", FIVE)
    whole = datasets.load(folder).hash
    (tmp_path / "elsewhere").mkdir()
    os.rename(folder / "class3", tmp_path / "elsewhere" / "third")
    (folder / "class3").symlink_to(tmp_path / "elsewhere" / "third")
    os.rename(folder / "class1" / "0.png", tmp_path / "a file of any name")
    (folder / "class1" / "0.png").symlink_to("../../a file of any name")
    (tmp_path / "link").symlink_to("mine")
    assert datasets.load(tmp_path / "link").hash == whole


EXTRA = {
    "class0/.hidden.png": b"x",
    ".git/objects/1": b"x",
    "class0/Thumbs.db": b"x",
    "class0/notes.txt": b"x",
    "class1/notes.txt": b"x",
    "class1/raw.CR2": b"x",
    "README": b"x",
}


def test_what_is_no_image_is_counted_and_named_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "mine", FIVE | EXTRA)
    (folder / "class7" / "inside").mkdir(parents=True)
    data = datasets.load(folder)
    printed = capsys.readouterr().err
    assert printed.startswith(f"warning: {folder}: left out 8 that are no images (.png, .jpg, .jpeg, .webp, .tif, ")
    for part in (
        "2 .txt (class0/notes.txt, ...)",
        "2 hidden (.git, ...)",
        "1 Thumbs.db (class0/Thumbs.db)",
        "1 .CR2 (class1/raw.CR2)",
        "1 without a suffix (README)",
        "1 folders without images (class7)",
    ):
        assert part in printed
    assert printed.count("\n") == 1 and data.left_out == ()
    path = zipped(tmp_path / "mine.zip", FIVE | EXTRA | {"class7/": b"", "class7/inside/": b"", "class0/": b""})
    assert datasets.load(path).hash == data.hash
    assert capsys.readouterr().err.partition(":")[2] == printed.partition(":")[2].replace("mine:", "mine.zip:").replace(
        ".git,", ".git/objects/1,"
    )


def test_many_kinds_of_files_are_still_one_short_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    datasets.load(write(tmp_path / "mine", FIVE | {f"class0/x.{each:02d}\n": b"" for each in range(30)}))
    printed = capsys.readouterr().err
    assert "24 of 24 more kinds" in printed and printed.count("\n") == 1 and len(printed) < 600


# What cannot be read


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def bound_socket(path: Path) -> None:
    here = os.open(".", os.O_RDONLY)
    os.chdir(path.parent)  # its name may have no more than a hundred letters
    try:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(path.name)
    finally:
        os.fchdir(here)
        os.close(here)


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def dangling_class(path: Path) -> None:
    path.parent.with_name("class.9").symlink_to("nowhere")


def circle(path: Path) -> None:
    path.with_name("again").symlink_to("..")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def unreadable(path: Path) -> None:
    path.write_bytes(b"not an image")


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (fifo, "class1/9.png is a FIFO, not a file"),
        (device, "class1/9.png is a device, not a file"),
        (bound_socket, "class1/9.png is a socket, not a file"),
        (dangling, "class1/9.png is a link that leads nowhere .No such file"),
        (dangling_class, "class.9 is a link that leads nowhere"),
        (circle, "class1/again is a link that leads back to a folder above it"),
        (link_to_itself, "class1/9.png is a link that leads nowhere .Too many levels"),
        (unreadable, "class1/9.png is no image of the kinds PNG, .* begins with b'not an i'"),
    ],
)
def test_what_cannot_be_read_is_named_and_may_be_left_out(tmp_path: Path, make: Any, message: str) -> None:
    folder = write(tmp_path / "mine", FIVE)
    whole = datasets.load(folder)
    make(folder / "class1" / "9.png")
    with pytest.raises(
        ValueError, match=f"mine: {message}.*; put it right, or go on without it by --skip-bad"
    ) as error:
        datasets.load(folder)
    assert one_line(error)
    data = datasets.load(folder, skip_bad=True)
    assert data.hash == whole.hash and len(data.left_out) == 1 and re.match(message, data.left_out[0])
    assert datasets.load(folder, skip_bad=True).left_out == data.left_out  # decoded images may be kept; this is, too
    with pytest.raises(ValueError, match=f"mine: {message}"):
        datasets.load(folder)


@pytest.mark.timeout(20)
def test_what_becomes_a_fifo_after_it_was_found_does_not_block(tmp_path: Path) -> None:
    fifo(tmp_path / "x.png")
    with pytest.raises(OSError, match="it is a FIFO, not a file"):
        sources.open_regular(tmp_path / "x.png")


def test_folders_in_folders_end_somewhere(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", FIVE)
    deep = folder
    for _ in range(30):
        deep /= "class1"
        deep.mkdir(exist_ok=True)
    with pytest.raises(ValueError, match="mine: class1/class1.* lies too deep"):
        datasets.load(folder)


def test_a_file_or_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, listdir, opened = write(tmp_path / "mine", FIVE), os.listdir, os.open

    def refuse_folder(path: Path) -> list[str]:
        if path.name == "class2":
            raise PermissionError(errno.EACCES, "Permission denied")
        return listdir(path)

    def refuse_file(path: Any, *arguments: Any, **options: Any) -> int:
        if str(path).endswith("class1/2.png"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, "listdir", refuse_folder)
        with pytest.raises(ValueError, match="class2 cannot be read .Permission denied"):
            datasets.load(folder)
    monkeypatch.setattr(os, "open", refuse_file)
    with pytest.raises(ValueError, match="class1/2.png cannot be read .Permission denied"):
        datasets.load(folder)
    assert datasets.load(folder, skip_bad=True).counts.tolist() == [3, 2, 3, 3, 3]


def test_every_fault_is_counted_and_listed(tmp_path: Path) -> None:
    bad = {"class1/0.png": b"", "class1/1.png": picture()[:-30], "class3/2.png": b"x"}
    folder = write(tmp_path / "mine", FIVE | bad)
    dangling(folder / "class2" / "5.png")
    dangling(folder / "class2" / "6.png")
    with pytest.raises(ValueError, match=r"mine: class2/5.png is a link that leads nowhere .* \(and 1 more\); put"):
        datasets.load(folder)
    data = datasets.load(folder, skip_bad=True)
    named = [line.partition(" ")[0] for line in data.left_out]
    assert named == ["class2/5.png", "class2/6.png", "class1/0.png", "class1/1.png", "class3/2.png"]
    assert data.counts.tolist() == [3, 1, 3, 2, 3]
    whole = datasets.load(write(tmp_path / "whole", {name: FIVE[name] for name in FIVE.keys() - bad.keys()}))
    assert whole.hash == data.hash and whole.left_out == ()


def test_a_small_class_is_named_with_its_count_and_may_be_left_out(tmp_path: Path) -> None:
    files = {name: content for name, content in FIVE.items() if name not in ("class1/0.png", "class1/1.png")}
    folder = write(tmp_path / "mine", files | {"class4/0.png": b"x", "class4/1.png": b"x"})
    with pytest.raises(ValueError, match="mine: class4/0.png is no image"):
        datasets.load(folder, min_per_class=3)
    data = datasets.load(folder, skip_bad=True, min_per_class=3)
    assert data.classes == ("class0", "class2", "class3") and data.counts.tolist() == [3, 3, 3]
    assert data.left_out[2:] == tuple(f"class 'class{each}' has 1 example, fewer than 3" for each in (1, 4))
    good = datasets.load(write(tmp_path / "good", {name: FIVE[name] for name in FIVE if name[5] in "023"}))
    assert data.hash == good.hash
    with pytest.raises(ValueError, match="good: class 'class0' has 3 examples, fewer than 4 .and 2 more.; put"):
        datasets.load(tmp_path / "good", min_per_class=4)
    gone = write(tmp_path / "gone", FIVE | {f"class2/{each}.png": b"x" for each in range(3)})
    assert datasets.load(gone, skip_bad=True).left_out[-1] == "class 'class2' has 0 examples, fewer than 1"


def test_bad_folders_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty" / "class").mkdir(parents=True)
    flat = write(tmp_path / "flat", {"0.png": picture(), "1.png": picture()})
    two = write(tmp_path / "two", {"a/0.png": picture(), "b/0.png": picture()})
    broken = write(tmp_path / "broken", {"a/0.png": b"x", "b/0.png": b"x"})
    for path, skip, message in (
        (tmp_path / "empty", False, "holds no images"),
        (flat, False, "0.png is not where images should be"),
        (two, False, "two: three splits need at least 3 classes, got 2"),
        (broken, True, "none of the 2 images can be read: a/0.png is no image"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            datasets.load(path, skip_bad=skip)
        assert one_line(error)
    (tmp_path / "file").write_bytes(b"x")
    fifo(tmp_path / "fifo")
    for name, message in (
        (tmp_path / "file", "neither a folder nor a zip"),
        ("omniglott", "did you mean omniglot"),
        ("", "no data set '', and no folder"),
        ("a" * 300, "cannot be read .File name too long"),
        ("x\0y", r"no data set \"'x\\\\x00y'\""),
        (tmp_path / "file" / "x", "no data set"),
        (tmp_path / "fifo", "fifo is a FIFO: data are a folder, a zip or an .npz file"),
        ("/dev/zero", "/dev/zero is a device: data are"),
    ):
        with pytest.raises(UsageError, match=message) as usage_error:
            datasets.load(name)
        assert one_line(usage_error)


def test_names_of_files_never_break_a_line(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", FIVE | {"class1/a\nb\x1b[1m.png": b"x"})
    with pytest.raises(ValueError, match=r"'class1/a\\nb\\x1b\[1m.png' is no image") as error:
        datasets.load(folder)
    assert one_line(error)
    write(tmp_path / "foreign", {f"{os.fsdecode(b'class0' + bytes([255]))}/0.png": picture()})
    with pytest.raises(ValueError, match=r"the folder 'class0\\udcff' has a name that is not UTF-8; rename it"):
        datasets.load(tmp_path / "foreign")


def test_limits_hold_for_files_and_pixels(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", FIVE)
    with (folder / "class0" / "9.png").open("wb") as file:
        file.truncate(2**42)  # a hole
    with pytest.raises(ValueError, match="class0/9.png has 4.0 TiB; the limit is 4.0 GiB: raise max_bytes"):
        datasets.load(folder)
    (folder / "class0" / "9.png").unlink()
    for _ in range(2):  # decoded, or as kept by the call with the higher limit
        with pytest.raises(ValueError, match="pixels of 1[05] images take .*scale .*limit is 1.9 KiB: raise max_bytes"):
            datasets.load(folder, max_bytes=1919)
        assert len(datasets.load(folder, max_bytes=5000).labels) == 15
    for size in (0, -1):
        with pytest.raises(ValueError, match="max_bytes must be at least 1"):
            datasets.load(folder, max_bytes=size)


# Options


def test_options_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="omniglot has its own size and split"):
        datasets.load("omniglot", tmp_path, image_size=28)
    limits: list[dict[str, Any]] = [{"skip_bad": True}, {"max_bytes": 10**9}, {"min_per_class": 2}]
    for options in limits:
        with pytest.raises(
            ValueError, match="omniglot is complete, as its checksums show: leave --skip-bad and limits out"
        ):
            datasets.load("omniglot", tmp_path, **options)
    with pytest.raises(ValueError, match="--download is for published data sets"):
        datasets.load(tmp_path, download=True)
    with pytest.raises(ValueError, match="--data-root is for published data sets"):
        datasets.load(tmp_path, tmp_path)
    np.savez(tmp_path / "x.npz", images=1, labels=1)
    with pytest.raises(ValueError, match="leave --image-size out"):
        datasets.load(tmp_path / "x.npz", image_size=28)
    with pytest.raises(ValueError, match="image_size must be at least 1, got 0"):
        datasets.load(tmp_path, image_size=0)
    with pytest.raises(ValueError, match="min_per_class must be at least 1, got 0"):
        datasets.load(tmp_path, min_per_class=0)
