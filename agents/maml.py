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
from collections.abc import Callable, Sequence
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl import checks
from metarl.adapt import Rates, adapt_tasks
from metarl.agents import policies
from metarl.learning.collect import Collector
from metarl.learning.episodes import Episodes
from metarl.learning.protocols import Figures, Memory, Memoryless, Parameters, Schedule, State
from metarl.maths import linear_baseline, returns, trust_region
from metarl.maths.running_mean_std import NAMES, Moments
from metarl.tasks import Task

Outputs = tuple[Float[Tensor, "task sample action"], Float[Tensor, "task 1 action"]]
"""(μ, log σ) of every task's policy on its observations."""
Judged = tuple[Float[Tensor, "task sample action"], Float[Tensor, "task 1 action"], Float[Tensor, "task sample"]]
"""The same, and the actions' log-probabilities."""

_RATE_PREFIX = "inner_rate."


@dataclasses.dataclass(frozen=True)
class MamlTrpoConfig:
    """Options of MAML-TRPO."""

    meta_batch: int = 20
    """Tasks an outer step (the paper: 40 for the cheetah, 20 for 2-D navigation)."""
    episodes: int = 20
    """Episodes on each task in each stage: before the first inner step, and after each."""
    inner_steps: int = 1
    """Inner steps; each one has episodes of its own."""
    inner_rate: float = 0.1
    """α, the inner steps' rate; the initial value of every rate where the rates are learned."""
    learn_rates: bool = True
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
    """Added to the curvature's diagonal."""
    curvature_fraction: float = 0.2
    """Share of each task's episodes that the curvature is measured on; the line search checks the KL on all."""
    line_search_tries: int = 15
    """Step lengths that the line search tries."""
    line_search_shrink: float = 0.8
    """Factor between them."""

    def __post_init__(self) -> None:
        checks.at_least(
            1,
            meta_batch=self.meta_batch,
            episodes=self.episodes,
            inner_steps=self.inner_steps,
            cg_iterations=self.cg_iterations,
            line_search_tries=self.line_search_tries,
        )
        checks.at_least(0, cg_damping=self.cg_damping)
        checks.positive(inner_rate=self.inner_rate, max_kl=self.max_kl, minimum_std=self.minimum_std)
        checks.fraction(
            discount=self.discount,
            gae_lambda=self.gae_lambda,
            curvature_fraction=self.curvature_fraction,
            line_search_shrink=self.line_search_shrink,
        )
        checks.layers(self.hidden)


class Support(NamedTuple):
    """What a policy-gradient loss needs of episodes; a leading task axis where it is for a whole meta-batch."""

    observations: Float[Tensor, "*task sample observation"]
    actions: Float[Tensor, "*task sample action"]
    advantages: Float[Tensor, "*task sample"]
    mask: Bool[Tensor, "*task sample"]


def policy_gradient_loss(policy: policies.GaussianPolicy, parameters: Parameters, support: Support) -> Tensor:
    """L(θ) = −E[log π_θ(a | o) Â], whose gradient is that of the return (Williams 1992), over the steps taken."""
    mean, log_std = policies.apply(policy, parameters, support.observations)
    log_prob = policies.gaussian_log_prob(support.actions, mean, log_std)
    return -_masked_mean(log_prob * support.advantages, support.mask)


