"""Whatever kind of images, vectors and labels users have, learners see the same numbers, or one line says why not."""

import enum
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from metarl.fewshot import datasets
from metarl.fewshot.conversion import as_examples, as_targets
from tests.fewshot.pictures import encoded, picture, write

RNG = np.random.default_rng(2)
GREY = RNG.integers(256, size=(6, 5, 7), dtype=np.uint8)
COLOUR = RNG.integers(256, size=(6, 5, 7, 3), dtype=np.uint8)
GREY_EXAMPLES = torch.from_numpy(GREY[:, None])
COLOUR_EXAMPLES = torch.from_numpy(COLOUR.transpose(0, 3, 1, 2).copy())


@pytest.mark.parametrize("shape", [None, (1, 5, 7)])
@pytest.mark.parametrize(
    "given",
    [
        GREY,
        GREY[..., None],
        GREY / 255,
        (GREY / 255).astype(np.float32),
        GREY.astype(np.int64),
        torch.from_numpy(GREY),
        torch.from_numpy(GREY[:, None]),
        torch.from_numpy(GREY[:, None] / 255).requires_grad_(),
        list(GREY),
        tuple(GREY[..., None]),
        [image.tolist() for image in GREY],
        GREY.tolist(),
        [torch.from_numpy(image[None]) for image in GREY],
        [Image.fromarray(image) for image in GREY],
        [GREY[0], Image.fromarray(GREY[1]), torch.from_numpy(GREY[2]), *(GREY[3:] / 255)],
        [Image.open(io.BytesIO(encoded(Image.fromarray(image)))) for image in GREY],
    ],
)
def test_grey_images_of_every_kind_are_the_same(given: Any, shape: tuple[int, ...] | None) -> None:
    torch.testing.assert_close(as_examples(given, shape=shape), GREY_EXAMPLES)


@pytest.mark.parametrize("shape", [None, (3, 5, 7)])
@pytest.mark.parametrize(
    "given",
    [
        COLOUR,
        COLOUR / 255,
        torch.from_numpy(COLOUR.transpose(0, 3, 1, 2)),
        torch.from_numpy(COLOUR.transpose(0, 3, 1, 2) / 255),
        list(COLOUR),
        [torch.from_numpy(image.transpose(2, 0, 1)) for image in COLOUR],
        [Image.fromarray(image) for image in COLOUR],
    ],
)
def test_coloured_images_of_every_kind_are_the_same(given: Any, shape: tuple[int, ...] | None) -> None:
    torch.testing.assert_close(as_examples(given, shape=shape), COLOUR_EXAMPLES)


def test_one_pil_image_is_one_example() -> None:
    torch.testing.assert_close(as_examples(Image.fromarray(COLOUR[0])), COLOUR_EXAMPLES[:1])


def test_half_precision_tensors_are_images_too() -> None:
    levels = torch.arange(256, dtype=torch.float32).reshape(1, 16, 16) / 255
    assert as_examples(levels.half()).flatten().tolist() == list(range(256))
    assert as_examples(torch.ones(1, 2, 2, dtype=torch.bfloat16)).unique().tolist() == [255]


def test_the_examples_are_the_callers_own_no_more() -> None:
    mine = GREY.copy()
    examples = as_examples(mine)
    mine[:] = 0
    torch.testing.assert_close(examples, GREY_EXAMPLES)
    fixed = GREY.copy()
    fixed.setflags(write=False)
    as_examples(fixed)[0] = 0  # no warning, no effect there
    np.testing.assert_array_equal(fixed, GREY)


def test_channels_are_made_as_trained() -> None:
    as_grey = as_examples(COLOUR, shape=(1, 5, 7))
    by_hand = COLOUR @ np.array([0.299, 0.587, 0.114])
    assert (as_grey[:, 0].double() - torch.from_numpy(by_hand)).abs().max() <= 0.51
    as_colour = as_examples(GREY, shape=(3, 5, 7))
    torch.testing.assert_close(as_colour, GREY_EXAMPLES.expand(-1, 3, -1, -1).contiguous())
    mixed = as_examples([GREY[0], COLOUR[1]])
    torch.testing.assert_close(mixed, torch.stack([GREY_EXAMPLES[0].expand(3, -1, -1), COLOUR_EXAMPLES[1]]))


