"""The agents by the name that programs know them under."""

from metarl.agents.maml import MamlTrpo, MamlTrpoConfig
from metarl.agents.ppo import PpoConfig
from metarl.agents.rl2 import Rl2Ppo, Rl2PpoConfig
from metarl.envs import EnvDistribution
from metarl.learning.collect import Sampler, box
from metarl.learning.protocols import Agent

AgentConfig = MamlTrpoConfig | Rl2PpoConfig | PpoConfig

CONFIGS: dict[str, type[AgentConfig]] = {"maml": MamlTrpoConfig, "rl2": Rl2PpoConfig, "ppo": PpoConfig}
"""Each agent's options by its name."""


def name_of(config: AgentConfig) -> str:
    """The name of the agent that these are options of."""
    return next(name for name, kind in CONFIGS.items() if isinstance(config, kind))


def make(config: AgentConfig, dist: EnvDistribution, threads: int = 1, device: str = "cpu") -> Agent:
    """An agent with these options for the environments of a distribution."""
    observation_size = int(box(dist.observation_space).shape[0])
    action_size = int(box(dist.action_space).shape[0])
    sampler = Sampler(dist, threads, device)
    if isinstance(config, MamlTrpoConfig):
        return MamlTrpo(config, observation_size, action_size, sampler, device)
    if isinstance(config, PpoConfig):
        config = config.as_rl2()
    return Rl2Ppo(config, observation_size, action_size, sampler, device)


__all__ = [
    "CONFIGS",
    "AgentConfig",
    "MamlTrpo",
    "MamlTrpoConfig",
    "PpoConfig",
    "Rl2Ppo",
    "Rl2PpoConfig",
    "make",
    "name_of",
]
