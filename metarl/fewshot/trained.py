"""A trained few-shot learner as its user holds it: shown a few labelled examples of anything, it predicts others."""

import dataclasses
from collections.abc import Hashable, Sequence
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from metarl.fewshot import dataset
from metarl.fewshot.dataset import normalised
from metarl.fewshot.examples import Examples, TaskRecord
from metarl.fewshot.learner import AdaptedPredictor, FewShotLearner
from metarl.learning.protocols import State

Inputs = Shaped[np.ndarray, "..."]
"""Images or vectors, one after the other."""
Labels = Sequence[object] | Shaped[np.ndarray, "..."]
"""One for each example: of any kind where they name classes, numbers where they are the values of a regression."""


@final
@dataclasses.dataclass(frozen=True, repr=False)
class TrainedLearner:
    """A few-shot learner and what it has learned."""

    learner: FewShotLearner
    state: State
    """On the device where the learner computes."""
    tasks: TaskRecord
    """What it was trained for."""

    def __repr__(self) -> str:
        """One line, without the parameters."""
        signature, count = self.tasks.signature, sum(value.numel() for value in self.state.parameters.values())
        kind = f"{signature.ways}-way {signature.shots}-shot" if signature.classifies else signature.kind
        return f"<{type(self.learner).__name__} for {kind} of {_size(signature.shape)}, {count:,} parameters>"

    def adapt(
        self,
        examples: Inputs,
        labels: Labels,
        *,
        num_adaptations: int | None = None,
        batch_norm: str | None = None,
    ) -> "AdaptedLearner":
        """The learner after it has seen a few examples; it changes nothing here.

        Args:
            examples: uint8 images [example, height, width] or [example, height, width, channel], or vectors
                [example, feature]: such as it was trained on.
            labels: the class of each, at least two; or the values of a regression.
            num_adaptations: how often it adapts to them; as in evaluations, if not given.
            batch_norm: one of `learner.batch_norms`; the first, if not given.

        Raises:
            ValueError: examples or labels of another kind than it was trained on, or an option that is not for it.
        """
        times = self.learner.num_adaptations if num_adaptations is None else num_adaptations
        if times < 0 or (self.learner.adaptation_name == "support" and times > self.learner.num_adaptations):
            raise ValueError(f"this learner adapts to a support {self.learner.num_adaptations} times, not {times}")
        if len(labels) != len(examples):
            raise ValueError(f"{len(examples)} examples but {len(labels)} labels")
        targets, classes = self._targets(labels)
        support = Examples(self.inputs(examples), targets[None].to(self.state.device))
        predictor = self.learner.start(self.state, 1)
        if batch_norm is not None:
            predictor = predictor.with_batch_norm(batch_norm)
        for _ in range(times):
            predictor = predictor.adapt(support)
        return AdaptedLearner(self, predictor, classes)

    def inputs(self, examples: Inputs) -> Float[Tensor, "1 example ..."]:
        """Examples as the learner takes them, as those of one task."""
        pixels = as_examples(examples, shape=self.tasks.signature.shape)
        return normalised(pixels.to(self.state.device), self.tasks.mean, self.tasks.std)[None]

    def _targets(self, labels: Labels) -> tuple[Shaped[Tensor, "example ..."], tuple[Hashable, ...]]:
        """Labels as the learner takes them, and the classes that they name."""
        signature = self.tasks.signature
        if not signature.classifies:
            values = np.asarray(labels, dtype=np.float32)
            if values.size != len(labels) * signature.outputs:
                raise ValueError(f"this learner predicts {signature.outputs} values an example, got {values.shape}")
            return torch.from_numpy(values.reshape(-1, signature.outputs)), ()
        numbers, classes = as_targets(labels)
        if len(classes) < 2:
            raise ValueError(
                f"there must be examples of at least two classes, got {', '.join(map(str, classes))} alone"
            )
        if len(classes) != signature.ways and not self.learner.training.any_ways:
            raise ValueError(
                f"this learner has an output for each of its {signature.ways} ways, got {len(classes)} classes"
            )
        return torch.from_numpy(numbers), classes


@final
@dataclasses.dataclass(frozen=True, repr=False)
class AdaptedLearner:
    """A few-shot learner that has seen the examples of one task."""

    trained: TrainedLearner
    predictor: AdaptedPredictor
    classes: tuple[Hashable, ...]
    """The labels that it was shown, in the order of the columns of `predict`; none for a regression."""

    def __repr__(self) -> str:
        """One line."""
        return f"<{self.trained!r} adapted to {len(self.classes) or 'values'}{' classes' if self.classes else ''}>"

    def predict(self, examples: Inputs) -> Float[np.ndarray, "query output"]:
        """The probability of each class, or the values of a regression."""
        values = self.predictor.predict(self.trained.inputs(examples))[0]
        if self.trained.tasks.signature.classifies:
            values = torch.softmax(values, dim=-1)
        return values.cpu().numpy()


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


# What follows stands in for `as_examples` and `as_targets` of `metarl.fewshot.conversion`, which take more kinds.


class Targets(NamedTuple):
    """Labels as numbers, and the classes that these stand for."""

    numbers: Int[np.ndarray, " example"]
    classes: tuple[Hashable, ...]


def as_examples(examples: Inputs, *, shape: tuple[int, ...]) -> Shaped[Tensor, "example ..."]:
    """Examples as a data set holds them; ValueError for those of another shape."""
    pixels = dataset.as_examples(examples)
    if tuple(pixels.shape[1:]) != shape:
        raise ValueError(f"trained on examples of {_size(shape)}, got {_size(tuple(pixels.shape[1:]))}")
    return pixels


def as_targets(labels: Labels) -> Targets:
    """Labels that can be sorted as numbers 0, 1, ..., and the classes that these stand for."""
    classes, numbers = np.unique(np.asarray(labels), return_inverse=True)
    return Targets(numbers.reshape(-1).astype(np.int64), tuple(classes.tolist()))
