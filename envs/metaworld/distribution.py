"""Meta-World's distributions by id.

    metaworld-ml1-reach-v3             one class, other goals in its test
    metaworld-ml10, -ml25, -ml45       many classes, other classes in their test
    metaworld-custom:TRAIN/TEST        classes of your own: metaworld-custom:reach-v3,push-v3/door-open-v3

and, after any of them, options in any order, each at most once:

    +reward-v1      metaworld's first reward functions instead of its second; their scores are not comparable
    +goal-shown     the goal stands in the last three entries of the observation instead of zeros
    +goals-7        other goals, drawn for the number 7 (0 if not given)
    +fresh          training goals drawn anew for every batch, instead of from the published protocol's 50 a class

An id says everything, so that a run's folder needs nothing else to make its distribution again.

Splits follow the published protocol: 50 training goals a class, on which all training happens; 40 test goals a class
(50 where there is only one class). Validation has other goals of the training classes. Goals follow from the id
without `+reward-v1`, `+goal-shown` and `+fresh`: those leave the listed goals as they are.

With 50 goals an agent can do well in training without adapting: where the object stands, which it sees, tells which of
the 50 it is. `+fresh` takes that away; nothing that is held out is ever drawn.
"""

import dataclasses
import functools
import re
from collections.abc import Collection, Sequence
from importlib import metadata
from typing import final

import numpy as np
from gymnasium.spaces import Box

from metarl.envs.distribution import EnvDistribution
from metarl.envs.metaworld import fast_math
from metarl.envs.metaworld.goals import BENCHMARKS, RESETS, Classes, family
from metarl.envs.simulator import Simulator
from metarl.errors import did_you_mean
from metarl.tasks import Json, TaskSpace

PREFIX = "metaworld-"
CUSTOM = f"{PREFIX}custom"
IDS = (*(f"{PREFIX}{name}" for name in BENCHMARKS), *(f"{PREFIX}ml1-{name}" for name in sorted(RESETS)))
"""All that need no list of classes, without options."""
HORIZON = 500  # environment steps
CONTROL_PERIOD = 0.0125  # s: 5 steps of MuJoCo of 0.0025 s
TRAIN_GOALS = 50  # a class
VALIDATION_GOALS = 10  # a class; twice as many where there is only one
TEST_GOALS = 40  # a class; as many as in training where there is only one
HAND_LOW, HAND_HIGH = (-0.525, 0.348, -0.0525), (0.525, 1.025, 0.7)  # m


@final
@dataclasses.dataclass(frozen=True)
class Variant:
    """What the options of an id say."""

    reward: str = "v2"
    """Which of metaworld's reward functions."""
    goal_shown: bool = False
    """Whether the observation ends with the goal."""
    goals: int = 0
    """The goals' seed."""
    fresh: bool = False
    """Whether training goals are drawn anew."""

    @property
    def suffix(self) -> str:
        """The options as they stand in an id, in one order; what is as usual is left out."""
        goals = f"+goals-{self.goals}" if self.goals else ""
        options = {"+reward-v1": self.reward == "v1", "+goal-shown": self.goal_shown, goals: True, "+fresh": self.fresh}
        return "".join(option for option, given in options.items() if given)


@final
@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What metaworld itself calls a distribution."""

    name: str
    """`ML10`, or a class's name."""
    classes: int
    """In its test."""
    reward: str
    """Which of its reward functions."""


def benchmark(id: str) -> Benchmark:
    """Metaworld's counterpart of a distribution.

    Raises:
        ValueError: it has none.
    """
    name, *options = id.split("+")
    variant, classes = _variant(id, options), _classes(id, name)
    if name.startswith(CUSTOM) or variant.goal_shown:
        raise ValueError(f"metaworld's own evaluation knows ML1, ML10, ML25 and ML45 with hidden goals; got {id!r}")
    single = name.startswith(f"{PREFIX}ml1-")
    return Benchmark(
        classes.test[0] if single else name.removeprefix(PREFIX).upper(), len(classes.test), variant.reward
    )


def metaworld(id: str) -> EnvDistribution:
    """The distribution of an id.

    Raises:
        ValueError: there is none; the message says what is wrong.
    """
    name, *options = id.split("+")
    variant, classes = _variant(id, options), _classes(id, name)
    goals = f"{name}+goals-{variant.goals}" if variant.goals else name
    alone = len(classes.train) == 1 and classes.train == classes.test
    space = TaskSpace(
        id=name + variant.suffix,
        train=tuple(map(family, classes.train)),
        validation=tuple(map(family, classes.train)),
        test=tuple(map(family, classes.test)),
        split_sizes=(
            TRAIN_GOALS * len(classes.train),
            2 * VALIDATION_GOALS if alone else VALIDATION_GOALS * len(classes.train),
            TRAIN_GOALS if alone else TEST_GOALS * len(classes.test),
        ),
        fixed_training_list=not variant.fresh,
        list_seed_id=goals,
    )
    return EnvDistribution(
        space,
        HORIZON,
        functools.partial(_simulator, variant=variant),
        _physics(variant),
        observation_space(variant.goal_shown),
        ACTION_SPACE,
        score="success",
        control_period=CONTROL_PERIOD,
        about=_about(classes, variant),
    )


