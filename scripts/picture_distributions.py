"""Draws every task distribution for the site: three of its test tasks side by side, and a short video.

    python scripts/picture_distributions.py [ID ...]    # all of them if none is named

The files go to docs/images/distributions/. Policies are random, but for those that come with the package and show more.
"""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from metarl import envs
from metarl.commands import record_video
from metarl.commands.catalogue import entries
from metarl.envs import rendering
from metarl.errors import exit_status
from metarl.tasks import Task

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "images" / "distributions"
SIZE = (320, 240)
STEPS = 12
"""Environment steps before the pictures are taken."""
FRAMES = 45
"""Pictures in a video, about."""
EXPERTS = {"metaworld-": ("--policy", "expert"), "maze-": ("--policy", "planner")}
"""Policies that show more than random ones, by what an id begins with."""
TRAINED = {"cheetah-terrain": ("zoo:cheetah-terrain/rl2", "--task", "ice", "--blind")}
"""Runs of the zoo that are filmed, by the id."""


def shown() -> list[str]:
    """The ids with a picture: one for all ids of a family, the first."""
    found: dict[str, str] = {}
    for entry in entries():
        if entry.kind == "distributions":
            found.setdefault(entry.family or entry.name, entry.name)
    return list(found.values())


def picture(id: str) -> Path:
    """Three test tasks from different parts of the list, after a few random steps."""
    dist = envs.make(id)
    tasks = spread(dist.tasks("test"))
    with contextlib.closing(dist.vector_env(len(tasks))) as venv:
        venv.set_tasks(tasks)
        venv.reset(seed=0)
        venv.action_space.seed(0)
        for _ in range(min(STEPS, dist.horizon - 1)):
            venv.step(venv.action_space.sample())
        width, height = SIZE
        sheet = Image.new("RGB", (width * len(tasks), height))
        for index in range(len(tasks)):
            sheet.paste(Image.fromarray(np.asarray(venv.picture(index, width, height))), (index * width, 0))
    path = FOLDER / f"{id}.jpg"
    sheet.save(path, quality=80, optimize=True)
    return path


def spread(tasks: Sequence[Task]) -> list[Task]:
    """Three tasks, or as many as there are: of different families where the list has them."""
    first = {task.family: task for task in reversed(tasks)}
    chosen = list(reversed(first.values()))[:3]
    rest = [task for task in tasks if task not in chosen]
    return [*chosen, *rest[:: max(1, len(rest) // 3)]][: min(3, len(tasks))]


def film(id: str) -> Path:
    """One episode."""
    every = -(-envs.make(id).horizon // FRAMES)
    expert = next((options for prefix, options in EXPERTS.items() if id.startswith(prefix)), ("--policy", "random"))
    who = TRAINED.get(id, (*expert, "--env", id))
    path = FOLDER / f"{id}.mp4"
    size = ("--width", str(SIZE[0]), "--height", str(SIZE[1]))
    record_video.program([*who, "--every", str(every), *size, "--threads", "1", "--output", str(path)], "record_video")
    return path


def main(ids: Sequence[str]) -> None:
    rendering.use()
    FOLDER.mkdir(exist_ok=True)
    for id in ids or shown():
        for path in (picture(id), film(id)):
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
