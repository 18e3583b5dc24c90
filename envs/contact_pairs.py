# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""Contacts by a list of pairs of geoms, instead of a search in every step.

MuJoCo looks for bodies that may touch (it sorts their bounding boxes along the main axis of their cloud) even where
masks allow contacts with the floor alone, as in most of Gymnasium's robots. The few pairs that can touch at all are
known beforehand: a model that lists them makes the same contacts, bit for bit, and steps faster by a tenth or more.
"""

from collections.abc import Iterable

import mujoco
import numpy as np
from jaxtyping import Float
from numpy import ndarray

Pair = tuple[str, str]  # names of two geoms

_FAR = 1e3  # m


def touching_pairs(spec: mujoco.MjSpec) -> tuple[Pair, ...]:
    """The geoms that can touch, pair by pair, in the order in which MuJoCo lists contacts. All must have names.

    MuJoCo says it itself: with a margin larger than everything, whatever can touch does.
    """
    spec = spec.copy()
    for geom in spec.geoms:
        geom.margin = _FAR
    model = spec.compile()
    assert not model.npair and not model.nhfield and not model.opt.disableflags
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    mujoco.mj_collision(model, data)
    pairs = dict.fromkeys((int(contact.geom1), int(contact.geom2)) for contact in data.contact)
    return tuple((model.geom(one).name, model.geom(other).name) for one, other in pairs)


def compile_with_pairs(spec: mujoco.MjSpec, pairs: Iterable[Pair]) -> mujoco.MjModel:
    """Compiles a model in which these pairs can touch and nothing else; `spec` is changed."""
    for one, other in pairs:
        spec.add_pair(geomname1=one, geomname2=other)
    for geom in spec.geoms:
        geom.contype = geom.conaffinity = 0
    model = spec.compile()
    mix_contact_parameters(model)
    return model


def mix_contact_parameters(model: mujoco.MjModel) -> None:
    """Gives each pair what MuJoCo makes of its two geoms' friction, softness and margin.

    To be called when a geom's have been changed. The rules are those of MuJoCo's documentation, "Contact parameters":
    of a geom of higher priority all is taken; else the greater friction and dimension, and a weighted mean of the
    softness (of `solref`, the lesser values where one is in its direct form). Margins: the greater.
    """
    for pair in range(model.npair):
        one, other = int(model.pair_geom1[pair]), int(model.pair_geom2[pair])
        model.pair_margin[pair] = max(model.geom_margin[one], model.geom_margin[other])
        model.pair_gap[pair] = max(model.geom_gap[one], model.geom_gap[other])
        if model.geom_priority[one] != model.geom_priority[other]:
            chosen = one if model.geom_priority[one] > model.geom_priority[other] else other
            model.pair_dim[pair] = model.geom_condim[chosen]
            friction = model.geom_friction[chosen]
            model.pair_solref[pair] = model.geom_solref[chosen]
            model.pair_solimp[pair] = model.geom_solimp[chosen]
        else:
            model.pair_dim[pair] = max(model.geom_condim[one], model.geom_condim[other])
            friction = np.maximum(model.geom_friction[one], model.geom_friction[other])
            weight = _weight(model.geom_solmix[one], model.geom_solmix[other])
            model.pair_solimp[pair] = weight * model.geom_solimp[one] + (1 - weight) * model.geom_solimp[other]
            model.pair_solref[pair] = _mixed(weight, model.geom_solref[one], model.geom_solref[other])
        model.pair_friction[pair] = friction[[0, 0, 1, 2, 2]]


def _weight(one: float, other: float) -> float:
    assert one + other > 0, "geoms without solmix are not handled"
    return one / (one + other)


def _mixed(weight: float, one: Float[ndarray, "2"], other: Float[ndarray, "2"]) -> Float[ndarray, "2"]:
    if one[0] > 0 and other[0] > 0:
        return weight * one + (1 - weight) * other
    return np.minimum(one, other)
