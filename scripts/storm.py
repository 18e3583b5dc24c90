"""Kills trainings at random moments and compares how they end with uninterrupted ones: see tests/storm."""

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for tests.storm
    sys.exit(importlib.import_module("tests.storm.suite").main(sys.argv[1:]))
