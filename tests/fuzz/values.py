"""Cases of what is handed to functions: evaluations, tasks, actions, and files of data."""

import io
import json
import math
import random
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image

from metarl import envs
from metarl.errors import RunError, UsageError
from metarl.evaluation.results import Evaluation
from metarl.evaluation.table import table
from metarl.fewshot import datasets
from metarl.tasks import Task
from tests.fuzz.harness import Case, Rooms
from tests.fuzz.programs import FEWSHOT, broken
from tests.programs import call
from tests.runs.test_fuzz import edited

WORLDS = ("point-navigation", "bernoulli-bandit", "tabular-mdp", "pendulum-physics", "cheetah-direction")
MEANT = (ValueError, UsageError, RunError, gym.error.Error)
"""What tells a caller that it asked for something wrong."""


def _attempt(action: Callable[[], object]) -> int:
    """0 where it worked, 2 where it was refused with a line; whatever else it raises passes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            action()
    except MEANT as error:
        print(f"refused: {error}")
        return 2 if str(error) else 98
    return 0


def evaluation(rng: random.Random, rooms: Rooms) -> Case:
    """An evaluation's file with something changed."""
    value = json.loads((rooms.base / "evaluation.json").read_bytes())
    what, content, _ = edited(value, rng)

    def read() -> None:
        try:
            decoded = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ValueError(str(error)) from error
        table(Evaluation.from_json(decoded))

    return Case(f"evaluation {what}", lambda: _attempt(read))


def task(rng: random.Random, rooms: Rooms) -> Case:
    """A task that was changed, played in its world."""
    dist = envs.make(rng.choice(WORLDS))
    value = {"task": dist.tasks(rng.choice(["train", "test"]))[0].to_json()}
    what, _, changed = edited(json.loads(json.dumps(value)), rng)

    def play() -> None:
        given = (changed or {}).get("task")
        if not isinstance(given, dict):
            raise ValueError("no task")
        env = dist.env(Task.from_json(given))
        env.reset(seed=0)
        for _ in range(3):
            env.step(env.action_space.sample())
        env.close()

    return Case(f"task of {dist.id} {what}", lambda: _attempt(play))


def _odd_actions(rng: random.Random, space: gym.Space[Any], count: int) -> Any:
    space.seed(rng.randrange(1000))
    good = np.array([space.sample() for _ in range(count)])
    how = rng.randrange(10)
    if how < 3 and good.dtype.kind == "f":
        good[rng.randrange(count)] = rng.choice([math.nan, math.inf, -math.inf, 1e38, -1e38, 0.0])
    elif how == 3:
        return good[:-1]
    elif how == 4:
        return good[..., None]
    elif how == 5:
        return good.astype(rng.choice(["f2", "f8", "i8", "u1", "c16", "U5", "O", "?"]))
    elif how == 6:
        return rng.choice([None, 0, "up", [], {}, math.nan, [[[]]]])
    elif how == 7:
        return np.full_like(good, 100)
    return good


def action(rng: random.Random, rooms: Rooms) -> Case:
    """A world that is played wrongly: odd actions, seeds and orders of calls. It stays finite."""
    dist, count = envs.make(rng.choice(WORLDS)), 3
    masks: list[Any] = [[True], np.ones(3, bool), np.ones(3), None]

    def play() -> int:
        venv, worst = dist.vector_env(count), 0
        single = dist.action_space
        for _ in range(8):
            how = rng.randrange(10)
            calls: tuple[Callable[[], object], ...] = (
                lambda: venv.reset(seed=rng.choice([None, 0, [1, 2, 3], -1, 2**64, [1]])),
                lambda: venv.reset(options={"reset_mask": rng.choice(masks)}),
                lambda: venv.set_tasks(rng.choice([(), dist.tasks("test")[:3], (dist.tasks("test")[0],)])),
            )
            if how < len(calls):
                worst = max(worst, _attempt(calls[how]))
                continue
            status = _attempt(lambda: _check_step(venv.step(_odd_actions(rng, single, count))))
            worst = max(worst, status)
        venv.close()
        return worst

    return Case(f"actions in {dist.id}", play)


def _check_step(outcome: tuple[object, ...]) -> None:
    rewards = np.asarray(outcome[1])
    assert np.isfinite(rewards).all(), f"rewards {rewards}"


def _picture(rng: random.Random, mode: str, format: str) -> bytes:
    pixels, buffer = (
        np.random.default_rng(rng.randrange(99)).integers(256, size=(6, 6, 3), dtype=np.uint8),
        io.BytesIO(),
    )
    Image.fromarray(pixels).convert(mode).save(buffer, format)
    return buffer.getvalue()


def _odd_array(rng: random.Random) -> np.ndarray:
    kind = rng.choice(["u1", "f4", "f8", "i8", "u8", "?", "c8", "U3", "f2", "M8[s]"])
    shape = rng.choice([(60, 6, 6), (60, 6, 6, 3), (60, 4), (60,), (0, 4), (60, 0), (), (59, 4), (60, 6, 6, 7)])
    array = np.random.default_rng(rng.randrange(99)).integers(0, 7, size=shape).astype(kind)
    if array.dtype.kind == "f" and array.size and rng.random() < 0.4:
        array.reshape(-1)[0] = rng.choice([math.nan, math.inf, 1e38, -1.0, 1e300])
    return array


def data(rng: random.Random, rooms: Rooms) -> Case:
    """Files of data that broke, or that hold something else than they should."""
    how = rng.choice(["npz", "arrays", "zip", "folder", "picture"])
    path = Path({"npz": "data.npz", "arrays": "data.npz", "zip": "data.zip"}.get(how, "data"))
    what = ""
    if how == "npz":
        shutil.copy(rooms.base / "photos.npz", path)
        what = broken(path, rng)
    elif how == "arrays":
        labels = np.arange(60) % 10 if rng.random() < 0.5 else _odd_array(rng)
        with path.open("wb") as file:
            np.savez(file, images=_odd_array(rng), labels=labels)
    else:
        pictures = {f"class{n % 6}/{n}.png": _picture(rng, "L", "PNG") for n in range(18)}
        name = rng.choice([*pictures])
        formats = [("RGB", "JPEG"), ("CMYK", "TIFF"), ("P", "GIF"), ("1", "BMP"), ("RGBA", "WEBP"), ("F", "TIFF")]
        pictures[name] = _picture(rng, *rng.choice(formats)) if rng.random() < 0.5 else pictures[name]
        _write_pictures(path, pictures, as_zip=how == "zip")
        what = broken(path if how == "zip" else path / name, rng)
    if rng.random() < 0.1:
        return Case(f"fewshot on {how} {what}", lambda: call("fewshot", *FEWSHOT, "--data", path, "--steps", "1",
                                                              "--run", "new"))  # fmt: skip
    options: dict[str, Any] = {"skip_bad": rng.random() < 0.3}
    if how in ("zip", "folder", "picture"):
        options["image_size"] = 8
    return Case(f"data {how} {what} {options}", lambda: _attempt(lambda: datasets.load(path, **options)))


def _write_pictures(path: Path, pictures: dict[str, bytes], *, as_zip: bool) -> None:
    if as_zip:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in pictures.items():
                archive.writestr(name, content)
        return
    for name, content in pictures.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
