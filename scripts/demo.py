"""What `make demo` runs: meta-train on changing ground, evaluate on ice nobody has met, watch the video.

Takes at most ten minutes on two cores. It is the three programs one after the other, with a budget that fits: RL²
learns on flat, sloped and sandy ground to find out which way leads on, and is held against a policy that never adapts
and one that is told, both from the zoo.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

from metarl.evaluation.results import Evaluation
from metarl.evaluation.table import table

RUN = Path("runs/demo")
BUDGET = ("--steps", "110")


def main() -> int:
    """Runs the programs; the first that fails ends it."""
    if sys.argv[1:]:
        print(__doc__)
        return 0 if sys.argv[1:] in (["-h"], ["--help"]) else 2
    began = time.monotonic()
    train = ("train", "rl2", "--env", "cheetah-terrain", "--run", str(RUN), *BUDGET)
    say("1/3 meta-training on flat ground, slopes and sand")
    if status := program(*train, "--validate-every", "0"):
        return status
    say("2/3 evaluating on held-out ice, icy slopes and rough ground")
    if status := program("evaluate", str(RUN), "--split", "test"):
        return status
    say("3/3 recording the video")
    filmed = program("record_video", str(RUN), "--split", "test", "--task", "ice", "--blind") == 0
    say(f"done in {(time.monotonic() - began) / 60:.1f} minutes; everything is in {RUN}/")
    print(f"  evaluation   {RUN / 'evaluations' / 'test.json'}")
    print(f"  curves       {RUN / 'metrics.jsonl'}, or: tensorboard --logdir {RUN}")
    print(f"  video        {next((RUN / 'videos').glob('*.mp4')) if filmed else 'none: see the line above'}")
    content = json.loads((RUN / "evaluations" / "test.json").read_text())
    print(f"\n{table(Evaluation.from_json(content))}")
    return 0


def say(text: str) -> None:
    """A headline."""
    print(f"\n== {text}", flush=True)


def program(name: str, *arguments: str) -> int:
    """Runs a program in a process of its own; its exit status."""
    return subprocess.call([sys.executable, Path(__file__).with_name(f"{name}.py"), *arguments])


if __name__ == "__main__":
    sys.exit(main())
