"""Distributions by id: registered, of files and modules, of installed packages, and of families of ids."""

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import pytest
from gymnasium.envs.registration import parse_env_id

from metarl import envs
from metarl.envs import EnvDistribution, registry
from metarl.envs.gymnasium_ids import gymnasium_id
from metarl.envs.point import point_navigation

EXTERNAL = Path(__file__).parent.parent / "external"
TOY = f"{EXTERNAL / 'hidden_corner.py'}:hidden_corner"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test registers is gone after it."""
    monkeypatch.setattr(registry, "_FAMILIES", dict(registry._FAMILIES))  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(registry, "_SEEN", {})
    names = registry._NAMES._entries  # pyright: ignore[reportPrivateUsage]
    known, specs = dict(names), dict(gymnasium.registry)
    yield
    for table, before in ((names, known), (gymnasium.registry, specs)):
        for name in table.keys() - before.keys():
            del table[name]


def renamed(id: str, horizon: int = 100) -> EnvDistribution:
    dist = point_navigation()
    return dataclasses.replace(dist, space=dataclasses.replace(dist.space, id=id), horizon=horizon)


def my_point() -> EnvDistribution:
    """Go somewhere.

    More is not for a list.
    """
    return renamed("my-point", horizon=7)


def test_a_registered_distribution_is_like_our_own() -> None:
    envs.register("my-point", my_point)
    assert "my-point" in envs.list()
    dist = envs.make("my-point")
    assert (dist.id, dist.hash, dist.about) == ("my-point", my_point().hash, "Go somewhere.")
    env = gymnasium.make("metarl/MyPoint-v0", task=dist.tasks("test")[2])
    assert env.spec is not None and env.spec.max_episode_steps == 7
    assert env.unwrapped.get_wrapper_attr("task") == dist.tasks("test")[2]
    envs.register("my-point", my_point)  # the same once more
    with pytest.raises(ValueError, match="there is a distribution called 'my-point' already"):
        envs.register("my-point", lambda: renamed("my-point"))


@pytest.mark.parametrize(
    ("name", "made", "message"),
    [
        ("cheetah-terrain", renamed("cheetah-terrain"), "called 'cheetah-terrain' already"),
        ("other-point", renamed("my-point"), "registered as 'other-point' calls itself 'my-point'"),
        ("my-point", point_navigation().space, "'my-point' must make an EnvDistribution, it made TaskSpace"),
        ("Cheetah+terrain", renamed("Cheetah+terrain"), "are both metarl/CheetahTerrain-v0; choose another name"),
        ("my:point", renamed("my:point"), "must not be empty, hold a colon"),
    ],
)
def test_what_cannot_be_registered_is_refused_and_leaves_nothing(name: str, made: object, message: str) -> None:
    before, specs = envs.list(), set(gymnasium.registry)
    with pytest.raises(ValueError, match=message.replace("+", r"\+")):
        envs.register(name, lambda: made)  # pyright: ignore[reportArgumentType]
    assert envs.list() == before
    assert set(gymnasium.registry) == specs


def test_files_and_modules_are_named_by_what_is_in_them(monkeypatch: pytest.MonkeyPatch) -> None:
    dist = envs.make(TOY)
    assert dist.id == "hidden-corner"
    assert dist.about.startswith("Walk to a goal")
    assert envs.make(TOY).hash == dist.hash
    monkeypatch.chdir(EXTERNAL)
    assert envs.make("hidden_corner.py:hidden_corner").hash == dist.hash
    assert envs.make("metarl.envs.point:point_navigation").hash == envs.make("point-navigation").hash


@pytest.mark.parametrize(
    ("source", "id", "message"),
    [
        ("", "worlds.py:pendulm", "worlds.py has no 'pendulm'"),
        ("def pendulum(): ...\n", "worlds.py:pendulm", "did you mean pendulum"),
        ("pendulum = 3\n", "worlds.py:pendulum", "must be a function that returns an EnvDistribution, got int"),
        (
            "def pendulum(length): ...\n",
            "worlds.py:pendulum",
            "take no arguments: missing a required argument: 'length'",
        ),
        ("def pendulum(): ...\n", "worlds.py:pendulum", "must make an EnvDistribution, it made NoneType"),
        ("", "no_such_file.py:pendulum", "there is no Python file"),
        ("", "no_such_module:pendulum", "there is no module 'no_such_module'"),
    ],
)
def test_wrong_ids_from_outside_say_what_is_wrong(
    source: str, id: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "worlds.py").write_text(source)
    with pytest.raises(ValueError, match=message):
        envs.make(id)


def test_one_name_means_one_distribution(tmp_path: Path) -> None:
    text = """
