"""`check_learner`: what every few-shot learner must do, shown on small tasks within seconds."""

import dataclasses
import pickle
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.fewshot.examples import Batch, Examples, TaskSignature
from metarl.fewshot.learner import AdaptedPredictor, FewShotLearner, LearnerConfig
from metarl.fewshot.losses import per_task_loss
from metarl.learning.protocols import State
from metarl.maths.statistics import t_interval
from metarl.testing.contract import ContractError, require
from metarl.testing.toy_tasks import IMAGES, ToyTasks

_TOLERANCE = 1e-4  # of predictions that are equal but for rounding; after hundreds of gradient steps


def check_learner(
    config: LearnerConfig, signature: TaskSignature = IMAGES, *, outer_steps: int = 60, seed: int = 0
) -> State:
    """Holds a few-shot learner to its contract, and to better predictions after adaptation than before.

    Args:
        config: its options, a frozen dataclass.
        signature: of the tasks it is shown, such as `metarl.testing.toy_tasks.IMAGES`, `VECTORS` or `CURVES`.
        outer_steps: outer steps that it is trained for before it must gain from adapting.
        seed: of its first state and of all tasks.

    Returns:
        What it has learned.

    Raises:
        ContractError: something does not hold; the message says what.
    """
    require(dataclasses.is_dataclass(config), "the options are no dataclass")
    learner = config.build(signature, "cpu")
    _require_kind(learner, FewShotLearner)
    tasks = ToyTasks(signature)
    state = check_init(learner, seed)
    check_predictions(learner, state, tasks.held_out(3, seed, shots=max(2, signature.shots)))
    check_meta_step(learner, state, tasks.collect(learner, state, seed, 0), seed)
    for step in range(outer_steps):
        rng = np.random.default_rng([seed, step])
        state, _ = learner.meta_step(state, tasks.collect(learner, state, seed, step), rng)
    check_gain(learner, state, tasks.held_out(200, seed))
    return state


def check_init(learner: FewShotLearner, seed: int) -> State:
    """The first state follows from the seed, and is finite.

    Raises:
        ContractError: it does not.
    """
    state, again, other = learner.init(seed), learner.init(seed), learner.init(seed + 1)
    _require_same(state, again, "init(seed) gives another state each time")
    require(all(bool(value.isfinite().all()) for value in state.parameters.values()), "init gives infinite numbers")
    differs = any(not torch.equal(value, other.parameters[name]) for name, value in state.parameters.items())
    require(differs or not state.parameters, "init gives the same parameters for every seed")
    return state


def check_predictions(learner: FewShotLearner, state: State, batch: Batch) -> None:
    """`start`, `adapt`, `predict` and `with_batch_norm`, in every batch-norm mode.

    Raises:
        ContractError: a prediction has another shape or kind, or depends on what it must not depend on.
    """
    support, query = batch
    started = learner.start(state, len(support.inputs))
    _require_kind(started, AdaptedPredictor)
    require(len(learner.batch_norms) > 0, "batch_norms is empty")
    for mode in learner.batch_norms:
        unadapted = started.with_batch_norm(mode)
        before = unadapted.predict(query.inputs)
        adapted = _adapted(learner, unadapted, support)
        after = adapted.predict(query.inputs)
        expected = (*query.inputs.shape[:2], learner_outputs(before, query))
        for when, values in (("before", before), ("after", after)):
            require(tuple(values.shape) == expected, f"{when} adapting the prediction has shape {list(values.shape)}")
            require(values.dtype == torch.float32, f"predictions are {values.dtype}, not float32")
            require(bool(values.isfinite().all()), f"{when} adapting a prediction is not finite ({mode})")
            require(not values.requires_grad, "predictions carry a gradient")
        require(
            torch.equal(unadapted.predict(query.inputs), before), "adapt changes the predictor that it is called on"
        )
        later = _adapted(learner, started, support).with_batch_norm(mode)
        _require_close(later.predict(query.inputs), after, f"with_batch_norm({mode!r}) depends on when it is called")
        require(torch.equal(_sent(adapted).predict(query.inputs), after), f"a pickled predictor differs ({mode})")
        _check_task_alone(learner, state, batch, mode, after)
        _check_queries(adapted, query, after, helping=mode == "transductive")
    try:
        started.with_batch_norm("no such mode")
    except ValueError:
        return
    raise ContractError("with_batch_norm takes a mode that does not exist without a ValueError")


