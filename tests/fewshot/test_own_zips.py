"""A zip of a user's own images may be damaged, encrypted or a lie: it is read, or what is not is named."""

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metarl.errors import UsageError
from metarl.fewshot import datasets
from tests.fewshot.pictures import FIVE, encoded, picture, write, zipped

RNG = np.random.default_rng(0)
PIXELS, LABELS = RNG.integers(256, size=(12, 8, 8, 3), dtype=np.uint8), np.arange(12) % 4


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of its own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "metarl"


def test_a_broken_member_of_a_zip_is_named_and_may_be_left_out(tmp_path: Path) -> None:
    path = zipped(tmp_path / "mine.zip", FIVE, zipfile.ZIP_DEFLATED)
    whole = datasets.load(path)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        first, second, third, fourth = (archive.infolist()[each] for each in (1, 4, 7, 10))
        members = [info.filename for info in archive.infolist()]
        entry = {name: content.index(name.encode(), archive.start_dir) - 46 for name in members}
    begin = first.header_offset + 30 + len(first.filename)
    content[begin : begin + 20] = bytes([255]) * 20  # no deflate stream begins so
    content[entry[second.filename] + 8] |= 1  # encrypted
    content[second.header_offset + 6] |= 1
    content[entry[third.filename] + 10] = 97  # compressed in a way that nobody knows
    content[fourth.header_offset + 30 + len(fourth.filename) + 60] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="mine.zip: class0/1.png cannot be read from the zip .*invalid"):
        datasets.load(path)
    data = datasets.load(path, skip_bad=True)
    reasons = ("class0/1.png .*invalid", "class1/1.png .*encrypted", "class2/1.png .*not supported", "class3/1.png ")
    assert len(data.left_out) == 4
    for line, reason in zip(data.left_out, reasons, strict=True):
        assert re.match(reason, line) and "cannot be read from the zip" in line
    assert data.counts.tolist() == [2, 2, 2, 2, 3] and data.hash != whole.hash


def test_a_name_that_is_in_a_zip_twice_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "mine.zip", FIVE)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("class0/0.png", picture())
    with pytest.raises(ValueError, match="class0/0.png is in the zip more than once"):
        datasets.load(path)
    assert datasets.load(path, skip_bad=True).hash == datasets.load(write(tmp_path / "mine", FIVE)).hash


def test_a_zip_that_claims_a_petabyte_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "huge.zip", "w") as archive:
        for name, content in FIVE.items():
            archive.writestr(name, content)
        archive.infolist()[3].file_size = 10**15
    message = "huge.zip: its images take 909.5 TiB when decompressed; the limit is 4.0 GiB: raise max_bytes"
    with pytest.raises(ValueError, match=message):
        datasets.load(tmp_path / "huge.zip", skip_bad=True)
    assert len(datasets.load(tmp_path / "huge.zip", max_bytes=10**16).labels) == 15  # it was a lie


def test_whatever_happens_to_an_npz_or_a_zip_it_is_read_or_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez_compressed(tmp_path / "a.npz", images=PIXELS, labels=LABELS, class_names=["a", "b", "c", "d"])
    zipped(tmp_path / "a.zip", {f"{each}/0.png": encoded(Image.fromarray(PIXELS[each])) for each in range(3)})
    for name in ("a.npz", "a.zip"):
        content = (tmp_path / name).read_bytes()
        for _ in range(150):
            damaged = np.frombuffer(content, dtype=np.uint8).copy()
            damaged[rng.integers(len(damaged), size=rng.integers(1, 8))] = rng.integers(256)
            (tmp_path / f"damaged{name[1:]}").write_bytes(damaged[: rng.integers(1, 3 * len(damaged))].tobytes())
            for skip in (False, True):
                try:
                    datasets.load(tmp_path / f"damaged{name[1:]}", skip_bad=skip)
                except (ValueError, UsageError) as error:
                    assert "\n" not in str(error)
