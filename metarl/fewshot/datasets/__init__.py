"""The data sets by the name that programs know them under, and a user's own."""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import final

from metarl.errors import UsageError
from metarl.fewshot.dataset import FewShotDataset
from metarl.fewshot.datasets import cifar100, images, mini_imagenet, omniglot, tiny_imagenet
from metarl.fewshot.datasets.images import Splitting
from metarl.fewshot.datasets.storage import data_root


@final
@dataclasses.dataclass(frozen=True)
class Published:
    """A data set with a name."""

    about: str
    """One line."""
    load: Callable[[Path, bool], FewShotDataset]
    """From the data root; the second argument allows downloads."""


PUBLISHED: Mapping[str, Published] = {
    "omniglot": Published(
        "1623 characters and their rotations, 28×28, Vinyals' split; --download fetches it",
        lambda root, download: omniglot.load(root, download=download),
    ),
    "omniglot-upright": Published(
        "the same without rotations",
        lambda root, download: omniglot.load(root, download=download, rotations=False),
    ),
    "tiny-imagenet": Published(
        "123 classes of photographs, 64×64, tieredImageNet's split", lambda root, _: tiny_imagenet.load(root)
    ),
    "mini-imagenet": Published(
        "100 classes of photographs, 84×84, Ravi's split; the images are yours to provide",
        lambda root, _: mini_imagenet.load(root),
    ),
    "cifar-fs": Published(
        "100 classes, 32×32, Bertinetto's split",
        lambda root, download: cifar100.load(root, "cifar-fs", download=download),
    ),
    "fc100": Published(
        "100 classes, 32×32, split by superclass",
        lambda root, download: cifar100.load(root, "fc100", download=download),
    ),
}
"""The published data sets."""


def load(
    name: str | Path,
    root: Path | None = None,
    *,
    download: bool = False,
    image_size: int | None = None,
    splitting: Splitting | None = None,
) -> FewShotDataset:
    """A data set by its name, or from a folder, a zip or an .npz file.

    Args:
        root: the folder of the published data sets; METARL_DATA, or `data`, if not given.
        download: whether files that are missing may be fetched.
        image_size: own images are scaled to this height and width, px.
        splitting: how the classes of own images are shared out; three to one to one, seed 0, if not given.

    Raises:
        UsageError: there is no such data set, a file is missing, or it is another one.
        RunError: a file could not be fetched.
        ValueError: an option that does not fit, or what the files hold contradicts itself.
    """
    if name in PUBLISHED:
        if image_size is not None or splitting is not None:
            raise ValueError(f"{name} has its own size and split: leave --image-size and the options of splits out")
        return PUBLISHED[str(name)].load(data_root(root), download)
    if download:
        raise ValueError(f"--download is for published data sets ({', '.join(PUBLISHED)}), not for {name}")
    if not Path(name).exists():
        close = difflib.get_close_matches(str(name), [*PUBLISHED, "sinusoid"], n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are sinusoid, {', '.join(PUBLISHED)}"
        raise UsageError(f"no data set {str(name)!r}, and no folder or file of that name; {hint}")
    return images.load(Path(name), splitting or Splitting(), image_size)


__all__ = ["PUBLISHED", "Published", "Splitting", "load"]
