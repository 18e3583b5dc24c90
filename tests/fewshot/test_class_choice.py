"""Classes chosen by name: for training, in what a run remembers, and for a run that is tested on others."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import metarl
from metarl.evaluation.results import Evaluation
from metarl.fewshot.class_choice import ClassChoice, class_lines, listed, matching
from metarl.runs.trained import ClassNames, TrainedFewShot
from tests.fewshot.helpers import blobs, pictures
from tests.programs import call

SMALL = ("--threads", "1", "--tasks", "10", "--validation-tasks", "4", "--steps", "1", "--queries", "3")


def test_named_classes_are_tested_and_all_others_trained_on() -> None:
    data = blobs(10)
    chosen = ClassChoice(("1", "[23]"), ("7", "8")).apply(data)
    assert {split: set(numbers) for split, numbers in chosen.splits.items()} == {
        "train": {0, 4, 5, 6, 9},
        "validation": {7, 8},
        "test": {1, 2, 3},
    }
    assert chosen.hash != data.hash
    assert ClassChoice().apply(data) is data


def test_what_is_not_named_stays_as_the_data_have_it() -> None:
    data = blobs(10)
    held = data.splits["validation"][0]
    chosen = ClassChoice(test_classes=(data.classes[held],)).apply(data)
    assert chosen.splits["test"] == (held,)
    assert set(chosen.splits["validation"]) == set(data.splits["validation"]) - {held}
    assert set(data.splits["test"]) < set(chosen.splits["train"])
    other = ClassChoice(validation_classes=(data.classes[data.splits["test"][0]],)).apply(data)
    assert set(other.splits["test"]) == set(data.splits["test"][1:])


def test_images_are_standardised_by_the_classes_that_are_trained_on_now() -> None:
    data = pictures()
    chosen = ClassChoice(tuple(data.classes[number] for number in data.splits["train"][:4])).apply(data)
    assert chosen.mean != data.mean
    assert chosen.mean == chosen.standardised().mean


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            ClassChoice(("blob",)),
            "--test-classes 'blob': blobs has no such class; there are 0, 1, 2, 3, 4, 5",
        ),
        (ClassChoice((), ("x*",)), "--validation-classes 'x*': blobs has no such class"),
        (ClassChoice(("1",), ("1", "2")), "class '1' is in --test-classes and in --validation-classes"),
        (ClassChoice(("*",)), "no class is left for train; name fewer for test and validation"),
        (ClassChoice(("[0-4]",), ("[5-9]",)), "no class is left for train"),
    ],
)
def test_a_choice_that_cannot_be_is_one_clear_line(choice: ClassChoice, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        choice.apply(blobs(10))


def test_a_name_is_taken_as_it_is_before_it_is_taken_for_a_pattern() -> None:
    data = blobs(4)
    renamed = type(data)(data.id, data.examples, data.labels, ("a", "[a]", "b", "ab"), data.splits)
    assert matching(renamed, ("[a]",), "--test-classes") == (1,)
    assert matching(renamed, ("a*",), "--test-classes") == (0, 3)


def test_long_lists_of_names_are_cut() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(n) for n in range(9)], 2) == "0, 1 and 7 more"
    assert class_lines(blobs(5))[1].startswith("validation classes (1): ")


# The programs


def written(run: Path, name: str) -> Evaluation:
    return Evaluation.from_json(json.loads((run / "evaluations" / f"{name}.json").read_text()))


def classes_of(evaluation: Evaluation) -> set[str]:
    return {name for task in evaluation.tasks for name in str(task["classes"]).split(" | ")}


Folder = Callable[[str, list[str], int, bool], Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Makes a folder of pictures by class."""

    def make(name: str, classes: list[str], side: int, colour: bool) -> Path:
        rng, root = np.random.default_rng(len(name)), tmp_path_factory.mktemp("data") / name
        for each in classes:
            (root / each).mkdir(parents=True)
            mean = rng.integers(40, 216, size=(side, side, 3) if colour else (side, side))
            for number in range(6):
                pixels = np.clip(mean + rng.normal(0, 20, size=mean.shape), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / each / f"{number}.png")
        return root

    return make


