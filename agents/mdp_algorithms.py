"""Classical algorithms for tabular MDPs, the comparators of the RL² paper (Duan et al. 2016, arXiv:1611.02779).

All of them keep a model of the MDP, plan in it at the start of an episode for its whole horizon, and add what they saw
to the model at its end (`adapt`):

    maximum likelihood   the frequencies seen                            greedy; with ε > 0: ε-greedy; ε = 1: random
    PSRL                 an MDP drawn from the posterior                 Osband, Russo & Van Roy 2013, NeurIPS
    optimistic PSRL      the largest Q of several such                   Fonteneau et al. 2013
    UCRL2                the most promising MDP not ruled out            Jaksch, Ortner & Auer 2010, JMLR 11
    known                the MDP itself: optimal, told the task
"""

import dataclasses
import math
from typing import NamedTuple, Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import special
from torch import Tensor

from metarl.agents.greedy_choice import epsilon_greedy
from metarl.agents.tabular_planning import backward_induction, optimistic_induction
from metarl.checks import at_least, positive
from metarl.learning.episodes import Episodes
from metarl.learning.protocols import Carry, Transition
from metarl.learning.random_streams import TaskRandom
from metarl.learning.sharding import rows_of


class Seen(NamedTuple):
    """What was seen of each task's MDP."""

    transitions: Float[Tensor, "task state action next_state"]
    """How often a state followed a state and an action."""
    rewards: Float[Tensor, "task state action"]
    """The sum of the rewards."""

    @property
    def visits(self) -> Float[Tensor, "task state action"]:
        """How often an action was taken in a state."""
        return self.transitions.sum(-1)


@runtime_checkable
class Planner(Protocol):
    """How an algorithm plans an episode."""

    def plan(
        self, seen: Seen, horizon: int, num_episodes: int, random: TaskRandom | None
    ) -> Float[Tensor, "task episode step state action"]:
        """Q_h(s, a) for each of `num_episodes` episodes a task; without noise where `random` is None."""
        ...


@final
@dataclasses.dataclass(frozen=True)
class MaximumLikelihood:
    """p̂ = N(s, a, s') / N(s, a), r̂ = Σr / N(s, a); where N(s, a) = 0 all next states are as likely, and r̂ = 0."""

    def plan(
        self, seen: Seen, horizon: int, num_episodes: int, random: TaskRandom | None
    ) -> Float[Tensor, "task episode step state action"]:
        q_values = backward_induction(*_frequencies(seen), horizon)
        return _for_episodes(q_values, num_episodes)


@final
@dataclasses.dataclass(frozen=True)
class Psrl:
    """Plans in an MDP drawn from the posterior at the start of each episode; without noise, in the posterior's mean.

    p(· | s, a) ~ Dirichlet(α + N(s, a, ·)),    r̄(s, a) ~ N((τ₀ μ₀ + τ Σr) / τₙ, 1 / τₙ),    τₙ = τ₀ + τ N(s, a)
    """

    num_samples: int = 1
    """MDPs drawn an episode; of several, each Q is the largest of theirs (optimistic PSRL). Duan et al. report the
    best of 1 … 20."""
    transition_prior: float = 1.0
    """α; 1, as `tabular-mdp` draws them."""
    reward_mean: float = 1.0
    """μ₀; 1, as `tabular-mdp` draws them. 0 in the code behind Duan et al.'s table: less hopeful of what was not tried,
    it earns more in few episodes (136.7 rather than 133.4 in 10) and as much in 50."""
    reward_precision: float = 1.0
    """τ₀ of the prior of r̄; 1, as `tabular-mdp` draws them."""
    noise_precision: float = 1.0
    """τ of a reward around r̄; 1, as in `tabular-mdp`."""

    def __post_init__(self) -> None:
        at_least(1, num_samples=self.num_samples)
        positive(
            transition_prior=self.transition_prior,
            reward_precision=self.reward_precision,
            noise_precision=self.noise_precision,
        )

    def plan(
        self, seen: Seen, horizon: int, num_episodes: int, random: TaskRandom | None
    ) -> Float[Tensor, "task episode step state action"]:
        concentration, mean, precision = self.posterior(seen)
        if random is None:
            expected = concentration / concentration.sum(-1, keepdim=True)
            return _for_episodes(backward_induction(expected, mean, horizon), num_episodes)
        samples = (
            backward_induction(
                _dirichlet(concentration, num_episodes, random), _normal(mean, precision, num_episodes, random), horizon
            )
            for _ in range(self.num_samples)
        )
        q_values = next(samples)
        for other in samples:
            q_values = torch.maximum(q_values, other)
        return q_values

    def posterior(
        self, seen: Seen
    ) -> tuple[
        Float[Tensor, "task state action next_state"],
        Float[Tensor, "task state action"],
        Float[Tensor, "task state action"],
    ]:
        """The Dirichlet's concentration, and the mean and the precision of r̄."""
        precision = self.reward_precision + self.noise_precision * seen.visits
        total = self.reward_precision * self.reward_mean + self.noise_precision * seen.rewards
        return self.transition_prior + seen.transitions, total / precision, precision


