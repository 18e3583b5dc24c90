"""Why a few-shot learner answers as it does, on one task.

influence     log p(y | x; S) − log p(y | x; S without i): what the support's example i does for the right answer y
              of each query x, by adapting anew without it (leave one out); so each class needs two examples
layers        how far adaptation moved each parameter, ‖θ' − θ‖ / ‖θ‖, and each layer's values for the queries, by
              linear CKA before and after: 1 where they are as they were
weights       what answers are made of: squared distances to prototypes, attention to the support, what a memory's
              heads read
embeddings    the features of support and queries, before and after, on common axes of greatest variance (PCA)
"""

import dataclasses
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.fewshot.examples import Examples
from metarl.fewshot.learner import AdaptedPredictor, FewShotLearner, InspectablePredictor, Inspection, Over
from metarl.learning.protocols import State
from metarl.maths import calibration
from metarl.maths.similarity import linear_cka, principal_plane


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Embeddings:
    """Features of a task's examples in the plane of greatest variance, which is that of all of them together."""

    before: Float[np.ndarray, "example 2"]
    """Before adaptation: the support's, then the queries'."""
    after: Float[np.ndarray, "example 2"]
    """After it."""
    explained: float
    """The share of the variance that the plane holds."""


class AnswerWeights(NamedTuple):
    """What the answers to a task's queries are made of."""

    over: Over
    """What the last axis runs over."""
    values: Float[np.ndarray, "*query weight"]
    """[query, ..., weight]."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Insight:
    """What was found out about one task."""

    support_targets: Int[np.ndarray, " example"]
    query_targets: Int[np.ndarray, " query"]
    log_probabilities: Float[np.ndarray, "query way"]
    """After adaptation, nats."""
    influence: Float[np.ndarray, "example query"] | None
    """In nats; None where a class has one example."""
    changes: dict[str, float]
    """The relative change of each parameter; empty where adaptation changes none."""
    similarities: dict[str, float]
    """Linear CKA of each layer's values for the queries, before and after; empty where adaptation changes nothing."""
    weights: dict[str, AnswerWeights]
    """By name; see `metarl.fewshot.learner.Inspection`."""
    embeddings: Embeddings | None
    """None where the learner embeds nothing."""


def look_into(
    learner: FewShotLearner, state: State, support: Examples, query: Examples, num_adaptations: int | None = None
) -> Insight:
    """What happens on one task.

    Args:
        learner: any; one whose predictors cannot be inspected gives the influence alone.
        state: what it has learned.
        support: of one task, [1, example, ...].
        query: of the same task.
        num_adaptations: as in evaluations if not given.

    Raises:
        ValueError: there is more than one task.
    """
    if len(support.inputs) != 1 or len(query.inputs) != 1:
        raise ValueError(f"one task is looked into, got {len(support.inputs)} supports and {len(query.inputs)} queries")
    times = learner.num_adaptations if num_adaptations is None else num_adaptations
    before = learner.start(state, 1)
    after = adapted(before, support, times)
    targets, answers = support.targets[0].cpu().numpy(), query.targets[0].cpu().numpy()
    alone = min(np.bincount(targets)) < 2
    found = Insight(
        targets,
        answers,
        _log_probabilities(after, query)[0],
        None if alone else influence(before, support, query, times),
        {},
        {},
        {},
        None,
    )
    if not isinstance(before, InspectablePredictor) or not isinstance(after, InspectablePredictor):
        return found
    both = torch.cat([support.inputs, query.inputs], dim=1)
    first, last = before.inspect(query.inputs), after.inspect(query.inputs)
    return dataclasses.replace(
        found,
        changes=relative_changes(first, last),
        similarities=similarities(first, last) if last.parameters else {},
        weights={name: AnswerWeights(over, values.cpu().numpy()) for name, (over, values) in last.weights.items()},
        embeddings=embeddings(before.inspect(both), after.inspect(both)),
    )


def adapted(predictor: AdaptedPredictor, support: Examples, times: int) -> AdaptedPredictor:
    """The predictor after adapting so many times to the same support."""
    for _ in range(times):
        predictor = predictor.adapt(support)
    return predictor


def influence(
    predictor: AdaptedPredictor, support: Examples, query: Examples, times: int
) -> Float[np.ndarray, "example query"]:
    """log p(y | x; S) − log p(y | x; S without i), nats: positive where the example helps.

    Args:
        predictor: before any adaptation, of one task.
        support: the examples S.
        query: what is asked, with the right answers.
        times: adaptations.

    Raises:
        ValueError: a class has one example: without it there would be another task.
    """
    count = support.targets.shape[1]
    if int(torch.bincount(support.targets[0]).min()) < 2:
        raise ValueError("the influence of an example is known where its class has another one: add --shots 2 or more")
    _, whole = _log_probabilities(adapted(predictor, support, times), query)
    rows: list[Float[np.ndarray, " query"]] = []
    for left_out in range(count):
        kept = torch.tensor([[number for number in range(count) if number != left_out]])
        _, without = _log_probabilities(adapted(predictor, support.take(kept), times), query)
        rows.append(whole - without)
    return np.stack(rows)


def relative_changes(before: Inspection, after: Inspection) -> dict[str, float]:
    """‖θ' − θ‖ / ‖θ‖ of each parameter; ‖θ'‖ itself where θ is 0, as a new last layer is."""
    found: dict[str, float] = {}
    for name, value in after.parameters.items():
        was = before.parameters[name]
        was = was.expand_as(value) if was.shape != value.shape and value.ndim > was.ndim else was
        size = float(was.norm())
        found[name] = float((value - was).norm()) / size if size > 0 else float(value.norm())
    return found


def similarities(before: Inspection, after: Inspection) -> dict[str, float]:
    """Linear CKA of each layer's values for the queries, before and after."""
    return {
        name: linear_cka(before.layers[name].cpu().numpy(), values.cpu().numpy())
        for name, values in after.layers.items()
        if before.layers[name].std() > 0  # a head that begins with zeros is like nothing
    }


def embeddings(before: Inspection, after: Inspection) -> Embeddings | None:
    """The features before and after, on common axes."""
    pair = [[value for name, value in each.layers.items() if name != "head"][-1:] for each in (before, after)]
    if not all(pair):
        return None
    features = [values[0].cpu().numpy() for values in pair]
    plane, explained = principal_plane(np.concatenate(features))
    first, last = np.split(plane, 2)
    return Embeddings(first, last, explained)


def _log_probabilities(
    predictor: AdaptedPredictor, query: Examples
) -> tuple[Float[np.ndarray, "query way"], Float[np.ndarray, " query"]]:
    """log p of every way for each query of the one task, and of the right ones, nats."""
    logits: Tensor = predictor.predict(query.inputs)[0].detach().double().cpu()
    log_p = calibration.log_probabilities(logits.numpy())
    return log_p, np.take_along_axis(log_p, query.targets[0].cpu().numpy()[:, None], 1)[:, 0]
