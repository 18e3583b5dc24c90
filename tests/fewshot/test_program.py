"""`fewshot.py` as people call it: trains, resumes, evaluates, plots, refuses; and what `metarl.fewshot.load` gives."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import metarl
from metarl import fewshot
from metarl.commands import main as commands
from metarl.errors import UsageError
from metarl.fewshot.learners import CONFIGS

SMALL = ("--filters", "4", "--threads", "1", "--tasks", "20", "--validation-tasks", "4", "--validate-every", "2")
SIZES = ("--ways", "3", "--shots", "1", "--queries", "4", "--train-queries", "2")


def call(*arguments: str | Path) -> int:
    """Runs the program in this process; its exit status."""
    before = sys.argv
    sys.argv = ["fewshot.py", *map(str, arguments)]
    try:
        commands.script("fewshot")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    finally:
        sys.argv = before
    raise AssertionError("a script ends with its status")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """15 classes of 8 noisy pictures each, 12×12."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "photos.npz"
    means = rng.integers(40, 216, size=(15, 1, 12, 12))
    images = np.clip(means + rng.normal(0, 20, size=(15, 8, 12, 12)), 0, 255).astype(np.uint8).reshape(-1, 12, 12)
    np.savez(path, images=images, labels=np.repeat(np.arange(15), 8))
    return path


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four outer steps, which was stopped after two."""
    folder = tmp_path_factory.mktemp("runs") / "photos"
    for steps in ("2", "4"):
        command = ("prototypical", "--data", photos, "--run", folder, "--train-ways", "4", "6", *SIZES, *SMALL)
        assert call(*command, "--steps", steps) == 0
    return folder


def test_learners_and_data_sets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--list") == 0
    printed = capsys.readouterr().out
    for name in (*CONFIGS, "sinusoid", "omniglot", "tiny-imagenet", "mini-imagenet", "cifar-fs", "fc100"):
        assert f"  {name} " in printed
    assert "Snell" in printed  # a learner's paper


@pytest.mark.parametrize("name", list(CONFIGS))
def test_every_learner_explains_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(name, "--help") == 0
    printed = capsys.readouterr().out
    assert all(option in printed for option in ("--data", "--ways", "--train-ways", "--seed", "--run"))


def test_a_run_is_trained_evaluated_and_plotted(run: Path) -> None:
    written = json.loads((run / "evaluations" / "test.json").read_text())
    assert written["learner"] == "fewshot-prototypical" and written["step"] == 4 and written["checkpoint"] == "last"
    assert written["tasks"] == 20 and (written["ways"], written["shots"], written["queries"]) == (3, 1, 4)
    assert set(written["batch_norms"]) == {"running", "transductive", "support"}
    for found in written["batch_norms"].values():
        assert len(found["accuracies"]) == 20 and 0 <= found["worst_decile"] <= found["accuracy"]["mean"] <= 1
        assert found["negative_log_likelihood"]["mean"] > 0 and 0 <= found["expected_calibration_error"] <= 1
    assert (run / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_resumed_run_ends_as_one_that_was_not_stopped(run: Path, photos: Path, tmp_path: Path) -> None:
    command = ("prototypical", "--data", photos, "--run", tmp_path / "a", "--train-ways", "4", "6", *SIZES, *SMALL)
    assert call(*command, "--steps", "4") == 0
    for name in ("params.safetensors", "optimizer.safetensors"):
        last = Path("checkpoints") / "4" / name
        assert (tmp_path / "a" / last).read_bytes() == (run / last).read_bytes()
    found = [json.loads((folder / "evaluations" / "test.json").read_text()) for folder in (run, tmp_path / "a")]
    assert all(each.pop("training_seconds") > 0 for each in found)
    assert found[0] == found[1]


def test_the_best_checkpoint_is_evaluated_beside_the_last(run: Path, photos: Path) -> None:
    command = ("prototypical", "--data", photos, "--run", run, "--train-ways", "4", "6", *SIZES, *SMALL)
    last = (run / "evaluations" / "test.json").read_bytes()
    assert call(*command, "--steps", "4", "--checkpoint", "best") == 0
    assert json.loads((run / "evaluations" / "test-best.json").read_text())["checkpoint"] == "best"
    assert (run / "evaluations" / "test.json").read_bytes() == last


def test_a_trained_run_is_evaluated_on_tasks_of_other_sizes_too(
    run: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("prototypical", "--data", photos, "--run", run, "--train-ways", "4", "6", *SIZES, *SMALL, "--steps", "4")
    before = (run / "evaluations" / "test.json").read_bytes()
    assert call(*command, "--also", "2x3", "3x2x5") == 0
    printed = capsys.readouterr().out
    for ways, shots in ((3, 1), (2, 3), (3, 2)):
        assert f"test: {ways}-way {shots}-shot" in printed
    for name, numbers in (("2w3s", (2, 3, 4)), ("3w2s5q", (3, 2, 5))):
        written = json.loads((run / "evaluations" / f"test-{name}.json").read_text())
        assert (written["ways"], written["shots"], written["queries"], written["step"]) == (*numbers, 4)
    assert (run / "evaluations" / "test.json").read_bytes() == before


def test_other_tasks_in_the_same_folder_are_refused(
    run: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("prototypical", "--data", photos, "--run", run, "--train-ways", "4", "6", *SIZES, *SMALL)
    assert call(*command, "--steps", "4", "--shots", "2") == 2
    assert "options.episodes.shots is 1 there and 2 here" in capsys.readouterr().err
    assert call(*command, "--steps", "4", "--split-seed", "1") == 2
    assert "distribution_hash" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prototypical", "--data", "PHOTOS", "--ways", "4"], "4 ways need 4 classes; arrays has 3 validation classes"),
        (["prototypical", "--data", "PHOTOS", "--ways", "3"], "need 16 examples a class (1 support + 15 query)"),
        (["prototypical", "--data", "PHOTOS", *SIZES, "--train-ways", "10"], "10 ways need 10 classes; arrays has 9"),
        (["prototypical", "--data", "PHOTOS", *SIZES, "--train-ways", "6", "4"], "got 6 to 4"),
        (["prototypical", "--data", "PHOTOS", *SIZES, "--train-ways", "2", "3", "4"], "one number or two, got 2 3 4"),
        (["prototypical", "--data", "PHOTOS", *SIZES, "--train-shots", "7"], "need 9 examples a class (7 support"),
        (["maml", "--data", "PHOTOS", *SIZES, "--train-ways", "4"], "--train-ways must be the same, got 4"),
        (["maml", "--data", "PHOTOS", *SIZES, "--also", "2x1"], "an output for each of its 3 ways, and cannot tell 2"),
        (["prototypical", "--data", "PHOTOS", *SIZES, "--also", "4x1"], "4 ways need 4 classes; arrays has 3"),
        (["prototypical", "--data", "PHOTOS", *SIZES, "--also", "3x5"], "need 9 examples a class (5 support"),
        (["prototypical", "--data", "PHOTOS", *SIZES, "--also", "3-1"], "such as 20x5, got '3-1'"),
        (["maml", "--data", "sinusoid", "--also", "3x1"], "leave --also out"),
        (["maml", "--data", "sinusoid", "--precision", "bfloat16"], "for convolutions; leave it out for vectors"),
        (["reptile", "--data", "PHOTOS", *SIZES, "--downsample", "pool"], "images of at least 16 pixels, got 12 × 12"),
        (["maml", "--data", "PHOTOS", "--ways", "1"], "ways must be at least 2, got 1"),
        (["maml", "--data", "PHOTOS", "--image-size", "8"], "leave --image-size out"),
        (["maml", "--data", "PHOTOS", "--split-fractions", "1", "0", "0"], "must be positive and add up to 1"),
        (["maml", "--data", "PHOTOS", "--download"], "--download is for published data sets"),
        (["maml", "--data", "sinusoid", "--ways", "5"], "sinusoid has no classes"),
        (["maml", "--data", "sinusoid", "--download"], "sinusoid is drawn, not read"),
        (["prototypical", "--data", "sinusoid"], "prototypical classifies and cannot learn a regression"),
        (["maml", "--data", "omniglott"], "did you mean omniglot"),
        (["maml", "--data", "omniglot", "--data-root", "FOLDER"], "is missing: put images_background.zip there"),
        (["maml", "--data", "FOLDER"], "holds no images"),
        (["maml", "--data", "sinusoid", "--tasks", "1000"], "sinusoid has 600 test tasks; 1000 were asked for"),
        (["maml", "--data", "sinusoid", "--train-shots", "9", "5"], "got 9 to 5"),
        (["maml", "--data", "sinusoid", "--queries", "0"], "queries must be at least 1, got 0"),
        (["maml", "--data", "PHOTOS", *SIZES, "--tasks", "1"], "tasks must be at least 2, got 1"),
        (["lstm", "--data", "sinusoid"], "lstm"),
        (["maml"], "--data"),
    ],
)
def test_bad_input_is_one_message_before_anything_is_written(
    arguments: list[str], message: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"PHOTOS": str(photos), "FOLDER": str(tmp_path)}
    assert call(*(places.get(argument, argument) for argument in arguments), "--run", tmp_path / "run") == 2
    printed = capsys.readouterr().err
    assert message in " ".join(printed.replace("│", " ").split()) and "Traceback" not in printed
    assert list(tmp_path.iterdir()) == []


# metarl.fewshot.load


def test_a_run_can_begin_with_another_learners_features(run: Path, photos: Path, tmp_path: Path) -> None:
    origin, folder = run / "checkpoints" / "4", tmp_path / "next"
    command = ("matching", "--data", photos, "--run", folder, *SIZES, *SMALL, "--steps", "1", "--outer-rate", "1e-9")
    assert call(*command, "--start-from", origin) == 0
    there, here = (fewshot.load(each).state.parameters for each in (run, folder))
    learned = [name for name in there if name.startswith("blocks.")]
    assert len(learned) == 12
    for name in learned:  # one step of Adam moves a parameter by no more than its rate
        np.testing.assert_allclose(here[name].numpy(), there[name].numpy(), atol=1e-7)
    assert call(*command) == 2  # of another beginning


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("prototypical", "--filters", "5"), "is of another network: blocks.0.weight is [3, 3, 1, 4] there"),
        (("centroid",), "this learner has no network that could begin with it"),
        (("prototypical", "--split-seed", "1"), "was trained on other data: "),
    ],
)
def test_it_refuses_features_that_do_not_fit(
    run: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    origin = run / "checkpoints" / "4"
    options = ("--data", photos, "--run", tmp_path / "next", *SIZES, "--threads", "1", "--steps", "1")
    assert call(*arguments, *options, "--start-from", origin) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "next").exists()


def test_a_loaded_learner_tells_new_classes_apart(run: Path) -> None:
    trained = fewshot.load(run)
    rng = np.random.default_rng(1)
    means = rng.integers(0, 256, size=(4, 12, 12))
    known, asked = (
        np.clip(means + rng.normal(0, 5, size=(4, 12, 12)), 0, 255).astype(np.uint8) for _ in range(2)
    )  # four classes, where it was evaluated with three
    adapted = trained.adapt(known, np.arange(4))
    probabilities = adapted.predict(asked[[2, 0, 1, 3, 3]])
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert probabilities.argmax(1).tolist() == [2, 0, 1, 3, 3]
    np.testing.assert_allclose(trained.adapt(known, np.arange(4)).predict(asked[[2]]), probabilities[:1], rtol=1e-5)


def test_a_loaded_learner_refuses_what_it_was_not_trained_for(run: Path, tmp_path: Path) -> None:
    trained, images = fewshot.load(run), np.zeros((3, 12, 12), dtype=np.uint8)
    with pytest.raises(ValueError, match="trained on examples of 1×12×12, got 1×9×9"):
        trained.adapt(images[:, :9, :9], np.arange(3))
    with pytest.raises(ValueError, match="images must be uint8"):
        trained.adapt(images / 255, np.arange(3))
    for targets, message in (
        (np.array([0.0, 1, 2]), "one integer an example"),
        (np.array([1, 2, 3]), r"0, 1, ... with every one there"),
        (np.array([0, 1]), "3 examples but 2 targets"),
    ):
        with pytest.raises(ValueError, match=message):
            trained.adapt(images, targets)
    with pytest.raises(UsageError, match="metarl.fewshot.load takes few-shot learners"):
        metarl.load(run)
    with pytest.raises(UsageError, match="is not a run"):
        fewshot.load(tmp_path)


def test_a_loaded_regression_predicts_values(tmp_path: Path) -> None:
    folder = tmp_path / "sinusoid"
    command = ("maml", "--data", "sinusoid", "--run", folder, "--steps", "1", "--shots", "5", "--tasks", "3")
    assert call(*command, "--validation-tasks", "2") == 0
    written = json.loads((folder / "evaluations" / "test.json").read_text())
    assert [len(written["shots"]["10"][steps]["errors"]) for steps in ("0", "1", "5", "10")] == [3] * 4
    x = np.linspace(-3, 3, 5)[:, None]
    assert fewshot.load(folder).adapt(x, np.sin(x)).predict(np.zeros((2, 1))).shape == (2, 1)
