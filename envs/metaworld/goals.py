"""What Meta-World's 50 classes draw at random, and which classes its benchmarks train and test on.

At every reset a class places its object and its goal by one random vector; nothing else is random. The table says
what each class draws it from. It stands here, rather than being asked of metaworld, because that would mean loading
50 models to name one task; a test compares every row with the installed metaworld.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import final

from metarl.tasks import Apart, Choice, Family, Task, Uniform

RESOLUTION = 1e-6  # m


@final
@dataclasses.dataclass(frozen=True)
class Reset:
    """The box that a class draws its random vector from, and what it redraws."""

    low: tuple[float, ...]
    """m; the object's position, or the object's and the goal's, or whatever else the class makes of it."""
    high: tuple[float, ...]
    """m."""
    apart: float | None = None
    """m; vectors whose object and goal are nearer in the plane than this are redrawn. Metaworld, given such a vector,
    never returns from its reset; `check_task` refuses it."""
    keep_off: tuple[float, float] | None = None
    """m; the point that the object is kept off, where the goal is no part of the vector."""


# fmt: off
RESETS: Mapping[str, Reset] = {
    "assembly-v3": Reset((0.0, 0.6, 0.02, -0.1, 0.75, 0.1), (0.0, 0.6, 0.02, 0.1, 0.85, 0.1), 0.1),
    "basketball-v3": Reset((-0.1, 0.6, 0.0299, -0.1, 0.85, 0.0), (0.1, 0.7, 0.0301, 0.1, 0.9000001, 0.0), 0.15),
    "bin-picking-v3": Reset((-0.21, 0.65, 0.02, 0.1199, 0.699, -0.001), (-0.03, 0.75, 0.02, 0.1201, 0.701, 0.001)),
    "box-close-v3": Reset((-0.05, 0.5, 0.02, -0.1, 0.7, 0.133), (0.05, 0.55, 0.02, 0.1, 0.8, 0.133), 0.25),
    "button-press-topdown-v3": Reset((-0.1, 0.8, 0.115), (0.1, 0.9, 0.115)),
    "button-press-topdown-wall-v3": Reset((-0.1, 0.8, 0.115), (0.1, 0.9, 0.115)),
    "button-press-v3": Reset((-0.1, 0.85, 0.115), (0.1, 0.9, 0.115)),
    "button-press-wall-v3": Reset((-0.05, 0.85, 0.1149), (0.05, 0.9, 0.1151)),
    "coffee-button-v3": Reset((-0.1, 0.8, -0.001), (0.1, 0.9, 0.001)),
    "coffee-pull-v3": Reset((-0.05, 0.7, -0.001, -0.1, 0.55, -0.001), (0.05, 0.75, 0.001, 0.1, 0.65, 0.001), 0.15),
    "coffee-push-v3": Reset((-0.1, 0.55, -0.001, -0.05, 0.7, -0.001), (0.1, 0.65, 0.001, 0.05, 0.75, 0.001), 0.15),
    "dial-turn-v3": Reset((-0.1, 0.7, 0.0), (0.1, 0.8, 0.0)),
    "disassemble-v3": Reset((0.0, 0.6, 0.025, -0.1, 0.6, 0.1699), (0.1, 0.75, 0.02501, 0.1, 0.75, 0.1701), 0.1),
    "door-close-v3": Reset((0.0, 0.85, 0.15), (0.1, 0.95, 0.15)),
    "door-lock-v3": Reset((-0.1, 0.8, 0.15), (0.1, 0.85, 0.15)),
    "door-open-v3": Reset((0.0, 0.85, 0.15), (0.1, 0.95, 0.15)),
    "door-unlock-v3": Reset((-0.1, 0.8, 0.15), (0.1, 0.85, 0.15)),
    "drawer-close-v3": Reset((-0.1, 0.9, 0.0), (0.1, 0.9, 0.0)),
    "drawer-open-v3": Reset((-0.1, 0.9, 0.0), (0.1, 0.9, 0.0)),
    "faucet-close-v3": Reset((-0.1, 0.8, 0.0), (0.1, 0.85, 0.0)),
    "faucet-open-v3": Reset((-0.05, 0.8, 0.0), (0.05, 0.85, 0.0)),
    "hammer-v3": Reset((-0.1, 0.4, 0.0), (0.1, 0.5, 0.0)),
    "hand-insert-v3": Reset((-0.1, 0.6, 0.05, -0.04, 0.8, -0.0201), (0.1, 0.7, 0.05, 0.04, 0.88, -0.0199), 0.15),
    "handle-press-side-v3": Reset((-0.35, 0.65, -0.001), (-0.25, 0.75, 0.001)),
    "handle-press-v3": Reset((-0.1, 0.8, -0.001), (0.1, 0.9, 0.001)),
    "handle-pull-side-v3": Reset((-0.35, 0.65, 0.0), (-0.25, 0.75, 0.0)),
    "handle-pull-v3": Reset((-0.1, 0.8, -0.001), (0.1, 0.9, 0.001)),
    "lever-pull-v3": Reset((-0.1, 0.7, 0.0), (0.1, 0.8, 0.0)),
    "peg-insert-side-v3": Reset((0.0, 0.5, 0.02, -0.35, 0.4, -0.001), (0.2, 0.7, 0.02, -0.25, 0.7, 0.001), 0.1),
    "peg-unplug-side-v3": Reset((-0.25, 0.6, -0.001), (-0.15, 0.8, 0.001)),
    "pick-out-of-hole-v3": Reset((0.0, 0.75, 0.02, -0.1, 0.5, 0.15), (0.0, 0.75, 0.02, 0.1, 0.6, 0.3), 0.15),
    "pick-place-v3": Reset((-0.1, 0.6, 0.02, -0.1, 0.8, 0.05), (0.1, 0.7, 0.02, 0.1, 0.9, 0.3), 0.15),
    "pick-place-wall-v3": Reset((-0.05, 0.6, 0.015, -0.05, 0.85, 0.05), (0.05, 0.65, 0.015, 0.05, 0.9, 0.3), 0.15),
    "plate-slide-back-side-v3": Reset((-0.25, 0.6, 0.0, -0.05, 0.6, 0.015), (-0.25, 0.6, 0.0, 0.15, 0.6, 0.015)),
    "plate-slide-back-v3": Reset((0.0, 0.85, 0.0, -0.1, 0.6, 0.015), (0.0, 0.85, 0.0, 0.1, 0.6, 0.015)),
    "plate-slide-side-v3": Reset((0.0, 0.6, 0.0, -0.3, 0.54, 0.0), (0.0, 0.6, 0.0, -0.25, 0.66, 0.0)),
    "plate-slide-v3": Reset((0.0, 0.6, 0.0, -0.1, 0.85, 0.0), (0.0, 0.6, 0.0, 0.1, 0.9, 0.0)),
    "push-back-v3": Reset((-0.1, 0.8, 0.02, -0.1, 0.6, 0.0199), (0.1, 0.85, 0.02, 0.1, 0.7, 0.0201), 0.15),
    "push-v3": Reset((-0.1, 0.6, 0.02, -0.1, 0.8, 0.01), (0.1, 0.7, 0.02, 0.1, 0.9, 0.02), 0.15),
    "push-wall-v3": Reset((-0.05, 0.6, 0.015, -0.05, 0.85, 0.01), (0.05, 0.65, 0.015, 0.05, 0.9, 0.02), 0.15),
    "reach-v3": Reset((-0.1, 0.6, 0.02, -0.1, 0.8, 0.05), (0.1, 0.7, 0.02, 0.1, 0.9, 0.3), 0.15),
    "reach-wall-v3": Reset((-0.05, 0.6, 0.015, -0.05, 0.85, 0.05), (0.05, 0.65, 0.015, 0.05, 0.9, 0.3), 0.15),
    "shelf-place-v3": Reset((-0.1, 0.5, 0.019, -0.1, 0.8, 0.299), (0.1, 0.6, 0.021, 0.1, 0.9, 0.301), 0.1),
    "soccer-v3": Reset((-0.1, 0.6, 0.03, -0.1, 0.8, 0.0), (0.1, 0.7, 0.03, 0.1, 0.9, 0.0), 0.15),
    "stick-pull-v3": Reset((-0.1, 0.55, 0.0, 0.35, 0.45, 0.0199), (0.0, 0.65, 0.001, 0.45, 0.55, 0.0201), 0.1),
    "stick-push-v3": Reset((-0.08, 0.58, 0.0, 0.399, 0.55, 0.1319), (-0.03, 0.62, 0.001, 0.401, 0.6, 0.1321), 0.1),
    "sweep-into-v3": Reset(
        (-0.1, 0.6, 0.02, -0.001, 0.8399, 0.0199), (0.1, 0.7, 0.02, 0.001, 0.8401, 0.0201), 0.15, (0.0, 0.84)
    ),
    "sweep-v3": Reset((-0.1, 0.6, 0.02), (0.1, 0.7, 0.02)),
    "window-close-v3": Reset((0.0, 0.75, 0.2), (0.0, 0.9, 0.2)),
    "window-open-v3": Reset((-0.1, 0.7, 0.16), (0.1, 0.9, 0.16)),
}
# fmt: on
"""The classes by metaworld's names."""


