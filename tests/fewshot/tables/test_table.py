"""Tables as files: what is read, and that what cannot be used is one line with the file and the row."""

import gzip
import os
import re
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from metarl.errors import RunError, UsageError
from metarl.fewshot.tables import openml, pmlb, read_folder, read_table
from metarl.fewshot.tables.collection import families_of, split_by_family
from metarl.fewshot.tables.table import from_rows
from metarl.tasks import SPLITS

GOOD = "age,target,dose\n1,ill,3\n2,well,5\n4,ill,3\n0.5,well,-1e3\n"


def test_numbers_are_read_and_classes_may_be_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(GOOD)
    table = read_table(path)
    assert (table.name, table.columns, table.classes) == ("mine", ("age", "dose"), ("ill", "well"))
    assert table.labels.tolist() == [0, 1, 0, 1] and table.counts == (2, 2)
    np.testing.assert_array_equal(table.values, [[1, 3], [2, 5], [4, 3], [0.5, -1000]])
    packed = tmp_path / "packed.tsv.gz"
    packed.write_bytes(gzip.compress(GOOD.replace(",", "\t").encode()))
    np.testing.assert_array_equal(read_table(packed).values, table.values)


def test_classes_that_are_numbers_are_in_their_order() -> None:
    table = from_rows("t", "t", ["x"], [[float(n)] for n in range(6)], ["10", "9", "2", "10", "9", "2"])
    assert table.classes == ("2", "9", "10")


def test_a_column_that_says_nothing_is_left_out_with_a_line(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b,target\n1,7,x\n2,7,y\n3,7,x\n4,7,y\n")
    table = read_table(path)
    assert table.columns == ("a",) and table.values.shape == (4, 1)
    assert table.left_out == (f"{path}: column 'b' is the same in every row",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("age,target\n1,a\n,b\n", "line 3: column 'age' has no value: fill it in"),
        ("age,target\n1,a\n?,b\n", "line 3: column 'age' has no value"),
        ("age,target\n1,a\nNaN,b\n", "line 3: column 'age' has no value"),
        ("age,target\n1,a\n2,\n", "line 3: no class"),
        ("age,target\nred,a\n2,b\n", "line 2: column 'age' holds 'red', which is no number; give categories numbers"),
        ("age,target\n1,a\ninf,b\n", "line 3: column 'age' holds inf: numbers must be finite"),
        ("age,target\n1,a\n2,a,3\n", "line 3: 3 cells, where the header has 2"),
        ("age,class\n1,a\n", "has no column 'target'; its header has age, class"),
        ("", "is empty: its first line must name the columns"),
        ("age,target\n", "has a header but no rows"),
        ("age,age,target\n1,2,a\n", "two columns are called 'age'"),
        ("age,target\n1,a\n2,a\n3,b\n", "class 'b' has one example (row 3); a class needs two"),
        ("age,target\n1,a\n2,a\n", "all rows are of class 'a'"),
        ("age,target\n1,a\n1,b\n1,a\n1,b\n", "no column varies"),
    ],
)
def test_what_cannot_be_used_is_named_by_file_and_row(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_table(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_files_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    latin = tmp_path / "latin.csv"
    latin.write_bytes("größe,target\n1,a\n".encode("latin-1"))
    with pytest.raises(ValueError, match="latin.csv, line 1: byte 0xf6 is not UTF-8"):
        read_table(latin)
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(gzip.compress(GOOD.encode())[:-9])
    with pytest.raises(UsageError, match="cut.csv.gz cannot be read"):
        read_table(cut)
    with pytest.raises(ValueError, match="a table's file ends in .csv, .tsv"):
        read_table(tmp_path / "table.xlsx")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(UsageError, match="pipe.csv cannot be read .it is a FIFO, not a file"):
        read_table(tmp_path / "pipe.csv")  # it would wait for a writer
    with pytest.raises(UsageError, match="holds no tables"):
        read_folder(tmp_path / "nowhere")


def test_a_damaged_list_of_the_published_tables_is_named(tmp_path: Path) -> None:
    (tmp_path / "tabular").mkdir()
    (tmp_path / pmlb.INDEX).write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="index.csv is no list of tables with the columns name and sha256"):
        pmlb.load(tmp_path)


# Splits


def table(name: str, counts: tuple[int, ...], columns: int = 2):  # noqa: ANN201
    rng = np.random.default_rng(len(name) + sum(counts))
    labels = [str(number) for number, count in enumerate(counts) for _ in range(count)]
    names = [f"c{number}" for number in range(columns)]
    return from_rows(name, name, names, rng.normal(size=(len(labels), columns)).tolist(), labels)


def test_tables_of_a_name_family_or_with_equal_class_counts_stay_together() -> None:
    tables = [table("spect", (9, 8)), table("iris", (5, 5, 5)), table("spectf", (4, 6)), table("iris2", (5, 5, 5), 3)]
    assert families_of(tables, [("spect", "spectf", "absent")]) == [[0, 2], [1, 3]]
    families = [[number] for number in range(20)] + [[20, 21, 22], [23, 24]]
    for seed in range(20):
        splits = split_by_family(families, seed)
        home = {number: split for split in SPLITS for number in splits[split]}
        assert len(home) == 25 and all(len({home[number] for number in family}) == 1 for family in families)
        assert 13 <= len(splits["train"]) <= 17 and 4 <= len(splits["test"]) <= 8
    assert split_by_family(families, 3) == split_by_family(families, 3)


# OpenML


class FakeData:
    """As `openml.datasets.get_dataset` gives it."""

    name, default_target_attribute = "kc 1", "defects"

    def get_data(self, target: str, dataset_format: str):  # noqa: ANN201
        assert (target, dataset_format) == ("defects", "dataframe")
        frame = pd.DataFrame({
            "loc": [1.5, 2.0, None, 4.0, 5.0, 6.0],
            "lang": pd.Categorical(["c", "ada", "c", None, "ada", "c"]),
        })  # fmt: skip
        return frame, pd.Series(["yes", "no", "no", "no", "no", "yes"], name=target), None, None


def test_openmls_tables_become_files_that_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    fake = types.ModuleType("openml")
    fake.datasets = types.SimpleNamespace(get_dataset=lambda number: asked.append(number) or FakeData())  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "openml", fake)
    (path,) = openml.fetch([1067], tmp_path)
    assert asked == [1067] and path.name == "kc-1-1067.tsv.gz"
    found = read_table(path)
    assert found.columns == ("loc", "lang") and found.classes == ("no", "yes")
    np.testing.assert_array_equal(found.values, [[1.5, 1], [2, 0], [5, 0], [6, 1]])  # rows without a cell are left out
    assert found.labels.tolist() == [1, 0, 0, 1]


def test_openml_that_is_missing_or_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openml", None)
    with pytest.raises(UsageError, match="need the package openml"):
        openml.fetch([1], tmp_path)

    def broken(number: int) -> None:
        raise ConnectionError("no network")

    fake = types.ModuleType("openml")
    fake.datasets = types.SimpleNamespace(get_dataset=broken)  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "openml", fake)
    with pytest.raises(RunError, match="data set 7 could not be fetched: no network"):
        openml.fetch([7], tmp_path)
    assert not list(tmp_path.iterdir())
