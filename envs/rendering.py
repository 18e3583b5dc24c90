# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""Drawing without a screen: which OpenGL MuJoCo can use on this machine.

MuJoCo takes its OpenGL from the environment variable MUJOCO_GL when it is imported. A backend that fails leaves the
process unable to try another (the OpenGL bindings are loaded for good), so each is tried in a process of its own.

    python -m metarl.envs.rendering              # prints the backend; exit status 1 and the reason where nothing draws
    python -m metarl.envs.rendering --install    # the same; where nothing draws, root gets what does installed
"""

import atexit
import contextlib
import functools
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from metarl.errors import RunError, exit_status

if TYPE_CHECKING:
    import mujoco

PACKAGES: tuple[tuple[str, ...], ...] = (("libosmesa6",), ("libegl1", "libgl1-mesa-dri"))
"""Debian packages that draw without a graphics card, tried in turn: newer releases no longer have the first."""

_TRIAL_SECONDS = 60  # a software renderer's first frame on a busy machine takes a few
_RINGS = 8  # of a sphere or a cylinder, from end to end; MuJoCo's default is 16
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

_OPEN: "weakref.WeakSet[mujoco.Renderer]" = weakref.WeakSet()

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
    advice = " or ".join(f"`sudo apt-get install {' '.join(packages)}`" for packages in PACKAGES)
    advice = f"type {advice}"
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


def open_renderer(model: "mujoco.MjModel", width: int, height: int) -> "mujoco.Renderer":
    """Draws a model in pictures of this size (in pixels); closed when Python ends, if nobody did so before.

    Left to itself, a renderer that is still open then is forgotten after MuJoCo's `atexit` function has ended EGL's
    display, and complains of that with a traceback. Functions of `atexit` run in reverse order. So ours, registered
    once the first context is there, comes before it.
    """
    use()
    import mujoco  # not where this module only looks for what draws

    limits = model.vis.global_
    limits.offwidth, limits.offheight = max(limits.offwidth, width), max(limits.offheight, height)
    renderer = mujoco.Renderer(model, height, width)
    if _in_software():
        # A picture of ice took 3.8 times as long with smooth edges, and with mirrors 1.2 times as long again. Round
        # shapes of half as many rings differ in one pixel of 5,000, and a picture of an ant takes 0.7 times as long.
        quality = model.vis.quality
        if quality.offsamples or quality.numstacks > _RINGS:
            renderer.close()
            quality.offsamples, quality.numstacks = 0, min(quality.numstacks, _RINGS)
            renderer = mujoco.Renderer(model, height, width)
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
    _close_at_exit()
    _OPEN.add(renderer)
    return renderer


def upload_height_field(renderer: "mujoco.Renderer", model: "mujoco.MjModel") -> None:
    """Draws the model's only height field as it is now; all else is that of the model it was opened with."""
    import mujoco

    # The renderer has no public way to either; what is uploaded goes to the current context, which may be another's.
    context, drawing = renderer._gl_context, renderer._mjr_context  # pyright: ignore[reportPrivateUsage]
    if context is not None:
        context.make_current()
    mujoco.mjr_uploadHField(model, drawing, 0)


@functools.cache
def _in_software() -> bool:
    """Whether pictures are computed by the processor; a renderer must be open."""
    from OpenGL import GL

    name = GL.glGetString(GL.GL_RENDERER) or b""
    return any(word in name.lower() for word in (b"llvmpipe", b"softpipe", b"swrast", b"software"))


@functools.cache
def _close_at_exit() -> None:
    atexit.register(_close_all)


def _close_all() -> None:
    for renderer in tuple(_OPEN):
        renderer.close()


def install(trial: Trial = try_backend, say: Callable[[str], None] = print) -> str:
    """The backend that draws; where none does, root gets one installed with apt-get, and others are told how."""
    try:
        return choose(candidates(), trial)
    except RenderingUnavailableError:
        if os.geteuid() != 0 or shutil.which("apt-get") is None or os.environ.get("MUJOCO_GL"):
            raise
    for packages in PACKAGES:
        say(f"nothing can draw on this machine yet: installing {' '.join(packages)} ...")
        if _install(packages):
            with contextlib.suppress(RenderingUnavailableError):
                return choose(candidates(), trial)
    return choose(candidates(), trial)


def _install(packages: Sequence[str]) -> bool:
    apt_get = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--yes", "--quiet", "--no-install-recommends"]
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
