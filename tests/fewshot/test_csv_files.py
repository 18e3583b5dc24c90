"""CSV files of all kinds of wrongness: one line that names the file and the line."""

from pathlib import Path

import pytest

from metarl.errors import UsageError
from metarl.fewshot.datasets.csv_files import read_csv

GOOD = b'text,label\n"well, yes",good\n\nno,"bad\nreally"\nmaybe,bad\n'


def test_rows_know_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "few.csv"
    for content in (GOOD, b"\xef\xbb\xbf" + GOOD, GOOD.replace(b"\n", b"\r\n")):
        path.write_bytes(content)
        file = read_csv(path)
        assert file.header == ("text", "label") and file.column("label") == 1
        assert [row.line for row in file.rows] == [2, 4, 6]
        assert file.rows[0].cells == ("well, yes", "good") and file.rows[2].cells == ("maybe", "bad")
    with pytest.raises(ValueError, match="few.csv has no column 'words'; its header has text, label"):
        file.column("words")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "few.csv is empty"),
        (b"text,label\n", "has a header but no rows"),
        (b"text,label\na,b\ncaf\xe9,b\n", "line 3: byte 0xe9 is not UTF-8"),
        ("text,label\na,b\n".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        (b"text,label\na\0,b\n", "line 2: a NUL byte"),
        (b"text,label\na,b\na,b,c\n", "line 3: 3 cells, where the header has 2"),
        (b"text,text\na,b\n", "two columns are called 'text'"),
        (b"text,\na,b\n", "column 2 has no name"),
        (b"text;label\na;b\n", "separated by semicolons"),
        (b'text,label\n"a,b\n', "line 2: unexpected end of data"),
        (b"text,label\n" + b"x" * (1 << 21) + b",b\n", "line 2: field larger than field limit"),
    ],
)
def test_faults_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "few.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_csv(path)
    assert "few.csv" in str(caught.value) and "\n" not in str(caught.value)


def test_what_cannot_be_read_or_is_too_large_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="few.csv cannot be read"):
        read_csv(tmp_path / "few.csv")
    with pytest.raises(UsageError, match="it is a folder"):
        read_csv(tmp_path)
    (tmp_path / "few.csv").write_bytes(GOOD)
    with pytest.raises(ValueError, match="has more than 10 bytes"):
        read_csv(tmp_path / "few.csv", 10)
