"""`fewshot.py` as people call it: trains, resumes, evaluates, plots, refuses; and what `metarl.load` gives."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import metarl
from metarl.errors import RunError, UsageError
from metarl.evaluation.results import Evaluation
from metarl.evaluation.stills import description
from metarl.fewshot.registry import LEARNERS as CONFIGS
from metarl.runs import run_folder
from metarl.runs.trained import TrainedFewShot, learner_of
from tests import programs
from tests.commands.test_trust import rewritten

ENCODER = ("conv4", "--filters", "4")
PROTOTYPICAL = ("prototypical", *ENCODER, "--train-ways", "4", "6")
SMALL = ("--threads", "1", "--tasks", "20", "--validation-tasks", "4", "--validate-every", "2")
SIZES = ("--ways", "3", "--shots", "1", "--queries", "4", "--train-queries", "2")


NAMES = {(3, 1): "test", (2, 3): "test-2w3s", (3, 2): "test-3w2s5q"}
"""The files of evaluations by ways and shots."""


def written(run: Path, name: str) -> Evaluation:
    """An evaluation of a run."""
    return Evaluation.from_json(json.loads((run / "evaluations" / f"{name}.json").read_text()))


def loaded(run: Path) -> TrainedFewShot:
    """The learner of a run."""
    trained = metarl.load(run)
    assert isinstance(trained, TrainedFewShot)
    return trained


def call(*arguments: str | Path) -> int:
    return programs.call("fewshot", *arguments)


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
        command = (
            "prototypical",
            *ENCODER,
            "--data",
            photos,
            "--run",
            folder,
            "--train-ways",
            "4",
            "6",
            *SIZES,
            *SMALL,
        )
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
    found = written(run, "test")
    (ref,) = found.sources
    assert (ref.learner, ref.step, ref.checkpoint) == ("prototypical", 4, "last")
    assert found.config.batch_norm == "running" and len(found.tasks) == 20
    assert {task.family for task in found.tasks} == {"3-way 1-shot"}
    assert found.metrics.keys() == {"accuracy", "negative_log_likelihood"}
    assert found.calibration is not None and found.calibration[0, -1, :, 0].sum() == 20 * 3 * 4
    assert (run / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "test task 2: " in description((run / "pictures" / "test.png").read_bytes())


def test_modes_in_which_an_image_is_embedded_for_each_task_are_evaluated_when_asked_for(
    run: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (*PROTOTYPICAL, "--data", photos, "--run", run, *SIZES, *SMALL, "--steps", "4")
    assert not (run / "evaluations" / "test-support.json").exists()
    assert call(*command, "--batch-norms", "support", "transductive") == 0
    for mode in ("support", "transductive"):
        assert written(run, f"test-{mode}").config.batch_norm == mode
    assert call(*command, "--batch-norms", "none") == 2
    assert "batch norm must be one of running, transductive, support, got none" in capsys.readouterr().err


def test_a_resumed_run_ends_as_one_that_was_not_stopped(run: Path, photos: Path, tmp_path: Path) -> None:
    command = (
        "prototypical",
        *ENCODER,
        "--data",
        photos,
        "--run",
        tmp_path / "a",
        "--train-ways",
        "4",
        "6",
        *SIZES,
        *SMALL,
    )
    assert call(*command, "--steps", "4") == 0
    for name in ("params.safetensors", "optimizer.safetensors"):
        last = Path("checkpoints") / "4" / name
        assert (tmp_path / "a" / last).read_bytes() == (run / last).read_bytes()
    one, two = written(run, "test"), written(tmp_path / "a", "test")
    assert (one.scores == two.scores).all() and one.sources[0].content == two.sources[0].content


def test_the_best_checkpoint_is_evaluated_beside_the_last(run: Path, photos: Path) -> None:
    command = (*PROTOTYPICAL, "--data", photos, "--run", run, *SIZES, *SMALL)
    last = (run / "evaluations" / "test.json").read_bytes()
    assert call(*command, "--steps", "4", "--checkpoint", "best") == 0
    assert written(run, "test-best").sources[0].checkpoint == "best on validation"
    assert (run / "evaluations" / "test.json").read_bytes() == last


def test_a_trained_run_is_evaluated_on_tasks_of_other_sizes_too(
    run: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (
        "prototypical",
        *ENCODER,
        "--data",
        photos,
        "--run",
        run,
        "--train-ways",
        "4",
        "6",
        *SIZES,
        *SMALL,
        "--steps",
        "4",
    )
    before = (run / "evaluations" / "test.json").read_bytes()
    assert call(*command, "--also", "2x3", "3x2x5") == 0
    printed = capsys.readouterr().out
    for ways, shots in ((3, 1), (2, 3), (3, 2)):
        assert f"{ways}-way {shots}-shot" in {task.family for task in written(run, NAMES[ways, shots]).tasks}
        assert NAMES[ways, shots] in printed
    assert (run / "evaluations" / "test.json").read_bytes() == before


def test_other_tasks_in_the_same_folder_are_refused(
    run: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (*PROTOTYPICAL, "--data", photos, "--run", run, *SIZES, *SMALL)
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
        (["maml", "--data", "sinusoid", "--also", "3x1"], "has no classes"),
        (["maml", "conv4", "--data", "sinusoid"], "images"),
        (["reptile", "conv4", "--data", "PHOTOS", *SIZES, "--downsample", "pool"], "got 12 × 12"),
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


def test_classes_too_small_for_the_accuracy_by_instance_cost_that_table_alone(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was a traceback after all the training."""
    assert call("mann", "--data", photos, "--run", tmp_path / "run", *SIZES, *SMALL, "--steps", "1") == 0
    told = capsys.readouterr()
    assert "accuracy by instance is left out: need 10 examples a class (9 support + 1 query)" in told.err
    assert "accuracy before adaptation" in told.out and "written to" in told.out
    assert [path.name for path in (tmp_path / "run" / "evaluations").iterdir()] == ["test.json"]


