"""The contract check of few-shot learners finds what breaks the contract."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.fewshot.centroid import CentroidConfig, CentroidPredictor
from metarl.fewshot.examples import Batch, Examples, TaskSignature
from metarl.learning.protocols import Metrics, State
from metarl.testing.contract import ContractError
from metarl.testing.learners import check_learner
from metarl.testing.toy_tasks import VECTORS


class Broken:
    """The nearest centroid with a part exchanged."""

    def __init__(self, signature: TaskSignature, **parts: Callable[..., Any]) -> None:
        self._inner, self._parts = CentroidConfig().build(signature), parts
        self.meta_batch, self.progress_keys, self.num_adaptations = 1, ("loss",), 1
        self.adaptation_name, self.batch_norms, self.training = "support", ("none",), self._inner.training

    def init(self, seed: int) -> State:
        make = self._parts.get("init", lambda seed: State({"w": torch.tensor([float(seed)])}, {}))
        return make(seed)

    def start(self, state: State, num_tasks: int) -> Any:
        return self._parts.get("start", lambda inner: inner)(self._inner.start(state, num_tasks))

    def meta_step(self, state: State, experience: Batch, rng: np.random.Generator) -> tuple[State, Metrics]:
        step = self._parts.get("meta_step", lambda state, rng: (state, {"loss": 0.0}))
        return step(state, rng)


@dataclasses.dataclass(frozen=True)
class BrokenConfig:
    """Options of it."""

    parts: dict[str, Callable[..., Any]]

    def build(self, signature: TaskSignature, device: str = "cpu") -> Any:
        return Broken(signature, **self.parts)


@dataclasses.dataclass
class Wrapped:
    """A predictor with a part exchanged."""

    inner: CentroidPredictor
    change: Callable[[Tensor], Tensor] = torch.clone
    forgets: bool = False
    takes_any_mode: bool = False
    in_place: bool = False

    def adapt(self, support: Examples) -> "Wrapped":
        if self.in_place:
            self.inner = self.inner.adapt(support)
            return self
        return self if self.forgets else dataclasses.replace(self, inner=self.inner.adapt(support))

    def predict(self, inputs: Tensor) -> Tensor:
        return self.change(self.inner.predict(inputs))

    def with_batch_norm(self, mode: str) -> "Wrapped":
        return self if self.takes_any_mode else dataclasses.replace(self, inner=self.inner.with_batch_norm(mode))


def doubled(logits: Tensor) -> Tensor:
    return logits.double()


def with_others(logits: Tensor) -> Tensor:
    return logits + logits.mean((0, 1), keepdim=True)


def with_queries(logits: Tensor) -> Tensor:
    return logits + logits.mean(1, keepdim=True)


def inner_step(state: State, rng: np.random.Generator) -> tuple[State, Metrics]:
    state.parameters["w"].add_(1)
    return state, {"loss": 0.0}


CALLS = iter(range(1_000_000))

CASES: dict[str, tuple[dict[str, Callable[..., Any]], str]] = {
    "another state each time": (
        {"init": lambda seed: State({"w": torch.tensor([float(next(CALLS))])}, {})},
        "init\\(seed\\) gives another state each time",
    ),
    "one state for all seeds": ({"init": lambda seed: State({"w": torch.ones(1)}, {})}, "for every seed"),
    "an infinite start": ({"init": lambda seed: State({"w": torch.tensor([torch.inf])}, {})}, "infinite"),
    "float64": ({"start": lambda inner: Wrapped(inner, doubled)}, "predictions are torch.float64"),
    "one query too few": ({"start": lambda inner: Wrapped(inner, lambda x: x[:, 1:])}, "the prediction has shape"),
    "not a number": ({"start": lambda inner: Wrapped(inner, lambda x: x / 0 * 0)}, "is not finite"),
    "tasks help each other": ({"start": lambda inner: Wrapped(inner, with_others)}, "depend on the tasks beside it"),
    "queries help each other": (
        {"start": lambda inner: Wrapped(inner, with_queries)},
        "depends on the queries beside it",
    ),
    "not to be sent away": ({"start": lambda inner: Wrapped(inner, lambda x: x)}, "a predictor cannot be pickled"),
    "adapts in place": ({"start": lambda inner: Wrapped(inner, in_place=True)}, "adapt changes the predictor"),
    "any mode": ({"start": lambda inner: Wrapped(inner, takes_any_mode=True)}, "a mode that does not exist"),
    "nothing learned": ({"start": lambda inner: Wrapped(inner, forgets=True)}, "adapting must raise the accuracy"),
    "writes into its state": ({"meta_step": inner_step}, "changes the state that it is given"),
    "draws from elsewhere": (
        {"meta_step": lambda state, rng: (State({"w": torch.tensor([float(next(CALLS))])}, {}), {"loss": 0.0})},
        "with the same arguments gives another state",
    ),
    "another name": (
        {"meta_step": lambda state, rng: (State({"v": state.parameters["w"]}, {}), {"loss": 0.0})},
        "other names",
    ),
    "a metric missing": ({"meta_step": lambda state, rng: (state, {})}, r"progress_keys name \['loss'\]"),
}


def test_what_is_whole_passes() -> None:
    check_learner(BrokenConfig({"start": Wrapped}), VECTORS, outer_steps=1)


@pytest.mark.parametrize("case", CASES)
def test_what_is_broken_is_found(case: str) -> None:
    parts, message = CASES[case]
    with pytest.raises(ContractError, match=message):
        check_learner(BrokenConfig(parts), VECTORS, outer_steps=1)
