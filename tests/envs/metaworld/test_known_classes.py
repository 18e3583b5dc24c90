# pyright: reportAttributeAccessIssue=false, reportPrivateUsage=false
# (MuJoCo's binding comes without types.)
"""What is written out of metaworld's classes equals metaworld's own, and stands in only for the text it was made of."""

import inspect
import itertools
import math
import warnings

import mujoco
import numpy as np
import pytest
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.utils import reward_utils

from metarl.envs.metaworld import fast_math, known_classes, metaworld_api, scalars
from metarl.envs.metaworld.class_simulator import ClassSimulator, SimulationOptions, class_simulator
from metarl.envs.metaworld.goals import BENCHMARKS, RESETS, family
from metarl.envs.metaworld.known_classes import FINGERPRINTS, KNOWN, Player, as_known, known_class
from metarl.envs.metaworld.simulator import rand_vec

ML10 = BENCHMARKS["ml10"].train
SHARED = "metaworld.sawyer_xyz_env", "metaworld.utils.reward_utils"


def module(name: str) -> str:
    return ALL_V3_ENVIRONMENTS[name].__module__


def scripted(name: str, observation: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the scripts ask for more than the arm can do, and say so
        return metaworld_api.expert(name)(observation).clip(-1, 1)


def test_the_installed_metaworld_is_the_one_that_was_written_out() -> None:
    """Fails after a change of metaworld's: then look at what changed, in `scalar_rewards.py` and here."""
    names = {module(name).rpartition(".")[2] for name in ML10}
    assert names == set(KNOWN)
    assert names | {name.rpartition(".")[2] for name in SHARED} == set(FINGERPRINTS)
    assert as_known(*SHARED, *map(module, ML10))
    assert all(isinstance(class_simulator(name, SimulationOptions())._player, Player) for name in ML10)
    assert not isinstance(class_simulator("reach-v3", SimulationOptions("v1"))._player, Player)
    assert not isinstance(class_simulator("reach-v3", SimulationOptions(stock=True))._player, Player)


@pytest.mark.parametrize("changed", [*SHARED, "metaworld.envs.sawyer_push_v3", "NumPy"])
def test_another_text_is_left_to_metaworld(changed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    official = ALL_V3_ENVIRONMENTS["push-v3"]
    assert known_class(official, "v2", *SHARED) is not None
    text = inspect.getsource
    if changed == "NumPy":
        monkeypatch.setattr(known_classes, "sums_in_order", lambda: False)
    else:
        monkeypatch.setattr(inspect, "getsource", lambda it: text(it) + ("#" if it.__name__ == changed else ""))
    assert known_class(official, "v2", *SHARED) is None
    metaworld_api.stepped_class.cache_clear()
    fast = metaworld_api.stepped_class("push-v3", stock=False)
    metaworld_api.stepped_class.cache_clear()
    ours = fast_math.gripper_caging_reward.__code__
    assert (fast._gripper_caging_reward.__code__ is ours) == changed.startswith("metaworld.envs")


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("name", ML10)
def test_scripts_are_scored_as_in_metaworld_in_both_precisions(name: str, kind: type) -> None:
    """Scripts cage and grip, where rewards are computed in the actions' precision."""
    options = SimulationOptions(goal_shown=True), SimulationOptions(goal_shown=True, stock=True)
    simulators = [class_simulator(name, each) for each in options]
    rng = np.random.default_rng(5)
    vector = rand_vec(family(name).draw(rng))
    ours, theirs = (simulator.reset(vector) for simulator in simulators)
    observation = theirs.initial.observation
    for step in range(150):
        action = (scripted(name, observation) + rng.normal(0, 0.05, 4)).astype(kind)
        one, other = simulators[0].step(ours, action), simulators[1].step(theirs, action)
        assert one[1:] == other[1:], f"step {step}"
        np.testing.assert_allclose(one.observation, other.observation, rtol=0, atol=1e-12)
        observation = other.observation


def held_object(kind: type, name: str = "pick-place-v3") -> set[float]:
    """Rewards for grasping in an episode of a script's."""
    simulator = class_simulator(name, SimulationOptions(goal_shown=True))
    snapshot = simulator.reset(rand_vec(family(name).draw(np.random.default_rng(5))))
    result = simulator.step(snapshot, np.zeros(4, kind))
    rewards = set[float]()
    for _ in range(100):
        result = simulator.step(snapshot, scripted(name, result.observation).astype(kind))
        rewards.add(result.terms[metaworld_api.TERMS.index("grasp_reward")])
    return rewards


def test_those_scripts_reach_what_depends_on_the_precision() -> None:
    in_single = [reward for reward in held_object(np.float32) if 0 < reward < 1 and float(np.float32(reward)) == reward]
    assert in_single
    assert not [reward for reward in held_object(np.float64) if 0 < reward < 1 and float(np.float32(reward)) == reward]


@pytest.mark.parametrize("name", ["push-v3", "push-wall-v3"])
def test_what_is_no_number_is_a_divergence(name: str) -> None:
    simulator = class_simulator(name, SimulationOptions())
    snapshot = simulator.reset(rand_vec(family(name).draw(np.random.default_rng(0))))
    simulator._load(snapshot)
    action, bounds = np.zeros(4), (snapshot.initial.low, snapshot.initial.high)
    mujoco.mj_forward(simulator._model, simulator._data)
    assert simulator._outcome(*bounds, action, snapshot.attributes) is not None
    simulator._data.xpos[:, 1], simulator._data.geom_xpos[:, 1] = math.nan, math.nan
    assert simulator._outcome(*bounds, action, snapshot.attributes) is None
    snapshot.state[1] = math.nan  # the first joint's position
    assert simulator.step(snapshot, action).diverged


def test_a_diverged_one_leaves_nothing_behind() -> None:
    simulator, vector = (
        class_simulator("push-v3", SimulationOptions()),
        rand_vec(family("push-v3").draw(np.random.default_rng(0))),
    )
    action = np.array([0.1, -0.2, 0.3, 1.0])
    first, lost, again = (simulator.reset(vector) for _ in range(3))
    before = simulator.step(first, action)
    lost.state[1] = math.nan
    assert simulator.step(lost, action).diverged
    after = simulator.step(again, action)
    assert np.array_equal(after.observation, before.observation)
    assert after[1:] == before[1:]


# Arithmetic


def test_numbers_are_metaworlds() -> None:
    rng = np.random.default_rng(0)
    for x, lower, width, margin in rng.exponential(0.2, (500, 4)):
        for wide in (margin, 0.0):
            slow = reward_utils.tolerance(x, bounds=(0, width), margin=wide, sigmoid="long_tail")
            assert scalars.long_tail(float(x), 0.0, float(width), float(wide)) == slow
            slow = reward_utils.tolerance(x, bounds=(0, width), margin=wide, sigmoid="gaussian")
            assert scalars.gaussian(float(x), float(width), float(wide)) == slow
        slow = reward_utils.tolerance(x, bounds=(lower, lower + width), margin=margin, sigmoid="long_tail")
        assert scalars.long_tail(float(x), float(lower), float(lower + width), float(margin)) == slow
    for a, b in [*rng.uniform(size=(200, 2)).tolist(), (0.0, 0.0), (1.0, 1.0), (0.0, 0.5)]:
        assert scalars.hamacher_product(a, b) == reward_utils.hamacher_product(a, b)
    for zero, one, point in rng.normal(size=(300, 3, 3)):
        point = np.where(rng.uniform() < 0.7, zero + rng.uniform(size=3) * (one - zero), point)
        slow = reward_utils.rect_prism_tolerance(point, zero, one)
        assert scalars.in_prism(point.tolist(), zero.tolist(), one.tolist()) == slow
    for one, other in rng.normal(size=(300, 2, 3)):
        assert scalars.distance(one.tolist(), other.tolist()) == np.linalg.norm(one - other)
        assert scalars.distance_xz(one.tolist(), other.tolist()) == np.linalg.norm(one[[0, 2]] - other[[0, 2]])
        scaled = np.linalg.norm((one - other) * np.array([1.0, 3.0, 2.0]))
        assert scalars.weighted_distance(one.tolist(), other.tolist(), 3.0, 2.0) == scaled


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: scalars.long_tail(0.1, 0.0, 1.0, -0.1),
        lambda: scalars.gaussian(0.1, 1.0, -0.1),
        lambda: scalars.hamacher_product(1.5, 0.5),
    ],
)
def test_what_metaworld_refuses_is_refused(wrong: object) -> None:
    assert callable(wrong)
    with pytest.raises(ValueError, match=r"non-negative|must range between 0 and 1"):
        wrong()


