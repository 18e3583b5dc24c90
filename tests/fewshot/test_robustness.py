"""Faults of few-shot tasks: each does what it says, attacks are those of plain autograd, one command measures all."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.evaluation.judge import EvaluationSettings
from metarl.fewshot import attacks, corruptions, losses
from metarl.fewshot.attacks import Box
from metarl.fewshot.benchmarks import ClassificationBenchmark
from metarl.fewshot.centroid import CentroidConfig
from metarl.fewshot.encoders import Conv4Config, MlpConfig
from metarl.fewshot.episode_options import EpisodeOptions
from metarl.fewshot.examples import Examples
from metarl.fewshot.learner import DifferentiablePredictor, LearnerConfig
from metarl.fewshot.maml import MamlConfig
from metarl.fewshot.mann import MannConfig
from metarl.fewshot.matching import MatchingConfig
from metarl.fewshot.prototypical import PrototypicalConfig
from metarl.fewshot.reptile import ReptileConfig
from metarl.fewshot.robustness import KINDS, FaultLevels, Faults, impossible, units
from metarl.fewshot.siamese import SiameseConfig
from metarl.fewshot.transfer import TransferConfig
from tests import programs
from tests.fewshot.helpers import blobs, doubled, pictures

SMALL = Conv4Config(filters=4)
BOX = Box(torch.tensor(0.1, dtype=torch.float64))


# Corruptions


@pytest.mark.parametrize("share", [0.0, 0.1, 0.2, 0.5])
@pytest.mark.parametrize(("ways", "shots"), [(5, 1), (5, 5), (2, 4)])
def test_exchanged_labels_are_wrong_in_that_share_and_keep_the_classes_numbers(
    share: float, ways: int, shots: int
) -> None:
    rng, wrong = np.random.default_rng(0), list[float]()
    targets = rng.permutation(np.repeat(np.arange(ways), shots))
    for _ in range(400):
        labels = corruptions.exchanged_labels(targets, share, rng)
        assert (np.bincount(labels) == shots).all()
        wrong.append(float((labels != targets).mean()))
    assert np.mean(wrong) == pytest.approx(share, abs=0.03)


def test_more_than_half_of_the_labels_cannot_be_wrong() -> None:
    with pytest.raises(ValueError, match="between 0 and 0.5, got 0.6"):
        corruptions.exchanged_labels(np.arange(4), 0.6, np.random.default_rng(0))


def test_a_blur_keeps_a_plain_image_and_spreads_a_point_within_its_own_image() -> None:
    images = np.zeros((2, 1, 9, 9))
    images[0], images[1, 0, 4, 4] = 0.3, 1.0
    found = corruptions.blurred(images, 1.0)
    np.testing.assert_allclose(found[0], 0.3)
    gauss = np.exp(-(np.arange(-3, 4) ** 2) / 2)
    np.testing.assert_allclose(found[1, 0, 1:8, 1:8], np.outer(gauss, gauss) / gauss.sum() ** 2, atol=1e-12)


def test_linear_imbalance_keeps_the_number_of_examples() -> None:
    assert corruptions.linear_shots(5, 5, 0.0) == (5,) * 5
    assert corruptions.linear_shots(5, 5, 0.8) == (1, 3, 5, 7, 9)  # as published
    for ways, shots, spread in ((2, 5, 0.5), (4, 3, 1.0), (7, 5, 0.4), (5, 2, 0.9)):
        counts = corruptions.linear_shots(ways, shots, spread)
        assert sum(counts) == ways * shots and min(counts) >= 1 and list(counts) == sorted(counts)


def test_the_first_examples_of_each_class_are_taken() -> None:
    targets = np.array([[1, 0, 1, 0, 1, 0], [0, 0, 0, 1, 1, 1]])
    assert corruptions.first_of_each(targets, (1, 3)).tolist() == [[0, 1, 2, 4], [0, 3, 4, 5]]


# Attacks, against plain autograd in float64


def support_and_query(tasks: int = 2) -> tuple[Examples, Examples]:
    generator = torch.Generator().manual_seed(0)
    supports = torch.randn(tasks, 6, 4, generator=generator, dtype=torch.float64)
    queries = torch.randn(tasks, 5, 4, generator=generator, dtype=torch.float64)
    answers = torch.randint(3, (tasks, 5), generator=generator)
    return Examples(supports, torch.tensor([[0, 1, 2, 2, 1, 0]] * tasks)), Examples(queries, answers)


def by_hand(layers: list[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    for weight, bias in layers:
        x = torch.clamp(x @ weight + bias, min=0)
    return x


def test_fgsm_on_a_query_and_a_support_of_a_prototypical_network_is_plain_autograds() -> None:
    data = blobs()
    learner = PrototypicalConfig(encoder=MlpConfig((7, 6))).build(data.signature(3, 2))
    state = doubled(learner.init(0))
    support, query = support_and_query(1)
    layers = [
        (state.parameters[f"encoder.hidden.{i}.weight"], state.parameters[f"encoder.hidden.{i}.bias"]) for i in (0, 1)
    ]

    def plain(shown: Tensor, asked: Tensor) -> Tensor:
        features, loss = by_hand(layers, shown[0]), torch.zeros(())
        centres = [features[support.targets[0] == way].mean(0) for way in range(3)]
        for x, y in zip(asked[0], query.targets[0], strict=True):
            scores = torch.stack([-((by_hand(layers, x) - centre) ** 2).sum() for centre in centres])
            loss = loss - torch.log_softmax(scores, 0)[y] / len(asked[0])
        return loss

    def attacked_by_plain_autograd(which: int) -> Tensor:
        parts = [support.inputs.clone(), query.inputs.clone()]
        parts[which].requires_grad_()
        plain(*parts).backward()
        gradient = parts[which].grad
        assert gradient is not None and (gradient.abs() > 1e-9).any()
        return parts[which].detach() + 0.1 * gradient.sign()

    start = learner.start(state, 1).with_gradients()
    adapted = start.adapt(support)
    found = attacks.fgsm(lambda x: losses.per_task_loss(adapted.predict(x), query).sum(), query.inputs, BOX)
    torch.testing.assert_close(found, attacked_by_plain_autograd(1))

    def of_support(x: Tensor) -> Tensor:
        return losses.per_task_loss(start.adapt(Examples(x, support.targets)).predict(query.inputs), query).sum()

    torch.testing.assert_close(attacks.fgsm(of_support, support.inputs, BOX), attacked_by_plain_autograd(0))


@pytest.mark.parametrize("first_order", [False, True])
def test_pgd_on_the_support_of_maml_goes_through_the_inner_gradient(first_order: bool) -> None:
    """Also of a learner that was trained without it: the attacker knows how it adapts."""
    data = blobs()
    config = MamlConfig(encoder=MlpConfig((5,)), inner_steps=1, test_steps=1, inner_lr=0.3, first_order=first_order)
    learner = config.build(data.signature(3, 2))
    state = doubled(learner.init(0))
    support, query = support_and_query(1)
    names = ("encoder.hidden.0.weight", "encoder.hidden.0.bias", "head.weight", "head.bias")

    def scores(theta: list[Tensor], x: Tensor) -> Tensor:
        return torch.clamp(x @ theta[0] + theta[1], min=0) @ theta[2] + theta[3]

    def plain(shown: Tensor) -> Tensor:
        theta = [state.parameters[name].clone().requires_grad_() for name in names]
        loss = torch.nn.functional.cross_entropy(scores(theta, shown[0]), support.targets[0])
        gradients = torch.autograd.grad(loss, theta, create_graph=True)
        after = [value - 0.3 * gradient for value, gradient in zip(theta, gradients, strict=True)]
        return torch.nn.functional.cross_entropy(scores(after, query.inputs[0]), query.targets[0])

    start = 2 * torch.rand(support.inputs.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 1
    expected = support.inputs + 0.1 * start
    for _ in range(4):
        leaf = expected.clone().requires_grad_()
        plain(leaf).backward()
        assert leaf.grad is not None
        expected = expected + 2.5 * 0.1 / 4 * leaf.grad.sign()
        expected = torch.clamp(expected, support.inputs - 0.1, support.inputs + 0.1)
    predictor = learner.start(state, 1).with_gradients()

    def loss(x: Tensor) -> Tensor:
        return losses.per_task_loss(predictor.adapt(Examples(x, support.targets)).predict(query.inputs), query).sum()

    found = attacks.pgd(loss, support.inputs, BOX, 4, start)
    torch.testing.assert_close(found, expected)
    assert (found - support.inputs).abs().max() <= 0.1 + 1e-12


def test_an_attack_stays_within_what_a_pixel_may_be() -> None:
    x = torch.tensor([[[0.0, 0.5, 0.95]]])
    box = Box(torch.tensor(0.1), torch.tensor(0.0), torch.tensor(1.0))
    up, down = (attacks.fgsm(lambda x, sign=sign: sign * x.sum(), x, box) for sign in (1, -1))
    torch.testing.assert_close(up, torch.tensor([[[0.1, 0.6, 1.0]]]))
    torch.testing.assert_close(down, torch.tensor([[[0.0, 0.4, 0.85]]]))


FAMILIES: dict[str, LearnerConfig] = {
    "maml": MamlConfig(encoder=SMALL, test_steps=2),
    "reptile": ReptileConfig(encoder=SMALL, test_steps=2),
    "prototypical": PrototypicalConfig(encoder=SMALL),
    "matching": MatchingConfig(encoder=SMALL),
    "siamese": SiameseConfig(encoder=SMALL),
    "mann": MannConfig(controller=20, slots=8, width=6),
    "transfer": TransferConfig(encoder=SMALL, fit_steps=3),
    "centroid": CentroidConfig(),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_predicts_the_same_with_gradients_and_has_them(name: str) -> None:
    data = pictures()
    learner = FAMILIES[name].build(data.signature(3, 2))
    # after one step: a last layer of zeros, where transfer begins, passes no gradient on
    state, generator = learner.init(0), torch.Generator().manual_seed(0)
    support = Examples(torch.rand(2, 6, 1, 8, 8, generator=generator), torch.tensor([[0, 1, 2, 0, 1, 2]] * 2))
    queries = torch.rand(2, 3, 1, 8, 8, generator=generator)
    answers = torch.tensor([[0, 1, 2]] * 2)

    def adapted(x: Tensor, gradients: bool) -> Tensor:
        predictor = learner.start(state, 2)
        if gradients:
            assert isinstance(predictor, DifferentiablePredictor)
            predictor = predictor.with_gradients()
        for _ in range(learner.num_adaptations):
            predictor = predictor.adapt(support._replace(inputs=x))
        return predictor.predict(queries)

    plain = adapted(support.inputs, gradients=False)
    assert not plain.requires_grad
    torch.testing.assert_close(adapted(support.inputs, gradients=True).detach(), plain, rtol=1e-4, atol=1e-5)
    gradient = attacks.input_gradient(
        lambda x: losses.per_task_loss(adapted(x, gradients=True), Examples(x, answers)).sum(), support.inputs
    )
    assert torch.isfinite(gradient).all() and (gradient != 0).float().mean() > 0.2


# All together

EPISODES = EpisodeOptions(ways=3, shots=3, queries=4)


def test_curves_begin_at_the_evaluations_accuracy_and_fall() -> None:
    benchmark = ClassificationBenchmark(pictures(), EPISODES)
    learner = CentroidConfig().build(benchmark.record.signature)
    levels = FaultLevels(
        label_noise=(0.5,), noise=(2.0,), blur=(4.0,), epsilon=(0.15,), imbalance=(0.67,), attack_steps=3
    )
    settings, state = EvaluationSettings(num_tasks=30), learner.init(0)
    found = Faults(benchmark, levels).measure(learner, state, settings, lambda share: None)
    assert tuple(found) == KINDS
    for kind, accuracies in found.items():
        assert accuracies.shape == (2, 30)
        np.testing.assert_array_equal(accuracies[0], found["noise"][0])
        if kind != "imbalance":
            assert accuracies[1].mean() < accuracies[0].mean() - 0.03, kind
    assert found["pgd-query"][1].mean() < found["pgd-query"][0].mean() - 0.15
    fewer = Faults(benchmark, levels, ("noise", "fgsm-query"))
    part = fewer.measure(learner, state, EvaluationSettings(num_tasks=5), lambda share: None)
    for kind, accuracies in part.items():  # a task's part is its own, whatever else is measured
        if kind == "noise":
            np.testing.assert_array_equal(accuracies[1], part["noise"][1])
    plain = Faults(benchmark, levels, ("noise",)).measure(learner, state, settings, lambda share: None)
    np.testing.assert_array_equal(plain["noise"][1, :5], part["noise"][1])


def test_the_clean_figure_is_that_of_an_evaluation() -> None:
    benchmark = ClassificationBenchmark(blobs(), EPISODES)
    learner = CentroidConfig().build(benchmark.record.signature)
    settings = EvaluationSettings(num_tasks=25)
    measured = benchmark.measure(learner, learner.init(0), benchmark.tasks(settings), settings, 0, lambda share: None)
    found = Faults(benchmark, kinds=("noise",)).measure(learner, learner.init(0), settings, lambda share: None)
    np.testing.assert_allclose(found["noise"][0], measured.metrics["accuracy"][-1])


def test_a_unit_is_black_to_white_or_a_features_standard_deviation() -> None:
    data = pictures()
    torch.testing.assert_close(units(data), 1 / torch.tensor(data.std)[:, None, None])
    torch.testing.assert_close(units(blobs()), blobs().examples.std(0))


@pytest.mark.parametrize(
    ("data", "episodes", "kinds", "message"),
    [
        (blobs(), EPISODES, ("blur",), "vectors cannot be blurred"),
        (
            pictures(),
            EpisodeOptions(ways=3, shots=1, queries=4),
            ("imbalance",),
            "with one shot no class can have fewer",
        ),
        (pictures(), EpisodeOptions(ways=3, shots=6, queries=4), ("imbalance",), "need 15 examples a class"),
    ],
)
def test_faults_that_cannot_be_are_refused(
    data: object, episodes: EpisodeOptions, kinds: tuple[object, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Faults(ClassificationBenchmark(data, episodes), kinds=kinds)  # pyright: ignore[reportArgumentType]


def call(*arguments: str | Path) -> int:
    return programs.call("fewshot", *arguments)


def test_one_command_writes_figures_and_chart_of_several_learners(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, data = tmp_path / "data.npz", pictures()
    np.savez(path, images=data.examples[:, 0].numpy(), labels=data.labels)
    sizes = ("--ways", "3", "--shots", "3", "--queries", "3", "--tasks", "5", "--validation-tasks", "2", "--steps", "1")
    for learner, options in (("prototypical", ("--train-ways", "3")), ("centroid", ())):
        encoder = ("conv4", "--filters", "4") if learner == "prototypical" else ()
        assert call(learner, *encoder, "--data", path, "--run", tmp_path / learner, *sizes, *options) == 0
    runs = (tmp_path / "prototypical", tmp_path / "centroid")
    capsys.readouterr()
    assert (
        call("robustness", *runs, "--output", tmp_path / "both", "--tasks", "4", "--kinds", "noise", "pgd-support") == 0
    )
    printed = capsys.readouterr().out
    assert "pgd-support" in printed and "test classes: " in printed
    content = json.loads((tmp_path / "both.json").read_text())
    assert [each["source"]["learner"] for each in content["learners"]] == ["prototypical", "centroid"]
    curve = content["learners"][0]["curves"]["pgd-support"]
    assert curve["levels"] == [0.0, 0.02, 0.05, 0.1] and np.shape(curve["accuracies"]) == (4, 4)
    assert content["test_classes"] and content["environment"]["revision"]
    chart = (tmp_path / "both.svg").read_text()
    assert "<svg" in chart and "pgd-support" in chart and "centroid (centroid)" in chart
    assert call("robustness", *runs, "--kinds", "noise") == 2
    assert "--output says where" in capsys.readouterr().err
    assert call("robustness", runs[1], "--kinds", "noise", "--tasks", "3", "--noise", "0") == 2
    assert "--noise must be above 0" in capsys.readouterr().err
    for arguments, sentence in (
        ((), "name at least one of --kinds"),
        (("noise", "--evaluation-seed", "-1"), "the evaluation's seed must be"),
        (("noise", "fgsm-query", "--attack-steps", "3"), "--attack-steps is about pgd-query, pgd-support, of which"),
    ):
        assert call("robustness", runs[1], "--kinds", *arguments) == 2
        assert sentence in " ".join(capsys.readouterr().err.replace("│", " ").split())
    shutil.copytree(runs[1], tmp_path / "copies" / "centroid")  # both would have one line in the figures
    alike = (runs[1], tmp_path / "copies" / "centroid")
    assert call("robustness", *alike, "--kinds", "noise", "--output", tmp_path / "alike") == 2
    assert "same learner and the same folder's name, centroid (centroid)" in capsys.readouterr().err
    assert call("robustness", runs[1], "--kinds", "noise", "--tasks", "3") == 0
    assert (runs[1] / "robustness.json").exists() and (runs[1] / "robustness.svg").exists()


def test_without_kinds_what_the_tasks_cannot_have_is_left_out_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, data = tmp_path / "data.npz", pictures()
    np.savez(path, images=data.examples[:, 0].numpy(), labels=data.labels)
    sizes = ("--ways", "3", "--shots", "1", "--queries", "3", "--tasks", "4", "--validation-tasks", "2", "--steps", "1")
    assert call("centroid", "--data", path, "--run", tmp_path / "run", *sizes) == 0
    capsys.readouterr()
    assert call("robustness", tmp_path / "run", "--tasks", "2") == 0
    printed = capsys.readouterr().out
    assert "without imbalance: with one shot no class can have fewer" in printed
    (learner,) = json.loads((tmp_path / "run" / "robustness.json").read_text())["learners"]
    assert learner["curves"].keys() == set(KINDS) - {"imbalance"}
    assert impossible(ClassificationBenchmark(blobs(), EPISODES)).keys() == {"blur"}
