"""Runs the snippets of a Markdown file as a reader would type them: `python tests/readme.py README.md`.

Every ```bash and ```python fence has a comment on the line above it that says what becomes of it here:

    <!-- ci: run -->                                           as it stands
    <!-- ci: run, `--seed 0` as `--seed 0 --steps 2` -->       with a smaller budget; the left side must occur
    <!-- ci: skip, it downloads a data set -->                 not at all, for this reason
    <!-- ci: file my_world.py -->                              written into this file, as the reader would save it

They run in order in one new folder, which has the checkout's scripts/ and .venv/ in it: a later snippet finds what an
earlier one wrote. Warnings are errors. `--list` says what would run.
"""

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import final

ROOT = Path(__file__).resolve().parent.parent
LIMIT_SECONDS = 600  # a snippet with its small budget takes far less

_FENCE = re.compile(r"(?P<above>[^\n]*)\n```(?P<language>bash|python)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_REPLACEMENT = r"`([^`]+)` as `([^`]*)`"
_RUN = rf"run(?:, (?P<budget>{_REPLACEMENT}(?:, {_REPLACEMENT})*))?"
_SKIP, _FILE = "skip, (?P<reason>.+)", r"file (?P<file>[\w.]+)"
_MARK = re.compile(f"<!-- ci: (?:{_RUN}|{_SKIP}|{_FILE}) -->")


@final
@dataclasses.dataclass(frozen=True)
class Snippet:
    """One fence of a Markdown file."""

    line: int
    """Where its first line of code stands, from 1."""
    language: str
    """`bash` or `python`."""
    text: str
    """The code, with the small budgets put in."""
    skip: str
    """Why it does not run here; empty where it does."""
    file: str = ""
    """The file that it is written into instead of being run; empty where it runs."""

    def command(self) -> list[str]:
        if self.language == "bash":
            return ["bash", "-euo", "pipefail", "-c", self.text]
        return [sys.executable, "-c", self.text]


def snippets(markdown: str) -> list[Snippet]:
    """The bash and python fences, in order. ValueError where one says not, or not clearly, what becomes of it."""
    found: list[Snippet] = []
    for fence in _FENCE.finditer("\n" + markdown):
        line = markdown.count("\n", 0, fence.start("text") - 1) + 1
        mark = _MARK.fullmatch(fence["above"].strip())
        if mark is None:
            raise ValueError(
                f"line {line - 1}: this {fence['language']} snippet needs <!-- ci: run -->, <!-- ci: file name -->, "
                "<!-- ci: run, `old` as `new` --> or <!-- ci: skip, reason --> on the line above, "
                f"got {fence['above']!r}"
            )
        text = _shrunk(fence["text"], mark["budget"] or "", line)
        found.append(Snippet(line, fence["language"], text, mark["reason"] or "", mark["file"] or ""))
    if not found:
        raise ValueError("there is no bash or python snippet in it")
    return found


def _shrunk(text: str, budget: str, line: int) -> str:
    for old, new in re.findall(_REPLACEMENT, budget):
        if old not in text:
            raise ValueError(f"line {line}: the snippet has no {old!r} to replace")
        text = text.replace(old, new)
    return text


def run(snippet: Snippet, folder: Path) -> bool:
    """Runs a snippet in the folder; its output passes through. Whether it went well."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONWARNINGS": "error",
    }
    process = subprocess.Popen(snippet.command(), cwd=folder, env=environment, start_new_session=True)
    try:
        return process.wait(LIMIT_SECONDS) == 0
    except subprocess.TimeoutExpired:
        print(f"not finished after {LIMIT_SECONDS} s: give it a smaller budget", flush=True)
        return False
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # whatever the shell started, too


def main(arguments: Sequence[str]) -> int:
    """Runs the snippets of the file named in the arguments; 1 as soon as one fails, 2 for wrong usage."""
    names = [argument for argument in arguments if argument != "--list"]
    if len(names) != 1:
        print("usage: python tests/readme.py [--list] README.md", file=sys.stderr)
        return 2
    path = Path(names[0])
    try:
        found = snippets(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"error: {path}: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        for name in ("scripts", ".venv"):
            (Path(folder) / name).symlink_to(ROOT / name)
        for snippet in found:
            title = f"{path}, line {snippet.line}: {snippet.language}"
            if snippet.skip:
                print(f"== {title}, skipped: {snippet.skip}", flush=True)
                continue
            print(f"== {title}\n{snippet.text.rstrip()}", flush=True)
            if "--list" in arguments:
                continue
            if snippet.file:
                (Path(folder) / snippet.file).write_text(snippet.text, encoding="utf-8")
                continue
            begun = time.monotonic()
            if not run(snippet, Path(folder)):
                print(f"== {title} FAILED", flush=True)
                return 1
            print(f"== {time.monotonic() - begun:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
