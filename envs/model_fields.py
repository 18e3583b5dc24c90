# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""Fields of a MuJoCo model by name: `body_mass[torso]`, `geom_friction[floor][0]`, `opt.gravity[2]`, `dof_damping`."""

import difflib

import mujoco
import numpy as np
from numpy import ndarray

_OWNERS = {  # how the fields of a model begin, and what their rows belong to
    "body": (mujoco.mjtObj.mjOBJ_BODY, "nbody"),
    "geom": (mujoco.mjtObj.mjOBJ_GEOM, "ngeom"),
    "site": (mujoco.mjtObj.mjOBJ_SITE, "nsite"),
    "jnt": (mujoco.mjtObj.mjOBJ_JOINT, "njnt"),
    "dof": (mujoco.mjtObj.mjOBJ_JOINT, "njnt"),
    "actuator": (mujoco.mjtObj.mjOBJ_ACTUATOR, "nu"),
    "tendon": (mujoco.mjtObj.mjOBJ_TENDON, "ntendon"),
}
_DOFS = {
    mujoco.mjtJoint.mjJNT_FREE: 6,
    mujoco.mjtJoint.mjJNT_BALL: 3,
    mujoco.mjtJoint.mjJNT_SLIDE: 1,
    mujoco.mjtJoint.mjJNT_HINGE: 1,
}


def field_names(model: mujoco.MjModel) -> tuple[str, ...]:
    """The arrays of numbers with a fraction, in a model and in its options."""
    owners = (("", model), ("opt.", model.opt))
    names = [(prefix, owner, name) for prefix, owner in owners for name in dir(owner) if not name.startswith("_")]
    return tuple(f"{prefix}{name}" for prefix, owner, name in names if _is_array(getattr(owner, name)))


def field_array(model: mujoco.MjModel, field: str) -> ndarray:
    """The array itself: writing into it changes the model."""
    return getattr(model.opt, field.removeprefix("opt.")) if field.startswith("opt.") else getattr(model, field)


def field_index(model: mujoco.MjModel, field: str, indices: tuple[str, ...]) -> tuple[slice, ...]:
    """Where in the array the entries stand that are spelled `field[index]…`; all of them without an index.

    Raises:
        ValueError: there is no such entry; the message names what is near.
    """
    shape = field_array(model, field).shape
    if len(indices) > len(shape):
        raise ValueError(f"{field} has {len(shape)} axes, {len(indices)} indices were given")
    rows = [_rows(model, field, text, shape[0]) for text in indices[:1]]
    columns = zip(indices[1:], shape[1:], strict=False)
    return (*rows, *(_number(field, text, length) for text, length in columns))


def some_index(model: mujoco.MjModel, field: str) -> str:
    """An index that can be given, for messages."""
    return next(iter(_row_names(model, field)), "0")


def _is_array(value: object) -> bool:
    return isinstance(value, ndarray) and value.dtype.kind == "f" and value.size > 0


def _rows(model: mujoco.MjModel, field: str, text: str, length: int) -> slice:
    kind, _ = _OWNERS.get(field.partition("_")[0], (None, ""))
    if kind is None or text.isdigit():
        return _number(field, text, length)
    number = mujoco.mj_name2id(model, kind, text)
    if number < 0:
        known = _row_names(model, field)
        near = difflib.get_close_matches(text, known, n=3) or known
        raise ValueError(f"{field} has no {text!r}; there is {', '.join(near) or 'nothing with a name'}")
    if field.startswith("dof"):
        first = int(model.jnt_dofadr[number])
        return slice(first, first + _DOFS[mujoco.mjtJoint(int(model.jnt_type[number]))])
    return slice(number, number + 1)


def _row_names(model: mujoco.MjModel, field: str) -> list[str]:
    kind, size = _OWNERS.get(field.partition("_")[0], (None, ""))
    if kind is None:
        return []
    names = (mujoco.mj_id2name(model, kind, row) for row in range(getattr(model, size)))
    return [name for name in names if name]


def _number(field: str, text: str, length: int) -> slice:
    if not text.isdigit() or int(text) >= length:
        raise ValueError(f"an index of {field} must be a number from 0 to {length - 1}, got {text!r}")
    return slice(int(text), int(text) + 1)


def derive_constants(model: mujoco.MjModel, data: mujoco.MjData) -> None:
    """Computes anew what MuJoCo derives from masses and lengths; the simulation must be reset afterwards."""
    assert np.isfinite(model.body_mass).all()
    mujoco.mj_setConst(model, data)
