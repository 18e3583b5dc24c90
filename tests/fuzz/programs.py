"""Cases of what programs are told on their command line, and of run folders that somebody else made or that broke."""

import hashlib
import json
import os
import random
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch

from metarl.runs.run_folder import Experiment
from metarl.tasks import Json, content_hash
from tests.fuzz.harness import Case, Rooms
from tests.programs import call
from tests.runs.test_fuzz import edited

AGENT = ("maml", "--env", "bernoulli-bandit", "--meta-batch", "2", "--episodes-per-adaptation", "2", "--hidden", "4",
         "--threads", "1", "--validation-tasks", "1")  # fmt: skip
FEWSHOT = ("prototypical", "--ways", "2", "--shots", "1", "--queries", "2", "--train-ways", "2",
           "--train-queries", "2", "--tasks", "2", "--validation-tasks", "2", "--threads", "1")  # fmt: skip
EVALUATE = ("--num-tasks", "2", "--threads", "1")

# Numbers are small or absurd: those between would only take long.
VALUES = (
    "", "0", "1", "2", "-1", "0.5", "-0.0", "nan", "inf", "-inf", "1e400", "1e308", "10000000", "9" * 30, "0x10", "1_0",
    "abc", "None", "True", "é\n\x1b[2J", "\udcff", "/", "/dev/null", "/dev/full", "/dev/zero", "/proc/self/x", "..",
    "x" * 300, "a:b", ".x:y", "x.py:y", "json:loads", "no.such:thing", "cuda:99", "meta", "-", "--", "--help", "[1]",
    "a b", "test", "best", "running", "random", "expert", "5x1", "1x1x1", "omniglot", "sinusoid", "point-navigation",
)  # fmt: skip
NOT_FUZZED = {"--download", "--official-protocol", "--trust-code", "--workers", "--cluster"}
"""The network, a benchmark of minutes, what allows code to be run, and processes of Ray."""


def base_commands(base: Path) -> Mapping[str, tuple[str, ...]]:
    """A quick command of each program: what is changed is added at its end, where the last of two counts."""
    photos = str(base / "photos.npz")
    return {
        "train": (*AGENT, "--steps", "1", "--run", "new"),
        "fewshot": (*FEWSHOT, "--data", photos, "--steps", "1", "--run", "new"),
        "evaluate": ("run", *EVALUATE),
        "record_video": ("run", "--width", "32", "--height", "32", "--every", "50", "--threads", "1"),
        "report": ("run", str(base / "evaluation.json")),
        "compare": ("run", str(base / "evaluation.json")),
        "list": (),
        "describe": ("point-navigation",),
        "benchmark": ("--rounds", "0", "--num-envs", "0", "--seconds", "0"),  # refused thrice: it would take minutes
    }


def options_of(base: Path, program: str) -> list[str]:
    """The options that a program has, by its own help; `prepare_bases` saved it."""
    return sorted(set(re.findall(r"--[a-z][a-z-]+", (base / f"{program}.help").read_text())) - NOT_FUZZED)


def command_line(rng: random.Random, rooms: Rooms) -> Case:
    """A program with a few options that were not meant so."""
    commands = base_commands(rooms.base)
    program = rng.choice([*commands])
    shutil.copytree(rooms.base / "agent", "run")
    arguments, options = list(commands[program]), options_of(rooms.base, program)
    for _ in range(rng.choice([1, 1, 2, 3])):
        how = rng.randrange(8)
        if how == 0:
            arguments.insert(rng.randrange(len(arguments) + 1), rng.choice(VALUES))
        elif how == 1 and len(arguments) > 1:
            del arguments[rng.randrange(len(arguments))]
        else:
            count = rng.choice([0, 1, 1, 1, 1, 1, 2])
            arguments += [rng.choice(options), *(rng.choice(VALUES) for _ in range(count))]
    return Case(f"{program} {arguments}", lambda: call(program, *arguments))


def _use(rng: random.Random, kind: str, rooms: Rooms, *, shown: bool = True) -> tuple[str, Callable[[], int]]:
    """What a user does with a run: evaluates it, goes on or begins with it, or shows it without its parameters."""
    step = next(path.name for path in (rooms.base / kind / "checkpoints").iterdir())
    if kind == "fewshot":
        photos = str(rooms.base / "photos.npz")
        train = ("fewshot", *FEWSHOT, "--data", photos, "--steps", "2", "--run")
    else:
        train = ("train", *AGENT, "--steps", "2", "--run")
    uses = {
        "evaluate": ("evaluate", "run", *EVALUATE),
        "go on": (*train, "run"),
        "begin with": (*train, "new", "--start-from", f"run/checkpoints/{step}"),
    }
    if shown:
        uses["show"] = ("report", "run")
    name = rng.choice(["evaluate", *uses])
    program, *arguments = uses[name]
    return f"{name} {kind}", lambda: call(program, *arguments)


def _copied(rng: random.Random, rooms: Rooms) -> str:
    kind = rng.choice(["agent", "agent", "fewshot"])
    shutil.copytree(rooms.base / kind, "run")
    return kind


