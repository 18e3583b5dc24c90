"""A trained few-shot learner as its user holds it: shown a few labelled examples of anything, it predicts others."""

import dataclasses
from collections.abc import Hashable, Sequence
from typing import TypeGuard, final

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from metarl.fewshot.conversion import Inputs, as_examples, as_targets
from metarl.fewshot.dataset import normalised
from metarl.fewshot.examples import Examples, TaskRecord
from metarl.fewshot.learner import AdaptedPredictor, FewShotLearner
from metarl.fewshot.texts import features, text_encoder
from metarl.learning.protocols import State

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
    text_encoder: str = ""
    """What it takes features of texts from; empty where it was not trained on texts."""

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
            examples: images (arrays, a list of them, PIL images, tensors; other sizes are scaled) or vectors: what
                `metarl.fewshot.conversion.as_examples` takes; or a list of texts, for a learner trained on texts.
            labels: the class of each, at least two; or the values of a regression.
            num_adaptations: how often it adapts to them; as in evaluations, if not given.
            batch_norm: one of `learner.batch_norms`; the first, if not given.

        Raises:
            ValueError: examples or labels of another kind than it was trained on, or an option that is not for it.
        """
        times = self.learner.num_adaptations if num_adaptations is None else num_adaptations
        if times < 0 or (self.learner.adaptation_name == "support" and times > self.learner.num_adaptations):
            raise ValueError(f"this learner adapts to a support {self.learner.num_adaptations} times, not {times}")
        shown = self.inputs(examples)
        if len(labels) != shown.shape[1]:
            raise ValueError(f"{shown.shape[1]} examples but {len(labels)} labels")
        targets, classes = self._targets(labels)
        support = Examples(shown, targets[None].to(self.state.device))
        predictor = self.learner.start(self.state, 1)
        if batch_norm is not None:
            predictor = predictor.with_batch_norm(batch_norm)
        for _ in range(times):
            predictor = predictor.adapt(support)
        return AdaptedLearner(self, predictor, classes)

    def inputs(self, examples: Inputs) -> Float[Tensor, "1 example ..."]:
        """Examples as the learner takes them, as those of one task."""
        if are_texts(examples):
            if not self.text_encoder:
                raise ValueError(f"this learner was trained on {_size(self.tasks.signature.shape)}, got texts")
            examples = features(text_encoder(self.text_encoder), examples, keep=False)
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


def are_texts(examples: Inputs) -> TypeGuard[Sequence[str]]:
    """Whether these are texts, all of them.

    Raises:
        ValueError: some are, or one is empty.
    """
    if isinstance(examples, (str, bytes)) or not isinstance(examples, Sequence):
        return False
    places = [place for place, example in enumerate(examples) if isinstance(example, str)]
    if places and len(places) < len(examples):
        raise ValueError(f"example {places[0]} is a text, and others are not")
    if empty := [place for place in places if not str(examples[place]).strip()]:
        raise ValueError(f"the text of example {empty[0]} is empty")
    return bool(places)


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
