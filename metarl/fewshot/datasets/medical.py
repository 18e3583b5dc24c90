"""Medical images: blood cells by type, and X-rays and ultrasound with and without a finding.

    blood-cells   Chula RBC-12 (Naruenatthanaset et al. 2021): 12 types, 200 cells each, 40×40, from 539 slides
    pneumonia     PneumoniaMNIST (Yang et al. 2023): chest X-rays, 28×28, pneumonia or normal
    breast        BreastMNIST (ibid.): breast ultrasound, 28×28, malignant or not

Blood cells are classes for few-shot tasks, with a split of our own by type. All three are also screenings, where one
finding is told from everything else; what is shown and what is asked about never share a slide, or, in the MedMNIST
sets, are their published training and test parts.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Int, Shaped

from metarl.fewshot.dataset import FewShotDataset
from metarl.fewshot.datasets.npz import read_arrays
from metarl.fewshot.datasets.options import ReadOptions
from metarl.fewshot.datasets.storage import SourceFile
from metarl.tasks import Split

BLOOD = SourceFile(
    "medical/chula_rbc12_40px.npz", ("sha256:3db7b070b552ff2bacac0c0d767d8e0ac370b565d4937ba8a159c7dea6090ba4",)
)
PNEUMONIA = SourceFile(
    "medical/pneumoniamnist.npz", ("sha256:20568c3c8f7ddebe016ab049006f1eb241ab4249e8eff13c3a5d09d11900d8b0",)
)
BREAST = SourceFile(
    "medical/breastmnist.npz", ("sha256:5e68d79723fb3a63a399b0a66b66451799fc2eb3651f469cec0b679cfd743b68",)
)
BLOOD_SPLIT: Mapping[Split, tuple[str, ...]] = {
    "train": ("normal cell", "macrocyte", "microcyte", "spherocyte", "target cell", "ovalocyte", "hypochromia"),
    "validation": ("stomatocyte", "elliptocyte"),
    "test": ("teardrop", "burr cell", "schistocyte"),
}
SCREENINGS = ("blood-cells", "pneumonia", "breast")


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Screening:
    """Images with or without a finding."""

    id: str
    finding: str
    """What is looked for."""
    images: Shaped[np.ndarray, "example ..."]
    """uint8, grey [example, height, width] or colour [example, height, width, 3]."""
    positive: Bool[np.ndarray, " example"]
    """Whether the finding is there."""
    groups: Int[np.ndarray, " example"]
    """The slide that an image was cut from; where slides are not known, 0 for what may be shown and 1 for what is asked
    about."""

    @property
    def by_slide(self) -> bool:
        """Whether slides are known, and shared out anew in every trial."""
        return bool(self.groups.max() > 1)

    def halves(self, rng: np.random.Generator) -> tuple[Int[np.ndarray, " shown"], Int[np.ndarray, " asked"]]:
        """The numbers of the images that may be shown, and of those that are asked about: of no common slide."""
        if not self.by_slide:
            return np.flatnonzero(self.groups == 0), np.flatnonzero(self.groups == 1)
        slides = rng.permutation(np.unique(self.groups))
        shown = np.isin(self.groups, slides[: len(slides) // 2])
        return np.flatnonzero(shown), np.flatnonzero(~shown)


def blood_cells(root: Path) -> FewShotDataset:
    """The cells as classes.

    Raises:
        UsageError: the file is missing, or another one.
    """
    arrays = read_arrays(BLOOD.find(root, download=False), ReadOptions().max_bytes)
    classes = tuple(str(name) for name in arrays["class_names"])
    numbers = {name: number for number, name in enumerate(classes)}
    splits: dict[Split, tuple[int, ...]] = {
        split: tuple(numbers[name] for name in names) for split, names in BLOOD_SPLIT.items()
    }
    images = torch.from_numpy(np.ascontiguousarray(arrays["images"].transpose(0, 3, 1, 2)))
    data = FewShotDataset("blood-cells", images, arrays["labels"].astype(np.int64), classes, splits)
    return data.standardised()


def screening(name: str, root: Path, finding: str | None = None) -> Screening:
    """Images with or without a finding.

    Args:
        name: one of `SCREENINGS`.
        root: the folder of the published data sets.
        finding: of blood cells, the type that is looked for among all others; the other two have one each.

    Raises:
        UsageError: the file is missing, or another one.
        ValueError: no such screening or type of cell.
    """
    if name == "blood-cells":
        arrays = read_arrays(BLOOD.find(root, download=False), ReadOptions().max_bytes)
        classes = [str(each) for each in arrays["class_names"]]
        if finding not in classes:
            raise ValueError(f"--finding must be one of {', '.join(classes)}; got {finding}")
        positive = arrays["labels"] == classes.index(finding)
        slides = np.unique(arrays["slides"], return_inverse=True)[1]
        return Screening(name, finding, arrays["images"], positive, slides)
    if name not in SCREENINGS:
        raise ValueError(f"there are screenings of {', '.join(SCREENINGS)}, got {name!r}")
    if finding is not None:
        raise ValueError(f"{name} has one finding: leave --finding out")
    file, what, value = (PNEUMONIA, "pneumonia", 1) if name == "pneumonia" else (BREAST, "malignant", 0)
    arrays = read_arrays(file.find(root, download=False), ReadOptions().max_bytes)
    parts = [arrays[f"{part}_images"] for part in ("train", "val", "test")]
    labels = np.concatenate([arrays[f"{part}_labels"].reshape(-1) for part in ("train", "val", "test")])
    groups = np.concatenate([np.full(len(part), int(place == 2)) for place, part in enumerate(parts)])
    return Screening(name, what, np.concatenate(parts), labels == value, groups)