@pytest.fixture(scope="module")
def animals(folder: Folder) -> Path:
    return folder("animals", ["ant", "bee", "cat", "cow", "dog", "elk", "fox", "gnu", "hen"], 12, False)


@pytest.fixture(scope="module")
def run(animals: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "animals"
    command = ("prototypical", "conv4", "--filters", "4", "--data", animals, "--run", path, *SMALL, "--ways", "2")
    chosen = ("--test-classes", "fox", "g*", "hen", "--validation-classes", "bee", "cat")
    assert call("fewshot", *command, *chosen, "--train-ways", "3") == 0
    return path


def loaded(run: Path) -> TrainedFewShot:
    found = metarl.load(run)
    assert isinstance(found, TrainedFewShot)
    return found


def test_chosen_classes_are_in_the_run_and_in_every_output(
    run: Path, animals: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert classes_of(written(run, "test")) == {"fox", "gnu", "hen"}
    assert loaded(run).classes == ClassNames(("ant", "cow", "dog", "elk"), ("bee", "cat"), ("fox", "gnu", "hen"))
    assert loaded(run).choice == ClassChoice(("fox", "g*", "hen"), ("bee", "cat"))
    assert call("evaluate", run) == 0
    assert "test classes (3): fox, gnu, hen" in capsys.readouterr().out
    assert classes_of(written(run, "test")) == {"fox", "gnu", "hen"}
    again = ("prototypical", "conv4", "--filters", "4", "--data", animals, "--run", run, *SMALL, "--ways", "2")
    assert call("fewshot", *again, "--train-ways", "3", "--test-classes", "hen", "gnu") == 2  # another experiment


def test_too_few_classes_are_named_before_anything_is_written(
    animals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("prototypical", "--data", animals, "--run", tmp_path / "run", *SMALL, "--ways", "3", "--train-ways", "3")
    assert call("fewshot", *command, "--test-classes", "fox", "hen") == 2
    printed = " ".join(capsys.readouterr().err.split())
    assert "3 ways need 3 classes; images has 1 validation classes (gnu)" in printed
    assert "choose more classes for validation" in printed
    assert not list(tmp_path.iterdir())


def test_a_run_is_tested_on_chosen_classes_and_never_on_those_it_was_trained_on(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("evaluate", run, "--test-classes", "fox", "hen", "bee", "--num-tasks", "8") == 0
    files = [path.stem for path in (run / "evaluations").iterdir() if "classes-" in path.stem]
    assert len(files) == 1 and classes_of(written(run, files[0])) == {"bee", "fox", "hen"}
    assert call("evaluate", run, "--test-classes", "fox", "ant") == 2
    assert "the run was trained on ant: leave them out" in capsys.readouterr().err


def test_a_run_is_tested_on_another_data_set_of_another_size_and_colour(
    run: Path, folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    plants = folder("plants", ["ant", "fir", "oak", "yew", "ash"], 20, True)
    assert call("evaluate", run, "--data", plants, "--test-classes", "*", "--num-tasks", "40", "--shots", "2") == 0
    printed = capsys.readouterr()
    assert "test classes (5): ant, ash, fir, oak, yew" in printed.out
    assert "classes of the same name as ant" in printed.err
    (name,) = [path.stem for path in (run / "evaluations").iterdir() if path.stem.startswith("test-plants")]
    found = written(run, name)
    assert classes_of(found) == {"ant", "fir", "oak", "yew", "ash"} and {t.family for t in found.tasks} == {
        "2-way 2-shot"
    }
    assert float(found.scores[:, :, -1].mean()) > 0.6  # plain pictures: even one step of training tells them apart
    assert call("evaluate", run, "--data", plants, "--ways", "2") == 2  # its own test split has one class
    assert "images has 1 test classes" in " ".join(capsys.readouterr().err.split())


def test_vectors_are_no_images(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "vectors.npz"
    np.savez(path, images=np.random.default_rng(0).normal(size=(40, 3)), labels=np.arange(40) // 4)
    assert call("evaluate", run, "--data", path, "--test-classes", "*") == 2
    assert "trained on images of 1×12×12" in " ".join(capsys.readouterr().err.split())
