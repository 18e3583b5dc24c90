"""Insight: influence by plain recomputation, layers by plain autograd, weights by what answers are made of."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from metarl.evaluation import stills
from metarl.fewshot import insight, insight_picture
from metarl.fewshot.centroid import CentroidConfig
from metarl.fewshot.dataset import FewShotDataset
from metarl.fewshot.encoders import Conv4Config, MlpConfig, Statistics
from metarl.fewshot.examples import Batch, Examples
from metarl.fewshot.learner import FewShotLearner, InspectablePredictor, Inspection, LearnerConfig
from metarl.fewshot.maml import MamlConfig
from metarl.fewshot.mann import MannConfig
from metarl.fewshot.matching import MatchingConfig
from metarl.fewshot.prototypical import PrototypicalConfig
from metarl.fewshot.reptile import ReptileConfig
from metarl.fewshot.sampler import EpisodeSampler, EpisodeShape
from metarl.fewshot.siamese import SiameseConfig
from metarl.fewshot.transfer import TransferConfig
from metarl.learning.protocols import State
from tests import programs
from tests.fewshot.helpers import blobs, doubled, pictures

MLP, CONV = MlpConfig((7, 6)), Conv4Config(filters=4)
CONFIGS: tuple[LearnerConfig, ...] = (
    MamlConfig(encoder=CONV, inner_steps=2, test_steps=2),
    ReptileConfig(encoder=CONV, test_steps=3),
    PrototypicalConfig(encoder=CONV),
    MatchingConfig(encoder=CONV),
    SiameseConfig(encoder=CONV),
    MannConfig(embedding="encoder", encoder=CONV),
    TransferConfig(encoder=CONV, fit_steps=5),
    TransferConfig(encoder=CONV, fit_steps=5, fit="finetune"),
)
"""One of each family."""


def one_task(data: FewShotDataset, ways: int = 3, shots: int = 3, queries: int = 4) -> Batch:
    shape = EpisodeShape(ways, shots, queries)
    return EpisodeSampler(data, shape).sample("test", 1, np.random.default_rng(1))


def inspected(learner: FewShotLearner, state: State, batch: Batch) -> Inspection:
    predictor = insight.adapted(learner.start(state, 1), batch.support, learner.num_adaptations)
    assert isinstance(predictor, InspectablePredictor)
    return predictor.inspect(batch.query.inputs)


def test_influence_is_that_of_a_centroid_computed_again_without_the_example() -> None:
    data = blobs()
    support, query = one_task(data)
    learner = CentroidConfig().build(data.signature(3, 3))
    found = insight.influence(learner.start(learner.init(0), 1), support, query, 1)
    x, targets, asked = support.inputs[0].double(), support.targets[0], query.inputs[0].double()

    def log_p(kept: list[int]) -> Tensor:
        scores = []
        for way in range(3):
            members = [number for number in kept if targets[number] == way]
            centre = sum(x[number] for number in members) / len(members)
            scores.append(-((asked - centre) ** 2).sum(1))
        return torch.log_softmax(torch.stack(scores, 1), 1)[torch.arange(len(asked)), query.targets[0]]

    everything = list(range(9))
    for left_out in everything:
        expected = log_p(everything) - log_p([number for number in everything if number != left_out])
        np.testing.assert_allclose(found[left_out], expected.numpy(), atol=1e-4)


def test_an_example_with_a_wrong_label_does_harm() -> None:
    data = blobs()
    support, query = one_task(data, ways=2, shots=5)
    learner = CentroidConfig().build(data.signature(2, 5))
    labels = support.targets.clone()
    wrong = int((labels[0] == 0).nonzero()[0])
    labels[0, wrong] = 1
    found = insight.influence(learner.start(learner.init(0), 1), Examples(support.inputs, labels), query, 1).mean(1)
    assert found[wrong] < 0 and found.argmin() == wrong


def test_influence_needs_another_example_of_the_class() -> None:
    data = blobs()
    support, query = one_task(data, shots=1)
    learner = CentroidConfig().build(data.signature(3, 1))
    with pytest.raises(ValueError, match="add --shots 2"):
        insight.influence(learner.start(learner.init(0), 1), support, query, 1)
    assert insight.look_into(learner, learner.init(0), support, query).influence is None


def test_a_maml_step_moves_parameters_by_its_rate_times_the_gradient() -> None:
    data = blobs()
    config = MamlConfig(encoder=MLP, inner_steps=1, test_steps=1, inner_lr=0.3)
    learner = config.build(data.signature(3, 3))
    state = doubled(learner.init(0))
    batch = Batch(*(Examples(part.inputs.double(), part.targets) for part in one_task(data)))
    found = insight.look_into(learner, state, *batch)
    leaves = {name: value.clone().requires_grad_() for name, value in state.parameters.items()}
    x = batch.support.inputs[0]
    for layer in ("encoder.hidden.0", "encoder.hidden.1"):
        x = torch.relu(x @ leaves[f"{layer}.weight"] + leaves[f"{layer}.bias"])
    logits = x @ leaves["head.weight"] + leaves["head.bias"]
    torch.nn.functional.cross_entropy(logits, batch.support.targets[0]).backward()
    assert found.changes.keys() == leaves.keys()
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        size = float(leaf.detach().norm()) or 1.0
        assert found.changes[name] == pytest.approx(0.3 * float(leaf.grad.norm()) / size)
    assert list(found.similarities) == ["hidden.0", "hidden.1", "head"]
    assert all(0 < value < 1 for value in found.similarities.values())


def test_anil_moves_the_head_alone() -> None:
    data = blobs()
    learner = MamlConfig(encoder=MLP, anil=True, inner_steps=1, test_steps=1).build(data.signature(3, 3))
    found = insight.look_into(learner, learner.init(0), *one_task(data))
    assert {name for name, change in found.changes.items() if change > 0} == {"head.weight", "head.bias"}
    assert found.similarities["hidden.1"] == pytest.approx(1) and found.similarities["head"] < 1


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_layers_end_in_what_is_predicted(config: LearnerConfig) -> None:
    data = pictures()
    learner = config.build(data.signature(3, 3))
    state, batch = learner.init(0), one_task(data)
    found = inspected(learner, state, batch)
    predictor = insight.adapted(learner.start(state, 1), batch.support, learner.num_adaptations)
    logits = predictor.predict(batch.query.inputs)[0]
    if "head" in found.layers:
        torch.testing.assert_close(found.layers["head"], logits)
    for name, weights in found.weights.items():
        assert len(weights.values) == len(logits), name
    whole = insight.look_into(learner, state, *batch)
    assert whole.influence is not None and whole.influence.shape == (9, 12)
    assert whole.embeddings is not None and whole.embeddings.after.shape == (21, 2)
    content = insight_picture.picture(whole, "title")
    assert "queries are answered right" in stills.description(content)
    assert Image.open(io.BytesIO(content)).width > 300


@pytest.mark.parametrize("mode", ["running", "transductive", "support"])
def test_what_a_metric_learner_shows_are_its_answers(mode: str) -> None:
    data = pictures()
    support, query = one_task(data)
    for config in (PrototypicalConfig(encoder=CONV), MatchingConfig(encoder=CONV), SiameseConfig(encoder=CONV)):
        learner = config.build(data.signature(3, 3))
        predictor = learner.start(learner.init(0), 1).with_batch_norm(mode).adapt(support)
        logits, found = predictor.predict(query.inputs)[0], predictor.inspect(query.inputs)
        ((name, (over, values)),) = found.weights.items()
        assert (over == "class") == ("prototype" in name) and (over == "example") == ("example" in name)
        one_hot = torch.nn.functional.one_hot(support.targets[0]).float()
        if "distance" in name:
            torch.testing.assert_close(-values, logits)
        elif "attention" in name:
            torch.testing.assert_close((values @ one_hot).log(), logits)
        else:
            torch.testing.assert_close(torch.logit(values) @ one_hot / 3, logits, rtol=1e-3, atol=1e-4)
        assert found.parameters == {}


def test_prototype_distances_are_those_of_the_embeddings() -> None:
    data = blobs()
    support, query = one_task(data)
    learner = PrototypicalConfig(encoder=MLP).build(data.signature(3, 3))
    state = learner.init(0)
    found = inspected(learner, state, Batch(support, query))
    x, y = (learner.embed(state, part.inputs[0]) for part in (support, query))
    torch.testing.assert_close(found.layers["hidden.1"], y)
    centres = torch.stack([x[support.targets[0] == way].mean(0) for way in range(3)])
    distances = found.weights["squared distance to each prototype"].values
    torch.testing.assert_close(distances, torch.cdist(y, centres) ** 2)


@pytest.mark.parametrize("config", [PrototypicalConfig(encoder=MLP), MatchingConfig(encoder=MLP)])
def test_weights_are_drawn_in_the_order_of_classes(config: LearnerConfig) -> None:
    data = blobs()
    support, query = one_task(data)
    first = [int((support.targets[0] == way).nonzero()[0]) for way in (2, 0, 1)]  # as many examples as classes
    one_shot = Examples(support.inputs[:, first], support.targets[:, first])
    learner = config.build(data.signature(3, 1))
    found = insight.look_into(learner, learner.init(0), one_shot, query)
    (weights,) = found.weights.values()
    values, classes = insight_picture.by_class(found, weights)
    assert classes.tolist() == [0, 1, 2]
    nearest = values.argmin(0) if weights.over == "class" else values.argmax(0)
    answers = found.log_probabilities.argmax(1)[np.argsort(found.query_targets, kind="stable")]
    np.testing.assert_array_equal(nearest, answers)


def test_a_memorys_read_weights_are_those_of_the_step_that_answers() -> None:
    data = blobs()
    support, query = one_task(data)
    learner = MannConfig(slots=16, width=8, heads=2, controller=12).build(data.signature(3, 3))
    state = learner.init(0)
    weights = inspected(learner, state, Batch(support, query)).weights["read weights"].values
    assert weights.shape == (12, 2, 16)
    torch.testing.assert_close(weights.sum(-1), torch.ones(12, 2))
    sequence = support.followed_by(Examples(query.inputs[:, :1], query.targets[:, :1]))
    _, carry = learner.start(state, 1).read(sequence)
    torch.testing.assert_close(weights[0], carry.reading[0])


@pytest.mark.parametrize("given", [True, False])
def test_a_convolutions_layers_end_in_its_features(given: bool) -> None:
    data = pictures()
    encoder = CONV.build(data.signature(3, 1))
    parameters = encoder.init(torch.Generator().manual_seed(0))
    images = one_task(data).support.inputs[0]
    statistics: Statistics | None = encoder(parameters, images).statistics if given else None
    layers = encoder.layers(parameters, images, statistics)
    assert list(layers) == [f"blocks.{number}" for number in range(4)]
    torch.testing.assert_close(layers["blocks.3"], encoder(parameters, images, statistics).features)


def test_two_tasks_are_refused() -> None:
    data = blobs()
    batch = EpisodeSampler(data, EpisodeShape(3, 2, 2)).sample("test", 2, np.random.default_rng(0))
    learner = CentroidConfig().build(data.signature(3, 2))
    with pytest.raises(ValueError, match="one task is looked into, got 2 supports"):
        insight.look_into(learner, learner.init(0), *batch)


def test_one_command_writes_figures_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, data, run = tmp_path / "data.npz", pictures(), tmp_path / "maml"
    np.savez(path, images=data.examples[:, 0].numpy(), labels=data.labels)
    sizes = ("--ways", "3", "--shots", "2", "--queries", "3", "--tasks", "3", "--validation-tasks", "2")
    options = (*sizes, "--steps", "1", "--meta-batch", "2")
    assert programs.call("fewshot", "maml", "conv4", "--filters", "4", "--data", path, "--run", run, *options) == 0
    assert programs.call("fewshot", "insight", run, "--tasks", "2") == 0
    assert "adaptation changes" in capsys.readouterr().out
    assert len(list((run / "pictures").glob("insight-*.png"))) == 2
    tasks = json.loads((run / "insight.json").read_text())["tasks"]
    assert np.array(tasks[0]["influence"]).shape == (6, 9)
    assert set(tasks[0]["cka"]) == {"blocks.0", "blocks.1", "blocks.2", "blocks.3", "head"}
    assert programs.call("fewshot", "insight", run, "--shots", "1") == 0
    assert "no example can be left out" in capsys.readouterr().out
    assert json.loads((run / "insight.json").read_text())["tasks"][0]["influence"] is None


def test_a_change_from_nothing_is_the_norm_itself() -> None:
    before = Inspection({}, {"head.weight": torch.zeros(2, 2)}, {})
    after = Inspection({}, {"head.weight": torch.full((1, 2, 2), 3.0)}, {})
    assert insight.relative_changes(before, after) == {"head.weight": pytest.approx(6.0)}
    assert dataclasses.is_dataclass(insight.Insight)
