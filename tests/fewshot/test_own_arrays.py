"""A user's own .npz file: its arrays are checked against each other, and nothing in it costs memory or runs code."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarl.errors import UsageError
from metarl.fewshot import datasets
from tests.fewshot.pictures import FIVE, one_line, zipped

RNG = np.random.default_rng(0)
PIXELS, LABELS = RNG.integers(256, size=(12, 8, 8, 3), dtype=np.uint8), np.arange(12) % 4


def test_an_npz_file_of_images_and_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "cells.npz", images=PIXELS, labels=LABELS[:, None], class_names=["a", "b", "c", "d"])
    data = datasets.load(tmp_path / "cells.npz")
    assert data.classes == ("a", "b", "c", "d") and data.shape == (3, 8, 8)
    np.testing.assert_array_equal(data.examples.numpy(), PIXELS.transpose(0, 3, 1, 2))
    same: list[dict[str, Any]] = [
        {"labels": LABELS.astype(np.uint64)},
        {"labels": LABELS.astype(np.uint8)},
        {"labels": LABELS.astype(float)},
        {"images": PIXELS / 255},
        {"images": PIXELS.astype(np.int64)},
        {"class_names": np.array([b"a", b"b", b"c", b"d"])},
        {"notes": np.zeros(3)},
    ]
    for change in same:
        arrays = {"images": PIXELS, "labels": LABELS, "class_names": ["a", "b", "c", "d"]} | change
        with (tmp_path / "same.NPZ").open("wb") as file:
            np.savez_compressed(file, **arrays)
        assert datasets.load(tmp_path / "same.NPZ").hash == data.hash


def test_labels_may_be_any_numbers_from_0_on(tmp_path: Path) -> None:
    numbers = np.array([7, 10**9, 0, 2**62])
    np.savez(tmp_path / "cells.npz", images=PIXELS, labels=numbers[LABELS])
    data = datasets.load(tmp_path / "cells.npz")  # by a table of 10**9 classes it would take gigabytes
    assert data.classes == ("0", "7", "1000000000", str(2**62)) and data.counts.tolist() == [3] * 4
    for place, label in enumerate(numbers[LABELS]):
        assert data.classes[data.labels[place]] == str(label)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"labels": LABELS / 2}, "labels must be integers"),
    ({"labels": LABELS + np.nan}, "labels must be integers"),
    ({"labels": LABELS * 1e300}, "labels must be the numbers of classes, 0 or more; they are 0 to 3"),
    ({"labels": LABELS - 1}, "labels must be the numbers of classes, 0 or more; they are -1 to 2"),
    ({"labels": LABELS.astype(np.uint64) + 2**63}, "they are 9223372036854775808 to"),
    ({"labels": np.array(["a"] * 12)}, "labels must be integers"),
    ({"labels": np.eye(12, 4)}, "one number an image"),
    ({"labels": np.array(3)}, "one number an image"),
    ({"labels": LABELS[:-1]}, "12 images but 11 labels"),
    ({"labels": LABELS[:0], "images": PIXELS[:0]}, "at least 3 classes, got 0"),
    ({"images": PIXELS * 1.0}, r"must lie in \[0, 1\]"),
    ({"images": np.zeros((12, 3, 3, 3, 3))}, "images must be"),
    ({"images": np.zeros((12, 4), complex)}, "vectors must be real numbers"),
    ({"images": np.zeros((12, 4, 4), "V8")}, "images must be uint8"),
    ({"class_names": ["a", "b"]}, "labels are 0 to 3, but there are 2 names of classes"),
    ({"class_names": ["a", "b", "c", "c"]}, "two classes are called 'c'"),
    ({"class_names": [["a", "b"], ["c", "d"]]}, "class_names must be one text a class"),
    ({"class_names": ["a", "b", "c", "d", "e"]}, "class 'e' has 0 examples, fewer than 1; put it right, or go on"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_arrays_that_do_not_fit_are_refused_in_one_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "wrong.npz", **({"images": PIXELS, "labels": LABELS} | change))
    with pytest.raises(ValueError, match=f"wrong.npz: .*{message}") as error:
        datasets.load(tmp_path / "wrong.npz")
    assert one_line(error)


def test_small_classes_of_arrays_may_be_left_out(tmp_path: Path) -> None:
    labels = np.array([0, 0, 1, 1, 2, 3, 3, 3, 4, 4, 0, 1])
    np.savez(tmp_path / "a.npz", images=PIXELS, labels=labels, class_names=list("abcdef"))
    with pytest.raises(ValueError, match="a.npz: class 'c' has 1 example, fewer than 2 .and 1 more."):
        datasets.load(tmp_path / "a.npz", min_per_class=2)
    data = datasets.load(tmp_path / "a.npz", min_per_class=2, skip_bad=True)
    assert data.classes == ("a", "b", "d", "e") and data.counts.tolist() == [3, 3, 3, 2]
    assert data.left_out == ("class 'c' has 1 example, fewer than 2", "class 'f' has 0 examples, fewer than 2")
    np.testing.assert_array_equal(data.examples, PIXELS[labels != 2].transpose(0, 3, 1, 2))


def npz(path: Path, members: dict[str, bytes]) -> Path:
    return zipped(path, {f"{name}.npy": content for name, content in members.items()})


def npy(shape: str, descr: str = "'|u1'", content: bytes = b"") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + content


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"images": npy("(1000000, 1000000, 1000)")}, "the array images takes 909.5 TiB; the limit is 4.0 GiB"),
        ({"images": npy(f"({10**18},)", "'|V0'")}, "takes 888.2 PiB; the limit is 4.0 GiB: raise max_bytes"),
        ({"images": npy("(12,)"), "labels": npy(f"({2**32},)", "'<i8'")}, "the array labels takes 32.0 GiB"),
        ({"images": npy("(-5, 3)")}, r"the array images has shape \[-5, 3\]"),
        ({"images": npy("(100, 100)")}, "EOF"),
        ({"images": npy("(10, 'a')")}, "shape is not valid"),
        ({"images": npy("(10,", "'|u1'")}, "EOF in multi-line statement"),
        ({"images": npy("(10,)", "'no such'")}, "descr is not a valid dtype"),
        ({"images": b"no magic"}, "magic"),
        ({"images": b""}, "EOF"),
        ({"images": b"\x93NUMPY\3\0" + bytes(90)}, r"the array images has format \(3, 0\)"),
        ({"images": b"\x93NUMPY\2\0" + b"\xff" * 90}, "the array images has a header of 4.0 GiB"),
        (
            {"labels": npy("(2,)", "'|O'", b"cos\nsystem\n(S'true'\ntR.")},
            "labels holds Python objects; only pickle reads",
        ),
    ],
)
def test_arrays_that_cannot_be_read_are_refused_in_one_line(
    tmp_path: Path, members: dict[str, bytes], message: str
) -> None:
    path = npz(tmp_path / "bad.npz", members)
    with pytest.raises(UsageError, match=f"bad.npz is not an .npz file that can be read: .*{message}") as error:
        datasets.load(path)
    assert one_line(error)


def test_files_that_are_no_npz_are_refused_in_one_line(tmp_path: Path) -> None:
    np.savez(tmp_path / "pickled.npz", images=PIXELS, labels=np.array([object()] * 12))
    with (tmp_path / "single.npz").open("wb") as file:
        np.save(file, PIXELS)
    np.savez_compressed(tmp_path / "broken.npz", images=PIXELS, labels=LABELS)
    content = bytearray((tmp_path / "broken.npz").read_bytes())
    content[1000:1020] = bytes(20)
    (tmp_path / "broken.npz").write_bytes(content)
    (tmp_path / "text.npz").write_bytes(b"images")
    os.mkfifo(tmp_path / "fifo.npz")
    for name, message in (
        ("pickled", "holds Python objects"),
        ("single", "it is an .npy file, a single array, under the name of an .npz file"),
        ("broken", "broken.npz is not an .npz file that can be read"),
        ("text", "File is not a zip file"),
        ("fifo", "fifo.npz is a FIFO"),
    ):
        with pytest.raises(UsageError, match=message) as error:
            datasets.load(tmp_path / f"{name}.npz")
        assert one_line(error)
    for arrays, message in (
        ({}, "needs the arrays images and labels; images and labels are missing"),
        ({"pixels": PIXELS, "labels": LABELS}, "images is missing"),
    ):
        np.savez(tmp_path / "missing.npz", **arrays)
        with pytest.raises(ValueError, match=message):
            datasets.load(tmp_path / "missing.npz")
    with pytest.raises(ValueError, match="images and labels are missing"):
        datasets.load(zipped(tmp_path / "pictures.npz", FIVE))
