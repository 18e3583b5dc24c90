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
from metarl.fewshot.examples import Examples, TaskSignature
from metarl.fewshot.learner import need_classification
from metarl.fewshot.support_only import SupportOnly, SupportOnlyPredictor
from metarl.learning.protocols import State

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
        """The learner with these options.

        Raises:
            UsageError: scikit-learn is not installed.
        """
        need_classification(signature, "classical")
        need_scikit_learn("classical")
        return Classical(signature, self.meta_batch, self.model)


@final
@dataclasses.dataclass(frozen=True)
class Classical(SupportOnly):
    """The learner, which learns nothing across tasks."""

    model: Model

    def start(self, state: State, num_tasks: int) -> "ClassicalPredictor":
        return ClassicalPredictor(self.signature.ways, num_tasks, model=self.model)


@final
@dataclasses.dataclass(frozen=True)
class ClassicalPredictor(SupportOnlyPredictor):
    """Fits a classifier to the examples that it was shown."""

    model: Model = "logistic"

    def answers(self, support: Examples, inputs: Float[Tensor, "task query ..."]) -> Float[Tensor, "task query way"]:
        """Log-probabilities."""
        from sklearn.exceptions import ConvergenceWarning

        answers = []
        for shown, labels, asked in zip(*support, inputs, strict=True):
            x, y = shown.flatten(1).cpu().numpy().astype(np.float64), labels.cpu().numpy()
            model = classifier(self.model, len(y) // (int(y.max()) + 1))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # logistic regression, not quite
                model.fit(x, y)
            probabilities = np.asarray(model.predict_proba(asked.flatten(1).cpu().numpy().astype(np.float64)))
            answers.append(torch.from_numpy(np.log(np.clip(probabilities, _LEAST, None))).to(inputs))
        return torch.stack(answers)


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
