"""ProMP: proximal meta-policy search (Rothfuss et al. 2019): MAML with an outer step like PPO's.

Inner steps, for each task 𝓣 on fresh episodes of the policy being adapted (`policy_adaptation.py`), go down the
likelihood ratio, whose second derivative knows that other parameters would have played other episodes:

    θ_𝓣 = θ − α ∇_θ L_𝓣(θ),      L_𝓣(θ) = −E[π_θ(a | o) / π_old(a | o) · Â]

Outer step: a few steps of Adam, through the inner steps, on the objective (eq. 15)

    J(θ) = E_𝓣 E min(ρ Â, clip(ρ, 1 − ε, 1 + ε) Â)  −  η Ē_i E_𝓣 KL(π_old^i ‖ π_{θ_𝓣^i}),      i = 0 … n−1

where ρ = π_{θ_𝓣}(a | o) / π_old(a | o) is that of the query episodes to the adapted policy that played them, and the KL
penalty holds back the policies of the inner steps, whose episodes are used again in each step of Adam.
"""

import dataclasses
import functools
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl import checks
from metarl.agents.policy_adaptation import GradientAdapted, PolicyAdaptation, PolicyAdaptationConfig
from metarl.agents.policy_gradient import InnerSurrogate, PolicyBatch, PolicyOutputs, mean_kl
from metarl.learning.episodes import Trials
from metarl.learning.protocols import AdaptationProtocol, Agent, Metrics, Parameters, State
from metarl.learning.spaces import Spaces
from metarl.maths import adam, ppo

LOSSES = ("surrogate", "inner_kl", "kl")
"""What an outer step measures of its objective, besides the objective: before each of its steps."""


@final
@dataclasses.dataclass(frozen=True)
class PrompConfig(PolicyAdaptationConfig):
    """ProMP: a policy that adapts by gradient steps, meta-trained by clipped steps."""

    learn_inner_lr: bool = False
    """Learn one inner rate for each parameter (Meta-SGD), as the paper does not."""
    inner_surrogate: InnerSurrogate = "likelihood-ratio"
    """The inner steps' loss. Both have the policy gradient; the likelihood ratio's second derivative also has the term
    of the sampling distribution, which the log-likelihood's lacks (and its noise)."""
    learning_rate: float = 1e-3
    """Adam's."""
    epochs: int = 5
    """Steps of Adam in an outer step, each on all of its episodes."""
    clip: float = 0.3
    """ε, how far a probability ratio may profit from leaving 1."""
    kl_penalty: float = 5e-4
    """η, the weight of the inner policies' mean KL."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.count(epochs=self.epochs)
        checks.at_least(0, kl_penalty=self.kl_penalty)
        checks.positive(learning_rate=self.learning_rate, clip=self.clip)

    def build(self, spaces: Spaces, device: torch.device | str = "cpu") -> "Promp":
        """The agent with these options."""
        return Promp(self, spaces, device)


@final
@dataclasses.dataclass(frozen=True)
class Promp:
    """The agent: its options and the spaces of its environment."""

    config: PrompConfig
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
        parameters = self.adaptation.init(seed)
        return State(parameters, adam.start(self.adaptation.learned(parameters))).to(self.device)

    def warm_start(self, fresh: State, other: Agent, learned: State) -> State:
        """With the policy of task-blind PPO; Adam begins anew."""
        return State(self.adaptation.warm_start(fresh.parameters, other, learned.parameters), fresh.optimizer)

    def start(self, state: State, num_tasks: int) -> GradientAdapted:
        return self.adaptation.start(state, num_tasks)

    def meta_step(self, state: State, experience: Trials, rng: np.random.Generator) -> tuple[State, Metrics]:
        adaptation = self.adaptation
        raw, played = adaptation.replay(state.parameters, experience)
        learned, statistics = adaptation.learned(state.parameters), adaptation.statistics(state.parameters)
        if statistics is not None:
            merged = statistics.merge(adaptation.observations_of(experience))
            learned, statistics = adaptation.restandardised(learned, statistics, merged), merged
        batches, moments = [batch.standardised(statistics) for batch in raw], dict(state.optimizer)
        logs = list[Tensor]()
        for _ in range(self.config.epochs):
            gradients, log = torch.func.grad(self.loss, has_aux=True)(learned, batches, played)
            learned, moments = adam.step(learned, gradients, moments, self.config.learning_rate)
            logs.append(log)
        parameters = learned | ({} if statistics is None else statistics.named())
        return State(parameters, moments, state.store), {
            **dict(zip(LOSSES, logs[-1].tolist(), strict=True)),
            "entropy": float(played[-1].distribution.entropy().mean()),
        }

    def loss(
        self, learned: Parameters, batches: list[PolicyBatch], played: list[PolicyOutputs]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " loss"]]:
        """−J as a function of θ and α, and its `LOSSES`; the query is the last batch."""
        *supports, query = batches
        stages = self.adaptation.stages(learned, supports)
        *inner, new = [self.adaptation.outputs(stage, batch) for stage, batch in zip(stages, batches, strict=True)]
        clipped = functools.partial(ppo.surrogate_loss, clip=self.config.clip)
        surrogate = torch.func.vmap(clipped)(new.log_probs, query.log_probs, query.advantages, query.mask).mean()
        inner_kl = torch.stack(
            [mean_kl(*policies) for policies in zip(inner, played[:-1], supports, strict=True)]
        ).mean()
        kl = mean_kl(new, played[-1], query)
        return surrogate + self.config.kl_penalty * inner_kl, torch.stack([surrogate, inner_kl, kl]).detach()
