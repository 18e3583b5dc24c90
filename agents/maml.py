"""MAML-TRPO: a policy that adapts to a task by a few gradient steps (Finn et al. 2017, "Model-Agnostic Meta-Learning").

Inner step, for each task 𝓣 on fresh episodes of the policy being adapted:

    θ_𝓣 = θ − α ∇_θ L_𝓣(θ),      L_𝓣(θ) = −E[log π_θ(a | o) Â]

Outer step, a trust region over the policies *after* adaptation (Schulman et al. 2015, TRPO):

    minimise   −E_𝓣 E[π_{θ_𝓣}(a | o) / π_old(a | o) · Â]   subject to   E_𝓣 KL(π_old ‖ π_{θ_𝓣}) ≤ δ

where π_old is the adapted policy that collected the query episodes, and both expressions are differentiated through
the inner step. First-order MAML takes the inner gradient as a constant; ANIL (Raghu et al. 2020) adapts the last layer
alone; learned rates make α one number a parameter (Li et al. 2017, "Meta-SGD").

The losses are in `policy_gradient.py`, the step in `metarl/maths/trust_region.py`, the inner loop in `metarl/adapt.py`.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from metarl import checks
from metarl.adapt import Rates, adapt_tasks
from metarl.agents import policies, policy_gradient
from metarl.agents.batching import map_tensors, pad_tasks
from metarl.agents.policies import MlpPolicy
from metarl.agents.policy_gradient import PolicyBatch, PolicyOutputs, mean_kl, policy_gradient_loss, surrogate_loss
from metarl.learning.episodes import Episodes, Trials
from metarl.learning.protocols import AdaptationProtocol, Carry, Memoryless, Metrics, Parameters, State
from metarl.learning.random_streams import TaskRandom
from metarl.learning.spaces import Spaces
from metarl.maths import trust_region
from metarl.maths.distributions import Distribution
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
        checks.count(meta_batch=self.meta_batch, episodes_per_adaptation=self.episodes_per_adaptation)
        checks.count(inner_steps=self.inner_steps, cg_iterations=self.cg_iterations)
        checks.count(line_search_tries=self.line_search_tries)
        checks.at_least(0, cg_damping=self.cg_damping)
        checks.positive(inner_lr=self.inner_lr, max_kl=self.max_kl, minimum_std=self.minimum_std)
        checks.fraction(discount=self.discount, gae_lambda=self.gae_lambda)
        checks.fraction(curvature_fraction=self.curvature_fraction, line_search_shrink=self.line_search_shrink)
        checks.layers(self.hidden)

    def build(self, spaces: Spaces, device: torch.device | str = "cpu") -> "MamlTrpo":
        """The agent with these options."""
        return MamlTrpo(self, spaces, device)


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

    def split(self, parameters: Parameters) -> tuple[dict[str, Tensor], Rates]:
        """The policy's parameters θ and the inner rates α."""
        policy = {name: parameters[name] for name, _ in self.policy.named_parameters()}
        rates = {name: parameters[_INNER_LR + name] for name in policy} if self.config.learn_inner_lr else {}
        return policy, rates or self.config.inner_lr

    def statistics(self, state: State) -> RunningMeanStd | None:
        """What observations are standardised by; None where they are taken as they are."""
        return RunningMeanStd.among(state.parameters) if self.config.normalise_observations else None

    def start(self, state: State, num_tasks: int) -> "AdaptedMaml":
        policy, inner_lr = self.split(state.parameters)
        copies = {name: value.expand(num_tasks, *value.shape) for name, value in policy.items()}
        return AdaptedMaml(self, copies, inner_lr, self.statistics(state))

    def build_batch(self, episodes: Episodes) -> PolicyBatch:
        """Advantages of the steps taken; observations as they were."""
        return policy_gradient.build_batch(episodes, self.config.discount, self.config.gae_lambda)

    def inner_step(
        self, parameters: Parameters, supports: Sequence[PolicyBatch], inner_lr: Rates, *, shared: bool
    ) -> dict[str, Tensor]:
        """θ_𝓣 of each task [task, …] after one inner step for each support."""
        loss = functools.partial(policy_gradient_loss, self.policy)
        only = self.policy.head_names if self.config.anil else None
        first_order = self.config.first_order
        return adapt_tasks(loss, parameters, supports, inner_lr, first_order=first_order, only=only, shared=shared)

    def outputs(self, parameters: Parameters, batches: Sequence[PolicyBatch]) -> PolicyOutputs:
        """π_{θ_𝓣} on the query's samples, as a function of θ and α; the query is the last batch."""
        *supports, query = batches
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
        config, raw = self.config, [self.build_batch(episodes) for episodes in experience.episodes]
        old_statistics, learned = self.statistics(state), self._learned(state.parameters)
        with torch.no_grad():
            old = self.outputs(learned, [batch.standardised(old_statistics) for batch in raw])
        if old_statistics is not None:
            learned, statistics = self._restandardised(learned, old_statistics, experience, raw, old)
        else:
            statistics = None
        batches = [batch.standardised(statistics) for batch in raw]
        x, query = ravel(learned), batches[-1]

        def evaluate(x: Tensor) -> tuple[Tensor, Tensor]:
            new = self.outputs(unravel(x, learned), batches)
            return surrogate_loss(new, old, query), mean_kl(new, old, query)

        gradient, (loss, kl) = torch.func.grad_and_value(evaluate, has_aux=True)(x)
        product = self.fisher_vector_product(x, learned, batches, rng)
        step = trust_region.natural_gradient_step(gradient, product, config.max_kl, config.cg_iterations)
        with torch.no_grad():
            found = trust_region.line_search(
                lambda share: evaluate(x + share * step),
                limit=config.max_kl,
                start=(float(loss), float(kl)),
                shrink=config.line_search_shrink,
                tries=config.line_search_tries,
            )
        parameters = {name: value.clone() for name, value in unravel(x + found.share * step, learned).items()}
        return State(parameters | ({} if statistics is None else statistics.named()), {}, state.store), {
            "surrogate": found.loss,
            "kl": found.constraint,
            "accepted": int(found.accepted),
            "backtracks": found.backtracks,
            "gradient_norm": float(gradient.norm()),
            "entropy": float(old.distribution.entropy().mean()),
        }

    def _learned(self, parameters: Parameters) -> dict[str, Tensor]:
        """θ and α, in the network's order whatever the state's: the order of a sum decides its last bit."""
        names = [name for name, _ in self.policy.named_parameters()]
        rates = [_INNER_LR + name for name in names] if self.config.learn_inner_lr else []
        return {name: parameters[name] for name in (*names, *rates)}

    def _restandardised(
        self,
        learned: dict[str, Tensor],
        statistics: RunningMeanStd,
        trials: Trials,
        raw: Sequence[PolicyBatch],
        old: PolicyOutputs,
    ) -> tuple[dict[str, Tensor], RunningMeanStd]:
        """Takes the trials into the statistics of observations, as far as half of the trust region allows.

        The first layer makes up for the change: policies stay as they were, but for the size of their inner steps.
        """
        config, (weight, bias) = self.config, MlpPolicy.first_layer
        merged = statistics.merge(torch.cat([episodes.observations[episodes.mask] for episodes in trials.episodes]))
        for k in range(config.line_search_tries):
            moved = statistics.toward(merged, config.line_search_shrink**k)
            layer = statistics.fold(moved, learned[weight], learned[bias])
            folded = {**learned, weight: layer[0], bias: layer[1]}
            with torch.no_grad():
                new = self.outputs(folded, [batch.standardised(moved) for batch in raw])
            if float(mean_kl(new, old, raw[-1])) <= config.max_kl / 2:
                return folded, moved
        return learned, statistics

    def fisher_vector_product(
        self,
        x: Float[Tensor, " n"],
        like: Parameters,
        batches: Sequence[PolicyBatch],
        rng: np.random.Generator,
    ) -> trust_region.Product:
        """Products with the Hessian of E_𝓣 KL at x, through the inner steps, on a share of every task's episodes."""
        episodes = self.config.episodes_per_adaptation
        count = max(1, round(self.config.curvature_fraction * episodes))

        def some(batch: PolicyBatch) -> PolicyBatch:
            chosen = torch.from_numpy(np.sort(rng.permutation(episodes)[:count])).to(x.device)
            return map_tensors(lambda part: part.unflatten(1, (episodes, -1))[:, chosen].flatten(1, 2), batch)

        shares = [some(batch) for batch in batches]
        x = x.detach().requires_grad_()
        mask = shares[-1].mask.to(x.dtype)
        weights = mask / mask.sum(-1, keepdim=True).clamp_min(1) / len(mask)
        distribution = self.outputs(unravel(x, like), shares).distribution
        return trust_region.fisher_vector_product(distribution, x, weights, self.config.cg_damping)


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
        seen = observations if self.statistics is None else self.statistics.standardise(observations)
        distribution = self.agent.distribution(self._padded, pad_tasks(seen))
        return map_tensors(lambda x: x[: len(observations)], distribution)

    def act(
        self, observations: Float[Tensor, "task episode observation"], carry: Carry, random: TaskRandom | None
    ) -> tuple[Shaped[Tensor, "task episode *action"], Carry]:
        return self.distribution(observations).sample(random), carry

    def adapt(self, support: Episodes) -> "AdaptedMaml":
        """One inner step further."""
        episodes = Episodes(**{name: pad_tasks(part) for name, part in support.tensors().items()})
        batch = self.agent.build_batch(episodes).standardised(self.statistics)
        with torch.no_grad():
            adapted = self.agent.inner_step(self._padded, [batch], self.inner_lr, shared=False)
        num_tasks = len(support.lengths)
        return dataclasses.replace(self, parameters={name: value[:num_tasks] for name, value in adapted.items()})

    @property
    def _padded(self) -> dict[str, Tensor]:
        return {name: pad_tasks(value) for name, value in self.parameters.items()}
