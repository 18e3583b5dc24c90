"""Policies that adapt to a task by gradient steps: the inner loop that MAML-TRPO and ProMP have in common.

    θ_𝓣⁰ = θ,   θ_𝓣ⁱ⁺¹ = θ_𝓣ⁱ − α ∇ L(θ_𝓣ⁱ; Dⁱ),   i = 0 … n−1                 (Finn et al. 2017, alg. 3)

The episodes Dⁱ are fresh ones of the policy adapted so far, θ_𝓣ⁱ; Dⁿ are the query's. The inner surrogate L is one of
`policy_gradient.py`: both have the policy gradient, but only the likelihood ratio has its derivative too, which the
outer step needs. ANIL (Raghu et al. 2020) adapts the last layer alone; learned rates make α one number a parameter
(Li et al. 2017, "Meta-SGD"); first-order MAML takes the inner gradients as constants.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from metarl import checks
from metarl.adapt import Rates, adapt_tasks
from metarl.agents import policies, policy_gradient
from metarl.agents.batching import map_tensors, pad_tasks
from metarl.agents.policies import MlpPolicy
from metarl.agents.policy_gradient import InnerSurrogate, PolicyBatch, PolicyOutputs
from metarl.agents.ppo import Ppo, PpoConfig
from metarl.learning.episodes import Episodes, Trials
from metarl.learning.protocols import AdaptationProtocol, Agent, Carry, Memoryless, Parameters, State
from metarl.learning.random_streams import TaskRandom
from metarl.learning.sharding import rows_of
from metarl.learning.spaces import Spaces
from metarl.maths.distributions import Distribution
from metarl.maths.running_mean_std import RunningMeanStd

_INNER_LR = "inner_lr."


@dataclasses.dataclass(frozen=True)
class PolicyAdaptationConfig:
    """The options that every agent has whose policy adapts by gradient steps."""

    meta_batch: int = 20
    """Tasks an outer step (the papers: 40 for the cheetah, 20 for 2-D navigation)."""
    episodes_per_adaptation: int = 20
    """Episodes on each task before the first inner step, and after each."""
    inner_steps: int = 1
    """Inner steps; each one has episodes of its own."""
    inner_lr: float = 0.1
    """α, the inner steps' rate; the initial value of every rate where the rates are learned."""
    learn_inner_lr: bool = True
    """Learn one inner rate for each parameter (Meta-SGD); the papers of MAML and ProMP keep α fixed."""
    inner_surrogate: InnerSurrogate = "log-likelihood"
    """The inner steps' loss: MAML's or ProMP's. Both have the policy gradient; the likelihood ratio's second derivative
    also has the term of the sampling distribution, which the log-likelihood's lacks (and its noise)."""
    first_order: bool = False
    """Take the inner gradients as constants: no second derivatives."""
    anil: bool = False
    """Adapt only the last layer and log σ in the inner steps."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the policy's hidden layers (MAML's paper: 100, 100)."""
    initial_log_std: float = -1.0
    """log σ before training. The papers' 0 drowns the signal where actions are clipped to ±1: see docs/results.md."""
    minimum_std: float = 0.1
    """Least σ, in units of the action space (±1 are its bounds): exploration goes on."""
    squash_mean: bool = True
    """Squash the mean actions into the action space by tanh (not in the papers). Not where it begins with the policy
    of `ppo`, which does not."""
    discount: float = 0.98
    """γ (the papers: 0.99)."""
    gae_lambda: float = 0.9
    """λ of the advantages. The papers' 1, Monte-Carlo returns, makes inner steps on few episodes very noisy."""
    baseline_ridge: float = 1e-5
    """Ridge of the linear baseline, which is fitted to the very episodes of each task and inner step."""
    standardise_advantages: bool = True
    """Divide each task's advantages by their standard deviation, after taking off their mean."""
    normalise_observations: bool = False
    """Standardise observations by running statistics (not in the papers): for those that hardly vary, as Meta-World's
    positions do, and where it begins with a policy that does."""

    def __post_init__(self) -> None:
        checks.count(meta_batch=self.meta_batch, episodes_per_adaptation=self.episodes_per_adaptation)
        checks.count(inner_steps=self.inner_steps)
        checks.positive(inner_lr=self.inner_lr, minimum_std=self.minimum_std, baseline_ridge=self.baseline_ridge)
        checks.fraction(discount=self.discount, gae_lambda=self.gae_lambda)
        checks.layers(self.hidden)
        checks.log_std(initial_log_std=self.initial_log_std)


