"""Learners that compare, against their papers' equations written out example by example."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.fewshot.encoders import Conv4Config, MlpConfig
from metarl.fewshot.examples import Batch, Examples, TaskSignature
from metarl.fewshot.matching import MatchingConfig
from metarl.fewshot.metric import Embedded, MetricLearner
from metarl.fewshot.prototypical import PrototypicalConfig, prototypes
from metarl.fewshot.siamese import SiameseConfig, verification_loss
from metarl.testing.toy_tasks import IMAGES, ToyTasks

VECTORS = TaskSignature("classification", (3,), 3, 2, 3, 10)
SMALL = Conv4Config(filters=4)


def embedded(shots: int = 2) -> Embedded:
    """Two tasks of three ways, with as many examples of each way, in mixed order."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.stack([torch.randperm(3 * shots, generator=generator) % 3 for _ in range(2)])
    support, query = (torch.randn(2, count, 5, dtype=torch.float64, generator=generator) for count in (3 * shots, 4))
    return Embedded(support, targets, query)


def of_class(tasks: Embedded, task: int, way: int) -> Tensor:
    return tasks.support[task][tasks.targets[task] == way]


@pytest.mark.parametrize("shots", [1, 3])
def test_prototypes_are_means_and_logits_minus_their_squared_distances(shots: int) -> None:
    tasks = embedded(shots)
    logits = PrototypicalConfig().build(VECTORS).compare({}, tasks)
    for task in range(2):
        for way in range(3):
            mean = sum(of_class(tasks, task, way)) / shots
            torch.testing.assert_close(prototypes(tasks)[task, way], mean)
            for query, logit in zip(tasks.query[task], logits[task, :, way], strict=True):
                torch.testing.assert_close(logit, -((query - mean) ** 2).sum())


def test_prototypes_of_unequally_many_examples_are_means_too() -> None:
    tasks = embedded()._replace(targets=torch.tensor([[0, 0, 0, 1, 1, 2]]).expand(2, 6))
    for way in range(3):
        torch.testing.assert_close(prototypes(tasks)[0, way], of_class(tasks, 0, way).mean(0))


@pytest.mark.parametrize("similarity", ["cosine", "l2"])
def test_matching_networks_attend_to_the_supports_examples(similarity: str) -> None:
    """p(y | x) = Σ a(x, x_i) [y = y_i]."""
    tasks, temperature = embedded(), 3.0
    learner = MatchingConfig(similarity="cosine" if similarity == "cosine" else "l2").build(VECTORS)
    log_p = learner.compare({"log_temperature": torch.tensor(temperature, dtype=torch.float64).log()}, tasks)
    for task in range(2):
        for query, row in zip(tasks.query[task], log_p[task], strict=True):
            weights = [
                (temperature * torch.cosine_similarity(query, example, dim=0)).exp()
                if similarity == "cosine"
                else (-((query - example) ** 2).sum()).exp()
                for example in tasks.support[task]
            ]
            for way in range(3):
                mine = sum(w for w, target in zip(weights, tasks.targets[task], strict=True) if target == way)
                torch.testing.assert_close(row[way].exp(), torch.as_tensor(mine / sum(weights)))


def test_siamese_networks_say_how_likely_each_pair_matches() -> None:
    """s = Σ α |f(x) − f(x')| + b, averaged over a class's examples."""
    tasks = embedded()
    generator = torch.Generator().manual_seed(1)
    weight, bias = torch.randn(5, dtype=torch.float64, generator=generator), torch.tensor(0.3, dtype=torch.float64)
    logits = SiameseConfig().build(VECTORS).compare({"verify.weight": weight, "verify.bias": bias}, tasks)
    for task in range(2):
        for query, row in zip(tasks.query[task], logits[task], strict=True):
            for way in range(3):
                pairs = [(weight * (query - example).abs()).sum() + bias for example in of_class(tasks, task, way)]
                torch.testing.assert_close(row[way], torch.stack(pairs).mean())


def test_matches_weigh_as_much_as_all_other_pairs_together() -> None:
    logits = torch.tensor([[[2.0, -1.0, 0.5], [0.3, 0.1, -3.0]]], dtype=torch.float64)
    total = 0.0
    for row, way in zip(logits[0], (0, 2), strict=True):
        p = torch.sigmoid(row)
        others = [float(-torch.log(1 - p[other])) for other in range(3) if other != way]
        total += 0.5 * float(-torch.log(p[way])) + 0.5 * float(np.mean(others))
    assert float(verification_loss(logits, torch.tensor([[0, 2]]))) == pytest.approx(total / 2)


def test_siamese_networks_are_trained_to_verify_pairs() -> None:
    """Where the other learners classify."""
    logits, targets = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([[0, 1, 2, 0]] * 2)
    cross_entropy = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    torch.testing.assert_close(
        SiameseConfig().build(VECTORS).criterion(logits, targets), verification_loss(logits, targets)
    )
    for config in (PrototypicalConfig(), MatchingConfig()):
        torch.testing.assert_close(config.build(VECTORS).criterion(logits, targets), cross_entropy)


CONFIGS = {
    "prototypical": PrototypicalConfig(encoder=SMALL),
    "matching": MatchingConfig(encoder=SMALL),
    "in context": MatchingConfig(encoder=SMALL, full_context=True, reads=2),
    "siamese": SiameseConfig(encoder=SMALL),
}


