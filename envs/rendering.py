"""Drawing without a screen: which OpenGL MuJoCo can use on this machine.

MuJoCo takes its OpenGL from the environment variable MUJOCO_GL when it is imported. A backend that fails leaves the
process unable to try another (the OpenGL bindings are loaded for good), so each is tried in a process of its own.

    python -m metarl.envs.rendering              # prints the backend; exit status 1 and the reason where nothing draws
    python -m metarl.envs.rendering --install    # the same, after installing OSMesa where it is needed and possible
"""

import contextlib
import functools
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence

from metarl.errors import RunError, exit_status

PACKAGES: tuple[tuple[str, ...], ...] = (("libosmesa6",), ("libegl1", "libgl1-mesa-dri"))
"""Debian packages that draw without a graphics card, tried in turn: newer releases no longer have the first."""

_TRIAL_SECONDS = 60  # a software renderer's first frame on a busy machine takes a few
_INSTALL_SECONDS = 300  # a package server that does not answer must not hold up what comes next
_TRIAL = """
import mujoco
model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><geom type="sphere" size="1"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 32, 32) as renderer:
    renderer.update_scene(data)
    picture = renderer.render()
if picture.max() == picture.min():
    raise SystemExit("the picture is empty")
"""

Trial = Callable[[str], str | None]
"""Tries a backend by name: None if it draws, otherwise the reason why not."""


class RenderingUnavailableError(RunError):
    """No backend draws on this machine; the message says what to install."""


def candidates() -> tuple[str, ...]:
    """The backends to try, in order: the user's own choice alone, or EGL (a graphics card), then OSMesa (none)."""
    chosen = os.environ.get("MUJOCO_GL", "").strip()
    if chosen:
        return (chosen,)
    return ("egl", "osmesa") if sys.platform == "linux" else ("glfw",)


def try_backend(name: str) -> str | None:
    """Draws a sphere in a new process. None if that worked, otherwise the last line of what it complained about."""
    with tempfile.TemporaryDirectory() as folder:  # MuJoCo leaves its log where it runs
        try:
            trial = subprocess.run(
                [sys.executable, "-P", "-W", "ignore", "-c", _TRIAL],
                env=os.environ | {"MUJOCO_GL": name},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                timeout=_TRIAL_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"nothing drawn in {_TRIAL_SECONDS} s"
    if trial.returncode == 0:
        return None
    complaints = [line.strip() for line in trial.stderr.splitlines() if line.strip()]
    return complaints[-1][:200] if complaints else f"the process ended with status {trial.returncode}"


def choose(names: Sequence[str], trial: Trial) -> str:
    """The first backend that draws."""
    reasons: list[str] = []
    for name in names:
        reason = trial(name)
        if reason is None:
            return name
        reasons.append(f"{name}: {reason}")
    advice = f"run `apt-get install {' '.join(PACKAGES[0])}` (or `{' '.join(PACKAGES[1])}`) as root"
    if os.environ.get("MUJOCO_GL"):
        advice = "unset MUJOCO_GL to let metarl look for another, or " + advice
    raise RenderingUnavailableError(f"cannot draw on this machine; {advice} ({'; '.join(reasons)})")


@functools.cache
def backend() -> str:
    """The backend that draws on this machine, found once per process."""
    return choose(candidates(), try_backend)


@functools.cache
def use() -> str:
    """Makes MuJoCo draw with the backend that works here, in this process and in those it starts.

    Call it before `mujoco.Renderer`; calling it again costs nothing. MuJoCo may have been imported already.
    """
    name = backend()
    os.environ["MUJOCO_GL"] = name
    gl_context = sys.modules.get("mujoco.gl_context")
    if gl_context is not None:
        importlib.reload(gl_context)  # reads MUJOCO_GL again
    return name


def install(trial: Trial = try_backend, say: Callable[[str], None] = print) -> str:
    """The backend that draws; where none does, installs one with apt-get, if this user can without a password."""
    try:
        return choose(candidates(), trial)
    except RenderingUnavailableError:
        command = _apt_get()
        if command is None or os.environ.get("MUJOCO_GL"):
            raise
    for packages in PACKAGES:
        say(f"nothing can draw on this machine yet: installing {' '.join(packages)} ...")
        if _install(command, packages):
            with contextlib.suppress(RenderingUnavailableError):
                return choose(candidates(), trial)
    return choose(candidates(), trial)


def _apt_get() -> list[str] | None:
    """The beginning of an apt-get command that asks nothing, or None where this user has no such thing."""
    if shutil.which("apt-get") is None:
        return None
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--yes", "--quiet", "--no-install-recommends"]
    if os.geteuid() == 0:
        return quiet
    return ["sudo", "-n", *quiet] if shutil.which("sudo") and _succeeds(["sudo", "-n", "true"]) else None


def _install(apt_get: Sequence[str], packages: Sequence[str]) -> bool:
    command = [*apt_get, "install", *packages]
    # A new machine has no package lists, or old ones: then the first try fails.
    return _succeeds(command) or (_succeeds([*apt_get, "update"]) and _succeeds(command))


def _succeeds(command: Sequence[str]) -> bool:
    quiet = subprocess.DEVNULL
    try:
        result = subprocess.run(command, stdin=quiet, stdout=quiet, stderr=quiet, timeout=_INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return False
    return result.returncode == 0


def main(arguments: Sequence[str]) -> int:
    """Prints the backend, see above."""
    if set(arguments) - {"--install"}:
        print(f"usage: python -m metarl.envs.rendering [--install], got {' '.join(arguments)}", file=sys.stderr)
        return 2
    return exit_status(lambda: print(f"drawing with {install() if '--install' in arguments else backend()}"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
