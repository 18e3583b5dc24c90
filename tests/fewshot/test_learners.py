"""The contract of few-shot learners, and that every one of them learns."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from metarl.fewshot.baselines import TransferConfig
from metarl.fewshot.examples import Batch, Examples, TaskSignature
from metarl.fewshot.learner import FewShotLearner, Predictor
from metarl.fewshot.learners import CONFIGS, LearnerConfig, make
from metarl.fewshot.maml import MamlConfig
from metarl.fewshot.mann import MannConfig
from metarl.fewshot.matching import MatchingConfig
from metarl.fewshot.networks import NetworkConfig
from metarl.fewshot.prototypical import PrototypicalConfig
from metarl.fewshot.reptile import ReptileConfig
from metarl.fewshot.siamese import SiameseConfig
from metarl.learning.protocols import State
from metarl.maths.statistics import t_interval
from tests.fewshot import problem

SMALL = NetworkConfig(filters=8)


def maml(**options: Any) -> MamlConfig:
    return MamlConfig(**({"meta_batch": 16, "outer_rate": 1e-2, "inner_rate": 0.5, "network": SMALL} | options))


ADAPTERS: dict[str, tuple[LearnerConfig, int]] = {
    "maml": (maml(), 60),
    "first order": (maml(first_order=True), 80),
    "anil": (maml(anil=True), 80),
    "maml++": (maml(inner_steps=2, learned_rates=True, multi_step=20), 60),
    "reptile": (ReptileConfig(inner_rate=1e-2, test_steps=10, outer_rate=0.5, network=SMALL), 60),
    "prototypical": (PrototypicalConfig(meta_batch=4, outer_rate=1e-2, network=SMALL), 30),
    "matching": (MatchingConfig(meta_batch=4, outer_rate=1e-2, network=SMALL), 30),
    "matching by l2": (MatchingConfig(meta_batch=4, outer_rate=1e-2, similarity="l2", network=SMALL), 30),
    "matching in context": (
        MatchingConfig(meta_batch=4, outer_rate=1e-2, full_context=True, reads=2, network=SMALL),
        30,
    ),
    "siamese": (SiameseConfig(meta_batch=4, outer_rate=1e-2, network=SMALL), 30),
    "transfer": (TransferConfig(outer_rate=1e-2, network=SMALL), 30),
    "finetune": (TransferConfig(outer_rate=1e-2, fit="finetune", fit_steps=20, network=SMALL), 30),
    "mann": (MannConfig(slots=8, width=8, controller=40, heads=1, outer_rate=1e-2), 300),
}
IMAGES = {name for name in ADAPTERS if name in ("prototypical", "matching", "siamese", "transfer")}
"""Those whose learning is shown with convolutions too: on so small images the others take too long."""
KINDS = {name: config for name, (config, _) in ADAPTERS.items()} | {"centroid": CONFIGS["centroid"]()}


def draw(learner: FewShotLearner, rng: np.random.Generator, signature: TaskSignature = problem.IMAGES) -> Batch:
    """A meta-batch as the learner wants it."""
    training = learner.training
    if training.by_class:
        assert training.queries is not None
        return problem.by_class(signature, training.queries, rng)
    ways = 10 if training.any_ways else problem.WAYS
    return problem.tasks(signature, learner.meta_batch, 1, min(training.queries or 5, 5), rng, ways=ways)


def trained(config: LearnerConfig, steps: int, signature: TaskSignature) -> tuple[FewShotLearner, State]:
    learner = make(config, signature)
    state = learner.init(0)
    for step in range(steps):
        rng = np.random.default_rng([0, step])
        state, figures = learner.meta_step(state, draw(learner, rng, signature), rng)
        assert all(np.isfinite(value) for value in figures.values())
    return learner, state


def accuracies(learner: FewShotLearner, state: State, batch: Batch) -> np.ndarray:
    logits = learner.adapt(state, batch.support, learner.batch_norms[0]).predict(batch.query.inputs)
    return (logits.argmax(-1) == batch.query.targets).double().mean(1).numpy()


def test_every_learner_is_in_the_contract_test() -> None:
    assert {type(config) for config in KINDS.values()} == set(CONFIGS.values())
    for name, kind in CONFIGS.items():
        signature = dataclasses.replace(problem.IMAGES, shape=(1, 28, 28))
        learner = make(kind(), signature)
        assert isinstance(learner, FewShotLearner), name
        assert type(learner).__name__.lower() == name


@pytest.mark.parametrize(
    ("name", "signature"),
    [(name, problem.VECTORS) for name in ADAPTERS] + [(name, problem.IMAGES) for name in sorted(IMAGES)],
    ids=lambda value: value if isinstance(value, str) else "×".join(map(str, value.shape)),
)
def test_it_learns_to_learn(name: str, signature: TaskSignature) -> None:
    """Better on classes that it never met than before its training, with an interval; and far better than chance."""
    config, steps = ADAPTERS[name]
    learner, state = trained(config, steps, signature)
    batch = problem.tasks(signature, 200, 1, 5, np.random.default_rng(1), held_out=True)
    after = accuracies(learner, state, batch)
    gain = t_interval(after - accuracies(learner, learner.init(0), batch))
    assert gain.low > 0.05, (gain, after.mean())
    assert t_interval(after).low > 1 / problem.WAYS + 0.1


def test_the_nearest_centroid_is_better_than_chance() -> None:
    learner = make(KINDS["centroid"], problem.IMAGES)
    batch = problem.tasks(problem.IMAGES, 200, 5, 5, np.random.default_rng(1), held_out=True)
    assert t_interval(accuracies(learner, learner.init(0), batch)).low > 0.45


@pytest.mark.parametrize("name", KINDS)
def test_a_meta_step_follows_from_its_arguments_and_leaves_them_alone(name: str) -> None:
    learner = make(KINDS[name], problem.IMAGES)
    state, batch = learner.init(3), draw(learner, np.random.default_rng(0))
    before = {key: value.clone() for key, value in (*state.parameters.items(), *state.optimizer.items())}
    one, _ = learner.meta_step(state, batch, np.random.default_rng(1))
    again = make(KINDS[name], problem.IMAGES)
    other, _ = again.meta_step(again.init(3), batch, np.random.default_rng(1))
    assert one.parameters.keys() == state.parameters.keys() and one.optimizer.keys() == state.optimizer.keys()
    for key, value in (*state.parameters.items(), *state.optimizer.items()):
        assert torch.equal(value, before[key])
    for key, value in one.parameters.items():
        assert torch.equal(value, other.parameters[key])
        assert not value.requires_grad and value.grad_fn is None
    moved = [key for key, value in one.parameters.items() if not torch.equal(value, state.parameters[key])]
    assert bool(moved) == (name != "centroid")


@pytest.mark.parametrize("name", KINDS)
def test_predictions_have_their_shape_in_every_kind_of_batch_norm(name: str) -> None:
    learner = make(KINDS[name], problem.IMAGES)
    state, batch = learner.init(0), problem.tasks(problem.IMAGES, 4, 2, 3, np.random.default_rng(0))
    for kind in learner.batch_norms:
        predictor = learner.adapt(state, batch.support, kind)
        assert isinstance(predictor, Predictor)
        logits = predictor.predict(batch.query.inputs)
        assert logits.shape == (4, 3 * problem.WAYS, problem.WAYS) and logits.isfinite().all()
        assert not logits.requires_grad
        torch.testing.assert_close(predictor.predict(batch.query.inputs), logits)
    with pytest.raises(ValueError, match="batch norm must be"):
        learner.adapt(state, batch.support, "none" if "none" not in learner.batch_norms else "running")


@pytest.mark.parametrize("name", KINDS)
def test_only_transductive_batch_norm_lets_queries_help_each_other(name: str) -> None:
    learner = make(KINDS[name], problem.IMAGES)
    state, batch = learner.init(0), problem.tasks(problem.IMAGES, 2, 2, 3, np.random.default_rng(0))
    for kind in learner.batch_norms:
        predictor = learner.adapt(state, batch.support, kind)
        together = predictor.predict(batch.query.inputs)
        alone = torch.cat([predictor.predict(one) for one in batch.query.inputs.split(1, dim=1)], dim=1)
        assert torch.allclose(together, alone, atol=1e-4) == (kind != "transductive")


@pytest.mark.parametrize("name", KINDS)
def test_a_task_is_judged_by_itself(name: str) -> None:
    """What else is in the batch makes no difference."""
    learner = make(KINDS[name], problem.IMAGES)
    state, batch = learner.init(0), problem.tasks(problem.IMAGES, 3, 2, 3, np.random.default_rng(0))
    for kind in learner.batch_norms:
        every = learner.adapt(state, batch.support, kind).predict(batch.query.inputs)
        one = Examples(*(part[1:2] for part in batch.support))
        alone = learner.adapt(state, one, kind).predict(batch.query.inputs[1:2])
        torch.testing.assert_close(every[1:2], alone, atol=1e-3, rtol=1e-3)


ORDER = torch.tensor([2, 0, 1])  # the new label of each way


def relabelled_state(state: State, ways: int) -> State:
    """With the outputs, and the inputs that are labels, in the new order too."""
    inverse = torch.argsort(ORDER)
    found = dict(state.parameters)
    for name in ("head", "output"):
        if f"{name}.weight" in found and found[f"{name}.weight"].shape[-1] == ways:
            found[f"{name}.weight"] = found[f"{name}.weight"][:, inverse]
            found[f"{name}.bias"] = found[f"{name}.bias"][inverse]
    if "controller.weight_ih" in found:
        weight, pixels = found["controller.weight_ih"].clone(), problem.SIDE**2
        weight[:, pixels : pixels + ways] = weight[:, pixels : pixels + ways][:, inverse]
        found["controller.weight_ih"] = weight
    return dataclasses.replace(state, parameters=found)


@pytest.mark.parametrize("name", KINDS)
def test_other_labels_give_the_same_answers_under_other_labels(name: str) -> None:
    learner = make(KINDS[name], problem.IMAGES)
    state, batch = learner.init(0), problem.tasks(problem.IMAGES, 4, 2, 3, np.random.default_rng(0))
    other = relabelled_state(state, problem.WAYS)
    support = batch.support._replace(targets=ORDER[batch.support.targets])
    for kind in learner.batch_norms:
        logits = learner.adapt(state, batch.support, kind).predict(batch.query.inputs)
        found = learner.adapt(other, support, kind).predict(batch.query.inputs)
        torch.testing.assert_close(found[..., ORDER], logits, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("name", ["prototypical", "matching", "siamese", "mann", "centroid"])
def test_what_classifies_refuses_a_regression(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} classifies"):
        make(CONFIGS[name](), TaskSignature("regression", (1,), 0, 10, 1))


@pytest.mark.parametrize("name", ["maml", "reptile", "transfer"])
def test_what_regresses_adapts_to_sinusoids(name: str) -> None:
    learner = make(CONFIGS[name](), TaskSignature("regression", (1,), 0, 10, 1))
    rng = np.random.default_rng(0)

    def examples(count: int) -> Examples:
        x = torch.from_numpy(rng.uniform(-5, 5, (25, count, 1)).astype(np.float32))
        return Examples(x, torch.from_numpy(rng.uniform(1, 2, (25, 1, 1)).astype(np.float32)) * torch.sin(x))

    state, _ = learner.meta_step(learner.init(0), Batch(examples(10), examples(10)), rng)
    support = examples(10)
    predicted = learner.adapt(state, support, "none").predict(support.inputs)
    unadapted = learner.init(0)
    before = learner.adapt(unadapted, Examples(support.inputs[:, :1], support.targets[:, :1]), "none")
    assert predicted.shape == support.targets.shape
    after_error = ((predicted - support.targets) ** 2).mean()
    assert after_error < ((before.predict(support.inputs) - support.targets) ** 2).mean()


FIELDS = ("meta_batch", "outer_rate", "halve_every", "reads", "slots", "fit_steps", "inner_steps")


@pytest.mark.parametrize(
    ("kind", "field"),
    [(kind, field.name) for kind in CONFIGS.values() for field in dataclasses.fields(kind()) if field.name in FIELDS],
)
def test_wrong_options_are_refused(kind: Callable[..., LearnerConfig], field: str) -> None:
    wrong = -1.0 if field == "outer_rate" else -1
    with pytest.raises(ValueError, match=field):
        kind(**{field: wrong})
