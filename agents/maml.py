"""MAML-TRPO: a policy that adapts to a task by a few gradient steps (Finn et al. 2017, "Model-Agnostic Meta-Learning").

Inner step, for each task 𝓣 on fresh episodes of the policy being adapted:

    θ_𝓣 = θ − α ∇_θ L_𝓣(θ),      L_𝓣(θ) = −E[log π_θ(a | o) Â]

Outer step, a trust region over the policies *after* adaptation (Schulman et al. 2015, TRPO):

    minimise   −E_𝓣 E[π_{θ_𝓣}(a | o) / π_old(a | o) · Â]   subject to   E_𝓣 KL(π_old ‖ π_{θ_𝓣}) ≤ δ

where π_old is the adapted policy that collected the query episodes, and both expressions are differentiated through
the inner step. First-order MAML takes the inner gradient as a constant; ANIL (Raghu et al. 2020) adapts the last layer
alone; learned rates make α one number a parameter (Li et al. 2017, "Meta-SGD").
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from metarl import checks
from metarl.adapt import Rates, adapt_tasks
from metarl.agents import policies
from metarl.agents.batching import map_tensors, pad_tasks
from metarl.agents.policies import MlpPolicy
from metarl.learning.episodes import Episodes, Trials
from metarl.learning.protocols import AdaptationProtocol, Carry, Memoryless, Metrics, Parameters, State
from metarl.learning.random_streams import TaskRandom
from metarl.learning.spaces import Spaces
from metarl.maths import linear_baseline, returns, trust_region
from metarl.maths.distributions import Distribution, Gaussian
from metarl.maths.masked import masked_mean, standardise
from metarl.maths.parameters import ravel, unravel
from metarl.maths.running_mean_std import RunningMeanStd

_INNER_LR = "inner_lr."


@final
@dataclasses.dataclass(frozen=True)
class MamlTrpoConfig:
    """MAML-TRPO: a policy that adapts to a task by gradient steps."""

    meta_batch: int = 20
    """Tasks an outer step (the paper: 40 for the cheetah, 20 for 2-D navigation)."""
    episodes_per_adaptation: int = 20
    """Episodes on each task before the first inner step, and after each."""
    inner_steps: int = 1
    """Inner steps; each one has episodes of its own."""
    inner_lr: float = 0.1
    """α, the inner steps' rate; the initial value of every rate where the rates are learned."""
    learn_inner_lr: bool = True
    """Learn one inner rate for each parameter (Meta-SGD); the paper keeps α fixed."""
    first_order: bool = False
    """Take the inner gradients as constants: no second derivatives."""
    anil: bool = False
    """Adapt only the last layer and log σ in the inner steps."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the policy's hidden layers (the paper: 100, 100)."""
    initial_log_std: float = -1.0
    """log σ before training. The paper's 0 drowns the signal where actions are clipped to ±1: see docs/results.md."""
    minimum_std: float = 0.1
    """Least σ, in units of the action space (±1 are its bounds): exploration goes on."""
    discount: float = 0.98
    """γ (the paper: 0.99)."""
    gae_lambda: float = 0.9
    """λ of the advantages. The paper's 1, Monte-Carlo returns, makes inner steps on few episodes very noisy."""
    normalise_observations: bool = False
    """Standardise observations by running statistics (not in the paper): for those that hardly vary, as Meta-World's
    positions do."""
    max_kl: float = 0.1
    """δ, the trust region's size, in nats (the paper: 0.01)."""
    cg_iterations: int = 10
    """Conjugate-gradient iterations for the natural gradient."""
    cg_damping: float = 1e-5
    """Added to the Fisher matrix's diagonal."""
    curvature_fraction: float = 0.2
    """Share of each task's episodes that the Fisher matrix is of; the line search checks the KL on all."""
    line_search_tries: int = 15
    """Step lengths that the line search tries."""
    line_search_shrink: float = 0.8
    """Factor between them."""

    def __post_init__(self) -> None:
        checks.at_least(
            1,
            meta_batch=self.meta_batch,
            episodes_per_adaptation=self.episodes_per_adaptation,
            inner_steps=self.inner_steps,
            cg_iterations=self.cg_iterations,
            line_search_tries=self.line_search_tries,
        )
        checks.at_least(0, cg_damping=self.cg_damping)
        checks.positive(inner_lr=self.inner_lr, max_kl=self.max_kl, minimum_std=self.minimum_std)
        checks.fraction(
            discount=self.discount,
            gae_lambda=self.gae_lambda,
            curvature_fraction=self.curvature_fraction,
            line_search_shrink=self.line_search_shrink,
        )
        checks.layers(self.hidden)

    def build(self, spaces: Spaces, device: torch.device | str = "cpu") -> "MamlTrpo":
        """The agent with these options."""
        return MamlTrpo(self, spaces, device)


