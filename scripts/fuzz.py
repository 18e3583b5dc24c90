"""Plays what strangers and slips of the keyboard do to the programs, and counts what goes wrong: see tests/fuzz."""

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for tests.fuzz
    sys.exit(importlib.import_module("tests.fuzz.suite").main(sys.argv[1:]))