@final
@dataclasses.dataclass(frozen=True)
class Classes:
    """What a benchmark trains and tests on."""

    train: tuple[str, ...]
    test: tuple[str, ...]


BENCHMARKS: Mapping[str, Classes] = {
    "ml10": Classes(
        train=(
            "reach-v3",
            "push-v3",
            "pick-place-v3",
            "door-open-v3",
            "drawer-close-v3",
            "button-press-topdown-v3",
            "peg-insert-side-v3",
            "window-open-v3",
            "sweep-v3",
            "basketball-v3",
        ),
        test=(
            "drawer-open-v3",
            "door-close-v3",
            "shelf-place-v3",
            "sweep-into-v3",
            "lever-pull-v3",
        ),
    ),
    "ml25": Classes(
        # Metaworld's ML25 has basketball in both lists. It is a test class here, and so none of the training's 24.
        train=(
            "reach-v3",
            "push-v3",
            "pick-place-v3",
            "door-open-v3",
            "drawer-open-v3",
            "drawer-close-v3",
            "button-press-topdown-v3",
            "peg-insert-side-v3",
            "window-open-v3",
            "window-close-v3",
            "coffee-pull-v3",
            "pick-out-of-hole-v3",
            "disassemble-v3",
            "pick-place-wall-v3",
            "stick-pull-v3",
            "button-press-wall-v3",
            "faucet-open-v3",
            "door-lock-v3",
            "lever-pull-v3",
            "sweep-into-v3",
            "faucet-close-v3",
            "coffee-button-v3",
            "button-press-topdown-wall-v3",
            "dial-turn-v3",
        ),
        test=(
            "basketball-v3",
            "door-close-v3",
            "shelf-place-v3",
            "sweep-v3",
            "button-press-v3",
        ),
    ),
    "ml45": Classes(
        train=(
            "assembly-v3",
            "basketball-v3",
            "button-press-topdown-v3",
            "button-press-topdown-wall-v3",
            "button-press-v3",
            "button-press-wall-v3",
            "coffee-button-v3",
            "coffee-pull-v3",
            "coffee-push-v3",
            "dial-turn-v3",
            "disassemble-v3",
            "door-close-v3",
            "door-open-v3",
            "drawer-close-v3",
            "drawer-open-v3",
            "faucet-open-v3",
            "faucet-close-v3",
            "hammer-v3",
            "handle-press-side-v3",
            "handle-press-v3",
            "handle-pull-side-v3",
            "handle-pull-v3",
            "lever-pull-v3",
            "pick-place-wall-v3",
            "pick-out-of-hole-v3",
            "push-back-v3",
            "pick-place-v3",
            "plate-slide-v3",
            "plate-slide-side-v3",
            "plate-slide-back-v3",
            "plate-slide-back-side-v3",
            "peg-insert-side-v3",
            "peg-unplug-side-v3",
            "soccer-v3",
            "stick-push-v3",
            "stick-pull-v3",
            "push-wall-v3",
            "push-v3",
            "reach-wall-v3",
            "reach-v3",
            "shelf-place-v3",
            "sweep-into-v3",
            "sweep-v3",
            "window-open-v3",
            "window-close-v3",
        ),
        test=(
            "bin-picking-v3",
            "box-close-v3",
            "hand-insert-v3",
            "door-lock-v3",
            "door-unlock-v3",
        ),
    ),
}
"""The published benchmarks of several classes; ML1 is one class with other goals in its test."""


