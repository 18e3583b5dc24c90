"""The contract of few-shot learners, and that every one of them learns."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from metarl import fewshot
from metarl.fewshot.centroid import CentroidConfig
from metarl.fewshot.classical import ClassicalConfig
from metarl.fewshot.columns import ColumnsConfig
from metarl.fewshot.encoders import Conv4Config
from metarl.fewshot.examples import Batch, Examples, TaskSignature
from metarl.fewshot.learner import FewShotLearner, LearnerConfig
from metarl.fewshot.maml import MamlConfig
from metarl.fewshot.mann import MannConfig
from metarl.fewshot.matching import MatchingConfig
from metarl.fewshot.prototypical import PrototypicalConfig
from metarl.fewshot.registry import LEARNERS
from metarl.fewshot.reptile import ReptileConfig
from metarl.fewshot.siamese import SiameseConfig
from metarl.fewshot.transfer import TransferConfig
from metarl.learning.protocols import State
from metarl.maths.statistics import t_interval
from metarl.testing import learners as contract
from metarl.testing.toy_tasks import CURVES, IMAGES, VECTORS, ToyTasks

SMALL = Conv4Config(filters=8)
WAYS = IMAGES.ways


def maml(**options: Any) -> MamlConfig:
    return MamlConfig(**({"meta_batch": 16, "learning_rate": 1e-2, "inner_lr": 0.5} | options))


VARIANTS: dict[str, tuple[LearnerConfig, int]] = {
    "maml": (maml(), 60),
    "first order": (maml(first_order=True), 80),
    "anil": (maml(anil=True), 80),
    "maml++": (maml(inner_steps=2, learn_inner_lr=True, multi_step=20), 60),
    "reptile": (ReptileConfig(inner_lr=1e-2, test_steps=10, learning_rate=0.5), 60),
    "prototypical": (PrototypicalConfig(meta_batch=4, learning_rate=1e-2), 30),
    "matching": (MatchingConfig(meta_batch=4, learning_rate=1e-2), 30),
    "matching by l2": (MatchingConfig(meta_batch=4, learning_rate=1e-2, similarity="l2"), 30),
    "matching in context": (MatchingConfig(meta_batch=4, learning_rate=1e-2, full_context=True, reads=2), 30),
    "siamese": (SiameseConfig(meta_batch=4, learning_rate=1e-2), 30),
    "transfer": (TransferConfig(learning_rate=1e-2, fit_steps=50), 30),
    "finetune": (TransferConfig(learning_rate=1e-2, fit="finetune", fit_steps=20), 30),
    "mann": (MannConfig(slots=8, width=8, controller=40, heads=1, learning_rate=1e-2), 300),
}
"""Configs, and the outer steps after which they are better than before on vectors."""
IMAGE_LEARNERS = ("prototypical", "matching", "siamese", "transfer")
"""Those whose learning is shown with convolutions too: on so small images the others take too long."""
KINDS = {name: config for name, (config, _) in VARIANTS.items()} | {
    "centroid": CentroidConfig(),
    "classical": ClassicalConfig(),
    "columns": ColumnsConfig(),  # which knows no column by its place: tables/test_tasks.py shows what it learns
}


def with_small_encoder(name: str) -> LearnerConfig:
    """For images."""
    config: Any = KINDS[name]
    options = {"encoder": SMALL, "embedding": "encoder", "fit_steps": 5}
    return dataclasses.replace(config, **{option: options[option] for option in options if option in fields_of(config)})


def fields_of(config: Any) -> set[str]:
    """The names of a config's options."""
    return {field.name for field in dataclasses.fields(config)}


def accuracies(learner: FewShotLearner, state: State, batch: Batch) -> np.ndarray:
    predictor = learner.start(state, len(batch.support.inputs))
    for _ in range(learner.num_adaptations):
        predictor = predictor.adapt(batch.support)
    return (predictor.predict(batch.query.inputs).argmax(-1) == batch.query.targets).double().mean(1).numpy()


