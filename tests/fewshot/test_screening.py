"""Screening after a few examples: what is shown and asked about, the figures, and one command."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from metarl.commands import fewshot_screening
from metarl.fewshot.datasets import medical
from metarl.fewshot.datasets.medical import Screening
from metarl.fewshot.datasets.storage import SourceFile
from metarl.fewshot.screening import ScreeningTrials, coverage_curve, figures, sensitivity_at
from metarl.tasks import SPLITS
from tests import programs

CELLS = [name for names in medical.BLOOD_SPLIT.values() for name in names]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small files of the same form as the published ones."""
    rng, folder = np.random.default_rng(0), tmp_path / "data" / "medical"
    folder.mkdir(parents=True)
    labels = np.repeat(np.arange(12), 24).astype(np.int16)
    means = rng.integers(40, 216, size=(12, 8, 8, 3))
    cells = np.clip(means[labels] + rng.normal(0, 15, (len(labels), 8, 8, 3)), 0, 255).astype(np.uint8)
    slides = rng.integers(100, 140, len(labels)).astype(np.int32)
    np.savez(folder / "blood.npz", images=cells, labels=labels, slides=slides, class_names=np.array(CELLS))
    parts: dict[str, np.ndarray] = {}
    means = rng.integers(40, 216, size=(2, 8, 8))
    for part, count in (("train", 60), ("val", 10), ("test", 40)):
        truth = (np.arange(count) % 3 > 0).astype(np.uint8)
        noisy = means[truth] + rng.normal(0, 15, (count, 8, 8))
        parts |= {f"{part}_images": np.clip(noisy, 0, 255).astype(np.uint8), f"{part}_labels": truth}
    np.savez(folder / "breast.npz", allow_pickle=False, **parts)
    for name, file in (("BLOOD", "blood"), ("BREAST", "breast")):
        digest = hashlib.sha256((folder / f"{file}.npz").read_bytes()).hexdigest()
        monkeypatch.setattr(medical, name, SourceFile(f"medical/{file}.npz", (f"sha256:{digest}",)))
    return tmp_path / "data"


# What is shown and asked about


def test_no_slide_is_in_what_is_shown_and_in_what_is_asked_about(root: Path) -> None:
    data = medical.screening("blood-cells", root, "teardrop")
    size = ScreeningTrials(3, 10, trials=4)
    seen = set[int]()
    for trial in range(4):
        shown, asked = size.draw(data, trial)
        assert not set(data.groups[shown]) & set(data.groups[asked])
        assert data.positive[shown].sum() == 3 and len(shown) == 13 and 0 < data.positive[asked].mean() < 0.5
        seen |= set(shown.tolist())
    assert len(seen) > 13  # drawn anew
    assert data.positive.sum() == 24


def test_medmnists_published_test_part_is_asked_about(root: Path) -> None:
    data = medical.screening("breast", root)
    assert data.finding == "malignant" and data.positive[:3].tolist() == [True, False, False]  # label 0
    shown, asked = ScreeningTrials(5, 10).draw(data, 0)
    assert shown.max() < 70 <= asked.min() and len(asked) == 40


def test_blood_cells_are_classes_with_a_split_by_type(root: Path) -> None:
    data = medical.blood_cells(root)
    assert {split: [data.classes[n] for n in data.splits[split]] for split in SPLITS} == {
        split: list(names) for split, names in medical.BLOOD_SPLIT.items()
    }
    assert data.shape == (3, 8, 8) and len(data.mean) == 3


@pytest.mark.parametrize(
    ("name", "finding", "message"),
    [
        ("blood-cells", "blast", "--finding must be one of normal cell"),
        ("breast", "cyst", "breast has one finding"),
        ("skin", None, "there are screenings of blood-cells"),
    ],
)
def test_unknown_findings_are_named(name: str, finding: str | None, message: str, root: Path) -> None:
    with pytest.raises(ValueError, match=message):
        medical.screening(name, root, finding)


# Figures


def test_sensitivity_is_read_off_at_the_threshold_that_keeps_the_specificity() -> None:
    positive = np.array([True] * 4 + [False] * 10)
    scores = np.array([0.9, 0.8, 0.3, 0.1] + [0.85] + [0.2] * 9)
    assert sensitivity_at(scores, positive, 0.95) == 0.25  # no false alarm among ten is allowed
    assert sensitivity_at(scores, positive, 0.9) == 0.75  # one is
    assert sensitivity_at(np.zeros(14), positive, 0.9) == 0  # all alike: either all or none is flagged