def test_fused_arithmetic_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum in another order stands for one with fused multiplications: last bits differ."""
    assert scalars.sums_in_order()
    monkeypatch.setattr(scalars, "sum_of_squares", lambda numbers: sum(x * x for x in reversed(list(numbers))))
    assert not scalars.sums_in_order.__wrapped__()


# The model that is played


@pytest.mark.parametrize("name", sorted(RESETS))
def test_a_model_without_what_is_only_seen_moves_the_same(name: str, request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--exhaustive") and name not in ("door-open-v3", "coffee-push-v3", "push-v3"):
        pytest.skip("a part by default; --exhaustive has all")
    path = object.__new__(ALL_V3_ENVIRONMENTS[name]).model_name
    full, lean = mujoco.MjModel.from_xml_path(path), fast_math.lean_model(path)
    assert lean.ngeom < full.ngeom
    assert lean.nbvh < full.nbvh / 3
    names = [{model.geom(index).name for index in range(model.ngeom)} for model in (full, lean)]
    assert names[0] - {""} == names[1] - {""}
    parts = ("body", "jnt", "dof", "site", "eq", "actuator", "qpos", "exclude", "pair", "tendon")
    arrays = [name for name in dir(full) if name.split("_")[0] in parts and hasattr(getattr(full, name), "shape")]
    assert len(arrays) > 100
    for array in sorted({*arrays} - {"body_geomadr", "body_geomnum"}):
        assert np.array_equal(getattr(full, array), getattr(lean, array)), array
    assert str(full.opt).replace("disableflags: 0", "disableflags:") == str(lean.opt).replace(
        f"disableflags: {int(mujoco.mjtDisableBit.mjDSBL_SENSOR)}", "disableflags:"
    )


def test_what_is_drawn_is_all_there() -> None:
    simulator = ClassSimulator("push-v3", SimulationOptions())
    drawn, _ = simulator._drawn
    assert drawn.ngeom > simulator._model.ngeom
    snapshots = [simulator.reset(rand_vec(family("push-v3").draw(np.random.default_rng(seed)))) for seed in (0, 1)]
    simulator.step(snapshots[1], np.ones(4))
    pictures = [simulator.render(snapshot, 80, 60) for snapshot in snapshots]
    for one, other in itertools.pairwise([*pictures, simulator.render(snapshots[0], 80, 60)]):
        assert not np.array_equal(one, other)
    assert np.array_equal(pictures[0], simulator.render(snapshots[0], 80, 60))