def test_every_learner_is_in_the_contract_test() -> None:
    assert {type(config) for config in KINDS.values()} == {LEARNERS[name] for name in LEARNERS}
    for name in LEARNERS:
        learner = LEARNERS[name]().build(dataclasses.replace(IMAGES, shape=(1, 28, 28)), "cpu")
        assert isinstance(learner, FewShotLearner), name
        assert type(learner).__name__.lower() == name


@pytest.mark.parametrize("name", VARIANTS)
def test_it_keeps_the_contract_and_learns_to_learn(name: str) -> None:
    """Better on classes that it never met than before its training, with an interval; and far better than chance."""
    config, steps = VARIANTS[name]
    state = contract.check_learner(config, VECTORS, outer_steps=steps)
    learner, batch = config.build(VECTORS, "cpu"), ToyTasks(VECTORS).held_out(200, seed=1)
    after = accuracies(learner, state, batch)
    gain = t_interval(after - accuracies(learner, learner.init(0), batch))
    assert gain.low > 0.05, (gain, after.mean())
    assert t_interval(after).low > 1 / WAYS + 0.1


@pytest.mark.parametrize("name", IMAGE_LEARNERS)
def test_it_learns_from_images(name: str) -> None:
    config, steps = with_small_encoder(name), VARIANTS[name][1]
    state = contract.check_learner(config, IMAGES, outer_steps=steps)
    learner, batch = config.build(IMAGES, "cpu"), ToyTasks(IMAGES).held_out(200, seed=1)
    gain = t_interval(accuracies(learner, state, batch) - accuracies(learner, learner.init(0), batch))
    assert gain.low > 0.05, gain


@pytest.mark.parametrize("name", sorted(KINDS.keys() - {*IMAGE_LEARNERS}))
def test_it_keeps_the_contract_on_images(name: str) -> None:
    learner, tasks = with_small_encoder(name).build(IMAGES, "cpu"), ToyTasks(IMAGES)
    state = contract.check_init(learner, 0)
    contract.check_predictions(learner, state, tasks.held_out(3, shots=2))
    contract.check_meta_step(learner, state, tasks.collect(learner, state, 0, 0), 0)


@pytest.mark.parametrize("config", [MamlConfig(learning_rate=1e-2), ReptileConfig(), TransferConfig()])
def test_what_regresses_keeps_the_contract_on_curves(config: LearnerConfig) -> None:
    contract.check_learner(config, CURVES, outer_steps=40)


def test_the_nearest_centroid_is_better_than_chance() -> None:
    learner, batch = CentroidConfig().build(IMAGES), ToyTasks(IMAGES).held_out(200, shots=5)
    assert t_interval(accuracies(learner, learner.init(0), batch)).low > 0.45


ORDER = torch.tensor([2, 0, 1])  # the new label of each way


def relabelled_state(state: State, features: int) -> State:
    """With the outputs, and the inputs that are labels, in the new order too."""
    inverse = torch.argsort(ORDER)
    parameters = dict(state.parameters)
    for name in ("head", "output"):
        if f"{name}.weight" in parameters and parameters[f"{name}.weight"].shape[-1] == WAYS:
            parameters[f"{name}.weight"] = parameters[f"{name}.weight"][:, inverse]
            parameters[f"{name}.bias"] = parameters[f"{name}.bias"][inverse]
    if "controller.weight_ih" in parameters:
        weight = parameters["controller.weight_ih"].clone()
        weight[:, features : features + WAYS] = weight[:, features : features + WAYS][:, inverse]
        parameters["controller.weight_ih"] = weight
    return dataclasses.replace(state, parameters=parameters)


