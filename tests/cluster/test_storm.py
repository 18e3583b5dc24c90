"""A training goes on through the loss of a worker and of a node, and from its checkpoint after that of the head.

It takes minutes, for two clusters and nine workers start: `--exhaustive` has it.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install 'metarl-suite[ray]'")
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(1800)  # Ray's processes take a minute to start where the machine is busy
def test_a_small_storm_on_a_cluster(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--exhaustive"):
        pytest.skip("it takes minutes; --exhaustive has it")
    command = [sys.executable, "scripts/storm.py", "--cluster", "--kills", "2"]
    storm = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert storm.returncode == 0, storm.stdout + storm.stderr
    pattern = r"1 workers \(\d of them amid a share\), 1 nodes and the head killed .* nothing lost, nothing orphaned"
    assert re.search(pattern, storm.stdout)