@final
@dataclasses.dataclass(frozen=True)
class PolicyAdaptation:
    """The policy's architecture and how it adapts."""

    config: PolicyAdaptationConfig
    spaces: Spaces

    @property
    def protocol(self) -> AdaptationProtocol:
        """An adaptation for each inner step."""
        return AdaptationProtocol(self.config.inner_steps, self.config.episodes_per_adaptation)

    @functools.cached_property
    def policy(self) -> MlpPolicy:
        """The architecture, without weights."""
        return policies.architecture(self._build_policy(torch.Generator()))

    def _build_policy(self, generator: torch.Generator) -> MlpPolicy:
        config = self.config
        return MlpPolicy(
            self.spaces,
            config.hidden,
            config.initial_log_std,
            config.minimum_std,
            generator,
            squashed=config.squash_mean,
        )

    def init(self, seed: int) -> dict[str, Tensor]:
        """θ, the rates α where they are learned, and the statistics of observations where there are any."""
        parameters = policies.parameters_of(self._build_policy(torch.Generator().manual_seed(seed)))
        if self.config.learn_inner_lr:
            rate = self.config.inner_lr
            parameters |= {_INNER_LR + name: torch.full_like(value, rate) for name, value in parameters.items()}
        if self.config.normalise_observations:
            parameters |= RunningMeanStd.initial(self.spaces.observation_size).named()
        return parameters

    def warm_start(self, fresh: Parameters, blind: Agent, learned: Parameters) -> dict[str, Tensor]:
        """`fresh` with the policy of task-blind PPO: before it adapts it acts as that does. PPO's critic is left out.

        Raises:
            ValueError: it is no PPO, or of another architecture.
        """
        if not isinstance(blind, Ppo):
            raise ValueError(f"it can begin with its own kind or with ppo, not with {type(blind).__name__}")
        policy = blind.policy_parameters(learned)
        if differences := self._differences(blind.config, policy):
            raise ValueError("; ".join(differences))
        parameters = {**fresh, **policy}
        if self.config.normalise_observations:
            parameters |= blind.observation_statistics(learned).named()
        return {name: value.clone() for name, value in parameters.items()}

    def _differences(self, blind: PpoConfig, policy: Parameters) -> list[str]:
        """Why a policy of task-blind PPO would not act here as it does there."""
        own, found = self.config, list[str]()
        if blind.hidden != own.hidden:
            there, here = (" ".join(map(str, widths)) for widths in (blind.hidden, own.hidden))
            found.append(f"its layers are {there} wide, here {here}: give --hidden {there}")
        if blind.normalise_observations != own.normalise_observations:
            there, here, option = (
                ("standardised", "not", "--normalise-observations")
                if blind.normalise_observations
                else ("not standardised", "they are", "--no-normalise-observations")
            )
            found.append(f"its observations are {there}, here {here}: give {option}")
        if own.squash_mean and not self.spaces.discrete:
            found.append("its mean actions are not squashed, here they are: give --no-squash-mean")
        least = math.exp(float(policy[MlpPolicy.log_std].min())) if MlpPolicy.log_std in policy else math.inf
        if least < own.minimum_std:
            found.append(f"its least σ is {least:.3g}, here {own.minimum_std:g}: give a smaller --minimum-std")
        return found

    def learned(self, parameters: Parameters) -> dict[str, Tensor]:
        """θ and α, in the network's order whatever the state's: the order of a sum decides its last bit."""
        names = [name for name, _ in self.policy.named_parameters()]
        rates = [_INNER_LR + name for name in names] if self.config.learn_inner_lr else []
        return {name: parameters[name] for name in (*names, *rates)}

    def split(self, parameters: Parameters) -> tuple[dict[str, Tensor], Rates]:
        """The policy's parameters θ and the inner rates α."""
        policy = {name: parameters[name] for name, _ in self.policy.named_parameters()}
        rates = {name: parameters[_INNER_LR + name] for name in policy} if self.config.learn_inner_lr else {}
        return policy, rates or self.config.inner_lr

    def statistics(self, parameters: Parameters) -> RunningMeanStd | None:
        """What observations are standardised by; None where they are taken as they are."""
        return RunningMeanStd.among(parameters) if self.config.normalise_observations else None

    def start(self, state: State, num_tasks: int) -> "GradientAdapted":
        """The policies of tasks of which nothing was seen yet."""
        policy, inner_lr = self.split(state.parameters)
        return GradientAdapted(self, _for_each_task(policy, num_tasks), inner_lr, self.statistics(state.parameters))

    def distribution(
        self, parameters: Parameters, observations: Float[Tensor, "task sample observation"]
    ) -> Distribution:
        """π of each task's own parameters on its observations."""
        return torch.func.vmap(functools.partial(policies.apply, self.policy))(dict(parameters), observations)

    def outputs(self, parameters: Parameters, batch: PolicyBatch) -> PolicyOutputs:
        """What each task's policy says of its samples."""
        distribution = self.distribution(parameters, batch.observations)
        return PolicyOutputs(distribution, distribution.log_prob(batch.actions))

    def inner_step(
        self, parameters: Parameters, support: PolicyBatch, inner_lr: Rates, *, shared: bool
    ) -> dict[str, Tensor]:
        """θ_𝓣 of each task [task, …] after one inner step; before it they are `shared`, or each task's own."""
        config = self.config
        return adapt_tasks(
            functools.partial(policy_gradient.INNER_LOSSES[config.inner_surrogate], self.policy),
            parameters,
            [support],
            inner_lr,
            first_order=config.first_order,
            only=self.policy.head_names if config.anil else None,
            shared=shared,
        )

    def stages(self, learned: Parameters, supports: Sequence[PolicyBatch]) -> list[dict[str, Tensor]]:
        """θ_𝓣⁰, …, θ_𝓣ⁿ as functions of θ and α: each with a task axis, one more than there are supports."""
        policy, inner_lr = self.split(learned)
        stages = [_for_each_task(policy, len(supports[0].mask))]
        for support in supports:
            shared = len(stages) == 1
            stages.append(self.inner_step(policy if shared else stages[-1], support, inner_lr, shared=shared))
        return stages

    def build_batch(self, episodes: Episodes, log_probs: Float[Tensor, "task sample"]) -> PolicyBatch:
        """Advantages of the steps taken; observations as they were.

        `log_probs` are those of the actions under the policy that took them.
        """
        config = self.config
        return policy_gradient.build_batch(
            episodes,
            log_probs,
            config.discount,
            config.gae_lambda,
            ridge=config.baseline_ridge,
            standardised=config.standardise_advantages,
        )

    @staticmethod
    def observations_of(trials: Trials) -> Float[Tensor, "sample observation"]:
        """Those of all steps that were taken."""
        return torch.cat([episodes.observations[episodes.mask] for episodes in trials.episodes])

    def restandardised(self, learned: Parameters, old: RunningMeanStd, new: RunningMeanStd) -> dict[str, Tensor]:
        """The parameters with a first layer that makes up for new statistics of observations.

        Policies stay as they were, but for the size of their inner steps.
        """
        weight, bias = MlpPolicy.first_layer
        layer = old.fold(new, learned[weight], learned[bias])
        return {**learned, weight: layer[0], bias: layer[1]}

    @torch.no_grad()
    def replay(self, parameters: Parameters, trials: Trials) -> tuple[list[PolicyBatch], list[PolicyOutputs]]:
        """The batches of trials, observations as they were, and what the policies that played them say of them."""
        adapted = self.start(State(parameters, {}), len(trials.tasks))
        batches, outputs = list[PolicyBatch](), list[PolicyOutputs]()
        for stage, episodes in enumerate(trials.episodes):
            if stage:
                adapted = adapted.step(batches[-1])
            batch, said = adapted.build_batch(episodes)
            batches.append(batch)
            outputs.append(said)
        return batches, outputs