class PolicyBatch(NamedTuple):
    """What a policy-gradient loss needs of episodes; a leading task axis where it is for a whole meta-batch."""

    observations: Float[Tensor, "*task sample observation"]
    actions: Shaped[Tensor, "..."]
    """[task, sample, action], or [task, sample] where they are discrete."""
    advantages: Float[Tensor, "*task sample"]
    mask: Bool[Tensor, "*task sample"]

    def standardised(self, statistics: RunningMeanStd | None) -> "PolicyBatch":
        """With observations as the policy is shown them."""
        return self if statistics is None else self._replace(observations=statistics.standardise(self.observations))


class PolicyOutputs(NamedTuple):
    """What policies say of a batch's samples, [task, sample]."""

    distribution: Distribution
    log_probs: Float[Tensor, "task sample"]
    """Of the batch's actions."""


def policy_gradient_loss(policy: MlpPolicy, parameters: Parameters, batch: PolicyBatch) -> Float[Tensor, ""]:
    """L(θ) = −E[log π_θ(a | o) Â], whose gradient is that of the return (Williams 1992), over the steps taken."""
    log_probs = policies.apply(policy, parameters, batch.observations).log_prob(batch.actions)
    return -masked_mean(log_probs * batch.advantages, batch.mask)


def surrogate_loss(new: PolicyOutputs, old: PolicyOutputs, query: PolicyBatch) -> Float[Tensor, ""]:
    """−E_𝓣 E[π_new(a | o) / π_old(a | o) · Â]."""
    ratio = torch.exp(new.log_probs - old.log_probs)
    return -masked_mean(ratio * query.advantages, query.mask, axes=-1).mean()


def mean_kl(new: PolicyOutputs, old: PolicyOutputs, query: PolicyBatch) -> Float[Tensor, ""]:
    """E_𝓣 E KL(π_old ‖ π_new), in nats."""
    return masked_mean(old.distribution.kl(new.distribution), query.mask, axes=-1).mean()


