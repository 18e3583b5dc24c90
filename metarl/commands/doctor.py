"""Looks at this machine: rendering, threads, PyTorch, MuJoCo, disk, data, caches; says what to do about what is wrong.

The exit status is 1 where something does not work.

How long it takes: five seconds of a processor's time.
"""

import dataclasses
import importlib.metadata
import os
import platform
import shutil
import tempfile
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, final

from metarl.commands.parsing import parse
from metarl.errors import RunError

Health = Literal["ok", "note", "fault"]
_ENOUGH_DISK = 2 << 30  # bytes; a run of a large agent with its checkpoints and videos takes less
_SLOW_DRAWING = 1.0  # s for a small picture


@dataclasses.dataclass(frozen=True)
class DoctorOptions:
    """What to do besides looking."""

    clear_caches: bool = False
    """Delete what is kept for the next start (decoded images); it is made again when it is needed."""


@final
@dataclasses.dataclass(frozen=True)
class Finding:
    """What one check found."""

    health: Health
    """`note`: it works, but something can be better."""
    text: str
    """What was found, and what to do about it."""


def program(arguments: Sequence[str], name: str) -> None:
    """Prints a line or two for each check."""
    options = parse(DoctorOptions, arguments, name, __doc__)
    width, faults = shutil.get_terminal_size().columns, list[str]()
    for topic, check in CHECKS.items():
        finding = examined(check)
        print(line(topic, finding, width), flush=True)
        faults += [topic] * (finding.health == "fault")
    if options.clear_caches:
        print(line("cleared", clear_caches(), width))
    if faults:
        raise RunError(f"{len(faults)} of {len(CHECKS)} checks found a fault: {', '.join(faults)}")
    print("everything works; next: metarl list")


def examined(check: Callable[[], Finding]) -> Finding:
    """What a check finds; any exception is a fault, which is what one looks for here."""
    try:
        return check()
    except Exception as error:  # a broken library can raise anything
        reason = str(error).strip().splitlines() or [type(error).__name__]
        return Finding("fault", reason[0])


def line(topic: str, finding: Finding, width: int) -> str:
    """A finding as text of at most `width` columns."""
    first = f"{finding.health:6}{topic:11}"
    return "\n".join(textwrap.wrap(finding.text, width, initial_indent=first, subsequent_indent=" " * len(first)))


def python() -> Finding:
    """Python, the package and the libraries that compute."""
    from metarl.runs.provenance import PACKAGES

    versions = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    return Finding("ok", f"{platform.python_version()} on {platform.system()}; {', '.join(versions)}")


def torch() -> Finding:
    """PyTorch, and the devices that it computes on."""
    import torch

    product = torch.eye(8) @ torch.eye(8)
    if not torch.equal(product, torch.eye(8)):
        return Finding("fault", f"PyTorch {torch.__version__} multiplies wrongly: install it anew")
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
        return Finding("ok", f"PyTorch {torch.__version__}; --device cuda is {names}")
    return Finding("ok", f"PyTorch {torch.__version__} on the processor; no CUDA device here")


def threads() -> Finding:
    """How many threads there are to step simulators."""
    from metarl.commands.options import available_cores

    cores, load = available_cores(), os.getloadavg()[0]
    text = f"{cores} cores to use (--threads {cores} is the default), load {load:.1f}"
    if load > cores + 0.5:
        return Finding("note", f"{text}: others are busy here, so speeds will be below those of the documentation")
    return Finding("ok", text)


def mujoco() -> Finding:
    """MuJoCo and Meta-World, which have to fit together."""
    import mujoco

    from metarl import envs

    venv = envs.make("cheetah-direction").vector_env(1)
    try:
        venv.reset(seed=0)
        venv.step(venv.action_space.sample())
    finally:
        venv.close()
    metaworld = importlib.metadata.version("metaworld")
    return Finding("ok", f"MuJoCo {mujoco.__version__} steps a cheetah; Meta-World {metaworld}")


def rendering() -> Finding:
    """What draws without a screen; the message of the error says what to install."""
    from metarl.envs import rendering

    begun = time.perf_counter()
    name = rendering.backend()
    seconds = time.perf_counter() - begun
    kind = "in software" if name == "osmesa" else "with OpenGL"
    return Finding("ok", f"draws {kind} ({name}; found in {seconds:.1f} s)")


def video() -> Finding:
    """Whether there is an ffmpeg that writes H.264."""
    import subprocess

    import imageio_ffmpeg

    program = imageio_ffmpeg.get_ffmpeg_exe()
    encoders = subprocess.run([program, "-hide_banner", "-encoders"], capture_output=True, text=True, check=True)
    if "libx264" not in encoders.stdout:
        return Finding("fault", f"{program} has no libx264: pip install --force-reinstall imageio-ffmpeg")
    return Finding("ok", f"ffmpeg {imageio_ffmpeg.get_ffmpeg_version()} writes H.264")


def disk() -> Finding:
    """Whether files can be written here, and how many."""
    here = Path.cwd()
    with tempfile.TemporaryFile(dir=here) as file:
        file.write(b"x")
    free = shutil.disk_usage(here).free
    text = f"{size(free)} free in {here}"
    if free < _ENOUGH_DISK:
        return Finding("note", f"{text}: long runs may fill that; delete old runs, or train elsewhere with --run")
    return Finding("ok", text)


def data() -> Finding:
    """Where published few-shot data sets are looked for."""
    from metarl.fewshot.datasets.storage import ROOT_VARIABLE, data_root

    root, named = data_root(), bool(os.environ.get(ROOT_VARIABLE))
    if not root.is_dir():
        health: Health = "fault" if named else "ok"
        more = f"; {ROOT_VARIABLE} names it: make it, or unset the variable" if named else ""
        return Finding(health, f"no few-shot data in {root.absolute()}{more}; fewshot --download fetches Omniglot")
    folders = sorted(path.name for path in root.iterdir() if path.is_dir())
    return Finding("ok", f"{', '.join(folders) or 'nothing'} in {root.absolute()}")


def caches() -> Finding:
    """What is kept for the next start."""
    from metarl.fewshot.datasets.storage import cache_folder

    folder = cache_folder()
    files = _files(folder)
    total = sum(path.stat().st_size for path in files)
    clear = "; metarl doctor --clear-caches deletes them" if files else ""
    return Finding("ok", f"{len(files)} files, {size(total)}, in {folder}{clear}")


CHECKS: dict[str, Callable[[], Finding]] = {
    "python": python,
    "torch": torch,
    "threads": threads,
    "mujoco": mujoco,
    "rendering": rendering,
    "video": video,
    "disk": disk,
    "data": data,
    "caches": caches,
}
"""The checks by their topics, in order."""


def clear_caches() -> Finding:
    """Deletes what is kept for the next start, and nothing else that may lie in that folder's parents."""
    from metarl.fewshot.datasets.storage import cache_folder

    files = _files(cache_folder())
    total = sum(path.stat().st_size for path in files)
    for path in files:
        path.unlink()
    return Finding("ok", f"{len(files)} files deleted, {size(total)}")


def _files(folder: Path) -> list[Path]:
    """The regular files right in a folder; links are left alone."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.is_symlink())


def size(count: int) -> str:
    """A number of bytes for people.

    >>> size(512), size(3 * 2**20), size(5 * 2**30)
    ('512 B', '3.0 MiB', '5.0 GiB')
    """
    number, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if number < 1024 or unit == "TiB":
            break
        number /= 1024
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
