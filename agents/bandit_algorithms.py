"""Classical algorithms for Bernoulli bandits, the comparators of the RL² paper (Duan et al. 2016, arXiv:1611.02779).

All of them count each arm's successes s and failures f, value the arms by them, and pull the best:

    posterior mean       (1 + s) / (2 + s + f)                      greedy; with ε > 0: ε-greedy; with ε = 1: random
    UCB1                 p̂ + c √(2 ln t / m)                        Auer, Cesa-Bianchi & Fischer 2002, figure 1
    Thompson sampling    θ ~ Beta(1 + s, 1 + f)                     Thompson 1933
    optimistic           max(θ, posterior mean)                     May et al. 2012, JMLR 13
    Gittins index        ν(1 + s, 1 + f)                            `metarl.agents.gittins`

The prior is U[0, 1], from which `bernoulli-bandit` draws its arms. The counts are the carry, so that they adapt within
the episode; `adapt` takes over those of whole episodes.
"""

import dataclasses
from typing import NamedTuple, Protocol, final, runtime_checkable

import torch
from jaxtyping import Float, Int
from scipy import special
from torch import Tensor

from metarl.agents.gittins import gittins_table
from metarl.agents.greedy_choice import epsilon_greedy
from metarl.checks import at_least
from metarl.learning.episodes import Episodes
from metarl.learning.protocols import Carry, Transition
from metarl.learning.random_streams import TaskRandom
from metarl.learning.sharding import rows_of


class ArmCounts(NamedTuple):
    """What was seen of each arm: the carry."""

    successes: Float[Tensor, "task episode arm"]
    failures: Float[Tensor, "task episode arm"]

    @property
    def means(self) -> Float[Tensor, "task episode arm"]:
        """The posterior means, (1 + s) / (2 + s + f)."""
        return (1 + self.successes) / (2 + self.successes + self.failures)


@runtime_checkable
class ArmValues(Protocol):
    """How an algorithm values arms."""

    def values(self, counts: ArmCounts, random: TaskRandom | None) -> Float[Tensor, "task episode arm"]:
        """The arms' values; without noise where `random` is None."""
        ...


@final
@dataclasses.dataclass(frozen=True)
class PosteriorMean:
    """(1 + s) / (2 + s + f).

    Ties matter: an arm never pulled is worth as much as one with s = f. They go to the first arm, as in the code of
    Duan et al.; by lot greedy would earn more (79.9 rather than 77.9 for n = 100, k = 10), since it then explores.
    """

    def values(self, counts: ArmCounts, random: TaskRandom | None) -> Float[Tensor, "task episode arm"]:
        return counts.means


@final
@dataclasses.dataclass(frozen=True)
class Ucb1:
    """p̂ + c √(2 ln t / m): t pulls in all, m of this arm, a mean p̂ of them (Auer et al. 2002, figure 1)."""

    scale: float = 1.0
    """c. 1 in Auer et al.; Duan et al. report the best of 0, 0.1, …, 1 for each setup."""
    pseudo_count: float = 0.0
    """Successes, and as many failures, that every arm starts with in p̂ and m. 0 in Auer et al., whose first k pulls
    are therefore one of each arm; 1 in Duan et al., who play 10 pulls with 50 arms."""

    def __post_init__(self) -> None:
        at_least(0, scale=self.scale, pseudo_count=self.pseudo_count)

    def values(self, counts: ArmCounts, random: TaskRandom | None) -> Float[Tensor, "task episode arm"]:
        real = counts.successes + counts.failures
        total = real.sum(-1, keepdim=True).clamp(min=1.0)
        pulls = real + 2 * self.pseudo_count
        means, bonus = (counts.successes + self.pseudo_count) / pulls, torch.sqrt(2 * total.log() / pulls)
        return torch.where(pulls > 0, means + self.scale * bonus, torch.inf)


@final
@dataclasses.dataclass(frozen=True)
class ThompsonSampling:
    """θ ~ Beta(1 + s, 1 + f) for each arm, by the inverse of its distribution function."""

    optimistic: bool = False
    """max(θ, posterior mean) instead of θ: optimistic Thompson sampling (May et al. 2012, JMLR 13, section 3.2)."""

    def values(self, counts: ArmCounts, random: TaskRandom | None) -> Float[Tensor, "task episode arm"]:
        if random is None:
            return counts.means
        uniform = random.uniform(counts.successes.shape[-1]).cpu().double()
        successes, failures = (count.cpu().numpy() for count in counts)
        quantiles = special.betaincinv(1 + successes, 1 + failures, uniform.numpy())
        samples = torch.from_numpy(quantiles).to(counts.successes.device)
        return torch.maximum(samples, counts.means) if self.optimistic else samples


