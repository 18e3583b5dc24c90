"""Texts of classes, before an encoder has made vectors of them."""

import dataclasses
from collections.abc import Mapping
from typing import final

import numpy as np
import torch
from jaxtyping import Int

from metarl.fewshot.dataset import FewShotDataset
from metarl.fewshot.given import GivenTask
from metarl.fewshot.texts.encoders import chosen, text_encoder
from metarl.fewshot.texts.features import content_of, features
from metarl.tasks import Split, content_hash


@final
@dataclasses.dataclass(frozen=True, eq=False)
class TextDataset:
    """All texts, the class of each, the split of each class: a `FewShotDataset` but for the features."""

    id: str
    texts: tuple[str, ...]
    labels: Int[np.ndarray, " text"]
    classes: tuple[str, ...]
    splits: Mapping[Split, tuple[int, ...]]
    groups: tuple[str, ...] = ()
    """See `FewShotDataset`."""
    ordered: bool = False
    """See `FewShotDataset`."""
    given: tuple[GivenTask, ...] = ()
    """See `FewShotDataset`."""

    def encoded(self, encoder: str) -> FewShotDataset:
        """The same with the features that the encoder of this id makes of the texts.

        Raises:
            UsageError: a package that it needs is not installed.
            ValueError: there is no such encoder, or the data set contradicts itself.
        """
        model = text_encoder(encoder)
        return FewShotDataset(
            self.id,
            torch.from_numpy(features(model, self.texts)),
            self.labels,
            self.classes,
            self.splits,
            groups=self.groups,
            ordered=self.ordered,
            given=self.given,
            text_encoder=chosen(encoder),
            source_hash=content_hash({"texts": content_of(self.texts), "encoder": model.key}),
        )
