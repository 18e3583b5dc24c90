"""Agents, and the names that programs know them under.

>>> from metarl import agents
>>> agents.list()
('maml', 'ppo', 'promp', 'rl2', 'sb3-ppo', 'sb3-sac', 'varibad')
>>> agents.config_class("rl2")().episodes_per_trial
2

One of your own needs a frozen dataclass of options with `build(spaces, device)`: `register("mine", MyConfig)`, an entry
point `mine = "my_package:MyConfig"` in the group `metarl.agents`, or an id `my_file.py:MyConfig`.
"""

import dataclasses
import sys
from typing import Protocol, runtime_checkable

import torch

from metarl.agents.maml import MamlTrpo, MamlTrpoConfig
from metarl.agents.ppo import Ppo, PpoConfig
from metarl.agents.promp import Promp, PrompConfig
from metarl.agents.rl2 import Rl2Ppo, Rl2PpoConfig
from metarl.agents.sb3 import Sb3PpoConfig, Sb3SacConfig
from metarl.agents.varibad import Varibad, VaribadConfig
from metarl.learning.protocols import Agent
from metarl.learning.spaces import Spaces
from metarl.registry import Registry


@runtime_checkable
class AgentConfig(Protocol):
    """The options of an agent: a frozen dataclass with a docstring, whose first line says what the agent is."""

    def build(self, spaces: Spaces, device: torch.device | str = "cpu") -> Agent:
        """The agent with these options, for environments with these spaces, computing on a device."""
        ...


def _config_class(entry: object) -> type[AgentConfig]:
    if not isinstance(entry, type) or not dataclasses.is_dataclass(entry) or not issubclass(entry, AgentConfig):
        raise ValueError(f"expected a dataclass of options with a method build(spaces, device), got {entry!r}")
    return entry


REGISTRY = Registry("agent", "metarl.agents", _config_class)


def register(name: str, config: type[AgentConfig]) -> None:
    """Makes an agent known by a name, under which programs and `metarl.load` find it."""
    REGISTRY.register(name, config)


def config_class(id: str) -> type[AgentConfig]:
    """The options of an agent by its id: a name, `my_module:MyConfig` or `my_file.py:MyConfig`.

    Raises:
        ValueError: there is none; the message says what is near.
    """
    return REGISTRY[id]


def name_of(config: AgentConfig) -> str:
    """The id of the agent that these are options of: its name, or where its class is defined."""
    kind = type(config)
    if (name := REGISTRY.name_of(kind)) is not None:
        return name
    module = sys.modules[kind.__module__]
    place = module.__file__ if module.__name__.startswith("metarl_file_") else module.__name__
    return f"{place}:{kind.__qualname__}"


def list() -> tuple[str, ...]:
    """The names of all agents, sorted: those registered and those that installed packages offer."""
    return tuple(REGISTRY)


register("maml", MamlTrpoConfig)
register("rl2", Rl2PpoConfig)
register("ppo", PpoConfig)
register("promp", PrompConfig)
register("sb3-ppo", Sb3PpoConfig)
register("sb3-sac", Sb3SacConfig)
register("varibad", VaribadConfig)

__all__ = [
    "REGISTRY",
    "AgentConfig",
    "MamlTrpo",
    "MamlTrpoConfig",
    "Ppo",
    "PpoConfig",
    "Promp",
    "PrompConfig",
    "Rl2Ppo",
    "Rl2PpoConfig",
    "Sb3PpoConfig",
    "Sb3SacConfig",
    "Varibad",
    "VaribadConfig",
    "config_class",
    "list",
    "name_of",
    "register",
]
