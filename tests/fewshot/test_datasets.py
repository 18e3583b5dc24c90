"""Files of data sets: found, verified, decoded once, and refused in one clear line. Mostly on small ones made here."""

import dataclasses
import hashlib
import http.server
import io
import json
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from metarl.errors import RunError, UsageError
from metarl.fewshot import datasets
from metarl.fewshot.datasets import Splitting, cifar100, images, mini_imagenet, omniglot, storage, tiny_imagenet
from metarl.fewshot.datasets.storage import SourceFile
from metarl.tasks import SPLITS, Split

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of its own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "metarl"


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data root."""
    root = os.environ.get(storage.ROOT_VARIABLE)
    if not root:
        pytest.skip(f"{storage.ROOT_VARIABLE} does not name a folder of data sets")
    return Path(root)


def picture(size: tuple[int, int] = (8, 8), mode: str = "RGB", format: str = "PNG") -> bytes:
    shape = size[::-1] if mode == "L" else (*size[::-1], 3)
    content = io.BytesIO()
    Image.fromarray(RNG.integers(256, size=shape, dtype=np.uint8)).save(content, format)
    return content.getvalue()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def checked(path: str, content: bytes) -> SourceFile:
    return SourceFile(path, (f"sha256:{hashlib.sha256(content).hexdigest()}",))


def one_line(error: "pytest.ExceptionInfo[Exception]") -> bool:
    return "\n" not in str(error.value)


FIVE = {f"class{number}/{each}.png": picture() for number in range(5) for each in range(3)}


# A user's own images


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
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        for name, content in (FIVE | {}).items():
            archive.writestr(f"{top}{name}", content)
        for name, content in extra.items():
            archive.writestr(name, content)
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


def test_bad_folders_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty" / "class").mkdir(parents=True)
    broken = write(tmp_path / "broken", FIVE | {"class1/9.png": b"not an image"})
    flat = write(tmp_path / "flat", {"0.png": picture(), "1.png": picture()})
    two = write(tmp_path / "two", {"a/0.png": picture(), "b/0.png": picture()})
    for path, message in (
        (tmp_path / "empty", "holds no images"),
        (broken, "class1/9.png is not an image"),
        (flat, "0.png is not where images should be"),
        (two, "at least 3 classes, got 2"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            datasets.load(path)
        assert one_line(error)
    (tmp_path / "file").write_bytes(b"x")
    for name, message in ((tmp_path / "file", "neither a folder nor a zip"), ("omniglott", "did you mean omniglot")):
        with pytest.raises(UsageError, match=message) as error:
            datasets.load(name)
        assert one_line(error)


def test_an_npz_file_of_images_and_labels(tmp_path: Path) -> None:
    pixels, labels = RNG.integers(256, size=(12, 8, 8, 3), dtype=np.uint8), np.arange(12) % 4
    np.savez(tmp_path / "cells.npz", images=pixels, labels=labels[:, None], class_names=["a", "b", "c", "d"])
    data = datasets.load(tmp_path / "cells.npz")
    assert data.classes == ("a", "b", "c", "d") and data.shape == (3, 8, 8)
    np.testing.assert_array_equal(data.examples.numpy(), pixels.transpose(0, 3, 1, 2))
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"images": pixels, "labels": labels / 2}, "labels must be integers"),
        ({"images": pixels, "labels": np.array(["a"] * 12)}, "labels must be integers"),
        ({"images": pixels, "labels": np.eye(12, 4)}, "one number an image"),
        ({"images": pixels, "labels": labels[:-1]}, "12 examples but 11 labels"),
        ({"pixels": pixels, "labels": labels}, "images is missing"),
        ({"images": pixels / 255, "labels": labels}, "images must be uint8"),
    ]
    for arrays, message in wrong:
        np.savez(tmp_path / "wrong.npz", **arrays)
        with pytest.raises(ValueError, match=message):
            datasets.load(tmp_path / "wrong.npz")
    np.savez(tmp_path / "pickled.npz", images=pixels, labels=np.array([object()] * 12))
    with pytest.raises(UsageError, match="without pickle"):
        datasets.load(tmp_path / "pickled.npz")


def test_options_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="omniglot has its own size and split"):
        datasets.load("omniglot", tmp_path, image_size=28)
    with pytest.raises(ValueError, match="--download is for published data sets"):
        datasets.load(tmp_path, download=True)
    np.savez(tmp_path / "x.npz", images=1, labels=1)
    with pytest.raises(ValueError, match="leave --image-size out"):
        datasets.load(tmp_path / "x.npz", image_size=28)


# The cache


def test_images_are_decoded_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "mine", FIVE)
    first = datasets.load(folder)
    with monkeypatch.context() as patched:
        patched.setattr(images, "decode", lambda *_: pytest.fail("decoded again"))
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
        assert "decoding the images again" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))
    assert len(datasets.load(write(tmp_path / "mine", FIVE)).labels) == 15
    assert capsys.readouterr().err.startswith("warning: could not write")


# Published files


def test_a_missing_file_says_where_to_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(storage.ROOT_VARIABLE, raising=False)
    for name in datasets.PUBLISHED:
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


def test_without_a_network_a_download_is_one_line(tmp_path: Path) -> None:
    source = SourceFile("file", ("md5:0",), "http://127.0.0.1:9/file")
    with pytest.raises(RunError, match="is there a network") as error:
        source.find(tmp_path, download=True)
    assert one_line(error) and list(tmp_path.iterdir()) == []


# The published data sets, in small


def drawing(seed: int) -> bytes:
    """A drawing as Omniglot has them: 105×105, one bit, ink 0."""
    content = io.BytesIO()
    ink = np.random.default_rng(seed).random((15, 15)) < 0.3
    Image.fromarray(~np.kron(ink, np.ones((7, 7), dtype=bool))).save(content, "PNG")
    return content.getvalue()


def small_omniglot(folder: Path) -> list[Path]:
    paths = []
    for part, (kind, alphabets) in enumerate((("background", "AB"), ("evaluation", "C"))):
        paths.append(folder / f"images_{kind}.zip")
        with zipfile.ZipFile(paths[-1], "w") as archive:
            for alphabet, character, each in np.ndindex(len(alphabets), 2, 3):
                name = f"images_{kind}/{alphabets[alphabet]}/character{character + 1:02d}/0001_{each + 1:02d}.png"
                archive.writestr(name, drawing(100 * part + 10 * (2 * alphabet + character) + each))
    return paths


def test_omniglot_is_decoded_with_ink_as_one(tmp_path: Path) -> None:
    arrays = omniglot.decode(small_omniglot(tmp_path))
    names = [str(name) for name in arrays["classes"]]
    assert names == [f"{alphabet}/character{number:02d}" for alphabet in "ABC" for number in (1, 2)]
    assert arrays["images"].shape == (18, 28, 28)
    assert np.bincount(arrays["labels"]).tolist() == [3] * 6
    shown = np.asarray(Image.open(io.BytesIO(drawing(112)))).astype(float)  # C, character02, the third
    image = arrays["images"][-1]
    blocks = np.kron(1 - shown, np.ones((28, 28))).reshape(28, 105, 28, 105).mean((1, 3))
    np.testing.assert_allclose(image / 255, blocks, atol=0.5 / 255 + 1e-6)


def test_each_class_has_its_own_rotation() -> None:
    drawings, labels = RNG.integers(256, size=(6, 28, 28), dtype=np.uint8), np.array([0, 1, 2, 2, 1, 0])
    turned, numbers = omniglot.with_rotations(drawings, labels)
    names = ["A/character01", "A/character02", "B/character01"]
    lines: dict[Split, list[str]] = {
        "train": [f"{name}/rot{degrees:03d}" for name in names[:1] for degrees in (0, 90, 180, 270)],
        "validation": ["A/character02/rot090"],
        "test": ["B/character01/rot270", "B/character01/rot000"],
    }
    data = omniglot.assemble("omniglot", turned, numbers, names, lines, rotations=True)
    assert [data.classes[number] for number in data.splits["test"]] == lines["test"]
    for number, name in enumerate(data.classes):
        character, degrees = name.rsplit("/rot", 1)
        own = data.examples[torch.from_numpy(np.flatnonzero(data.labels == number)), 0].numpy()
        upright = drawings[labels == names.index(character)]
        assert len(own) == 2  # every drawing of the character, all turned alike, and no other
        for image in upright:
            expected = np.asarray(Image.fromarray(image).rotate(int(degrees)))
            assert (own == expected).all((1, 2)).sum() == 1
    lines["validation"] = []
    upright = omniglot.assemble("omniglot", drawings, labels, names, lines, rotations=False)
    assert upright.splits == {"train": (0,), "validation": (), "test": (2,)}
    lines["test"] = ["D/character01/rot000"]
    with pytest.raises(UsageError, match="the test list names D/character01/rot000, which is not in the archives"):
        omniglot.assemble("x", turned, numbers, names, lines, rotations=True)


def test_tiny_imagenet_in_small(tmp_path: Path) -> None:
    header = "label,wnid,name,split,category_wnid,category_name\n"
    rows = ["0,n01,boa,train,n1,snake", "1,n02,goose,val,n2,bird", '2,n03,"hen, a bird",test,n2,bird']
    table = (header + "\n".join(rows) + "\n").encode()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for wnid, each in ((wnid, each) for wnid in ("n03", "n01", "n02") for each in range(2)):
            name = f"tiny-imagenet-200/train/{wnid}/images/{wnid}_{each}.JPEG"
            archive.writestr(name, picture((64, 64), "L" if wnid == "n02" else "RGB", "JPEG"))
    write(tmp_path, {"t.zip": content.getvalue(), "classes.csv": table})
    data = tiny_imagenet.load(
        tmp_path, archive=checked("t.zip", content.getvalue()), classes=checked("classes.csv", table)
    )
    assert data.classes == ("n01 boa", "n02 goose", "n03 hen, a bird") and data.shape == (3, 64, 64)
    assert data.splits == {"train": (0,), "validation": (1,), "test": (2,)} and data.counts.tolist() == [2, 2, 2]


def test_mini_imagenet_in_small(tmp_path: Path) -> None:
    lists, files = {}, {}
    for split, label in zip(SPLITS, ("n1", "n2", "n3"), strict=True):
        names = [f"{label}{each:08d}.jpg" for each in range(2)]
        content = ("filename,label\n" + "".join(f"{name},{label}\n" for name in names)).encode()
        files[f"{split}.csv"] = content
        lists[split] = checked(f"{split}.csv", content)
        files |= {f"mini_imagenet/images/{name}": picture((100, 90), format="JPEG") for name in names}
    write(tmp_path, files)
    data = mini_imagenet.load(tmp_path, lists=lists)
    assert data.shape == (3, 84, 84) and data.classes == ("n1", "n2", "n3")
    assert data.splits == {"train": (0,), "validation": (1,), "test": (2,)} and data.counts.tolist() == [2, 2, 2]
    with zipfile.ZipFile(tmp_path / "mini_imagenet" / "images.zip", "w") as archive:
        for path in (tmp_path / "mini_imagenet" / "images").iterdir():
            archive.write(path, f"images/{path.name}")
    for path in (tmp_path / "mini_imagenet" / "images").iterdir():
        path.unlink()
    with pytest.raises(UsageError, match="lacks 6 of the 6 images"):
        mini_imagenet.load(tmp_path, lists=lists)
    (tmp_path / "mini_imagenet" / "images").rmdir()
    assert mini_imagenet.load(tmp_path, lists=lists).hash == data.hash


def small_cifar(tmp_path: Path) -> tuple[SourceFile, np.ndarray]:
    """Six classes in three superclasses; the fine numbers are not in the order of the coarse ones."""
    home = [2, 0, 1, 0, 2, 1]
    records = RNG.integers(256, size=(24, 2 + 3072), dtype=np.uint8)
    records[:, 1] = np.arange(24) % 6
    records[:, 0] = np.array(home)[records[:, 1]]
    parts = {
        "train.bin": records[:16].tobytes(),
        "test.bin": records[16:].tobytes(),
        "coarse_label_names.txt": b"fish\nflowers\ntrees\n",
        "fine_label_names.txt": b"oak\nray\nrose\ntrout\npine\ntulip\n",
    }
    with tarfile.open(tmp_path / "cifar.tar.gz", "w:gz") as archive:
        for name, content in parts.items():
            member = tarfile.TarInfo(f"cifar-100-binary/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return checked("cifar.tar.gz", (tmp_path / "cifar.tar.gz").read_bytes()), records


@pytest.mark.parametrize("which", ["cifar-fs", "fc100"])
def test_cifar_100_in_small(tmp_path: Path, which: cifar100.Which) -> None:
    archive, records = small_cifar(tmp_path)
    names: dict[str, Any] = {
        "cifar-fs": ([["trees", "oak"], ["fish", "ray"]], [["flowers", "tulip"]], [["fish", "trout"]]),
        "fc100": (["fish"], ["trees"], ["flowers"]),
    }
    lists = {}
    for split, content in zip(SPLITS, names[which], strict=True):
        encoded = json.dumps(content).encode()
        write(tmp_path, {f"{split}.json": encoded})
        lists[split] = checked(f"{split}.json", encoded)
    data = cifar100.load(tmp_path, which, archive=archive, lists=lists)
    expected = {
        "cifar-fs": {"train": (0, 1), "validation": (5,), "test": (3,)},
        "fc100": {"train": (1, 3), "validation": (0, 4), "test": (2, 5)},
    }
    assert data.splits == expected[which] and data.classes[3] == "trout"
    np.testing.assert_array_equal(data.examples.numpy().reshape(24, -1), records[:, 2:])
    np.testing.assert_array_equal(data.labels, records[:, 1])


# The real ones


def test_real_omniglot(real: Path) -> None:
    data = datasets.load("omniglot", real)
    assert [len(data.splits[split]) for split in SPLITS] == [4112, 688, 1692] and data.shape == (1, 28, 28)
    assert set(data.counts) == {20} and len(data.classes) == 4 * 1623
    characters = [{data.classes[number][:-7] for number in data.splits[split]} for split in SPLITS]
    assert [len(part) for part in characters] == [1028, 172, 423] and len(set.union(*characters)) == 1623
    assert 0.02 < data.examples.float().mean() / 255 < 0.15  # mostly paper, which is 0


def test_real_tiny_imagenet(real: Path) -> None:
    data = datasets.load("tiny-imagenet", real)
    assert [len(data.splits[split]) for split in SPLITS] == [61, 17, 45] and data.shape == (3, 64, 64)
    assert set(data.counts) == {200}


@pytest.mark.parametrize("which", ["cifar-fs", "fc100"])
def test_the_published_lists_of_cifar_100(real: Path, which: cifar100.Which) -> None:
    found = [json.loads(source.find(real, download=False).read_text()) for source in cifar100.LISTS[which].values()]
    assert [len(names) for names in found] == {"cifar-fs": [64, 16, 20], "fc100": [12, 4, 4]}[which]


def test_the_published_lists_of_mini_imagenet(real: Path) -> None:
    rows = [source.find(real, download=False).read_text().splitlines()[1:] for source in mini_imagenet.LISTS.values()]
    assert [len(part) for part in rows] == [38_400, 9_600, 12_000]