@final
@dataclasses.dataclass(frozen=True)
class Ucrl2:
    """Plans in the most promising MDP among those within the confidence intervals (Jaksch et al. 2010, eqs. 3 and 4).

    |r̃ − r̂| ≤ c √(7 ln(2SAt/δ) / (2 max(1, N))),    ‖p̃ − p̂‖₁ ≤ c √(14 S ln(2At/δ) / max(1, N))

    at time t. It plans anew in each episode rather than whenever some N(s, a) has doubled: the episodes are given.
    """

    scale: float = 0.3
    """c. 1 in Jaksch et al.; Duan et al. report the best of 21 values from 10⁻⁴ to 1 for each setup. Of 9 such values
    0.32 was the best here for 10, 25, 50 and 75 episodes alike."""
    delta: float = 0.05
    """δ, the probability that an interval is wrong."""

    def __post_init__(self) -> None:
        at_least(0, scale=self.scale)
        if not 0.0 < self.delta < 1.0:
            raise ValueError(f"delta must be in (0, 1), got {self.delta}")

    def plan(
        self, seen: Seen, horizon: int, num_episodes: int, random: TaskRandom | None
    ) -> Float[Tensor, "task episode step state action"]:
        transitions, rewards = _frequencies(seen)
        states, actions = rewards.shape[-2:]
        visits = seen.visits.clamp(min=1.0)
        time = seen.visits.sum((-2, -1), keepdim=True).clamp(min=1.0)
        reward_radius = (7 * torch.log(2 * states * actions * time / self.delta) / (2 * visits)).sqrt()
        radius = (14 * states * torch.log(2 * actions * time / self.delta) / visits).sqrt()
        optimistic = rewards + self.scale * reward_radius
        q_values = optimistic_induction(transitions, self.scale * radius, optimistic, horizon)
        return _for_episodes(q_values, num_episodes)


@final
@dataclasses.dataclass(frozen=True)
class Known:
    """Plans in the MDP itself."""

    transitions: Float[Tensor, "task state action next_state"]
    rewards: Float[Tensor, "task state action"]

    def plan(
        self, seen: Seen, horizon: int, num_episodes: int, random: TaskRandom | None
    ) -> Float[Tensor, "task episode step state action"]:
        return _for_episodes(backward_induction(self.transitions, self.rewards, horizon), num_episodes)


class Plan(NamedTuple):
    """The carry: what was planned for the episode, and how far it is."""

    q_values: Float[Tensor, "task episode step state action"]
    step: Int[Tensor, "task episode"]


