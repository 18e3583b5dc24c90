"""MAML-TRPO: a policy that adapts to a task by a few gradient steps (Finn et al. 2017, "Model-Agnostic Meta-Learning").

Inner step, for each task 𝓣 on fresh episodes of the policy being adapted (`policy_adaptation.py`):

    θ_𝓣 = θ − α ∇_θ L_𝓣(θ)

Outer step, a trust region over the policies *after* adaptation (Schulman et al. 2015, TRPO):

    minimise   −E_𝓣 E[π_{θ_𝓣}(a | o) / π_old(a | o) · Â]   subject to   E_𝓣 KL(π_old ‖ π_{θ_𝓣}) ≤ δ

where π_old is the adapted policy that collected the query episodes, and both expressions are differentiated through
the inner steps.

The losses are in `policy_gradient.py`, the step in `metarl/maths/trust_region.py`, the inner loop in `metarl/adapt.py`.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl import checks
from metarl.agents.batching import map_tensors
from metarl.agents.policy_adaptation import GradientAdapted, PolicyAdaptation, PolicyAdaptationConfig
from metarl.agents.policy_gradient import PolicyBatch, PolicyOutputs, mean_kl, surrogate_loss
from metarl.learning.episodes import Trials
from metarl.learning.protocols import AdaptationProtocol, Agent, Metrics, Parameters, State
from metarl.learning.spaces import Spaces
from metarl.maths import trust_region
from metarl.maths.parameters import ravel, unravel
from metarl.maths.running_mean_std import RunningMeanStd


@final
@dataclasses.dataclass(frozen=True)
class MamlTrpoConfig(PolicyAdaptationConfig):
    """MAML-TRPO: a policy that adapts to a task by gradient steps."""

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
        super().__post_init__()
        checks.count(cg_iterations=self.cg_iterations, line_search_tries=self.line_search_tries)
        checks.at_least(0, cg_damping=self.cg_damping)
        checks.positive(max_kl=self.max_kl)
        checks.fraction(curvature_fraction=self.curvature_fraction, line_search_shrink=self.line_search_shrink)

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
        return self.adaptation.protocol

    @functools.cached_property
    def adaptation(self) -> PolicyAdaptation:
        """The policy and its inner steps."""
        return PolicyAdaptation(self.config, self.spaces)

    def init(self, seed: int) -> State:
        return State(self.adaptation.init(seed), {}).to(self.device)

    def warm_start(self, fresh: State, other: Agent, learned: State) -> State:
        """With the policy of task-blind PPO."""
        return State(self.adaptation.warm_start(fresh.parameters, other, learned.parameters), {})

    def start(self, state: State, num_tasks: int) -> GradientAdapted:
        return self.adaptation.start(state, num_tasks)

    def outputs(self, learned: Parameters, batches: Sequence[PolicyBatch]) -> PolicyOutputs:
        """π_{θ_𝓣} on the query's samples, as a function of θ and α; the query is the last batch."""
        *supports, query = batches
        return self.adaptation.outputs(self.adaptation.stages(learned, supports)[-1], query)

    def meta_step(self, state: State, experience: Trials, rng: np.random.Generator) -> tuple[State, Metrics]:
        config, adaptation = self.config, self.adaptation
        raw, played = adaptation.replay(state.parameters, experience)
        old, learned = played[-1], adaptation.learned(state.parameters)
        statistics = adaptation.statistics(state.parameters)
        if statistics is not None:
            learned, statistics = self._restandardised(learned, statistics, experience, raw, old)
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

    def _restandardised(
        self,
        learned: dict[str, Tensor],
        statistics: RunningMeanStd,
        trials: Trials,
        raw: Sequence[PolicyBatch],
        old: PolicyOutputs,
    ) -> tuple[dict[str, Tensor], RunningMeanStd]:
        """Takes the trials into the statistics of observations, as far as half of the trust region allows."""
        config = self.config
        merged = statistics.merge(self.adaptation.observations_of(trials))
        for k in range(config.line_search_tries):
            moved = statistics.toward(merged, config.line_search_shrink**k)
            folded = self.adaptation.restandardised(learned, statistics, moved)
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