@final
@dataclasses.dataclass(frozen=True)
class MamlTrpo:
    """The agent: its options, the policy's architecture and where its episodes come from."""

    config: MamlTrpoConfig
    observation_size: int
    action_size: int
    sampler: Collector
    device: str = "cpu"

    @property
    def meta_batch(self) -> int:
        return self.config.meta_batch

    @property
    def schedule(self) -> Schedule:
        return Schedule(rounds=self.config.inner_steps, episodes=self.config.episodes)

    @property
    def shown(self) -> tuple[str, ...]:
        return ("return_before", "return_after", "success_after", "kl")

    @property
    def round_name(self) -> str:
        return "gradient step"

    @functools.cached_property
    def policy(self) -> policies.GaussianPolicy:
        """The architecture; its own weights are never used."""
        return self._build(torch.Generator())

    def _build(self, generator: torch.Generator) -> policies.GaussianPolicy:
        config = self.config
        return policies.GaussianPolicy(
            self.observation_size,
            self.action_size,
            config.hidden,
            config.initial_log_std,
            config.minimum_std,
            generator,
        )

    def init(self, seed: int) -> State:
        parameters = policies.parameters_of(self._build(torch.Generator().manual_seed(seed)))
        rates = {}
        if self.config.learn_rates:
            rates = {
                _RATE_PREFIX + name: torch.full_like(value, self.config.inner_rate)
                for name, value in parameters.items()
            }
        seen = Moments.start(self.observation_size).named() if self.config.normalise_observations else {}
        return State({name: value.to(self.device) for name, value in {**parameters, **rates, **seen}.items()}, {})

    def start(self, state: State, num_tasks: int) -> "MamlActor":
        parameters, rates = self.split(state.parameters)
        copies = {name: value.expand(num_tasks, *value.shape) for name, value in parameters.items()}
        return MamlActor(self, copies, rates, self.moments(state))

    def moments(self, state: State) -> Moments | None:
        """What observations are standardised by; None where they are taken as they are."""
        return Moments.among(state.parameters) if self.config.normalise_observations else None

    def meta_step(self, state: State, batch: tuple[Task, ...], rng: np.random.Generator) -> tuple[State, Figures]:
        stages, (*supports, query) = self._collect(state, batch, rng)
        learned = {name: value for name, value in state.parameters.items() if name not in NAMES}
        parameters, figures = self._outer_step(learned, supports, query, rng)
        if (moments := self.moments(state)) is not None:
            seen = torch.cat([episodes.observations[episodes.mask] for episodes in stages])
            parameters |= moments.merged(seen).named()
        return State(parameters, {}), {
            "env_steps": sum(episodes.num_steps for episodes in stages),
            **stages[0].figures("before"),
            **stages[-1].figures("after"),
            **figures,
            "diverged": sum(int(episodes.diverged.sum()) for episodes in stages),
        }

    def _collect(
        self, state: State, batch: tuple[Task, ...], rng: np.random.Generator
    ) -> tuple[list[Episodes], list[Support]]:
        """Each stage's episodes and what is learned from them: before the first inner step, ..., after the last."""
        actor, stages, supports = self.start(state, len(batch)), list[Episodes](), list[Support]()
        for stage in range(self.config.inner_steps + 1):
            episodes = self.sampler.collect(actor, batch, self.config.episodes, int(rng.integers(2**31)))
            stages.append(episodes)
            supports.append(self.advantages(episodes, actor.moments))
            if stage < self.config.inner_steps:
                actor = actor.step(supports[-1])
        return stages, supports

    def advantages(self, episodes: Episodes, moments: Moments | None = None) -> Support:
        """Advantages from a baseline fitted to these episodes, standardised within each task.

        Observations come out as the policy is shown them: standardised by the moments, if there are any.

        The score is the return of the horizon's steps and the baseline sees the time, so the time limit is part of
        the task: the value after the last step is 0 by definition, not by confusing truncation with termination.
        """
        config, mask = self.config, episodes.mask
        discount = config.discount * mask.to(episodes.rewards.dtype)
        gained = returns.discounted_returns(episodes.rewards, discount)
        values = linear_baseline.fit(episodes.observations, gained, mask) * mask
        zero = torch.zeros_like(values[..., 0])
        advantages = returns.gae(episodes.rewards, discount, values, zero, config.gae_lambda)
        shown = episodes.observations if moments is None else moments.standardised(episodes.observations)
        return Support(
            shown.flatten(1, 2),
            episodes.actions.flatten(1, 2),
            _standardised(advantages.flatten(1), mask.flatten(1)),
            mask.flatten(1),
        )

    def split(self, parameters: Parameters) -> tuple[dict[str, Tensor], Rates]:
        """The policy's parameters and the inner rates."""
        policy = {
            name: value for name, value in parameters.items() if not name.startswith(_RATE_PREFIX) and name not in NAMES
        }
        if not self.config.learn_rates:
            return policy, self.config.inner_rate
        return policy, {name: parameters[_RATE_PREFIX + name] for name in policy}

    def inner_step(
        self, parameters: Parameters, supports: Sequence[Support], rates: Rates, *, shared: bool
    ) -> dict[str, Tensor]:
        """Each task's policy parameters [task, ...] after one inner step for each support."""
        only = self.policy.head if self.config.anil else None
        loss = functools.partial(policy_gradient_loss, self.policy)
        return adapt_tasks(
            loss, parameters, supports, rates, first_order=self.config.first_order, only=only, shared=shared
        )

    def _outer_step(
        self, parameters: Parameters, supports: list[Support], query: Support, rng: np.random.Generator
    ) -> tuple[dict[str, Tensor], Figures]:
        """One trust-region step."""
        config = self.config
        x = _ravel(parameters)

        def objective(x: Tensor, old: Judged | None = None) -> tuple[Tensor, tuple[Tensor, Judged]]:
            """The loss, the KL and what they compare with: `old`, or, if not given, the policies at x themselves."""
            mean, log_std = self.outputs(x, parameters, supports, query.observations)
            log_prob = policies.gaussian_log_prob(query.actions, mean, log_std)
            old = old or (mean.detach(), log_std.detach(), log_prob.detach())
            kl = _masked_mean(policies.gaussian_kl(*old[:2], mean, log_std), query.mask).mean()
            ratio = torch.exp(log_prob - old[2])
            return -_masked_mean(ratio * query.advantages, query.mask).mean(), (kl, old)

        gradient, (loss, (_, old)) = torch.func.grad_and_value(objective, has_aux=True)(x)
        product = self.curvature(x, parameters, supports, query, rng)
        direction = trust_region.conjugate_gradient(product, -gradient, config.cg_iterations)
        length = torch.sqrt(2 * config.max_kl / direction.dot(product(direction)).clamp_min(1e-12))

        def evaluate(x: Tensor) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                loss, (kl, _) = objective(x, old)
            return loss, kl

        found = trust_region.line_search(
            evaluate,
            x,
            length * direction,
            config.max_kl,
            loss=float(loss),
            shrink=config.line_search_shrink,
            tries=config.line_search_tries,
        )
        figures = {
            "surrogate": found.loss,
            "kl": found.constraint,
            "accepted": float(found.accepted),
            "backtracks": float(found.backtracks),
            "gradient_norm": float(gradient.norm()),
            "policy_std": float(parameters["log_std"].exp().mean()),
        }
        return _unravel(found.x, parameters), figures

    def outputs(
        self, x: Tensor, like: Parameters, supports: list[Support], observations: Float[Tensor, "task sample obs"]
    ) -> Outputs:
        """(μ, log σ) of the adapted policies at the flat parameters x."""
        policy, rates = self.split(_unravel(x, like))
        adapted = self.inner_step(policy, supports, rates, shared=True)
        mean, log_std = torch.func.vmap(functools.partial(policies.apply, self.policy))(adapted, observations)
        return mean, log_std[:, None, :]

    def curvature(
        self, x: Tensor, like: Parameters, supports: list[Support], query: Support, rng: np.random.Generator
    ) -> Callable[[Tensor], Tensor]:
        """Products v -> (H + damping) v with the Hessian H of the mean KL at x.

        Where both policies are the same, H = Jᵀ M J exactly: J is the Jacobian of the adapted (μ, log σ) with respect
        to θ, through the inner steps, and M the Hessian of the KL in (μ, log σ), which is diagonal: 1/σ² and 2.
        Both products run over graphs that are built once: u -> Jᵀu is linear, so its own transpose gives Jv.
        Measured on a share of the episodes: it only shapes the step.
        """
        supports = [self._share(support, rng) for support in supports]
        query = self._share(query, rng)
        mask = query.mask.to(x.dtype)
        weight = mask / mask.sum(-1, keepdim=True).clamp_min(1) / len(mask)  # [task, sample]
        x = x.detach().requires_grad_()
        outputs = self.outputs(x, like, supports, query.observations)
        cotangents = tuple(torch.zeros_like(value, requires_grad=True) for value in outputs)
        (pulled,) = torch.autograd.grad(outputs, x, cotangents, create_graph=True)
        precision = torch.exp(-2 * outputs[1].detach())

        def product(vector: Tensor) -> Tensor:
            mean_dot, log_std_dot = torch.autograd.grad(pulled, cotangents, vector, retain_graph=True)
            mean_part = mean_dot * precision * weight[..., None]
            log_std_part = 2 * log_std_dot * weight.sum(-1)[:, None, None]
            (curved,) = torch.autograd.grad(outputs, x, (mean_part, log_std_part), retain_graph=True)
            return curved + self.config.cg_damping * vector

        return product

    def _share(self, support: Support, rng: np.random.Generator) -> Support:
        """The same random episodes of every task, `curvature_fraction` of them."""
        count = max(1, round(self.config.curvature_fraction * self.config.episodes))
        chosen = torch.from_numpy(np.sort(rng.permutation(self.config.episodes)[:count])).to(self.device)

        def pick(tensor: Tensor) -> Tensor:
            by_episode = tensor.unflatten(1, (self.config.episodes, -1))
            return by_episode.index_select(1, chosen).flatten(1, 2)

        return Support(*(pick(tensor) for tensor in support))