def test_images_of_any_size_are_scaled_as_trained() -> None:
    sizes = [
        Image.fromarray(image).resize(size) for image, size in zip(COLOUR, ((9, 9), (30, 4), (7, 5)), strict=False)
    ]
    examples = as_examples(sizes, shape=(3, 5, 7))
    for example, image in zip(examples, sizes, strict=True):
        expected = np.asarray(image.resize((7, 5), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        np.testing.assert_array_equal(example, expected)
    whole = as_examples(np.stack([np.asarray(sizes[0])] * 2), shape=(1, 3, 3))
    assert whole.shape == (2, 1, 3, 3)
    assert as_examples(np.zeros((0, 5, 5), dtype=np.uint8), shape=(1, 3, 3)).shape == (0, 1, 3, 3)


def test_a_file_looks_the_same_in_training_and_when_it_is_shown(tmp_path: Path) -> None:
    """Grey, coloured, transparent and 16-bit ones, trained in colour at 6×6."""
    wide = RNG.integers(2**16, size=(9, 8), dtype=np.uint16)
    contents = [
        picture((8, 9), "L"),
        picture((12, 6)),
        encoded(Image.fromarray(RNG.integers(256, size=(7, 7, 4), dtype=np.uint8))),
        encoded(Image.fromarray(wide)),
    ]
    folder = write(tmp_path, {f"class{each}/0.png": content for each, content in enumerate(contents)})
    data = datasets.load(folder, image_size=6)
    shown = as_examples([Image.open(io.BytesIO(content)) for content in contents], shape=data.shape)
    torch.testing.assert_close(shown, data.examples)


def test_vectors_stay_real_numbers() -> None:
    vectors = RNG.normal(size=(4, 3))
    for given in (
        vectors,
        torch.from_numpy(vectors),
        list(vectors),
        vectors.tolist(),
        [*map(torch.from_numpy, vectors)],
    ):
        for shape in (None, (3,)):
            examples = as_examples(given, shape=shape)
            assert examples.dtype == torch.float32
            np.testing.assert_allclose(examples, vectors, rtol=1e-6)
    assert as_examples(np.array([[0, 255]], dtype=np.uint8)).tolist() == [[0.0, 255.0]]


@pytest.mark.parametrize(
    ("given", "shape", "message"),
    [
        (GREY, (4,), "trained on vectors of 4 features, got images"),
        (np.zeros((2, 3)), (4,), "trained on vectors of 4 features, got vectors of 3 features"),
        (GREY[0], (1, 5, 7), "trained on images of 1×5×7 .channels × height × width., got vectors .*image.None."),
        (COLOUR[0], (3, 9, 9), r"trained on images of 3×9×9 .* got an array of shape \[5, 7, 3\], .*image.None."),
        (COLOUR_EXAMPLES[0], (3, 5, 7), r"got an array of shape \[3, 5, 7\], which may be one image in colour"),
        (np.zeros((2, 5, 7, 4), dtype=np.uint8), (3, 5, 7), "of 4 channels cannot be made into images of 3"),
        (COLOUR_EXAMPLES.numpy(), None, r"last in NumPy arrays .* this ndarray of shape \[6, 3, 5, 7\] would have 7"),
        (torch.from_numpy(COLOUR), (3, 5, 7), r"first in PyTorch tensors; this Tensor of shape \[6, 5, 7, 3\] would"),
        (np.zeros(3), None, r"vectors .example, feature.; got float64 with shape \[3\]"),
        (np.zeros((1, 1, 1, 1, 1)), None, "images must be .*got float64 with shape"),
        (GREY * 1.0, None, "must lie in .0, 1."),
        ([GREY[0], GREY[1, :3]], None, "several sizes: number 0 is 7×5, number 1 7×3"),
        ([GREY[0], np.zeros(3)], None, "of one kind: number 0 has an image, number 1 3 features"),
        ([np.zeros(2), np.zeros(3)], None, "number 0 has 2 features, number 1 3 features"),
        ([GREY[0], COLOUR[:2]], None, "example 1: images must be .height, width."),
        ([GREY[0], "a.png"], None, "example 1: .* got 'a.png'"),
        ([GREY[0], None], None, "example 1: .* got None"),
        ([Image.fromarray(GREY[0]), Image.new("F", (7, 5))], None, "example 1: its pixels are floating-point"),
        ([Image.open(io.BytesIO(picture((30, 30))[:-900]))], None, "example 0: .*truncated"),
        ([[1, 2], [3]], None, "or numbers, got .* .3.."),
        (["a.png"], None, "got .'a.png'."),
        ("a.png", None, "got 'a.png'"),
        ([], None, "there are no examples"),
        (np.array([["a"]]), None, "vectors must be real numbers .*<U1"),
        (np.array([[1.0, np.nan]]), None, "feature 1 of example 0 is nan"),
        (np.array([[1.0], [1e300]]), None, r"feature 0 of example 1 is 1e\+300"),
        (np.zeros((3, 0)), None, "vectors must be real numbers"),
        (GREY, (5, 7), "a shape is .channels, height, width. or .features,., got .5, 7."),
    ],
)
def test_what_cannot_be_converted_is_refused(given: Any, shape: tuple[int, ...] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        as_examples(given, shape=shape)
    assert "\n" not in str(error.value)


# Labels


class Kind(enum.Enum):
    HEN = 1
    CAT = 0


@pytest.mark.parametrize(
    ("labels", "numbers", "classes"),
    [
        (["hen", "cat", "hen"], [1, 0, 1], ("cat", "hen")),
        ([2, 0, 1, 0], [2, 0, 1, 0], (0, 1, 2)),
        (np.array([10**12, -5, 7]), [2, 0, 1], (-5, 7, 10**12)),
        (np.array(["b", "a"]), [1, 0], ("a", "b")),
        (torch.tensor([4, 4, 3]), [1, 1, 0], (3, 4)),
        ([1, 1.0, 0], [1, 1, 0], (0, 1)),
        ([True, False], [1, 0], (False, True)),
        (["b", 1, "a", None, "b"], [0, 1, 2, 3, 0], ("b", 1, "a", None)),
        ([("z", 1), ("a", 2), ("z", 1)], [0, 1, 0], (("z", 1), ("a", 2))),
        ([Kind.HEN, Kind.CAT], [0, 1], (Kind.HEN, Kind.CAT)),
    ],
)
def test_labels_of_any_kind_become_numbers(labels: Any, numbers: list[int], classes: tuple[object, ...]) -> None:
    targets = as_targets(labels)
    assert targets.numbers.dtype == np.int64 and targets.numbers.tolist() == numbers
    assert targets.classes == classes


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "one for each example"),
        ("abc", "one for each example, got 'abc'"),
        ([[0], [1]], "must be hashable .* example 0 is .0."),
        ([0, ([],)], "example 1 is"),
        ([0.0, float("nan")], "example 1 is nan"),
        (np.eye(3), r"one an example, got shape \[3, 3\]"),
    ],
)
def test_labels_that_cannot_be_told_apart_are_refused(labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_targets(labels)


def test_vectors_that_single_precision_cannot_compute_with_are_refused() -> None:
    assert as_examples(np.array([[1e9, -1e9]])).shape == (1, 2)
    with pytest.raises(ValueError, match=r"within ±1e\+09, for single precision; scale feature 1: of example 0 it is"):
        as_examples(np.array([[0.0, -1.1e9]]))
