# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""Gymnasium's robot models, made to fit many simulations at once and to be filmed on their way.

What moves is left as it is, bit for bit. What changes is scratch memory (Gymnasium's models take 6 to 15 MB for each
simulation; hundreds of them are to fit the caches), how contacts are found (`contact_pairs.py`), and what is drawn.
"""

import functools
from importlib import resources
from xml.etree import ElementTree

import mujoco

from metarl.envs.contact_pairs import Pair, compile_with_pairs, touching_pairs

_TEXTURE_SIZES = {"2d": (100, 100), "skybox": (32, 192), "cube": (32, 192)}  # pixels; Gymnasium's take half a megabyte


def body_xml(asset: str, arena_bytes: int) -> str:
    """One of Gymnasium's MJCF files by name, with `arena_bytes` of scratch memory for each simulation."""
    path = resources.files("gymnasium.envs.mujoco") / "assets" / asset
    root = ElementTree.fromstring(path.read_text())
    size = root.find("size")
    if size is None:
        size = ElementTree.SubElement(root, "size")
    size.attrib.pop("nstack", None)
    size.set("memory", str(arena_bytes))
    _light_the_way(root)
    _shrink_textures(root)
    return ElementTree.tostring(root, encoding="unicode")


def body_spec(asset: str, arena_bytes: int) -> mujoco.MjSpec:
    """`body_xml`, parsed: the caller's own."""
    return _parsed(asset, arena_bytes).copy()


@functools.cache
def body_pairs(asset: str) -> tuple[Pair, ...]:
    """The geoms that can touch, on Gymnasium's level floor."""
    return touching_pairs(body_spec(asset, 1 << 20))


@functools.cache
def body_model(asset: str, arena_bytes: int) -> mujoco.MjModel:
    """The body on its level floor, compiled. It is shared: make a copy to change it."""
    return compile_with_pairs(body_spec(asset, arena_bytes), body_pairs(asset))


@functools.cache
def _parsed(asset: str, arena_bytes: int) -> mujoco.MjSpec:
    return mujoco.MjSpec.from_string(body_xml(asset, arena_bytes))


def _light_the_way(root: ElementTree.Element) -> None:
    """Light and floor follow the robot instead of staying at the start, and shadows cost less."""
    world = root.find("worldbody")
    assert world is not None
    light, floor, torso = world.find("light"), world.find("geom"), world.find("body")
    assert light is not None and floor is not None and torso is not None
    world.remove(light)
    torso.insert(0, light)
    light.attrib.update({"mode": "trackcom", "pos": "0 0 3", "dir": "0 0.2 -1", "diffuse": "0.8 0.8 0.8"})
    floor.set("size", "0 0 1")
    material = root.find("asset/material[@name='MatPlane']")
    assert material is not None
    material.attrib.update({"texrepeat": "1 1", "texuniform": "true", "reflectance": "0.1"})
    visual = root.find("visual")
    if visual is None:
        visual = ElementTree.SubElement(root, "visual")
    ElementTree.SubElement(visual, "quality", shadowsize="1024")


def _shrink_textures(root: ElementTree.Element) -> None:
    for texture in root.iterfind("asset/texture"):
        width, height = _TEXTURE_SIZES[texture.get("type", "cube")]
        texture.set("width", str(width))
        texture.set("height", str(height))
