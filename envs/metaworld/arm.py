# pyright: reportAttributeAccessIssue=false
# (MuJoCo's binding comes without types.)
"""Where the robot is: views into a simulation of metaworld's, looked up once, which stay up to date."""

import dataclasses
from typing import final

import mujoco
from numpy import ndarray


@final
@dataclasses.dataclass(slots=True, eq=False)
class Arm:
    """The robot's hand in a simulation."""

    data: mujoco.MjData
    hand: ndarray
    claws: tuple[ndarray, ndarray]
    """The right and the left one."""
    tips: tuple[ndarray, ndarray]
    """The right and the left fingertip."""
    pads: tuple[ndarray, ndarray]
    """The left and the right one."""
    pad_geoms: tuple[int, int]
    """The same as geoms' numbers."""

    def tcp(self) -> tuple[float, float, float]:
        """The point between the fingertips."""
        (x, y, z), (other_x, other_y, other_z) = self.tips[0].tolist(), self.tips[1].tolist()
        return (x + other_x) / 2.0, (y + other_y) / 2.0, (z + other_z) / 2.0

    def holds(self, geom: int) -> bool:
        """Whether both pads press on a geom, from the contacts of the last `mj_forward`."""
        contacts = self.data.contact
        pairs = [(index, pair) for index, pair in enumerate(contacts.geom.tolist()) if geom in pair]
        by_pad = [[index for index, pair in pairs if pad in pair] for pad in self.pad_geoms]
        if not all(by_pad):
            return False
        addresses, forces = contacts.efc_address, self.data.efc_force
        return all(sum(forces[addresses[index]] for index in mine) > 0 for mine in by_pad)


def find_arm(data: mujoco.MjData) -> Arm:
    """The robot of a simulation."""
    return Arm(
        data,
        data.body("hand").xpos,
        (data.body("rightclaw").xpos, data.body("leftclaw").xpos),
        (data.site("rightEndEffector").xpos, data.site("leftEndEffector").xpos),
        (data.body("leftpad").xpos, data.body("rightpad").xpos),
        (data.geom("leftpad_geom").id, data.geom("rightpad_geom").id),
    )
