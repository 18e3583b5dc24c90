# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""How grounds are drawn. It changes nothing else."""

import dataclasses
from typing import final

import mujoco
import numpy as np


@final
@dataclasses.dataclass(frozen=True)
class Look:
    """How a ground is drawn."""

    colours: tuple[tuple[float, float, float], tuple[float, float, float]]
    """Of the texture's squares, or of its surface and its specks."""
    specks: float = 0.0
    """Share of texels that are specks; 0 draws squares."""
    reflectance: float = 0.0
    """Share of what the ground mirrors."""
    shininess: float = 0.1
    """Sharpness of highlights, 0 to 1."""
    specular: float = 0.1
    """Strength of highlights, 0 to 1."""
    light: tuple[float, float, float] = (0.0, 0.15, -1.0)
    """Where the light shines to, in the ground's frame; a flat angle shows relief."""
    shadows: bool = True
    """Whether the light casts any. MuJoCo's shadow map draws a height field's on itself as torn black patches."""


_CHECKER = Look(((0.32, 0.36, 0.40), (0.62, 0.66, 0.70)), reflectance=0.1)
_GRASS = Look(((0.36, 0.46, 0.30), (0.50, 0.62, 0.42)))
_SAND = Look(((0.76, 0.64, 0.42), (0.56, 0.44, 0.27)), specks=0.25)
_ROCK = Look(((0.72, 0.64, 0.56), (0.50, 0.43, 0.38)), specks=0.2, light=(0.45, 0.25, -0.85), shadows=False)
_ICE = Look(((0.60, 0.74, 0.84), (0.52, 0.68, 0.80)), reflectance=0.35, shininess=1.0, specular=1.0)
_LOOKS = {
    "flat": _CHECKER, "slope-up": _GRASS, "slope-down": _GRASS, "sand": _SAND,
    "ice": _ICE, "icy-slope": _ICE, "rough": _ROCK,
}  # fmt: skip


def paint(spec: mujoco.MjSpec, family: str, slope: float) -> None:
    """Paints the floor as that family of grounds looks, and lights it; `slope` in rad."""
    look, floor, light = _LOOKS[family], spec.geom("floor"), spec.lights[0]
    x, y, z = look.light
    light.dir = (np.cos(slope) * x - np.sin(slope) * z, y, np.sin(slope) * x + np.cos(slope) * z)
    light.castshadow = look.shadows
    texture = spec.add_texture(name="ground", type=mujoco.mjtTexture.mjTEXTURE_2D, width=256, height=256)
    texture.rgb1, texture.rgb2 = look.colours
    if look.specks:
        texture.builtin = mujoco.mjtBuiltin.mjBUILTIN_FLAT
        texture.mark = mujoco.mjtMark.mjMARK_RANDOM
        texture.markrgb, texture.random = look.colours[1], look.specks
    else:
        texture.builtin = mujoco.mjtBuiltin.mjBUILTIN_CHECKER
    material = spec.add_material(
        name="ground", reflectance=look.reflectance, shininess=look.shininess, specular=look.specular,
        texuniform=True, texrepeat=(1, 1),
    )  # fmt: skip
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "ground"
    floor.material = "ground"
    floor.rgba = (1, 1, 1, 1)
