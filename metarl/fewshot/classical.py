"""scikit-learn's classifiers, fitted to each task's support alone: what learning to learn has to beat.

With its defaults, on the same rows that every learner is shown: logistic regression (ridge, C = 1), the nearest
neighbours (as many as there are shots, at most 5, weighed by distance), gradient boosting (100 trees of depth 3).
"""

import dataclasses
import importlib.util
import warnings
from typing import Literal, Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl import checks
from metarl.errors import UsageError
from metarl.fewshot import losses
from metarl.fewshot.examples import Batch, Examples, TaskSignature, TrainingTasks
from metarl.fewshot.learner import AdaptationName, BatchNorm, need_batch_norm, need_classification, need_tasks
from metarl.learning.protocols import Metrics, State

Model = Literal["logistic", "neighbours", "boosting"]
_LEAST = 1e-4  # probability: one that is never wrong has not seen enough


@runtime_checkable
class Classifier(Protocol):
    """What all of scikit-learn's classifiers do."""

    def fit(self, X: Float[np.ndarray, "example feature"], y: Int[np.ndarray, " example"]) -> object: ...

    def predict_proba(self, X: Float[np.ndarray, "query feature"]) -> object: ...


@dataclasses.dataclass(frozen=True)
class ClassicalConfig:
    """Options of a classifier of scikit-learn: there is nothing to meta-learn, so one outer step is enough."""

    model: Model = "logistic"
    """Logistic regression, the nearest neighbours, or gradient-boosted trees."""
    meta_batch: int = 1
    """Tasks an outer step."""

    def __post_init__(self) -> None:
        checks.count(meta_batch=self.meta_batch)

    def build(self, signature: TaskSignature, device: str = "cpu") -> "Classical":
        return Classical(self, signature, device)


@final
@dataclasses.dataclass(frozen=True)
class Classical:
    """The learner, which learns nothing across tasks.

    Raises:
        UsageError: scikit-learn is not installed.
    """

    config: ClassicalConfig
    signature: TaskSignature
    device: str = "cpu"

    def __post_init__(self) -> None:
        need_classification(self.signature, "classical")
        need_scikit_learn("classical")

    @property
    def meta_batch(self) -> int:
        return self.config.meta_batch

    @property
    def progress_keys(self) -> tuple[str, ...]:
        return ("loss", "accuracy")

    @property
    def num_adaptations(self) -> int:
        return 1

    @property
    def adaptation_name(self) -> AdaptationName:
        return "support"

    @property
    def batch_norms(self) -> tuple[BatchNorm, ...]:
        return ("none",)

    @property
    def training(self) -> TrainingTasks:
        return TrainingTasks(any_ways=True)

    def init(self, seed: int) -> State:
        return State({}, {})

    def start(self, state: State, num_tasks: int) -> "ClassicalPredictor":
        return ClassicalPredictor(self.config.model, self.signature.ways, num_tasks)

    def meta_step(self, state: State, experience: Batch, rng: np.random.Generator) -> tuple[State, Metrics]:
        predictor = self.start(state, len(experience.support.inputs)).adapt(experience.support)
        logits = predictor.predict(experience.query.inputs)
        loss = float(losses.per_task_loss(logits, experience.query).mean())
        return state, {"loss": loss, "accuracy": losses.accuracy(logits, experience.query.targets)}


@final
@dataclasses.dataclass(frozen=True)
class ClassicalPredictor:
    """The examples that were shown of each of a batch of tasks."""

    model: Model
    ways: int
    """Zeros that are answered before any example."""
    num_tasks: int
    support: Examples | None = None
    """All that it has been shown."""

    def adapt(self, support: Examples) -> "ClassicalPredictor":
        need_tasks(self.num_tasks, support.inputs)
        shown = support if self.support is None else self.support.followed_by(support)
        return dataclasses.replace(self, support=shown)

    def predict(self, inputs: Float[Tensor, "task query ..."]) -> Float[Tensor, "task query way"]:
        """Log-probabilities; zeros, by chance, before any example."""
        need_tasks(self.num_tasks, inputs)
        if self.support is None:
            return inputs.new_zeros(*inputs.shape[:2], self.ways)
        from sklearn.exceptions import ConvergenceWarning

        answers = []
        for shown, labels, asked in zip(*self.support, inputs, strict=True):
            x, y = shown.flatten(1).cpu().numpy().astype(np.float64), labels.cpu().numpy()
            model = classifier(self.model, len(y) // (int(y.max()) + 1))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # logistic regression, not quite
                model.fit(x, y)
            probabilities = np.asarray(model.predict_proba(asked.flatten(1).cpu().numpy().astype(np.float64)))
            answers.append(torch.from_numpy(np.log(np.clip(probabilities, _LEAST, None))).to(inputs))
        return torch.stack(answers)

    def with_batch_norm(self, mode: str) -> "ClassicalPredictor":
        need_batch_norm(mode, ("none",))
        return self


def need_scikit_learn(what: str) -> None:
    """Raises UsageError where scikit-learn is not installed."""
    if importlib.util.find_spec("sklearn") is None:
        raise UsageError(f"{what} needs scikit-learn: pip install 'metarl-suite[tables]'")


def classifier(model: Model, shots: int) -> Classifier:
    """A classifier of scikit-learn that is fitted to so many examples of each class."""
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    if model == "logistic":
        return LogisticRegression(max_iter=200)
    if model == "neighbours":
        return KNeighborsClassifier(max(1, min(5, shots)), weights="distance")
    return GradientBoostingClassifier(random_state=0)
