"""metarl.envs.rendering: the backend that draws is found, whatever fails on the way."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from metarl.envs import rendering

# MuJoCo is imported first, without MUJOCO_GL: it has chosen a backend that needs a screen by the time we choose.
DRAW = """
import os, mujoco
from metarl.envs import rendering
name = rendering.use()
assert rendering.use() == os.environ["MUJOCO_GL"] == name
model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><geom type="sphere" size="1"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 24, 32) as renderer:
    renderer.update_scene(data)
    picture = renderer.render()
print(name, *picture.shape, picture.max() > picture.min())
"""


def refuse(name: str) -> str:
    return f"no {name} here"


def test_the_first_backend_that_draws_is_taken() -> None:
    tried: list[str] = []

    def trial(name: str) -> str | None:
        tried.append(name)
        return None if name == "b" else "broken"

    assert rendering.choose(("a", "b", "c"), trial) == "b"
    assert tried == ["a", "b"]


def test_where_none_draws_the_error_is_one_line_with_the_reasons_and_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    with pytest.raises(rendering.RenderingUnavailableError, match="libosmesa6") as caught:
        rendering.choose(("egl", "osmesa"), refuse)
    message = str(caught.value)
    assert "egl: no egl here; osmesa: no osmesa here" in message
    assert "\n" not in message
    assert "MUJOCO_GL" not in message


def test_the_users_choice_is_the_only_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert rendering.candidates() == ("osmesa",)
    with pytest.raises(rendering.RenderingUnavailableError, match="unset MUJOCO_GL"):
        rendering.choose(rendering.candidates(), refuse)


def test_a_backend_that_fails_gives_its_reason_and_leaves_this_process_alone() -> None:
    reason = rendering.try_backend("nonsense")
    assert reason is not None
    assert "nonsense" in reason
    assert os.environ.get("MUJOCO_GL") != "nonsense"


def test_mujoco_draws_with_the_chosen_backend_even_if_imported_before(drawing: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", DRAW], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[1:] == ["24", "32", "3", "True"]
    assert result.stderr == ""


class Machine:
    """A machine with an apt-get of its own, on which drawing works once the right package is installed."""

    def __init__(self, folder: Path, draws_with: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self._log = folder / "apt.log"
        self._draws_with = draws_with
        apt_get = folder / "apt-get"
        # `install` fails before the first `update`, as on a machine with no package lists.
        apt_get.write_text(
            f'#!/bin/sh\ncase "$*" in *update*) touch {folder}/lists;; *) test -e {folder}/lists || exit 100;; esac\n'
            f'echo "$*" >> {self._log}\n'
        )
        apt_get.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
        monkeypatch.delenv("MUJOCO_GL", raising=False)

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def trial(self, name: str) -> str | None:
        return None if f"install {self._draws_with}" in self.log else refuse(name)


@pytest.mark.parametrize("packages", rendering.PACKAGES, ids=" ".join)
def test_root_gets_what_draws_installed(
    packages: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path, " ".join(packages), monkeypatch)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    said: list[str] = []
    assert rendering.install(machine.trial, said.append) in ("egl", "osmesa", "glfw")
    assert " ".join(packages) in said[-1]


def test_nothing_is_installed_where_something_draws_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path, "libosmesa6", monkeypatch)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert rendering.install(lambda _: None) == rendering.candidates()[0]
    assert machine.log == ""


def test_who_may_not_install_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where sudo would not ask for a password: `make demo` installs nothing system-wide unasked."""
    machine = Machine(tmp_path, "libosmesa6", monkeypatch)
    sudo = tmp_path / "sudo"
    sudo.write_text('#!/bin/sh\nshift\nexec "$@"\n')
    sudo.chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(rendering.RenderingUnavailableError, match="type `sudo apt-get install libosmesa6`"):
        rendering.install(machine.trial)
    assert machine.log == ""


def test_useless_packages_end_in_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path, "what no release has", monkeypatch)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(rendering.RenderingUnavailableError):
        rendering.install(machine.trial, lambda _: None)
    assert all(" ".join(packages) in machine.log for packages in rendering.PACKAGES)


def test_the_program_answers_in_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "backend", functools.cache(lambda: "osmesa"))
    assert rendering.main([]) == 0
    assert capsys.readouterr().out == "drawing with osmesa\n"
    assert rendering.main(["--instal"]) == 2
    assert "--instal" in capsys.readouterr().err


def test_a_plain_program_draws_without_having_chosen_a_backend(drawing: str) -> None:
    program = """
from metarl import envs
env = envs.make("cheetah-direction").env(render_mode="rgb_array", width=64, height=48)
env.reset(seed=0)
print(env.render().shape)
env.close()
"""
    environment = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert found.stdout.strip() == "(48, 64, 3)", found.stderr


UNCLOSED = """
import numpy as np
from metarl import envs
env = envs.make("cheetah-direction").env(render_mode="rgb_array", width=64, height=48)
env.reset(seed=0)
env.render()
reach = envs.make("metaworld-ml1-reach-v3").env(render_mode="rgb_array", width=64, height=48)
reach.reset(seed=0)
reach.render()
venv = envs.make("cheetah-terrain").vector_env(3, threads=2)
venv.reset(seed=0)
venv.step(np.zeros((3, 6)))
print(venv.picture(1, 64, 48).shape)
"""


def test_what_nobody_closed_ends_in_silence(drawing: str) -> None:
    """With renderers and threads left open, nothing is printed when Python ends."""
    result = subprocess.run([sys.executable, "-W", "error", "-c", UNCLOSED], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert (result.stdout, result.stderr) == ("(48, 64, 3)\n", "")