@final
@dataclasses.dataclass(frozen=True)
class MamlTrpo:
    """The agent: its options and the spaces of its environment."""

    config: MamlTrpoConfig
    spaces: Spaces
    device: torch.device | str = "cpu"

    progress_keys = ("return_before", "return_after", "success_after", "kl")
    adaptation_name = "gradient step"

    @property
    def meta_batch(self) -> int:
        return self.config.meta_batch

    @property
    def protocol(self) -> AdaptationProtocol:
        return AdaptationProtocol(self.config.inner_steps, self.config.episodes_per_adaptation)

    @functools.cached_property
    def policy(self) -> MlpPolicy:
        """The architecture, without weights."""
        return policies.architecture(self._build_policy(torch.Generator()))

    def _build_policy(self, generator: torch.Generator) -> MlpPolicy:
        config = self.config
        return MlpPolicy(self.spaces, config.hidden, config.initial_log_std, config.minimum_std, generator)

    def init(self, seed: int) -> State:
        parameters = policies.parameters_of(self._build_policy(torch.Generator().manual_seed(seed)))
        if self.config.learn_inner_lr:
            rate = self.config.inner_lr
            parameters |= {_INNER_LR + name: torch.full_like(value, rate) for name, value in parameters.items()}
        if self.config.normalise_observations:
            parameters |= RunningMeanStd.initial(self.spaces.observation_size).named()
        return State(parameters, {}).to(self.device)

    def start(self, state: State, num_tasks: int) -> "AdaptedMaml":
        policy, inner_lr = self.split(state.parameters)
        copies = {name: value.expand(num_tasks, *value.shape) for name, value in policy.items()}
        return AdaptedMaml(self, copies, inner_lr, self.statistics(state))

    def statistics(self, state: State) -> RunningMeanStd | None:
        """What observations are standardised by; None where they are taken as they are."""
        return RunningMeanStd.among(state.parameters) if self.config.normalise_observations else None

    def split(self, parameters: Parameters) -> tuple[dict[str, Tensor], Rates]:
        """The policy's parameters θ and the inner rates α."""
        policy = {name: parameters[name] for name, _ in self.policy.named_parameters()}
        if not self.config.learn_inner_lr:
            return policy, self.config.inner_lr
        return policy, {name: parameters[_INNER_LR + name] for name in policy}

    def build_batch(self, episodes: Episodes) -> PolicyBatch:
        """Advantages from a baseline fitted to these episodes, standardised within each task; observations as they are.

        The score is the return of the horizon's steps and the baseline sees the time, so the time limit is part of
        the task: the value after the last step is 0 by definition, not by confusing truncation with termination.
        """
        config, mask = self.config, episodes.mask
        discount = config.discount * mask.to(episodes.rewards.dtype)
        discounted = returns.discounted_returns(episodes.rewards, discount)
        values = linear_baseline.fit(episodes.observations, discounted, mask) * mask
        advantages = returns.gae(
            episodes.rewards, discount, values, torch.zeros_like(values[..., 0]), config.gae_lambda
        )
        return PolicyBatch(
            episodes.observations.flatten(1, 2),
            episodes.actions.flatten(1, 2),
            standardise(advantages.flatten(1), mask.flatten(1), axes=-1),
            mask.flatten(1),
        )

    def inner_step(
        self, parameters: Parameters, supports: Sequence[PolicyBatch], inner_lr: Rates, *, shared: bool
    ) -> dict[str, Tensor]:
        """θ_𝓣 of each task [task, …] after one inner step for each support."""
        return adapt_tasks(
            functools.partial(policy_gradient_loss, self.policy),
            parameters,
            supports,
            inner_lr,
            first_order=self.config.first_order,
            only=self.policy.head_names if self.config.anil else None,
            shared=shared,
        )

    def adapted_outputs(
        self, parameters: Parameters, supports: Sequence[PolicyBatch], query: PolicyBatch
    ) -> PolicyOutputs:
        """π_{θ_𝓣} on the query's samples, as a function of θ and α."""
        policy, inner_lr = self.split(parameters)
        adapted = self.inner_step(policy, supports, inner_lr, shared=True)
        distribution = self.distribution(adapted, query.observations)
        return PolicyOutputs(distribution, distribution.log_prob(query.actions))

    def distribution(
        self, parameters: Parameters, observations: Float[Tensor, "task sample observation"]
    ) -> Distribution:
        """π of each task's own parameters on its observations."""
        return torch.func.vmap(functools.partial(policies.apply, self.policy))(dict(parameters), observations)

    def meta_step(self, state: State, experience: Trials, rng: np.random.Generator) -> tuple[State, Metrics]:
        config, statistics = self.config, self.statistics(state)
        policy, inner_lr = self.split(state.parameters)
        rates = {_INNER_LR + name: value for name, value in inner_lr.items()} if isinstance(inner_lr, Mapping) else {}
        learned = {**policy, **rates}
        x = ravel(learned)
        raw = [self.build_batch(episodes) for episodes in experience.episodes]
        *supports, query = (batch.standardised(statistics) for batch in raw)

        def objective(x: Tensor) -> tuple[Tensor, PolicyOutputs]:
            new = self.adapted_outputs(unravel(x, learned), supports, query)
            old = PolicyOutputs(map_tensors(Tensor.detach, new.distribution), new.log_probs.detach())
            return surrogate_loss(new, old, query), old

        gradient, (loss, old) = torch.func.grad_and_value(objective, has_aux=True)(x)
        product = self.fisher_vector_product(x, learned, supports, query, rng)
        step = trust_region.natural_gradient_step(gradient, product, config.max_kl, config.cg_iterations)
        merged = None if statistics is None else _merge(statistics, experience)

        def candidate(share: float) -> tuple[dict[str, Tensor], RunningMeanStd | None]:
            """The parameters and statistics after a share of the step; new statistics are part of it.

            The first layer makes up for them, so that what changes is the size of the inner step alone.
            """
            parameters = unravel(x + share * step, learned)
            if statistics is None or merged is None:
                return parameters, None
            moved = statistics.toward(merged, share)
            weight, bias = MlpPolicy.first_layer
            parameters[weight], parameters[bias] = statistics.fold(moved, parameters[weight], parameters[bias])
            return parameters, moved

        def evaluate(share: float) -> tuple[Tensor, Tensor]:
            parameters, moved = candidate(share)
            *seen_supports, seen_query = (batch.standardised(moved) for batch in raw)
            with torch.no_grad():
                new = self.adapted_outputs(parameters, seen_supports, seen_query)
                return surrogate_loss(new, old, query), mean_kl(new, old, query)

        found = trust_region.line_search(
            evaluate,
            limit=config.max_kl,
            loss=float(loss),
            shrink=config.line_search_shrink,
            tries=config.line_search_tries,
        )
        parameters, moved = candidate(found.share)
        return State(parameters | ({} if moved is None else moved.named()), {}, state.store), {
            "surrogate": found.loss,
            "kl": found.constraint,
            "accepted": int(found.accepted),
            "backtracks": found.backtracks,
            "gradient_norm": float(gradient.norm()),
            **_spread(old.distribution),
        }

    def fisher_vector_product(
        self,
        x: Float[Tensor, " n"],
        like: Parameters,
        supports: Sequence[PolicyBatch],
        query: PolicyBatch,
        rng: np.random.Generator,
    ) -> trust_region.Product:
        """Products with the Hessian of E_𝓣 KL at x, through the inner steps; of a share of the episodes.

        It only shapes the step, and the KL is checked on all episodes.
        """
        *supports, query = (self._share(batch, rng) for batch in (*supports, query))
        x = x.detach().requires_grad_()
        distribution = self.adapted_outputs(unravel(x, like), supports, query).distribution
        mask = query.mask.to(x.dtype)
        weights = mask / mask.sum(-1, keepdim=True).clamp_min(1) / len(mask)
        return trust_region.fisher_vector_product(distribution, x, weights, self.config.cg_damping)

    def _share(self, batch: PolicyBatch, rng: np.random.Generator) -> PolicyBatch:
        """The same random episodes of every task, `curvature_fraction` of them."""
        episodes = self.config.episodes_per_adaptation
        count = max(1, round(self.config.curvature_fraction * episodes))
        chosen = torch.from_numpy(np.sort(rng.permutation(episodes)[:count])).to(batch.mask.device)
        return map_tensors(lambda x: x.unflatten(1, (episodes, -1)).index_select(1, chosen).flatten(1, 2), batch)


