"""Agents by name, and agents from outside."""

from pathlib import Path

import pytest

from metarl import agents
from metarl.agents import (
    MamlTrpoConfig,
    PpoConfig,
    PrompConfig,
    Rl2PpoConfig,
    Sb3PpoConfig,
    Sb3SacConfig,
    VaribadConfig,
)
from metarl.registry import Registry
from metarl.testing.agents import check_agent
from tests.agents.toys import Toy, box

MINE = '''
"""An agent in a file of its own."""

import dataclasses

from metarl.agents import PpoConfig
from metarl.agents.ppo import Ppo


@dataclasses.dataclass(frozen=True)
class Mine:
    """PPO with one layer."""

    units: int = 8

    def build(self, spaces, device="cpu"):
        return Ppo(PpoConfig(meta_batch=4, hidden=(self.units,), epochs=1, minibatches=2), spaces, device)


nothing = 3
'''


@pytest.fixture
def mine(tmp_path: Path) -> str:
    file = tmp_path / "my_agent.py"
    file.write_text(MINE)
    return f"{file}:Mine"


def test_the_built_in_agents_are_known_by_name() -> None:
    kinds = {
        "maml": MamlTrpoConfig,
        "ppo": PpoConfig,
        "promp": PrompConfig,
        "rl2": Rl2PpoConfig,
        "sb3-ppo": Sb3PpoConfig,
        "sb3-sac": Sb3SacConfig,
        "varibad": VaribadConfig,
    }
    assert agents.list() == tuple(kinds)
    for name, kind in kinds.items():
        assert agents.config_class(name) is kind
        assert agents.name_of(kind()) == name


def test_each_says_in_one_line_what_it_is() -> None:
    lines = [(agents.config_class(name).__doc__ or "").splitlines()[0] for name in agents.list()]
    assert all(line.endswith(".") and len(line) < 90 for line in lines) and len(set(lines)) == len(lines)


def test_an_agent_in_a_file_is_an_agent(mine: str) -> None:
    kind = agents.config_class(mine)
    check_agent(kind(), Toy(box(2)))
    assert agents.name_of(kind()) == mine
    assert agents.config_class(agents.name_of(kind())) is kind


def test_an_agent_may_be_registered(mine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry("agent", "metarl.agents", agents.REGISTRY._check)  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(agents, "REGISTRY", registry)
    kind = agents.config_class(mine)
    agents.register("mine", kind)
    assert agents.config_class("mine") is kind and agents.name_of(kind()) == "mine" and "mine" in agents.list()
    with pytest.raises(ValueError, match="called 'mine' already"):
        agents.register("mine", PpoConfig)


def test_what_is_no_agent_is_refused_by_name(mine: str) -> None:
    with pytest.raises(ValueError, match="unknown agent 'mamml'; did you mean maml"):
        agents.config_class("mamml")
    nothing = mine.replace(":Mine", ":nothing")
    with pytest.raises(ValueError, match="nothing' is .*: expected a dataclass of options .*, got 3"):
        agents.config_class(nothing)
    with pytest.raises(ValueError, match="expected a dataclass of options"):
        agents.config_class("metarl.agents.ppo:Ppo")  # the agent itself
    with pytest.raises(ValueError, match="has no 'Mime'; did you mean Mine"):
        agents.config_class(mine.replace(":Mine", ":Mime"))
