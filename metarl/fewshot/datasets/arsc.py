"""ARSC (Blitzer et al. 2007; as few-shot tasks Yu et al. 2018): are product reviews good or bad?

A task is a product and one of three thresholds of stars (`t2`, `t4`, `t5`) above which a review is positive. The test
tasks are the four held-out products' twelve, each with its published support of 5 + 5 reviews and its test reviews as
the queries, far more of them positive than negative. Which training products are validation was decided before any
result.
"""

import io
import lzma
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from metarl.errors import UsageError
from metarl.fewshot.datasets.storage import SourceFile
from metarl.fewshot.given import GivenTask
from metarl.fewshot.texts.dataset import TextDataset
from metarl.tasks import SPLITS, Split

ARCHIVE = SourceFile(
    "text/arsc/Amazon_few_shot.tar.xz",
    ("sha256:15c1d6aebca83810fe2f8136642e4d8bdfdf53994e45da72f449376cc4a27829",),
)
PRODUCTS: Mapping[Split, tuple[str, ...]] = {
    "train": (
        "automotive",
        "baby",
        "beauty",
        "cell_phones_service",
        "computer_video_games",
        "gourmet_food",
        "grocery",
        "jewelry_watches",
        "magazines",
        "office_products",
        "outdoor_living",
        "software",
        "sports_outdoors",
    ),
    "validation": ("apparel", "camera_photo", "health_personal_care", "toys_games"),
    "test": ("books", "dvd", "electronics", "kitchen_housewares"),
}
"""Those that the authors use, without two (music, video) whose training reviews are not in the archive."""
THRESHOLDS = ("t2", "t4", "t5")
MOST_REVIEWS = 100
"""Training reviews of a class and task that are used, the first of the file: reviews are long, and encoding is slow."""
FEWEST_REVIEWS = 20
"""A training task with fewer of a class is left out: no episode of 5 shots and 15 queries could be drawn."""
_SIGNS = ("-1", "1")
_NAMES = ("negative", "positive")

Reviews = Mapping[str, tuple[tuple[str, int], ...]]
"""By file, such as `books.t2.train`: texts with 0 for negative and 1 for positive."""


def load(root: Path, *, signed: bool = False) -> TextDataset:
    """The training products' reviews, and the twelve test tasks.

    Args:
        signed: negative is 0 and positive 1 in every task, so that a learner may learn what both have in common over
            products; otherwise labels are drawn, as in few-shot learning.

    Raises:
        UsageError: the archive is missing, another one, or cannot be read.
    """
    return assemble(_reviews(ARCHIVE.find(root, download=False)), PRODUCTS, signed=signed)


def assemble(reviews: Reviews, products: Mapping[Split, tuple[str, ...]], *, signed: bool = False) -> TextDataset:
    """The data set of the files of these products."""
    texts, labels, classes, groups, given = list[str](), list[int](), list[str](), list[str](), list[GivenTask]()
    splits: dict[Split, tuple[int, ...]] = {}
    for split in SPLITS:
        first_class = len(classes)
        for task in (f"{product}.{threshold}" for product in products[split] for threshold in THRESHOLDS):
            support = _at_most(reviews[f"{task}.train"], MOST_REVIEWS)
            if split != "test" and min(sum(sign == way for _, sign in support) for way in range(2)) < FEWEST_REVIEWS:
                continue
            query = reviews[f"{task}.test"] if split == "test" else ()
            start, ways = len(texts), (len(classes), len(classes) + 1)
            texts += [text for text, _ in (*support, *query)]
            labels += [ways[sign] for _, sign in (*support, *query)]
            classes += [f"{task} {name}" for name in _NAMES]
            groups += [task, task]
            if split == "test":
                middle = start + len(support)
                given.append(GivenTask(task, ways, tuple(range(start, middle)), tuple(range(middle, len(texts)))))
        splits[split] = tuple(range(first_class, len(classes)))
    return TextDataset(
        "arsc-signed" if signed else "arsc",
        tuple(texts),
        np.array(labels),
        tuple(classes),
        splits,
        groups=tuple(groups),
        ordered=signed,
        given=tuple(given),
    )


def _at_most(reviews: tuple[tuple[str, int], ...], most: int) -> tuple[tuple[str, int], ...]:
    """The first so many reviews of each class, in the file's order."""
    kept, counts = list[tuple[str, int]](), [0, 0]
    for text, sign in reviews:
        counts[sign] += 1
        if counts[sign] <= most:
            kept.append((text, sign))
    return tuple(kept)


def _reviews(path: Path) -> Reviews:
    wanted = {
        f"{product}.{threshold}.train" for split in SPLITS for product in PRODUCTS[split] for threshold in THRESHOLDS
    }
    wanted |= {f"{product}.{threshold}.test" for product in PRODUCTS["test"] for threshold in THRESHOLDS}
    found: dict[str, tuple[tuple[str, int], ...]] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = Path(member.name).name
                file = archive.extractfile(member) if name in wanted else None
                if file is not None:
                    found[name] = tuple(_lines(io.TextIOWrapper(file, encoding="utf-8", newline="\n")))
    except (OSError, EOFError, ValueError, tarfile.TarError, lzma.LZMAError) as error:
        raise UsageError(f"{path} cannot be read ({error})") from error
    if missing := sorted(wanted - set(found)):
        raise UsageError(f"{path} lacks {missing[0]}")
    return found


def _lines(file: io.TextIOWrapper) -> list[tuple[str, int]]:
    pairs: list[tuple[str, int]] = []
    for line in file:
        text, _, sign = line.rstrip("\n").rpartition("\t")
        if text:
            pairs.append((text, _SIGNS.index(sign)))
    return pairs
