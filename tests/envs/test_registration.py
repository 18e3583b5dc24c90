"""Gymnasium's registry, from processes that know nothing of us yet."""

import importlib.metadata
import subprocess
import sys

import gymnasium
import pytest

from metarl import envs
from metarl.envs.registration import register_all


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_naming_the_module_is_enough() -> None:
    program = """
import gymnasium
env = gymnasium.make("metarl.envs:metarl/PointNavigation-v0")
env.reset(seed=0)
print(env.unwrapped.task)
"""
    assert run(program).startswith("goal(goal_x=")


def test_importing_registers_once_and_quietly() -> None:
    program = """
import gymnasium
from metarl import envs
envs.register_all()
print(sum(name.startswith("metarl/") for name in gymnasium.registry))
"""
    assert run(program).strip() == str(len(envs.list()))


def test_every_distribution_is_registered() -> None:
    register_all()
    names = {envs.gymnasium_id(id) for id in envs.list()}
    assert {"metarl/CheetahTerrain-v0", "metarl/CheetahDirection-v0", "metarl/PointNavigation-v0"} <= names
    assert names <= gymnasium.registry.keys()


def test_the_plug_in_entry_point_leads_here() -> None:
    points = [p for p in importlib.metadata.entry_points(group="gymnasium.envs") if p.name == "metarl"]
    if not points:
        pytest.skip("metarl is not installed here, it only runs from its folder: there are no entry points")
    assert points[0].load() is register_all
