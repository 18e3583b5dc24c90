"""Task-blind PPO (Schulman et al. 2017): one policy for all training tasks, which neither adapts nor remembers.

    a_t ~ π(· | f(o_t)),   v(f(o_t)),     f two tanh layers

It is the baseline that tells adaptation from robustness: whatever it reaches needs no knowledge of the task. The losses
and the passes over the data are in `metarl/maths/ppo.py`, which RL² learns by too.
"""

import dataclasses
import functools
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from metarl import checks
from metarl.agents import policies
from metarl.agents.batching import map_tensors, pad_rows
from metarl.agents.policies import ActorCriticHeads, ActorCriticOutputs
from metarl.learning.episodes import Episodes, Trials
from metarl.learning.protocols import AdaptationProtocol, Carry, Memoryless, Metrics, Parameters, State
from metarl.learning.random_streams import TaskRandom
from metarl.learning.spaces import Spaces
from metarl.maths import adam, ppo, returns
from metarl.maths.masked import standardise
from metarl.maths.running_mean_std import RunningMeanStd

_POLICY_HEAD = "heads.policy."


@final
@dataclasses.dataclass(frozen=True)
class PpoConfig:
    """Task-blind PPO: one policy for all tasks, the baseline without adaptation."""

    meta_batch: int = 64
    """Tasks an outer step, with one episode each."""
    hidden: tuple[int, ...] = (128, 128)
    """Widths of the layers that policy and critic share (the paper: 64, 64, and nothing shared)."""
    initial_log_std: float = -0.5
    """log σ before training, ±1 being the action space's bounds."""
    learning_rate: float = 1e-3
    """Adam's (the paper: 3e-4)."""
    epochs: int = 8
    """Passes over the steps in an outer step (the paper: 10)."""
    minibatches: int = 4
    """Gradient steps in a pass (the paper: 32)."""
    clip: float = 0.2
    """ε, how far a probability ratio may profit from leaving 1."""
    discount: float = 0.99
    """γ."""
    gae_lambda: float = 0.95
    """λ of the advantages."""
    entropy_coefficient: float = 5e-3
    """Weight of the entropy bonus (the paper: 0)."""
    value_coefficient: float = 0.5
    """Weight of the critic's squared error."""
    max_gradient_norm: float = 0.5
    """Gradients longer than this are shortened to it (not in the paper)."""
    normalise_observations: bool = True
    """Standardise observations by running statistics (not in the paper)."""
    normalise_rewards: bool = True
    """Divide rewards by the running standard deviation of the discounted returns (not in the paper)."""

    def __post_init__(self) -> None:
        checks.count(meta_batch=self.meta_batch, epochs=self.epochs, minibatches=self.minibatches)
        checks.positive(learning_rate=self.learning_rate, clip=self.clip, max_gradient_norm=self.max_gradient_norm)
        checks.at_least(0, entropy_coefficient=self.entropy_coefficient, value_coefficient=self.value_coefficient)
        checks.fraction(discount=self.discount, gae_lambda=self.gae_lambda)
        checks.layers(self.hidden)
        checks.log_std(initial_log_std=self.initial_log_std)

    def build(self, spaces: Spaces, device: torch.device | str = "cpu") -> "Ppo":
        """The agent with these options."""
        return Ppo(self, spaces, device)