def _about(classes: Classes, variant: Variant) -> str:
    what = {"v1": ", by metaworld's first reward functions", "v2": ""}[variant.reward]
    goal = "shown" if variant.goal_shown else "hidden"
    if classes.train == classes.test:
        return f"{classes.train[0]} with a robot's arm; goals are {goal}{what}; the test has other goals."
    one = len(classes.train) == 1
    count = classes.train[0] if one else f"{len(classes.train)} kinds of manipulation"
    return f"{count} with a robot's arm; goals are {goal}{what}; the test has {len(classes.test)} other kinds."


def _simulator(num_envs: int, threads: int, *, variant: Variant) -> Simulator:
    """One process for one thread, worker processes for more; no result depends on it."""
    from metarl.envs.metaworld.class_simulator import SimulationOptions  # imports metaworld

    space = observation_space(variant.goal_shown)
    options = SimulationOptions(variant.reward, variant.goal_shown, stock=fast_math.stock_wanted())
    from metarl.envs.metaworld.simulator import LocalSimulator, MetaworldGame

    if min(num_envs, threads) == 1:
        return LocalSimulator(num_envs, space, ACTION_SPACE, options)
    from metarl.envs.process_simulator import WorkerSimulator

    return WorkerSimulator(num_envs, min(num_envs, threads), (space, ACTION_SPACE), MetaworldGame(options))


@functools.cache
def observation_space(goal_shown: bool) -> Box:
    """Metaworld's: hand (3, m), gripper's opening, objects (14), the same of the step before, goal (3, m) or zeros."""
    inner = [np.inf] * 14
    goal = [np.inf] * 3 if goal_shown else [0.0] * 3
    low = [*HAND_LOW, -1.0, *(-x for x in inner)] * 2 + [-x for x in goal]
    high = [*HAND_HIGH, 1.0, *inner] * 2 + goal
    return Box(np.array(low), np.array(high), dtype=np.float64)


ACTION_SPACE = Box(-1.0, 1.0, (4,), np.float32)
"""The hand's way (3, in cm) and the gripper's effort."""


def _physics(variant: Variant) -> dict[str, Json]:
    return {
        "body": "Sawyer",
        "metaworld": _version("metaworld"),
        "mujoco": _version("mujoco"),
        "reward": variant.reward,
        "goal": "shown" if variant.goal_shown else "hidden",
        "reset": "as of a newly built environment",
        "success": "at any step of the episode",
        "ends_at_success": False,
    }


@functools.cache
def _version(package: str) -> str:
    return metadata.version(package)


def _variant(id: str, options: Sequence[str]) -> Variant:
    variant, seen = Variant(), set[str]()
    for option in options:
        kind = "goals" if option.startswith("goals-") else option
        if kind in seen:
            raise ValueError(f"{id!r} has the option +{kind} twice")
        seen.add(kind)
        if option in ("reward-v1", "reward-v2"):
            variant = dataclasses.replace(variant, reward=option[-2:])
            seen |= {"reward-v1", "reward-v2"}
        elif option == "goal-shown":
            variant = dataclasses.replace(variant, goal_shown=True)
        elif option == "fresh":
            variant = dataclasses.replace(variant, fresh=True)
        elif re.fullmatch("goals-[0-9]{1,9}", option):
            variant = dataclasses.replace(variant, goals=int(option.removeprefix("goals-")))
        else:
            raise ValueError(
                f"{id!r} has an unknown option +{option}; there are +reward-v1, +goal-shown, +goals-N and +fresh"
            )
    return variant


def _classes(id: str, name: str) -> Classes:
    benchmark = BENCHMARKS.get(name.removeprefix(PREFIX))
    if benchmark is not None:
        return benchmark
    if name.startswith(f"{CUSTOM}:"):
        return _custom(id, name.removeprefix(f"{CUSTOM}:"))
    if name == CUSTOM:
        raise ValueError(
            f"{id!r} names no classes: {CUSTOM}:TRAIN/TEST, {CUSTOM}:reach-v3,push-v3/door-open-v3 for one"
        )
    chosen = name.removeprefix(f"{PREFIX}ml1-")
    if chosen == name:
        raise ValueError(f"unknown distribution {id!r}; {_near(name, (*IDS, CUSTOM))}")
    if chosen not in RESETS:
        raise ValueError(f"unknown distribution {id!r}: metaworld has no class {chosen!r}; {_near(chosen, RESETS)}")
    return Classes((chosen,), (chosen,))


def _custom(id: str, lists: str) -> Classes:
    parts = [part.split(",") for part in lists.split("/")]
    if len(parts) != 2 or not all(map(all, parts)):
        raise ValueError(
            f"{id!r} must name training and test classes, {CUSTOM}:TRAIN/TEST, with commas between classes"
        )
    train, test = parts
    for name in (*train, *test):
        if name not in RESETS:
            raise ValueError(f"{id!r}: metaworld has no class {name!r}; {_near(name, RESETS)}")
    twice = sorted({name for name in (*train, *test) if (train + test).count(name) > 1})
    if twice:
        raise ValueError(f"{id!r} names {', '.join(twice)} twice: a class is for training or for the test, and once")
    return Classes(tuple(train), tuple(test))


def _near(name: str, known: Collection[str]) -> str:
    return did_you_mean(name, known, f"its classes are {', '.join(sorted(RESETS))}")