def config(rng: random.Random, rooms: Rooms) -> Case:
    """A `config.json` with something changed; its hash and the checkpoints' put right, as a stranger would."""
    kind = _copied(rng, rooms)
    path = Path("run", "config.json")
    what, content, value = edited(json.loads(path.read_bytes()), rng)
    if value is not None and rng.random() < 0.7:
        try:
            hash = Experiment(**cast(Any, value["experiment"])).hash
            content = json.dumps({**value, "experiment_hash": hash}).encode()
            for state in Path("run", "checkpoints").glob("*/state.json"):
                _sign(state, {**json.loads(state.read_bytes()), "experiment_hash": hash})
        except (TypeError, ValueError, KeyError, AttributeError, RecursionError):
            pass  # it has no hash
    path.write_bytes(content)
    use, play = _use(rng, kind, rooms)
    return Case(f"{use}: config {what}", play)


def _sign(state: Path, value: dict[str, object]) -> None:
    value.pop("checksum", None)
    state.write_text(json.dumps({**value, "checksum": content_hash(cast(Json, value))}))


def checkpoint(rng: random.Random, rooms: Rooms) -> Case:
    """A checkpoint that broke, or whose tensors somebody changed and signed. The run has no other."""
    kind = _copied(rng, rooms)
    (folder,) = Path("run", "checkpoints").iterdir()
    use, play = _use(rng, kind, rooms, shown=False)
    if rng.random() < 0.3:
        path = rng.choice([folder / "params.safetensors", folder / "optimizer.safetensors"])
        what = broken(path, rng)
        return Case(f"{use}: {path.name} {what}", play, damaged=True)
    if rng.random() < 0.4:
        state = folder / "state.json"
        what, content, value = edited(json.loads(state.read_bytes()), rng)
        state.write_bytes(content)
        if value is not None and rng.random() < 0.7:
            try:
                _sign(state, value)
            except (TypeError, ValueError, RecursionError):
                state.write_bytes(content)
        return Case(f"{use}: state {what}", play)
    what = _changed_tensor(rng, folder)
    # Whoever begins with the features that fit takes no others.
    unused = use == "begin with fewshot" and what.startswith("more")
    return Case(f"{use}: {what}", play, damaged=not unused)


def _changed_tensor(rng: random.Random, folder: Path) -> str:
    """Changes a tensor into one that no training gives, and signs the file."""
    path = folder / "params.safetensors"
    tensors = safetensors.torch.load(path.read_bytes())
    name = rng.choice(sorted(name for name, value in tensors.items() if value.is_floating_point() and value.numel()))
    value = tensors[name]
    place = rng.randrange(value.numel())
    how = rng.choice(["nan", "inf", "-inf", "3e38", "missing", "more", "renamed", "shape", "type", "empty"])
    if how in ("nan", "inf", "-inf", "3e38"):
        value.view(-1)[place] = float(how)
    elif how in ("missing", "renamed"):
        del tensors[name]
        if how == "renamed":
            tensors[f"{name}x"] = value
    else:
        others = {
            "more": (f"{name}.more", value),
            "shape": (name, torch.cat([value.flatten(), value.flatten()[:1]])),
            "type": (name, value.to(rng.choice([torch.float64, torch.float16, torch.int64]))),
            "empty": (name, torch.empty(0)),
        }
        key, tensor = others[how]
        tensors[key] = tensor.clone()
    content = safetensors.torch.save({key: tensor.contiguous() for key, tensor in tensors.items()})
    path.write_bytes(content)
    state = json.loads((folder / "state.json").read_bytes())
    order = [key for key in state["parameters"]["order"] if key in tensors]
    order += [key for key in tensors if key not in order]
    state["parameters"] = {"sha256": hashlib.sha256(content).hexdigest(), "order": order}
    _sign(folder / "state.json", state)
    return f"{how} in {name}"


def broken(path: Path, rng: random.Random) -> str:
    """Breaks a file as disks and downloads do; it is never what it was."""
    content = bytearray(path.read_bytes())
    before = bytes(content)
    how = rng.choice(["flipped", "cut", "longer", "zeros", "noise", "empty"])
    place = rng.randrange(len(content) + 1)
    if how == "flipped":
        for _ in range(rng.choice([1, 1, 20])):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif how == "cut":
        content = content[:place]
    elif how == "longer":
        content += rng.randbytes(rng.randrange(1, 100))
    elif how == "zeros":
        content[place:] = bytes(len(content) - place)
    elif how == "noise":
        content[place : place + 64] = rng.randbytes(64)
    else:
        content = bytearray()
    if bytes(content) == before:
        content.append(0)
    path.write_bytes(content)
    return f"{how} at {place}"


def planted(rng: random.Random, rooms: Rooms) -> Case:
    """A run folder with a link, a pipe, a device, a folder or noise where one of its files should be."""
    kind = _copied(rng, rooms)
    names = sorted(str(path.relative_to("run")) for path in Path("run").rglob("*"))
    names += ["evaluations", "evaluations/test-num-tasks-2.json", "videos", "events.out.tfevents.000002", "curve.png",
              "store", "store/0.safetensors", "checkpoints/2", ".tmp-0123456789abcdef.json"]  # fmt: skip
    name = rng.choice(names)
    path = Path("run", name)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    how = rng.choice(["link", "link to a folder", "dangling", "loop", "pipe", "device", "folder", "noise", "empty"])
    targets = {"link": rooms.victim, "link to a folder": rooms.victim.parent, "dangling": rooms.victim.parent / "none",
               "loop": path.absolute(), "device": Path("/dev/zero")}  # fmt: skip
    if how in targets:
        path.symlink_to(targets[how])
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()
    else:
        path.write_bytes(rng.randbytes(rng.randrange(200)) if how == "noise" else b"")
    use, play = _use(rng, kind, rooms)
    return Case(f"{use}: {how} at {name}", play)