@final
@dataclasses.dataclass(frozen=True)
class MamlActor(Memoryless):
    """The policies of a batch of tasks, each adapted to what it has seen of its task."""

    agent: MamlTrpo
    parameters: Parameters
    """θ_𝓣 of each task; a leading task axis."""
    rates: Rates
    """The inner rates."""
    moments: Moments | None
    """What observations are standardised by, if by anything."""

    def act(
        self, observations: Float[Tensor, "task episode observation"], memory: Memory, generator: torch.Generator
    ) -> tuple[Float[Tensor, "task episode action"], Memory]:
        if self.moments is not None:
            observations = self.moments.standardised(observations)
        mean, log_std = torch.func.vmap(functools.partial(policies.apply, self.agent.policy))(
            dict(self.parameters), observations
        )
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        return mean + log_std.exp()[:, None, :] * noise, memory

    def adapt(self, support: Episodes) -> "MamlActor":
        return self.step(self.agent.advantages(support, self.moments))

    def step(self, support: Support) -> "MamlActor":
        """One inner step further."""
        with torch.no_grad():
            adapted = self.agent.inner_step(self.parameters, [support], self.rates, shared=False)
        return dataclasses.replace(self, parameters=adapted)


def _masked_mean(values: Float[Tensor, "*task sample"], mask: Bool[Tensor, "*task sample"]) -> Float[Tensor, "*task"]:
    return (values * mask).sum(-1) / mask.sum(-1).clamp_min(1)


def _standardised(
    values: Float[Tensor, "task sample"], mask: Bool[Tensor, "task sample"]
) -> Float[Tensor, "task sample"]:
    """Mean 0 and standard deviation 1 within each task."""
    centred = (values - _masked_mean(values, mask)[:, None]) * mask
    deviation = _masked_mean(centred**2, mask).sqrt()[:, None]
    return centred / (deviation + 1e-8)


def _ravel(parameters: Parameters) -> Float[Tensor, " n"]:
    return torch.cat([value.flatten() for value in parameters.values()])


def _unravel(vector: Float[Tensor, " n"], like: Parameters) -> dict[str, Tensor]:
    pieces = vector.split([value.numel() for value in like.values()])
    return {name: piece.view_as(value) for (name, value), piece in zip(like.items(), pieces, strict=True)}