@final
@dataclasses.dataclass(frozen=True)
class ModelBasedPolicy:
    """Acts as it planned (by lot among equals), and with probability ε anyhow; observations are states, one-hot."""

    planner: Planner
    seen: Seen
    horizon: int
    """Steps in an episode."""
    epsilon: float = 0.0
    """ε."""

    @classmethod
    def start(
        cls,
        planner: Planner,
        num_tasks: int,
        states: int,
        actions: int,
        horizon: int,
        epsilon: float = 0.0,
        device: torch.device | str = "cpu",
    ) -> "ModelBasedPolicy":
        """The policy that has seen nothing of its tasks yet.

        Raises:
            ValueError: ε is not a probability.
        """
        if not 0.0 <= epsilon <= 1.0:
            raise ValueError(f"epsilon must be in [0, 1], got {epsilon}")
        transitions = torch.zeros(num_tasks, states, actions, states, dtype=torch.float64, device=device)
        return cls(planner, Seen(transitions, transitions[..., 0]), horizon, epsilon)

    def initial_carry(self, num_episodes: int, random: TaskRandom | None) -> Plan:
        q_values = self.planner.plan(self.seen, self.horizon, num_episodes, random)
        return Plan(q_values, torch.zeros(q_values.shape[:2], dtype=torch.int64, device=q_values.device))

    def act(
        self, observations: Float[Tensor, "task episode observation"], carry: Carry, random: TaskRandom | None
    ) -> tuple[Int[Tensor, "task episode"], Carry]:
        plan = Plan(*carry)
        states = observations.argmax(-1)
        tasks, episodes = (torch.arange(size, device=states.device) for size in states.shape)
        q_values = plan.q_values[tasks[:, None], episodes, plan.step, states]
        return epsilon_greedy(q_values, self.epsilon, random, lots=True), plan

    def observe(self, carry: Carry, transition: Transition) -> Carry:
        plan = Plan(*carry)
        return plan._replace(step=plan.step + 1)

    def adapt(self, support: Episodes) -> "ModelBasedPolicy":
        transitions, rewards = self.seen
        states, actions, _ = transitions.shape[1:]
        s, s_next = support.observations.argmax(-1), _next_states(support)
        sa = (s * actions + support.actions).flatten(1)
        sas = sa * states + s_next.flatten(1)
        taken, paid = support.mask.flatten(1).double(), support.rewards.flatten(1).double()
        seen = Seen(
            transitions.flatten(1).scatter_add(1, sas, taken).view_as(transitions),
            rewards.flatten(1).scatter_add(1, sa, taken * paid).view_as(rewards),
        )
        return dataclasses.replace(self, seen=seen)

    def shard(self, tasks: slice) -> "ModelBasedPolicy":
        """The policy on some of the tasks."""
        return dataclasses.replace(self, seen=Seen(*(rows_of(each, tasks) for each in self.seen)))


def _next_states(support: Episodes) -> Int[Tensor, "task episode step"]:
    """The state after each step; of an episode's last step, its final one. Meaningless past the end."""
    states, final = support.observations.argmax(-1), support.final_observations.argmax(-1)
    following = torch.cat([states[..., 1:], final[..., None]], -1)
    return following.scatter(-1, (support.lengths - 1)[..., None], final[..., None])


def _frequencies(
    seen: Seen,
) -> tuple[Float[Tensor, "task state action next_state"], Float[Tensor, "task state action"]]:
    """p̂ and r̂, and where nothing was seen, 1 / S and 0."""
    visits = seen.visits
    known = visits.clamp(min=1.0)
    states = seen.transitions.shape[-1]
    transitions = torch.where(visits[..., None] > 0, seen.transitions / known[..., None], 1.0 / states)
    return transitions, seen.rewards / known


def _for_episodes(
    q_values: Float[Tensor, "task step state action"], num_episodes: int
) -> Float[Tensor, "task episode step state action"]:
    """The same plan for every episode."""
    tasks, *shape = q_values.shape
    return q_values[:, None].expand(tasks, num_episodes, *shape)


def _dirichlet(
    concentration: Float[Tensor, "task state action next_state"], num_episodes: int, random: TaskRandom
) -> Float[Tensor, "task episode state action next_state"]:
    """gᵢ / Σⱼ gⱼ, gᵢ ~ Gamma(αᵢ) by the inverse of its distribution function (Devroye 1986, section XI.4)."""
    tasks, *shape = concentration.shape
    uniform = random.uniform(math.prod(shape)).cpu().double().clamp(min=2.0**-25).numpy()
    shapes = np.broadcast_to(concentration.cpu().numpy().reshape(tasks, 1, -1), uniform.shape)
    numbers = -np.log1p(-uniform)  # of Gamma(1), which most are: much faster
    others = shapes != 1.0
    numbers[others] = special.gammaincinv(shapes[others], uniform[others])
    gamma = torch.from_numpy(numbers).view(tasks, num_episodes, *shape).to(concentration.device)
    return gamma / gamma.sum(-1, keepdim=True)


def _normal(
    mean: Float[Tensor, "task state action"],
    precision: Float[Tensor, "task state action"],
    num_episodes: int,
    random: TaskRandom,
) -> Float[Tensor, "task episode state action"]:
    """μ + z / √τ, z ~ N(0, 1)."""
    tasks, *shape = mean.shape
    noise = random.normal(math.prod(shape)).double().view(tasks, num_episodes, *shape)
    return mean[:, None] + noise / precision.sqrt()[:, None]