def test_the_help_says_what_depends_on_threads(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("prototypical", "--help") == 0
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--threads" in printed and "on which the last bit of results may depend" in printed


# metarl.load


def test_a_run_can_begin_with_another_learners_features(run: Path, photos: Path, tmp_path: Path) -> None:
    origin, folder = run / "checkpoints" / "4", tmp_path / "next"
    command = (
        "matching",
        *ENCODER,
        "--data",
        photos,
        "--run",
        folder,
        *SIZES,
        *SMALL,
        "--steps",
        "1",
        "--learning-rate",
        "1e-9",
    )
    assert call(*command, "--start-from", origin) == 0
    there, here = (loaded(each).trained.state.parameters for each in (run, folder))
    learned = [name for name in there if name.startswith("encoder.blocks.")]
    assert len(learned) == 12
    for name in learned:  # one step of Adam moves a parameter by no more than its rate
        np.testing.assert_allclose(here[name].numpy(), there[name].numpy(), atol=1e-7)
    assert call(*command) == 2  # of another beginning


def test_a_learner_that_cannot_be_made_of_a_runs_config_is_refused(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "changed")
    rewritten(tmp_path / "changed", lambda experiment: experiment["options"]["tasks"]["signature"].update(shape=[1, 6]))
    with pytest.raises(RunError, match="cannot be made: Conv4 wants images"):
        learner_of(run_folder.read(tmp_path / "changed"))


def test_features_that_were_not_compared_begin_with_small_distances(photos: Path, tmp_path: Path) -> None:
    """Features of transfer, for prototypical networks: the last block's by a quarter where an image leaves 2 × 2."""
    enlarged, given = tmp_path / "enlarged.npz", np.load(photos)
    np.savez(enlarged, images=given["images"].repeat(2, 1).repeat(2, 2), labels=given["labels"])
    options = (*ENCODER, "--data", enlarged, "--ways", "3", "--queries", "4", *SMALL, "--steps", "1")
    assert call("transfer", *options, "--run", tmp_path / "transfer") == 0
    for learner in ("prototypical", "maml"):
        more = ("--start-from", tmp_path / "transfer", "--learning-rate", "1e-9")
        assert call(learner, *options, *more, "--run", tmp_path / learner) == 0
    there, compared, adapted = (
        loaded(tmp_path / name).trained.state.parameters for name in ("transfer", "prototypical", "maml")
    )
    for name in (each for each in adapted if each.startswith("encoder.")):
        np.testing.assert_allclose(adapted[name].numpy(), there[name].numpy(), atol=1e-7)
        factor = 1 / 4 if name in ("encoder.blocks.3.scale", "encoder.blocks.3.shift") else 1
        np.testing.assert_allclose(compared[name].numpy(), factor * there[name].numpy(), atol=1e-7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("prototypical", "conv4", "--filters", "5"), "is of another encoder: "),
        (("centroid",), "this learner has no encoder that could begin with it"),
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
    trained = loaded(run)
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
    trained, images = loaded(run), np.zeros((3, 12, 12), dtype=np.uint8)
    with pytest.raises(ValueError, match="trained on"):
        trained.adapt(np.zeros((3, 7)), np.arange(3))
    with pytest.raises(ValueError, match="3 examples but 2 labels"):
        trained.adapt(images, np.array([0, 1]))
    with pytest.raises(ValueError, match="at least two classes"):
        trained.adapt(images, ["cat"] * 3)
    with pytest.raises(UsageError, match="is not a run"):
        metarl.load(tmp_path)


def test_a_loaded_learner_takes_labels_and_pictures_of_any_kind(run: Path) -> None:
    trained, rng = loaded(run), np.random.default_rng(2)
    coarse = rng.integers(256, size=(3, 3, 3), dtype=np.uint8)
    pictures = list(np.kron(coarse, np.ones((1, 4, 4), dtype=np.uint8)))
    adapted = trained.adapt(pictures, ["cat", "dog", "hen"])
    assert adapted.classes == ("cat", "dog", "hen")
    larger = [Image.fromarray(picture).resize((24, 24), Image.Resampling.NEAREST) for picture in pictures]
    assert adapted.predict(larger).argmax(1).tolist() == [0, 1, 2]
    assert len(repr(trained)) < 400


def test_a_loaded_regression_predicts_values(tmp_path: Path) -> None:
    folder = tmp_path / "sinusoid"
    command = ("maml", "--data", "sinusoid", "--run", folder, "--steps", "1", "--shots", "5", "--tasks", "3")
    assert call(*command, "--validation-tasks", "2") == 0
    assert written(folder, "test").scores.shape == (1, 1, 4, 3)
    x = np.linspace(-3, 3, 5)[:, None]
    assert loaded(folder).adapt(x, np.sin(x)).predict(np.zeros((2, 1))).shape == (2, 1)
