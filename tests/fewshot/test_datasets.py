"""The published data sets: each in small, made here, and the real ones where METARL_DATA names them."""

import hashlib
import io
import json
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from metarl.errors import UsageError
from metarl.fewshot import datasets
from metarl.fewshot.datasets import cifar100, mini_imagenet, omniglot, storage, tiny_imagenet
from metarl.fewshot.datasets.storage import SourceFile
from metarl.tasks import SPLITS, Split
from tests.fewshot.pictures import picture, write

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


def checked(path: str, content: bytes) -> SourceFile:
    return SourceFile(path, (f"sha256:{hashlib.sha256(content).hexdigest()}",))


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
