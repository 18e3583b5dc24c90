"""What the programs print when they are asked for their help."""

import contextlib
import importlib
import io
import os
from unittest import mock


def help_text(name: str, *words: str, columns: int, shown_as: str | None = None) -> str:
    """The help of a program, or of what its first words name: `help_text("train", "maml", columns=80)`.

    Args:
        name: the program's.
        words: what stands between the program's name and `--help`.
        columns: the width of the terminal that it is meant for.
        shown_as: what the usage line calls the program; its name where not given.
    """
    module, printed = importlib.import_module(f"metarl.commands.{name}"), io.StringIO()
    with (
        mock.patch.dict(os.environ, {"COLUMNS": str(columns)}),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        module.program([*words, "--help"], shown_as or name)
    return printed.getvalue()
