"""Stable-Baselines3's PPO and SAC as task-blind baselines: their networks, losses and optimisers, our trials.

What collects is the collector that all agents share, and what is learned is a `State`: an outer step builds
Stable-Baselines3's model, puts the state into it, hands it the trials, calls its `train()`, and takes the state out
(`sb3_learning.py`). So runs resume bit for bit, and checkpoints hold tensors, no pickle. Observations reach it flat,
actions are in units of the action space (±1), as its documentation asks for; it standardises neither.

On one family alone, `--env cheetah-terrain+only-ice`, they are that family's specialists.
"""

import dataclasses
from typing import final

import torch

from metarl import checks
from metarl.errors import UsageError
from metarl.learning.protocols import Agent
from metarl.learning.spaces import Spaces


@final
@dataclasses.dataclass(frozen=True)
class Sb3PpoConfig:
    """Stable-Baselines3's PPO, task-blind: the baseline that others know.

    Needs the package stable-baselines3.
    """

    meta_batch: int = 16
    """Tasks an outer step, with one episode each: what `n_steps` × environments is there."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the policy's layers, and of the critic's, which shares none."""
    learning_rate: float = 3e-4
    """Adam's."""
    batch_size: int = 64
    """Steps in a gradient step."""
    epochs: int = 10
    """Passes over the steps in an outer step."""
    clip: float = 0.2
    """ε, how far a probability ratio may profit from leaving 1."""
    discount: float = 0.99
    """γ."""
    gae_lambda: float = 0.95
    """λ of the advantages."""
    entropy_coefficient: float = 0.0
    """Weight of the entropy bonus."""
    value_coefficient: float = 0.5
    """Weight of the critic's squared error."""
    max_gradient_norm: float = 0.5
    """Gradients longer than this are shortened to it."""

    def __post_init__(self) -> None:
        checks.count(meta_batch=self.meta_batch, epochs=self.epochs)
        checks.at_least(2, batch_size=self.batch_size)  # advantages are standardised within a batch
        checks.positive(learning_rate=self.learning_rate, clip=self.clip, max_gradient_norm=self.max_gradient_norm)
        checks.at_least(0, entropy_coefficient=self.entropy_coefficient, value_coefficient=self.value_coefficient)
        checks.fraction(discount=self.discount, gae_lambda=self.gae_lambda)
        checks.layers(self.hidden)

    def build(self, spaces: Spaces, device: torch.device | str = "cpu") -> Agent:
        """The agent with these options.

        Raises:
            UsageError: Stable-Baselines3 is not installed.
        """
        need_stable_baselines("sb3-ppo")
        from metarl.agents.sb3_learning import Sb3Ppo

        return Sb3Ppo(self, spaces, device)


@final
@dataclasses.dataclass(frozen=True)
class Sb3SacConfig:
    """Stable-Baselines3's SAC, task-blind: off-policy, with a replay buffer.

    Needs the package stable-baselines3.
    """

    meta_batch: int = 4
    """Tasks an outer step, with one episode each (there: `train_freq`, in episodes)."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the actor's layers, and of each critic's."""
    learning_rate: float = 3e-4
    """Of actor, critics and temperature."""
    buffer_size: int = 1_000_000
    """Environment steps kept for replay, in whole outer steps."""
    learning_starts: int = 100
    """Environment steps before which actions are uniform and nothing is learned."""
    batch_size: int = 256
    """Transitions in a gradient step."""
    updates_per_step: float = 1.0
    """Gradient steps for each environment step."""
    discount: float = 0.99
    """γ."""
    tau: float = 0.005
    """How far the target critics follow the critics in a gradient step."""

    def __post_init__(self) -> None:
        checks.count(meta_batch=self.meta_batch, batch_size=self.batch_size)
        checks.at_least(1, buffer_size=self.buffer_size)
        checks.at_least(0, learning_starts=self.learning_starts)
        checks.positive(learning_rate=self.learning_rate, updates_per_step=self.updates_per_step)
        checks.fraction(discount=self.discount, tau=self.tau)
        checks.layers(self.hidden)

    def build(self, spaces: Spaces, device: torch.device | str = "cpu") -> Agent:
        """The agent with these options.

        Raises:
            UsageError: Stable-Baselines3 is not installed.
            ValueError: the actions are discrete.
        """
        if spaces.discrete:
            raise ValueError(f"sb3-sac acts in a Box, and the action space here is {spaces.action}; sb3-ppo takes both")
        need_stable_baselines("sb3-sac")
        from metarl.agents.sb3_learning import Sb3Sac

        return Sb3Sac(self, spaces, device)


def need_stable_baselines(what: str) -> None:
    """Raises UsageError where Stable-Baselines3, which `what` needs, is not installed."""
    try:
        import stable_baselines3  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "stable_baselines3":
            raise
        raise UsageError(f"{what} needs Stable-Baselines3: pip install stable-baselines3") from None
