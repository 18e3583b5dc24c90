"""A few tasks of images with what a learner answers, as a picture for people."""

import dataclasses
from collections.abc import Sequence
from typing import final

import numpy as np
from jaxtyping import Float, Int, Shaped
from PIL import Image, ImageDraw

from metarl.evaluation import stills

_CELL, _GAP, _LINE = 56, 10, 17  # pixels: an image, between two, a line of text
_PAPER, _INK, _RIGHT, _WRONG = (255, 255, 255), (31, 35, 40), (0, 114, 178), (213, 94, 0)


@final
@dataclasses.dataclass(frozen=True, eq=False)
class AnsweredTask:
    """A task of images, and a learner's answers to some of its queries."""

    title: str
    """`test task 0`."""
    support: Shaped[np.ndarray, "example channel height width"]
    """uint8."""
    support_targets: Int[np.ndarray, " example"]
    queries: Shaped[np.ndarray, "query channel height width"]
    """uint8."""
    query_targets: Int[np.ndarray, " query"]
    probabilities: Float[np.ndarray, "query way"]
    """That each query is of each class."""

    @property
    def answers(self) -> Int[np.ndarray, " query"]:
        """The most probable class of each query."""
        return self.probabilities.argmax(1)

    @property
    def about(self) -> str:
        """What was answered, in words."""
        right = int((self.answers == self.query_targets).sum())
        return f"{self.title}: {right} of the {len(self.queries)} queries shown are answered right"


def picture(tasks: Sequence[AnsweredTask]) -> bytes:
    """A PNG: of each task the support by class, then queries with their answers, ✓ or ✗, and the answer's probability.

    Its description, for those who cannot see it, is the tasks' `about`.
    """
    columns = max(max(len(task.support), len(task.queries)) for task in tasks)
    row = _CELL + _LINE + _GAP
    height = len(tasks) * (3 * _LINE + 2 * row + _GAP)
    sheet = Image.new("RGB", (columns * (_CELL + _GAP) + _GAP, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, task in enumerate(tasks):
        top = number * (3 * _LINE + 2 * row + _GAP) + 4
        _text(draw, (_GAP, top), f"{task.title} · the support, by class", _INK)
        order = np.argsort(task.support_targets, kind="stable")
        for column, example in enumerate(order):
            label = f"{task.support_targets[example] + 1}"
            _cell(sheet, draw, (column, top + _LINE + 4), task.support[example], label, _INK)
        below = top + _LINE + row + _GAP
        _text(draw, (_GAP, below), "queries · ✓ right or ✗ wrong, the answer, its probability", _INK)
        for column, (image, answer, target) in enumerate(
            zip(task.queries, task.answers, task.query_targets, strict=True)
        ):
            right, sure = answer == target, task.probabilities[column, answer]
            label = f"{'✓' if right else '✗'} {answer + 1} {sure:.2f}"
            _cell(sheet, draw, (column, below + _LINE + 4), image, label, _RIGHT if right else _WRONG)
    return stills.png(sheet, ". ".join(task.about for task in tasks) + ".")


def _cell(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    image: Shaped[np.ndarray, "channel height width"],
    label: str,
    colour: tuple[int, int, int],
) -> None:
    """An image in a column, with a line below it."""
    column, top = place
    left = _GAP + column * (_CELL + _GAP)
    pixels = np.moveaxis(image, 0, -1)
    shown = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels[..., :3]).convert("RGB")
    sheet.paste(shown.resize((_CELL, _CELL), Image.Resampling.NEAREST), (left, top))
    draw.rectangle((left - 2, top - 2, left + _CELL + 1, top + _CELL + 1), outline=colour, width=2)
    _text(draw, (left, top + _CELL + 3), label, colour)


def _text(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, colour: tuple[int, int, int]) -> None:
    draw.text(place, text, colour, stills.font(12))
