"""`metarl classify` as people call it: texts, numbers, images; with a run and without; and what it refuses."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import metarl
from metarl.runs.trained import TrainedFewShot
from tests import programs
from tests.fewshot.texts.sentences import FRAMES, csv_of

ABOUT = ("tea", "trains")


def call(*arguments: str | Path, program: str = "classify") -> int:
    return programs.call(program, *arguments)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with 3 + 3 sentences and the rest of them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "few.csv").write_text(
        "text,label\n" + "".join(f'"{frame.format(thing)}",{thing}\n' for thing in ABOUT for frame in FRAMES[:3])
    )
    (tmp_path / "rest.csv").write_text(
        "id,text\n" + "".join(f"{n},{frame.format(t)}\n" for n, frame in enumerate(FRAMES[3:]) for t in ABOUT)
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def files(**more: str) -> tuple[str, ...]:
    given = {"support": "few.csv", "input": "rest.csv", "output": "out.csv"} | more
    return tuple(word for name, value in given.items() for word in (f"--{name}", value))


@pytest.mark.parametrize("encoder", ["ngrams", "universal"])
def test_sentences_are_classified_from_three_of_each(
    encoder: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*files(), "--text-encoder", encoder) == 0
    printed = capsys.readouterr().out
    assert f"text encoder: {encoder}" in printed and "10 classified" in printed
    found = rows(place / "out.csv")
    assert list(found[0]) == ["id", "text", "predicted", "probability", "p(tea)", "p(trains)"]
    assert [row["id"] for row in found] == [str(n) for n in range(5) for _ in ABOUT]
    assert sum(row["predicted"] in row["text"] for row in found) >= 9
    for row in found:
        p = {name: float(row[f"p({name})"]) for name in ABOUT}
        assert abs(sum(p.values()) - 1) < 1e-3 and float(row["probability"]) == p[row["predicted"]] == max(p.values())


def test_a_trained_learner_is_asked_where_there_is_one(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "all.csv").write_text(csv_of())
    sizes = ("--ways", "2", "--shots", "3", "--queries", "3", "--train-ways", "4", "--train-queries", "2")
    small = ("--steps", "2", "--tasks", "4", "--validation-tasks", "2", "--threads", "1", "--validate-every", "2")
    command = ("prototypical", "projection", "--data", "all.csv", "--text-encoder", "ngrams", "--run", "run")
    assert call(*command, *sizes, *small, program="fewshot") == 0
    assert "text encoder: ngrams" in capsys.readouterr().out
    assert call(*files(), "--run", "run") == 0
    assert "learner: prototypical of run" in capsys.readouterr().out
    found = rows(place / "out.csv")
    run = metarl.load("run")
    assert isinstance(run, TrainedFewShot)
    few = rows(place / "few.csv")
    adapted = run.adapt([row["text"] for row in few], [row["label"] for row in few])
    p = adapted.predict([row["text"] for row in found])
    np.testing.assert_allclose([[float(row[f"p({name})"]) for name in ABOUT] for row in found], p, atol=6e-5)
    with pytest.raises(ValueError, match="the text of example 1 is empty"):
        adapted.predict(["tea", " "])
    assert call(*files(), "--run", "run", "--text-encoder", "ngrams") == 2
    (place / "few.csv").write_text("x,y,label\n1,2,a\n3,4,b\n")
    (place / "rest.csv").write_text("x,y\n1,2\n")
    assert call(*files(), "--run", "run") == 2
    assert "trained on vectors of 1024 features, got vectors of 2" in capsys.readouterr().err


def test_tables_of_numbers_are_classified_by_their_columns(place: Path) -> None:
    (place / "few.csv").write_text("age,label,dose\n1,young,1000\n2,young,1100\n70,old,1000\n75,old,1100\n")
    (place / "rest.csv").write_text("dose,name,age\n1050,ann,3\n1050,bob,69\n")
    assert call(*files()) == 0
    found = rows(place / "out.csv")
    assert [(row["name"], row["predicted"]) for row in found] == [("ann", "young"), ("bob", "old")]


def test_images_are_classified_from_folders(place: Path) -> None:
    rng = np.random.default_rng(0)
    for name, level in (("dark", 40), ("light", 200)):
        for number in range(4):
            pixels = np.clip(level + rng.normal(0, 20, (8 + number, 8)), 0, 255).astype(np.uint8)
            folder = place / ("few" if number < 3 else "rest") / (name if number < 3 else "")
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{name}{number}.png")
    assert call(*files(support="few", input="rest")) == 2  # of several sizes
    assert call(*files(support="few", input="rest"), "--image-size", "8") == 0
    found = rows(place / "out.csv")
    assert [(row["file"], row["predicted"]) for row in found] == [("dark3.png", "dark"), ("light3.png", "light")]


BAD = [
    ("text,label\ntea,a\ntea,a\nrain,b\n", None, "few.csv: class 'b' has one example"),
    ("text,label\ntea,a\nrain,a\n", None, "few.csv has examples of 'a' alone"),
    ("text,label\ntea,a\n ,b\n", None, "few.csv, line 3: column 'text' is empty"),
    ("text,label\ntea,a\nrain,\n", None, "few.csv, line 3: column 'label' is empty"),
    ("text,kind\ntea,a\nrain,b\n", None, "few.csv has no column 'label'; its header has text, kind"),
    (None, "words\nrain\n", "rest.csv has no column 'text'; its header has words"),
    (None, 'text\nrain\n\n""\n', "rest.csv, line 4: column 'text' is empty"),
    (None, "text,predicted\nrain,a\n", "the input has a column 'predicted' already"),
    ("x,label\n1,a\n,b\n", None, "few.csv, line 3: column 'x' has no value: fill it in"),
    ("x,label\n1,a\nhigh,b\n", None, "few.csv, line 3: column 'x' holds 'high', which is no number"),
    ("x,label\n1,a\nnan,b\n", None, "few.csv, line 3: column 'x' has no value"),
    ("x,label\n1,a\n2,a\n3,b\n4,b\n", "y\n1\n", "rest.csv has no column 'x'; its header has y"),
    ("label\na\nb\n", None, "few.csv has no column beside 'label'"),
]


@pytest.mark.parametrize(("few", "rest", "message"), BAD)
def test_bad_input_is_one_line_and_nothing_is_written(
    few: str | None, rest: str | None, message: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in (("few.csv", few), ("rest.csv", rest)):
        if content is not None:
            (place / name).write_text(content)
    status = call(*files(), "--text-encoder", "ngrams") if few is None or "text" in few else call(*files())
    captured = capsys.readouterr()
    assert status == 2 and captured.err.count("\n") == 1 and message in captured.err
    assert not (place / "out.csv").exists()


def test_other_encodings_and_missing_files_are_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "rest.csv").write_bytes("text\ncafé\n".encode("latin-1"))
    assert call(*files()) == 2 and "rest.csv, line 2: byte 0xe9 is not UTF-8" in capsys.readouterr().err
    assert call(*files(support="none.csv")) == 2 and "none.csv cannot be read" in capsys.readouterr().err
    assert call(*files(output="no/out.csv")) == 2 and "there is no folder no" in capsys.readouterr().err
    assert call(*files(input=".")) == 2 and "is a folder of images" in capsys.readouterr().err
    assert call(*files(), "--image-size", "8") == 2 and "no folder of images" in capsys.readouterr().err
    assert not (place / "out.csv").exists()
