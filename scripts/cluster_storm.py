"""Kills workers and nodes of a Ray cluster while a training plays on them: see tests/storm/cluster.py."""

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for tests.storm
    sys.exit(importlib.import_module("tests.storm.cluster").main(sys.argv[1:]))
