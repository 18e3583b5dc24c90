# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""The part of a height field that a camera sees, for pictures.

A body's ground is as long as it could run, and OpenGL computes every cell of it, in view or not: on a processor, rough
ground of 180 m took 40 of a picture's 54 ms.
"""

import copy
import math
from typing import final

import mujoco
import numpy as np

from metarl.envs import rendering

_AHEAD = 5  # m that a camera moves before the part is cut out anew
_PERIOD = 2  # m of the ground's texture: parts lie whole periods apart, so that what is painted stays where it was


@final
class NearField:
    """A model for pictures, whose height field is the part of another model's around the camera, along x.

    The cells are those of the whole field. A model without a field, with several, or with one that is turned, is left
    as it is.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self._whole = model
        geoms = np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_HFIELD)
        level = all(np.array_equal(model.geom_quat[geom], (1.0, 0.0, 0.0, 0.0)) for geom in geoms)
        self._geom = int(geoms[0]) if model.nhfield == len(geoms) == 1 and level else None
        self._at: float | None = None  # m, in the field's frame: where the camera was when the part was cut out
        self._offset = 0.0  # m from the field's middle to the part's
        self.model = model if self._geom is None else copy.copy(model)
        """What pictures are drawn of; the whole field until a camera has been followed."""

    def follow(self, renderer: mujoco.Renderer, camera: mujoco.MjvCamera) -> None:
        """Brings the field in the renderer's scene to where the camera looks; the scene is up to date."""
        if self._geom is None:
            return
        whole, view, geom = self._whole, self.model, self._geom
        x = float(camera.lookat[0] - whole.geom_pos[geom, 0])
        half, across = whole.hfield_size[0, :2]
        if self._at is None or abs(x - self._at) > _AHEAD:
            self._at = x
            # As wide as the picture is at the field's farther side, wherever on the field the camera stands.
            depth = float(camera.distance) + 2 * across
            slope = math.tan(math.radians(whole.vis.global_.fovy) / 2) * renderer.width / renderer.height
            reach = _PERIOD * math.ceil((depth * slope + _AHEAD) / _PERIOD)
            room = max(0.0, half - reach)
            middle = float(np.clip(_PERIOD * round(x / _PERIOD), -room, room))
            columns, rows = int(whole.hfield_ncol[0]), int(whole.hfield_nrow[0])
            each = 2 * half / (columns - 1)  # m
            first = max(0, round((middle - reach + half) / each))
            last = min(columns - 1, round((middle + reach + half) / each))
            heights = whole.hfield_data.reshape(rows, columns)[:, first : last + 1]
            view.hfield_ncol[0], view.hfield_size[0, 0] = last + 1 - first, (last - first) * each / 2
            view.hfield_data[: heights.size] = heights.ravel()
            self._offset = (first + last) / 2 * each - half
            rendering.upload_height_field(renderer, view)
        shape = int(mujoco.mjtGeom.mjGEOM_HFIELD)
        field = next(drawn for drawn in renderer.scene.geoms[: renderer.scene.ngeom] if drawn.type == shape)
        field.pos[0] += self._offset