@final
class ActorCritic(nn.Module):
    """A tanh MLP with heads for the policy and the value."""

    def __init__(self, spaces: Spaces, config: PpoConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.body = policies.mlp([spaces.observation_size, *config.hidden], policies.orthogonal(generator))
        self.heads = ActorCriticHeads(config.hidden[-1], spaces, config.initial_log_std, generator)

    def forward(self, observations: Float[Tensor, "*batch observation"]) -> ActorCriticOutputs:
        return self.heads(self.body(observations))


@final
@dataclasses.dataclass(frozen=True)
class Ppo:
    """The agent: its options and the spaces of its environment."""

    config: PpoConfig
    spaces: Spaces
    device: torch.device | str = "cpu"

    progress_keys = ("return_after", "success_after", "approx_kl")
    adaptation_name = "episode"

    @property
    def meta_batch(self) -> int:
        return self.config.meta_batch

    @property
    def protocol(self) -> AdaptationProtocol:
        return AdaptationProtocol(num_adaptations=0, episodes_per_adaptation=1)

    @functools.cached_property
    def network(self) -> ActorCritic:
        """The architecture, without weights."""
        return policies.architecture(ActorCritic(self.spaces, self.config, torch.Generator()))

    def init(self, seed: int) -> State:
        network = ActorCritic(self.spaces, self.config, torch.Generator().manual_seed(seed))
        learned = policies.parameters_of(network)
        statistics = RunningMeanStd.initial(self.spaces.observation_size + 1)  # [observation, discounted return]
        return State({**learned, **statistics.named()}, adam.start(learned)).to(self.device)

    def start(self, state: State, num_tasks: int) -> "BlindPolicy":
        return BlindPolicy(self, self.learned(state.parameters), self.observation_statistics(state.parameters))

    def learned(self, parameters: Parameters) -> dict[str, Tensor]:
        """The network's parameters, in its order, without the statistics."""
        return {name: parameters[name] for name, _ in self.network.named_parameters()}

    def policy_parameters(self, parameters: Parameters) -> dict[str, Tensor]:
        """Those of the policy without the critic, by the names that an `MlpPolicy` has for them."""
        learned = self.learned(parameters)
        head = {name: value for name, value in learned.items() if name.startswith(_POLICY_HEAD)}
        body = {name: value for name, value in learned.items() if name.startswith("body.")}
        return body | {f"head.{name.removeprefix(_POLICY_HEAD)}": value for name, value in head.items()}

    def observation_statistics(self, parameters: Parameters) -> RunningMeanStd:
        """What observations are standardised by, the identity where they are not."""
        mean, variance, total = RunningMeanStd.among(parameters)
        return RunningMeanStd(mean[:-1], variance[:-1], total)

    def apply(self, parameters: Parameters, observations: Float[Tensor, "*batch observation"]) -> ActorCriticOutputs:
        """The network under the given parameters, of standardised observations."""
        return policies.call(self.network, parameters, observations)

    def meta_step(self, state: State, experience: Trials, rng: np.random.Generator) -> tuple[State, Metrics]:
        return self.off_policy_meta_step(state, state.parameters, experience, rng)

    def off_policy_meta_step(
        self, state: State, behaviour: Parameters, experience: Trials, rng: np.random.Generator
    ) -> tuple[State, Metrics]:
        """`meta_step` on trials that the parameters `behaviour` played: ratios are to their probabilities."""
        episodes = experience.query
        statistics = self.merge_statistics(state.parameters, episodes)
        reward_scale = float(statistics.variance[-1].sqrt())
        # As when it acted: by the statistics from before these episodes.
        observations, rollout, explained = self.build_batch(behaviour, episodes, reward_scale)

        def loss(parameters: Parameters, index: Tensor) -> tuple[Tensor, Tensor]:
            outputs = self.apply(parameters, observations[index])
            return ppo.loss(outputs.distribution, outputs.values, rollout.pick(index), self.config)

        learned = self.learned(state.parameters)
        learned, moments, losses = ppo.minimise(loss, learned, state.optimizer, len(observations), self.config, rng)
        return State({**learned, **statistics.named()}, moments, state.store), {
            **losses,
            "explained_variance": explained,
            "reward_scale": reward_scale,
        }

    def merge_statistics(self, parameters: Parameters, episodes: Episodes) -> RunningMeanStd:
        """The statistics of [observation, discounted return] with these episodes taken in."""
        config, mask = self.config, episodes.mask
        discounted = returns.discounted_returns(episodes.rewards, config.discount * mask.to(episodes.rewards.dtype))
        x = torch.cat([episodes.observations, discounted[..., None]], dim=-1)[mask]
        mean, variance, total = RunningMeanStd.among(parameters).merge(x)
        fixed = torch.zeros(x.shape[-1], dtype=torch.bool, device=x.device)
        fixed[:-1] = not config.normalise_observations
        fixed[-1] = not config.normalise_rewards or not bool(variance[-1] > 0)
        return RunningMeanStd(torch.where(fixed, 0.0, mean), torch.where(fixed, 1.0, variance), total)

    def build_batch(
        self, parameters: Parameters, episodes: Episodes, reward_scale: float
    ) -> tuple[Float[Tensor, "sample observation"], ppo.Rollout, float]:
        """All steps' standardised observations, and what they are learned from; the variance that the critic explained.

        Values of the final observations come from the same pass, as one step more.
        """
        config, steps = self.config, episodes.rewards.shape[-1]
        lengths, terminated = episodes.lengths.flatten(), episodes.terminated.flatten()
        seen = torch.cat([episodes.observations, torch.zeros_like(episodes.observations[:, :, :1])], dim=2).flatten(
            0, 1
        )
        rows = torch.arange(len(seen), device=seen.device)
        seen = seen.index_put((rows, lengths), episodes.final_observations.flatten(0, 1))
        observations = self.observation_statistics(parameters).standardise(seen)
        with torch.no_grad():
            distribution, values = self.apply(self.learned(parameters), observations)
        rewards = nn.functional.pad(episodes.rewards.flatten(0, 1) / reward_scale, (0, 1))
        advantages = returns.sequence_gae(rewards, values, lengths, terminated, config.discount, config.gae_lambda)
        mask, actions = episodes.mask.flatten(0, 1), episodes.actions.flatten(0, 1)
        log_probs = map_tensors(lambda x: x[:, :steps], distribution).log_prob(actions)
        advantages, values = advantages[:, :steps], values[:, :steps]
        targets = advantages + values
        whole = ppo.Rollout(actions, log_probs, standardise(advantages, mask), targets, mask)
        explained = float(ppo.explained_variance(values, targets, mask))
        return observations[:, :steps][mask], map_tensors(lambda x: x[mask], whole), explained


@final
@dataclasses.dataclass(frozen=True)
class BlindPolicy(Memoryless):
    """The one policy of all tasks."""

    agent: Ppo
    parameters: Parameters
    """The network's."""
    statistics: RunningMeanStd
    """What observations are standardised by."""

    def act(
        self, observations: Float[Tensor, "task episode observation"], carry: Carry, random: TaskRandom | None
    ) -> tuple[Shaped[Tensor, "task episode *action"], Carry]:
        shape, rows = observations.shape[:2], observations.shape[:2].numel()
        inputs = pad_rows(self.statistics.standardise(observations).flatten(0, 1))
        distribution = self.agent.apply(self.parameters, inputs).distribution
        return map_tensors(lambda x: x[:rows].unflatten(0, shape), distribution).sample(random), carry

    def adapt(self, support: Episodes) -> "BlindPolicy":
        return self

    def shard(self, tasks: slice) -> "BlindPolicy":
        """The same: all tasks have one policy."""
        return self