@pytest.mark.parametrize("name", KINDS)
def test_other_labels_give_the_same_answers_under_other_labels(name: str) -> None:
    learner = with_small_encoder(name).build(IMAGES, "cpu")
    state, batch = learner.init(0), ToyTasks(IMAGES).held_out(4, shots=2)
    other = relabelled_state(state, SMALL.build(IMAGES).num_features)
    support = batch.support._replace(targets=ORDER[batch.support.targets])
    for mode in learner.batch_norms:
        one, two = (learner.start(each, 4).with_batch_norm(mode) for each in (state, other))
        for _ in range(min(3, learner.num_adaptations)):
            one, two = one.adapt(batch.support), two.adapt(support)
        logits = one.predict(batch.query.inputs)
        torch.testing.assert_close(two.predict(batch.query.inputs)[..., ORDER], logits, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("name", ["prototypical", "matching", "siamese", "mann", "centroid"])
def test_what_classifies_refuses_a_regression(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} classifies"):
        LEARNERS[name]().build(TaskSignature("regression", (1,), 0, 10, 1), "cpu")


def test_gradient_steps_are_counted_and_supports_are_taken_in_at_once() -> None:
    names = {name: LEARNERS[name]().build(IMAGES, "cpu") for name in LEARNERS}
    steps = {name: learner.num_adaptations for name, learner in names.items()}
    assert steps == dict.fromkeys(names, 1) | {"maml": 3, "reptile": 50}
    for name, learner in names.items():
        assert learner.adaptation_name == ("gradient step" if name in ("maml", "reptile") else "support")


def test_transfer_fits_the_last_layer_by_plain_gradient_steps() -> None:
    """On features of unit length, from zeros."""
    config = TransferConfig(fit_steps=3, fit_lr=0.7)
    learner = config.build(VECTORS)
    state, batch = learner.init(0), ToyTasks(VECTORS).held_out(2, shots=2)
    predicted = learner.start(state, 2).adapt(batch.support).predict(batch.query.inputs)
    for task in range(2):
        x, asked = (
            torch.nn.functional.normalize(learner.network(state.parameters, part.inputs[task]).values, dim=-1)
            for part in (batch.support, batch.query)
        )
        layer = torch.nn.Linear(x.shape[1], WAYS)
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.7)
        for _ in range(3):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(layer(x), batch.support.targets[task]).backward()
            optimizer.step()
        torch.testing.assert_close(predicted[task], layer(asked).detach(), atol=1e-5, rtol=1e-5)


FIELDS = ("meta_batch", "learning_rate", "learning_rate_half_life", "reads", "slots", "fit_steps", "inner_steps")


@pytest.mark.parametrize(
    ("kind", "field"),
    [(LEARNERS[name], field) for name in LEARNERS for field in sorted(fields_of(LEARNERS[name])) if field in FIELDS],
)
def test_wrong_options_are_refused(kind: Callable[..., LearnerConfig], field: str) -> None:
    wrong = -1.0 if field == "learning_rate" else -1
    with pytest.raises(ValueError, match=field):
        kind(**{field: wrong})


# Learners from outside


@dataclasses.dataclass(frozen=True)
class LazyConfig:
    """A learner of somebody else's: the nearest centroid by another name."""

    meta_batch: int = 1

    def build(self, signature: TaskSignature, device: str = "cpu") -> FewShotLearner:
        return CentroidConfig(self.meta_batch).build(signature, device)


def test_a_learner_is_registered_under_a_name_and_found_by_an_id() -> None:
    fewshot.register("lazy", LazyConfig)
    assert LEARNERS["lazy"] is LazyConfig and "lazy" in LEARNERS
    assert LEARNERS[f"{__file__}:LazyConfig"].__name__ == "LazyConfig"
    contract.check_learner(LEARNERS["lazy"](), VECTORS, outer_steps=1)
    with pytest.raises(ValueError, match="there is a few-shot learner called 'maml' already"):
        fewshot.register("maml", LazyConfig)
    with pytest.raises(ValueError, match="is not a few-shot learner: it must be a frozen dataclass of options"):
        LEARNERS[f"{__file__}:maml"]
    with pytest.raises(ValueError, match="did you mean prototypical"):
        LEARNERS["prototypicl"]


def test_examples_of_a_batch_are_counted() -> None:
    part = Examples(torch.zeros(4, 6, 2), torch.zeros(4, 6, dtype=torch.int64))
    assert Batch(part, Examples(*(value[:, :5] for value in part))).metrics() == {"examples": 44}