@final
@dataclasses.dataclass(frozen=True)
class AdaptedMaml(Memoryless):
    """The policies of a batch of tasks, each adapted to what it has seen of its task."""

    agent: MamlTrpo
    parameters: Parameters
    """θ_𝓣 of each task; a leading task axis."""
    inner_lr: Rates
    """α."""
    statistics: RunningMeanStd | None
    """What observations are standardised by, if by anything."""

    def distribution(self, observations: Float[Tensor, "task episode observation"]) -> Distribution:
        """π_{θ_𝓣} on each task's observations."""
        if self.statistics is not None:
            observations = self.statistics.standardise(observations)
        parameters = {name: pad_tasks(value) for name, value in self.parameters.items()}
        distribution = self.agent.distribution(parameters, pad_tasks(observations))
        return map_tensors(lambda x: x[: len(observations)], distribution)

    def act(
        self, observations: Float[Tensor, "task episode observation"], carry: Carry, random: TaskRandom | None
    ) -> tuple[Shaped[Tensor, "task episode *action"], Carry]:
        return self.distribution(observations).sample(random), carry

    def adapt(self, support: Episodes) -> "AdaptedMaml":
        """One inner step further."""
        num_tasks = len(support.lengths)
        padded = Episodes(**{name: pad_tasks(part) for name, part in support.tensors().items()})
        batch = self.agent.build_batch(padded).standardised(self.statistics)
        parameters = {name: pad_tasks(value) for name, value in self.parameters.items()}
        with torch.no_grad():
            adapted = self.agent.inner_step(parameters, [batch], self.inner_lr, shared=False)
        return dataclasses.replace(self, parameters={name: value[:num_tasks] for name, value in adapted.items()})


def _merge(statistics: RunningMeanStd, trials: Trials) -> RunningMeanStd:
    """The statistics with all steps of the trials taken in."""
    return statistics.merge(torch.cat([episodes.observations[episodes.mask] for episodes in trials.episodes]))


def _spread(distribution: Distribution) -> dict[str, float]:
    """How much the adapted policies explore: their mean entropy, and σ where they have one."""
    std = {"policy_std": float(distribution.log_std.exp().mean())} if isinstance(distribution, Gaussian) else {}
    return {"entropy": float(distribution.entropy().mean()), **std}