def family(name: str) -> Family:
    """A class as a family of tasks, with the entries of its random vector as parameters `rand_0`, `rand_1`, ... (m)."""
    reset = RESETS[name]
    parameters: dict[str, Uniform | Choice] = {}
    for index, (low, high) in enumerate(zip(reset.low, reset.high, strict=True)):
        fixed = high - low < RESOLUTION
        parameters[f"rand_{index}"] = Choice((low,), "m") if fixed else Uniform(low, high, RESOLUTION, "m")
    apart = None
    if reset.apart is not None:
        apart = Apart(("rand_0", "rand_1"), reset.keep_off or ("rand_3", "rand_4"), reset.apart, "m")
    return Family(name, parameters, apart)


def check_task(task: Task) -> None:
    """Checks that metaworld's reset of a task comes to an end.

    Raises:
        ValueError: object and goal are so near that it would draw anew for ever.
    """
    reset = RESETS[task.family]
    if reset.apart is None:
        return
    goal = reset.keep_off or (float(task["rand_3"]), float(task["rand_4"]))
    distance = math.dist((float(task["rand_0"]), float(task["rand_1"])), goal)
    if distance < reset.apart:
        raise ValueError(
            f"{task} has its object and its goal {distance:.3g} m apart in the plane; metaworld needs at least "
            f"{reset.apart:g} m, its reset would never end"
        )
