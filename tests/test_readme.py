"""tests/readme.py runs what it should, and notices what fails; the README itself is marked throughout."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def check(markdown: str, folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    path = folder / "page.md"
    path.write_text(markdown)
    return subprocess.run(
        [sys.executable, str(ROOT / "tests" / "readme.py"), *options, str(path)], capture_output=True, text=True
    )


def test_snippets_run_in_order_in_one_folder_with_the_small_budget(tmp_path: Path) -> None:
    result = check(
        """# A page
<!-- ci: run, `seq 1000` as `seq 3`, `>` as `> ` -->
```bash
seq 1000 >numbers
```
Text.

<!-- ci: run -->
```python
print(sum(map(int, open("numbers").read().split())))
```
<!-- ci: skip, it never ends -->
```bash
sleep infinity
```
```
no language, no snippet
```
""",
        tmp_path,
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].endswith("page.md, line 4: bash")
    assert lines[1] == "seq 3 > numbers"
    assert "6" in lines
    assert lines[-1].endswith("line 14: bash, skipped: it never ends")


def test_a_snippet_can_be_a_file_that_later_ones_use(tmp_path: Path) -> None:
    page = """<!-- ci: file mine.py -->
```python
NUMBER = 41 + 1
```
<!-- ci: run -->
```python
import mine; print(mine.NUMBER)
```
"""
    result = check(page, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "42" in result.stdout.splitlines()


@pytest.mark.parametrize(
    "snippet",
    [
        "```bash\nfalse | true\n```",
        "```bash\nfalse\ntrue\n```",
        "```bash\necho $UNDEFINED\n```",
        "```python\nraise SystemExit(1)\n```",
        "```python\nimport warnings\nwarnings.warn('old')\n```",
        "```bash\npython -c 'import warnings; warnings.warn(\"old\")'\n```",
    ],
)
def test_a_failing_snippet_fails_the_check_and_stops_it(snippet: str, tmp_path: Path) -> None:
    after = "<!-- ci: run -->\n```bash\ntouch after\n```\n"
    result = check(f"<!-- ci: run -->\n{snippet}\n{after}", tmp_path)
    assert result.returncode == 1
    assert result.stdout.splitlines()[-1].endswith("FAILED")
    assert "touch after" not in result.stdout


@pytest.mark.parametrize(
    ("markdown", "complaint"),
    [
        ("```bash\ntrue\n```\n", "line 1: this bash snippet needs"),
        ("\n<!-- a comment -->\n```python\n1\n```\n", "line 3: this python snippet needs"),
        ("<!-- ci: skip -->\n```python\n1\n```\n", "needs"),
        ("<!-- ci: run, quickly -->\n```python\n1\n```\n", "needs"),
        ("<!-- ci: run, `a` as `b` -->\n```bash\ntrue\n```\n", "line 3: the snippet has no 'a' to replace"),
        ("Nothing to run.\n", "no bash or python snippet"),
    ],
)
def test_a_snippet_without_a_clear_mark_is_an_error(markdown: str, complaint: str, tmp_path: Path) -> None:
    result = check(markdown, tmp_path)
    assert result.returncode == 2
    assert complaint in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_readme_is_marked_throughout(tmp_path: Path) -> None:
    result = check((ROOT / "README.md").read_text(), tmp_path, "--list")
    assert result.returncode == 0, result.stderr
    for program in ("train", "evaluate", "record_video"):
        assert f"python scripts/{program}.py" in result.stdout