@final
@dataclasses.dataclass(frozen=True)
class GradientAdapted(Memoryless):
    """The policies of a batch of tasks, each adapted to what it has seen of its task."""

    adaptation: PolicyAdaptation
    parameters: Parameters
    """θ_𝓣 of each task; a leading task axis."""
    inner_lr: Rates
    """α."""
    statistics: RunningMeanStd | None
    """What observations are standardised by, if by anything."""

    def distribution(self, observations: Float[Tensor, "task episode observation"]) -> Distribution:
        """π_{θ_𝓣} on each task's observations."""
        seen = observations if self.statistics is None else self.statistics.standardise(observations)
        distribution = self.adaptation.distribution(self._padded, pad_tasks(seen))
        return map_tensors(lambda x: x[: len(observations)], distribution)

    def act(
        self, observations: Float[Tensor, "task episode observation"], carry: Carry, random: TaskRandom | None
    ) -> tuple[Shaped[Tensor, "task episode *action"], Carry]:
        return self.distribution(observations).sample(random), carry

    def adapt(self, support: Episodes) -> "GradientAdapted":
        """One inner step further."""
        batch, _ = self.build_batch(support)
        return self.step(batch)

    def build_batch(self, episodes: Episodes) -> tuple[PolicyBatch, PolicyOutputs]:
        """The batch of episodes that these policies played, and what they say of it."""
        num_tasks = len(episodes.lengths)
        padded = Episodes(**{name: pad_tasks(part) for name, part in episodes.tensors().items()})
        with torch.no_grad():
            distribution = self.distribution(padded.observations.flatten(1, 2))
            log_probs = distribution.log_prob(padded.actions.flatten(1, 2))
        batch = map_tensors(lambda x: x[:num_tasks], self.adaptation.build_batch(padded, log_probs))
        return batch, PolicyOutputs(map_tensors(lambda x: x[:num_tasks], distribution), batch.log_probs)

    def step(self, batch: PolicyBatch) -> "GradientAdapted":
        """`adapt`, to a batch that is built already."""
        support = map_tensors(pad_tasks, batch.standardised(self.statistics))
        with torch.no_grad():
            adapted = self.adaptation.inner_step(self._padded, support, self.inner_lr, shared=False)
        num_tasks = len(batch.mask)
        return dataclasses.replace(self, parameters={name: value[:num_tasks] for name, value in adapted.items()})

    def shard(self, tasks: slice) -> "GradientAdapted":
        """The policies of some of the tasks."""
        return dataclasses.replace(self, parameters={name: rows_of(x, tasks) for name, x in self.parameters.items()})

    @property
    def _padded(self) -> dict[str, Tensor]:
        return {name: pad_tasks(value) for name, value in self.parameters.items()}


def _for_each_task(parameters: Parameters, num_tasks: int) -> dict[str, Tensor]:
    return {name: value.expand(num_tasks, *value.shape) for name, value in parameters.items()}