def test_the_surest_answers_come_first_and_what_is_skipped_is_missed() -> None:
    confidences = np.array([0.9, 0.8, 0.7, 0.6])
    right = np.array([True, True, False, False])
    positive = np.array([False, True, True, False])
    assert coverage_curve(confidences, right, positive, (1.0, 0.5, 0.25)) == [
        (1.0, 0.5, 0.5), (0.5, 0.0, 0.5), (0.25, 0.0, 1.0),
    ]  # fmt: skip


def test_perfect_and_chance_answers_have_the_figures_that_they_should() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(4000) < 0.2
    perfect = figures(positive.astype(float), positive)
    assert perfect["auroc"] == 1 and perfect["brier"] == 0 and perfect["sensitivity_at_0.95"] == 1
    chance = figures(rng.random(4000), positive)
    assert chance["auroc"] == pytest.approx(0.5, abs=0.05)
    assert chance["sensitivity_at_0.9"] == pytest.approx(0.1, abs=0.05)
    honest = rng.random(4000)
    assert figures(honest, rng.random(4000) < honest)["calibration_error"] < 0.04


def test_every_detector_meets_the_same_examples() -> None:
    rng = np.random.default_rng(0)
    images, positive = rng.integers(0, 256, (60, 4, 4), dtype=np.uint8), np.arange(60) % 4 == 0
    data = Screening("made", "dots", images, positive, np.arange(60) % 6)
    met: list[bytes] = []

    def detector(shown: np.ndarray, truth: np.ndarray, asked: np.ndarray) -> np.ndarray:
        met.append(shown.tobytes() + truth.tobytes() + asked.tobytes())
        return np.linspace(0, 1, len(asked))

    size = ScreeningTrials(2, 4, trials=3)
    for _ in range(2):
        assert size.measure(data, detector)["auroc"].shape == (3,)
    assert met[:3] == met[3:] and len(set(met)) == 3
    with pytest.raises(ValueError, match="made: 40 examples of dots are to be shown, there are"):
        ScreeningTrials(40, 4).draw(data, 0)


# The command


def call(*arguments: str | Path) -> int:
    return programs.call("fewshot", *arguments)


def test_a_learner_of_cells_screens_for_a_type_it_never_met_and_other_tissue(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, output = tmp_path / "cells", tmp_path / "found.json"
    sizes = ("--ways", "2", "--queries", "4", "--tasks", "4", "--validation-tasks", "2", "--steps", "2")
    learner = ("prototypical", "conv4", "--filters", "4", "--train-ways", "3")
    assert call(*learner, "--data", "blood-cells", "--data-root", root, "--run", run, *sizes) == 0
    small = ("--data-root", root, "--negatives", "6", "--trials", "3", "--shots", "1", "4")
    capsys.readouterr()
    assert call("screening", run, "--data", "blood-cells", "--finding", "teardrop", *small, "--output", output) == 0
    printed = capsys.readouterr().out
    assert "4 examples of teardrop, 6 others" in printed and "sensitivity at 0.95" in printed
    content = json.loads(output.read_text())
    rows = content["figures"]["4"]
    assert list(rows) == ["prototypical (cells)", "logistic on pixels", "centroid of pixels"]
    assert len(rows["prototypical (cells)"]["auroc"]["trials"]) == 3
    assert rows["logistic on pixels"]["auroc"]["value"] > 0.8  # plain pictures
    assert call("screening", run, "--data", "breast", *small) == 0  # grey, and of another tissue
    assert call("screening", run, "--data", "blood-cells", "--finding", "macrocyte", *small) == 2
    assert "was trained on 'macrocyte'" in capsys.readouterr().err
    assert call("screening", run, "--data", "breast", "--finding", "cyst", *small) == 2
    assert "leave --finding out" in capsys.readouterr().err


def test_the_centroid_of_pixels_is_a_softmax_of_squared_distances() -> None:
    shown = np.array([[[0, 0]], [[255, 255]]], dtype=np.uint8)
    found = fewshot_screening.centroid(
        shown, np.array([False, True]), np.array([[[255, 0]], [[255, 255]]], dtype=np.uint8)
    )
    np.testing.assert_allclose(found, [0.5, 1 / (1 + np.exp(-2))])