import dataclasses
from metarl import envs
point = envs.make("point-navigation")
def renamed(id, horizon=100):
    return dataclasses.replace(point, space=dataclasses.replace(point.space, id=id), horizon=horizon)
same, impostor = renamed("point-navigation"), renamed("point-navigation", horizon=50)
mine, other_mine = renamed("mine"), renamed("mine", horizon=50)
"""
    (tmp_path / "one.py").write_text(text)
    (tmp_path / "two.py").write_text(text)
    assert envs.make(f"{tmp_path}/one.py:same").hash == envs.make("point-navigation").hash
    with pytest.raises(ValueError, match="impostor calls itself 'point-navigation', which is another distribution"):
        envs.make(f"{tmp_path}/one.py:impostor")
    assert envs.make(f"{tmp_path}/one.py:mine").hash == envs.make(f"{tmp_path}/two.py:mine").hash
    with pytest.raises(ValueError, match=r"two.py:other_mine calls itself 'mine', as .*:mine does"):
        envs.make(f"{tmp_path}/two.py:other_mine")


def test_families_make_their_ids_up() -> None:
    def make(id: str) -> EnvDistribution:
        steps = id.removeprefix("walk-")
        if not steps.isdigit():
            raise ValueError(f"{id!r} should end in a number of steps")
        return renamed(id, int(steps))

    envs.register_family("walk-", make, ["walk-5", "walk-10"])
    assert {"walk-5", "walk-10"} <= set(envs.list())
    assert envs.make("walk-77").horizon == 77
    assert gymnasium.spec("metarl/Walk10-v0").max_episode_steps == 10
    with pytest.raises(ValueError, match="should end in a number of steps"):
        envs.make("walk-far")
    with pytest.raises(ValueError, match="did you mean walk-10"):
        envs.make("wal-10")
    with pytest.raises(ValueError, match="whose ids begin with 'walk-5'"):
        envs.register_family("walk-5", make, [])
    with pytest.raises(ValueError, match="called 'cheetah-direction' already"):
        envs.register_family("cheetah", make, [])


def test_installed_packages_offer_theirs(tmp_path: Path) -> None:
    """A package of somebody else, with an entry point, as pip would install it."""
    (tmp_path / "worlds.py").write_text((EXTERNAL / "hidden_corner.py").read_text())
    info = tmp_path / "worlds-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: worlds\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[metarl.envs]\nhidden-corner = worlds:hidden_corner\nbad = worlds:SIZE\n")
    program = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from metarl import envs
assert "worlds" not in sys.modules
print(envs.make("hidden-corner").id, "hidden-corner" in envs.list())
import gymnasium
print(gymnasium.make("metarl/HiddenCorner-v0").spec.max_episode_steps)
try:
    envs.make("bad")
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "hidden-corner True",
        "20",
        "'bad' is not a distribution: it must be a function that returns an EnvDistribution, got int",
    ], done.stderr


def test_unknown_ids_name_the_near_ones() -> None:
    with pytest.raises(ValueError, match="did you mean cheetah-terrain"):
        envs.make("cheeta-terrain")
    with pytest.raises(ValueError, match="there are acrobot-physics, .* Your own is named my_file.py:name") as error:
        envs.make("xyz")
    assert len(str(error.value)) < 700


def test_ids_are_spelled_as_gymnasium_can_read_them() -> None:
    for id in ("metaworld-custom:reach-v3,push-v3/door-open-v3+reward-v1", "cheetah-velocity-2", *envs.list()):
        assert gymnasium_id(id).startswith("metarl/")
        parse_env_id(gymnasium_id(id))
    assert len({gymnasium_id(id) for id in envs.list()}) == len(envs.list())