def check_meta_step(learner: FewShotLearner, state: State, experience: Batch, seed: int) -> None:
    """An outer step follows from its arguments, and leaves them alone.

    Raises:
        ContractError: it does not.
    """
    copy = dataclasses.replace(state, parameters=_copied(state.parameters), optimizer=_copied(state.optimizer))
    after, metrics = learner.meta_step(state, experience, np.random.default_rng(seed))
    again, _ = learner.meta_step(state, experience, np.random.default_rng(seed))
    _require_same(state, copy, "meta_step changes the state that it is given")
    _require_same(after, again, "meta_step with the same arguments gives another state")
    for before, now in ((state.parameters, after.parameters), (state.optimizer, after.optimizer)):
        require(before.keys() == now.keys(), "meta_step gives a state with other names")
        for name, value in now.items():
            require(value.shape == before[name].shape and value.dtype == before[name].dtype, f"{name} changes its kind")
            require(not value.requires_grad, f"{name} carries a gradient")
            require(bool(value.isfinite().all()), f"{name} is not finite after an outer step")
    require(all(np.isfinite(value) for value in metrics.values()), f"metrics are not finite: {metrics}")
    missing = set(learner.progress_keys) - metrics.keys() - experience.metrics().keys()
    require(not missing, f"progress_keys name {sorted(missing)}, which meta_step does not measure")


def check_gain(learner: FewShotLearner, state: State, batch: Batch) -> None:
    """Better on held-out tasks after adapting than before, with a 95 % interval.

    Raises:
        ContractError: it is not.
    """
    started = learner.start(state, len(batch.support.inputs))
    before, after = (
        _scores(predictor, batch.query) for predictor in (started, _adapted(learner, started, batch.support))
    )
    gain = t_interval(after - before)
    what = "accuracy" if not batch.query.targets.is_floating_point() else "minus squared error"
    require(gain.low > 0, f"adapting must raise the {what} on held-out tasks: it changes it by {gain:.3f}")


def learner_outputs(predicted: Tensor, query: Examples) -> int:
    """Numbers that a prediction must have: the values of a regression, or at least one a way that is asked for."""
    if query.targets.is_floating_point():
        return query.targets.shape[-1]
    return max(predicted.shape[-1], int(query.targets.max()) + 1)


def _adapted(learner: FewShotLearner, predictor: AdaptedPredictor, support: Examples) -> AdaptedPredictor:
    for _ in range(learner.num_adaptations):
        predictor = predictor.adapt(support)
    return predictor


def _scores(predictor: AdaptedPredictor, query: Examples) -> Float[np.ndarray, " task"]:
    """Accuracy, or minus the mean squared error, of each task."""
    predicted = predictor.predict(query.inputs)
    if query.targets.is_floating_point():
        return -per_task_loss(predicted, query).double().numpy()
    return (predicted.argmax(-1) == query.targets).double().mean(1).numpy()


def _check_task_alone(learner: FewShotLearner, state: State, batch: Batch, mode: str, together: Tensor) -> None:
    """What else is in the batch makes no difference."""
    support, query = (Examples(*(part[1:2] for part in examples)) for examples in batch)
    alone = _adapted(learner, learner.start(state, 1).with_batch_norm(mode), support).predict(query.inputs)
    _require_close(alone, together[1:2], f"a task's predictions depend on the tasks beside it ({mode})")


def _check_queries(adapted: AdaptedPredictor, query: Examples, together: Tensor, *, helping: bool) -> None:
    """Only in transductive batch norm may queries help each other."""
    if helping:
        return
    alone = torch.cat([adapted.predict(one) for one in query.inputs.split(1, dim=1)], dim=1)
    _require_close(alone, together, "a prediction depends on the queries beside it, which only transductive ones may")


def _sent(predictor: AdaptedPredictor) -> AdaptedPredictor:
    """As it arrives elsewhere."""
    try:
        return pickle.loads(pickle.dumps(predictor))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ContractError(f"a predictor cannot be pickled: {error}") from error


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in tensors.items()}


def _require_kind(value: object, protocol: type) -> None:
    require(isinstance(value, protocol), f"{type(value).__name__} lacks a part of {protocol.__name__}")


def _require_same(one: State, other: State, message: str) -> None:
    for part, same in ((one.parameters, other.parameters), (one.optimizer, other.optimizer)):
        require(part.keys() == same.keys(), message)
        require(all(torch.equal(value, same[name]) for name, value in part.items()), message)


def _require_close(value: Tensor, expected: Tensor, message: str) -> None:
    greatest = float((value - expected).abs().max())
    scale = max(1.0, float(expected.abs().max()))
    require(greatest <= _TOLERANCE * scale, f"{message}: by {greatest:.2g}")
