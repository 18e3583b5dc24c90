"""Contacts by listed pairs against MuJoCo's own search for them."""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)

from collections.abc import Callable
from importlib import resources

import mujoco
import numpy as np
import pytest

from metarl.envs.contact_pairs import compile_with_pairs, mix_contact_parameters, touching_pairs

ASSETS = ("ant.xml", "hopper.xml", "walker2d_v5.xml", "half_cheetah.xml", "humanoid.xml")
# Two bodies of several parts, a chain, and geoms that differ in everything that is mixed.
MIXED = """
<mujoco>
  <default><geom type="sphere" size="0.2"/></default>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 1" friction="0.7 0.02 0.001" solref="0.03 1.2" margin="0.002" condim="4"/>
    <body name="a" pos="0 0 0.3"><freejoint/>
      <geom name="a1" friction="0.2 0.1 0.01" solref="0.05 0.8" solimp="0.8 0.9 0.02 0.4 3" solmix="3" condim="1"/>
      <geom name="a2" pos="0.3 0 0" friction="0.1" priority="1" solref="-900 -30" margin="0.01"/>
      <body pos="0.3 0 0.3"><joint axis="0 1 0"/>
        <geom name="c" friction="1.1" condim="6"/>
        <body pos="0 0.1 0.1"><joint/><geom name="d" solref="-500 -20" friction="2" priority="1"/></body>
      </body>
    </body>
    <body name="b" pos="0.1 0.2 0.5"><freejoint/>
      <geom name="b1" solmix="0.5" condim="1" margin="0.03" gap="0.01"/>
      <geom name="b2" type="capsule" size="0.1 0.2" pos="0 0.3 0" condim="1" contype="2" conaffinity="3"/>
    </body>
  </worldbody>
</mujoco>
"""


def models(source: str, change: Callable[[mujoco.MjModel], None]) -> tuple[mujoco.MjModel, mujoco.MjModel]:
    """Without and with listed pairs, both changed after they were compiled."""
    searching = mujoco.MjModel.from_xml_string(source)
    spec = mujoco.MjSpec.from_string(source)
    listing = compile_with_pairs(spec, touching_pairs(spec))
    for model in (searching, listing):
        change(model)
    mix_contact_parameters(listing)
    return searching, listing


def keep(_model: mujoco.MjModel) -> None:
    pass


def make_slippery(model: mujoco.MjModel) -> None:
    floor = model.geom("floor").id
    model.geom_friction[floor, 0], model.geom_priority[floor] = 0.05, 2
    model.geom_solref[floor], model.geom_solimp[floor, 2] = (0.06, 1.5), 0.03


@pytest.mark.parametrize("change", [keep, make_slippery])
@pytest.mark.parametrize("asset", [*ASSETS, "mixed"])
def test_contacts_are_the_same_in_any_posture(asset: str, change: Callable[[mujoco.MjModel], None]) -> None:
    folder = resources.files("gymnasium.envs.mujoco") / "assets"
    searching, listing = models(MIXED if asset == "mixed" else (folder / asset).read_text(), change)
    assert not searching.npair
    assert listing.npair >= 6
    rng = np.random.default_rng(0)
    touched = 0
    for _ in range(150):
        qpos = searching.qpos0 + rng.normal(0.0, 0.5, searching.nq)
        states = [mujoco.MjData(model) for model in (searching, listing)]
        for model, data in zip((searching, listing), states, strict=True):
            data.qpos[:], data.qvel[:] = qpos, 1.0
            mujoco.mj_forward(model, data)
        theirs, ours = states
        touched += theirs.ncon
        assert theirs.ncon == ours.ncon
        for name in ("geom", "dim", "dist", "frame", "friction", "solref", "solimp", "includemargin"):
            assert np.array_equal(getattr(theirs.contact, name), getattr(ours.contact, name)), name
        assert np.array_equal(theirs.qacc, ours.qacc)
    assert touched > 100