@final
@dataclasses.dataclass(frozen=True)
class GittinsIndex:
    """ν(1 + s, 1 + f): optimal for E[Σ γᵗ rₜ] over endless pulls, and nearly so for the sum of finitely many."""

    discount: float
    """γ."""
    pulls: int
    """The most that one arm is pulled."""

    @classmethod
    def for_trial(cls, pulls: int) -> "GittinsIndex":
        """With γ = 1 − 2 / n for a trial of n pulls.

        Then 1 / (1 − γ) is n / 2, the pulls that are left on average. It earns more than twice or half that, and over
        20,000 bandits as much as the index for the pulls that are left now (Kaufmann 2018, arXiv:1601.01190) within
        the intervals: 6.66 and 6.66 for n = 10, k = 5; 85.51 and 85.65 (± 0.12) for n = 100, k = 50.
        """
        return cls(max(0.0, 1.0 - 2.0 / pulls), pulls)

    def values(self, counts: ArmCounts, random: TaskRandom | None) -> Float[Tensor, "task episode arm"]:
        most = int((counts.successes + counts.failures).max())
        if most > self.pulls:
            raise ValueError(f"the Gittins table is for {self.pulls} pulls of an arm, one has {most}: make it larger")
        table = gittins_table(self.discount, self.pulls).to(counts.successes.device)
        return table[counts.successes.long(), counts.failures.long()]


@final
@dataclasses.dataclass(frozen=True)
class BanditPolicy:
    """Pulls the arm of the highest value (the first of several), and with probability ε any."""

    rule: ArmValues
    successes: Float[Tensor, "task arm"]
    """Of each arm before the episode."""
    failures: Float[Tensor, "task arm"]
    epsilon: float = 0.0
    """ε."""

    @classmethod
    def start(
        cls,
        rule: ArmValues,
        num_tasks: int,
        arms: int,
        epsilon: float = 0.0,
        device: torch.device | str = "cpu",
    ) -> "BanditPolicy":
        """The policy that has seen nothing of its tasks yet.

        Raises:
            ValueError: ε is not a probability.
        """
        if not 0.0 <= epsilon <= 1.0:
            raise ValueError(f"epsilon must be in [0, 1], got {epsilon}")
        nothing = torch.zeros(num_tasks, arms, dtype=torch.float64, device=device)
        return cls(rule, nothing, nothing, epsilon)

    def initial_carry(self, num_episodes: int, random: TaskRandom | None) -> ArmCounts:
        tasks, arms = self.successes.shape
        successes, failures = (
            count[:, None].expand(tasks, num_episodes, arms) for count in (self.successes, self.failures)
        )
        return ArmCounts(successes, failures)

    def act(
        self, observations: Float[Tensor, "task episode observation"], carry: Carry, random: TaskRandom | None
    ) -> tuple[Int[Tensor, "task episode"], Carry]:
        counts = ArmCounts(*carry)
        return epsilon_greedy(self.rule.values(counts, random), self.epsilon, random, lots=False), counts

    def observe(self, carry: Carry, transition: Transition) -> Carry:
        pulled, rewards = transition.actions[..., None], transition.rewards[..., None].double()
        counts = ArmCounts(*carry)
        return ArmCounts(
            counts.successes.scatter_add(-1, pulled, rewards),
            counts.failures.scatter_add(-1, pulled, 1 - rewards),
        )

    def adapt(self, support: Episodes) -> "BanditPolicy":
        pulled = support.actions.flatten(1)
        taken, rewards = (values.flatten(1).double() for values in (support.mask, support.rewards))
        return dataclasses.replace(
            self,
            successes=self.successes.scatter_add(1, pulled, taken * rewards),
            failures=self.failures.scatter_add(1, pulled, taken * (1 - rewards)),
        )

    def shard(self, tasks: slice) -> "BanditPolicy":
        """The policy on some of the tasks."""
        successes, failures = (rows_of(count, tasks) for count in (self.successes, self.failures))
        return dataclasses.replace(self, successes=successes, failures=failures)
