"""MAML-TRPO: a policy that adapts to a task by a few gradient steps (Finn et al. 2017, "Model-Agnostic Meta-Learning").

Inner step, for each task 𝓣 on fresh episodes of the policy being adapted (`policy_adaptation.py`):

    θ_𝓣 = θ − α ∇_θ L_𝓣(θ)

Outer step, a trust region over the policies *after* adaptation (Schulman et al. 2015, TRPO):

    minimise   −E_𝓣 E[π_{θ_𝓣}(a | o) / π_old(a | o) · Â]   subject to   E_𝓣 KL(π_old ‖ π_{θ_𝓣}) ≤ δ

where π_old is the adapted policy that collected the query episodes, and both expressions are differentiated through
the inner steps.

The losses are in `policy_gradient.py`, their sums over tasks with their derivatives in `maml_objective.py`, the step in
`metarl/maths/trust_region.py`, the inner loop in `metarl/adapt.py`.
"""

import dataclasses
import functools
from typing import final

import numpy as np
import torch
from torch import Tensor

from metarl import checks
from metarl.agents.maml_objective import Objective, Part, Point
from metarl.agents.policy_adaptation import GradientAdapted, PolicyAdaptation, PolicyAdaptationConfig
from metarl.learning.episodes import Trials
from metarl.learning.protocols import AdaptationProtocol, Agent, Metrics, Parameters, State
from metarl.learning.sharding import InTurn, PartExecutor, shares
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
    gradient_parts: int = checks.added(1)
    """Parts of the tasks whose gradients and Hessian products are computed apart and summed; with --workers the workers
    compute them. The last bits of results depend on the parts, not on who computes them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.count(cg_iterations=self.cg_iterations, line_search_tries=self.line_search_tries)
        checks.count(gradient_parts=self.gradient_parts)
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
    executor: PartExecutor = InTurn()
    """Who computes gradients and Hessian products."""

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

    def with_executor(self, executor: PartExecutor) -> "MamlTrpo":
        """The same, with gradients and Hessian products of its parts computed by the executor; of one part, here."""
        return self if self.config.gradient_parts == 1 else dataclasses.replace(self, executor=executor)

    def meta_step(self, state: State, experience: Trials, rng: np.random.Generator) -> tuple[State, Metrics]:
        config, adaptation = self.config, self.adaptation
        objective = self.objective(state.parameters, experience, rng)
        learned, statistics = adaptation.learned(state.parameters), adaptation.statistics(state.parameters)
        if statistics is not None:
            learned, statistics = self._restandardised(learned, statistics, objective)
        point = Point(ravel(learned), statistics)

        def moved(share: float) -> Point:
            return point._replace(x=point.x + share * step)

        gradient, (loss, kl) = objective.gradient(point)
        step = trust_region.natural_gradient_step(
            gradient,
            lambda vector: objective.product(point, vector, config.cg_damping),
            config.max_kl,
            config.cg_iterations,
        )
        found = trust_region.line_search(
            lambda share: objective.values(moved(share)),
            limit=config.max_kl,
            start=(float(loss), float(kl)),
            shrink=config.line_search_shrink,
            tries=config.line_search_tries,
        )
        parameters = {name: value.clone() for name, value in unravel(moved(found.share).x, learned).items()}
        return State(parameters | ({} if statistics is None else statistics.named()), {}, state.store), {
            "surrogate": found.loss,
            "kl": found.constraint,
            "accepted": int(found.accepted),
            "backtracks": found.backtracks,
            "gradient_norm": float(gradient.norm()),
            "entropy": objective.entropy(),
        }

    def objective(self, parameters: Parameters, trials: Trials, rng: np.random.Generator) -> Objective:
        """The outer objective of trials that these parameters played; `rng` draws the Fisher matrix's episodes."""
        episodes = self.config.episodes_per_adaptation
        count = max(1, round(self.config.curvature_fraction * episodes))
        chosen = tuple(tuple(np.sort(rng.permutation(episodes)[:count]).tolist()) for _ in trials.episodes)
        parts = [
            Part(self.adaptation, parameters, trials.of_tasks(tasks), chosen)
            for tasks in shares(len(trials.tasks), self.config.gradient_parts)
        ]
        return Objective(parts, self.executor)

    def _restandardised(
        self, learned: dict[str, Tensor], statistics: RunningMeanStd, objective: Objective
    ) -> tuple[dict[str, Tensor], RunningMeanStd]:
        """Takes the trials into the statistics of observations, as far as half of the trust region allows."""
        config = self.config
        merged = objective.statistics_with(statistics)
        for k in range(config.line_search_tries):
            moved = statistics.toward(merged, config.line_search_shrink**k)
            folded = self.adaptation.restandardised(learned, statistics, moved)
            if float(objective.values(Point(ravel(folded), moved)).kl) <= config.max_kl / 2:
                return folded, moved
        return learned, statistics
