"""Task-blind PPO: one policy for all training tasks, which neither adapts nor remembers.

The baseline that tells adaptation from robustness: whatever it reaches needs no knowledge of the task. It is RL²'s PPO
(`rl2_ppo.py`) on trials of one episode, with two plain layers in place of the recurrent cell: the action depends on the
present observation alone.
"""

import dataclasses
from typing import final

from metarl import checks
from metarl.agents.rl2 import Rl2PpoConfig


@final
@dataclasses.dataclass(frozen=True)
class PpoConfig:
    """Options of task-blind PPO; the defaults are those of RL² here."""

    meta_batch: int = 64
    """Tasks an outer step, with one episode each."""
    hidden: int = 128
    """Width of both layers."""
    initial_log_std: float = -0.5
    """log σ before training, ±1 being the action space's bounds."""
    learning_rate: float = 1e-3
    """Adam's."""
    epochs: int = 8
    """Passes over the episodes in an outer step."""
    minibatches: int = 4
    """Gradient steps in a pass."""
    clip: float = 0.2
    """ε, how far a probability ratio may profit from leaving 1."""
    discount: float = 0.99
    """γ."""
    gae_lambda: float = 0.95
    """λ of the advantages."""
    entropy_coefficient: float = 5e-3
    """Weight of the entropy bonus."""

    def __post_init__(self) -> None:
        checks.at_least(1, meta_batch=self.meta_batch)
        self.as_rl2()  # checks the rest

    def as_rl2(self) -> Rl2PpoConfig:
        """The same as options of RL² without a memory."""
        return Rl2PpoConfig(cell="none", episodes_per_trial=1, **dataclasses.asdict(self))