@pytest.fixture(params=CONFIGS)
def learner(request: pytest.FixtureRequest) -> MetricLearner:
    return CONFIGS[request.param].build(IMAGES)


def batch_of(count: int = 3) -> Batch:
    return ToyTasks(IMAGES).held_out(count, shots=2)


def test_features_made_beforehand_give_the_same_predictions(learner: MetricLearner) -> None:
    state, batch = learner.init(0), batch_of()
    state, _ = learner.meta_step(state, batch, np.random.default_rng(0))  # running averages worth the name
    expected = learner.start(state, 3).adapt(batch.support).predict(batch.query.inputs)
    assert learner.embeds_alone("running") and not learner.embeds_alone("support")
    support, query = (
        learner.embed(state, part.inputs.flatten(0, 1)).unflatten(0, (3, -1)) for part in (batch.support, batch.query)
    )
    started = learner.start_embedded(state, 3)
    found = started.adapt(Examples(support, batch.support.targets)).predict(query)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_two_supports_are_as_good_as_one_of_all_examples(learner: MetricLearner) -> None:
    state, batch = learner.init(0), batch_of()
    halves = [Examples(*(part[:, i * 3 : (i + 1) * 3] for part in batch.support)) for i in range(2)]
    for mode in learner.batch_norms:
        started = learner.start(state, 3).with_batch_norm(mode)
        whole = started.adapt(batch.support).predict(batch.query.inputs)
        torch.testing.assert_close(started.adapt(halves[0]).adapt(halves[1]).predict(batch.query.inputs), whole)


def test_batch_norm_takes_its_statistics_from_where_the_mode_says(learner: MetricLearner) -> None:
    """`running`: from the state; `support`: from the support alone; `transductive`: from both together."""
    state, batch = learner.init(0), batch_of()
    parameters = {k: v for k, v in state.parameters.items() if not k.startswith("running.")}
    running = {
        f"blocks.{i}": (state.parameters[f"running.blocks.{i}.mean"], state.parameters[f"running.blocks.{i}.variance"])
        for i in range(4)
    }
    network, support, query = learner.network, batch.support.inputs, batch.query.inputs
    both = network(parameters, torch.cat([support, query], dim=1)).values
    alone = network(parameters, support)
    features = {
        "running": (network(parameters, support, running).values, network(parameters, query, running).values),
        "support": (alone.values, network(parameters, query, alone.statistics).values),
        "transductive": (both[:, : support.shape[1]], both[:, support.shape[1] :]),
    }
    predictions = {}
    for mode, (known, asked) in features.items():
        expected = learner.compare(parameters, Embedded(known, batch.support.targets, asked))
        predictions[mode] = learner.start(state, 3).with_batch_norm(mode).adapt(batch.support).predict(query)
        torch.testing.assert_close(predictions[mode], expected, rtol=1e-4, atol=1e-4)
    for one, other in (("running", "support"), ("support", "transductive")):
        assert not torch.allclose(predictions[one], predictions[other], atol=1e-3)


def test_before_the_first_support_it_answers_by_chance(learner: MetricLearner) -> None:
    started = learner.start(learner.init(0), 3)
    assert torch.equal(started.predict(batch_of().query.inputs), torch.zeros(3, 15, 3))
    with pytest.raises(ValueError, match="started for 3 tasks, got examples of 2"):
        started.adapt(batch_of(2).support)


def test_a_step_is_one_of_the_loss_and_of_the_running_averages(learner: MetricLearner) -> None:
    """Normalised by all images of the meta-batch; a tenth of the gradient is Adam's first moment after one step."""
    learner = dataclasses.replace(learner)
    state, batch = learner.init(0), batch_of()
    leaves = {k: v.clone().requires_grad_() for k, v in state.parameters.items() if not k.startswith("running.")}
    inputs = torch.cat([batch.support.inputs, batch.query.inputs], dim=1)
    values, statistics = learner.network(leaves, inputs.flatten(0, 1))
    features = values.unflatten(0, (3, -1))
    tasks = Embedded(features[:, :6], batch.support.targets, features[:, 6:])
    loss = learner.criterion(learner.compare(leaves, tasks), batch.query.targets)
    gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    after, metrics = learner.meta_step(state, batch, np.random.default_rng(0))
    assert metrics["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    for name, gradient in zip(leaves, gradients, strict=True):
        torch.testing.assert_close(10 * after.optimizer[f"exp_avg.{name}"], gradient, rtol=1e-3, atol=1e-6, msg=name)
    mean, variance = statistics["blocks.3"]
    torch.testing.assert_close(after.parameters["running.blocks.3.mean"], 0.1 * mean.detach())
    torch.testing.assert_close(after.parameters["running.blocks.3.variance"], 0.9 + 0.1 * variance.detach())


def test_vectors_have_no_batch_norm() -> None:
    learner = PrototypicalConfig(encoder=MlpConfig((4,))).build(VECTORS)
    assert learner.batch_norms == ("none",) and learner.embeds_alone("none")
    with pytest.raises(ValueError, match="batch norm must be none, got running"):
        learner.start(learner.init(0), 1).with_batch_norm("running")
