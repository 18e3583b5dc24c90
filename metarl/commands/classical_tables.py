"""Tables 1 and 2 of the RL² paper (Duan et al. 2016, arXiv:1611.02779), played again: classical algorithms and agents.

A figure is the mean total reward of a trial: of n pulls, or of n episodes of 10 steps. The paper takes an algorithm's
option that did best on the 1000 tasks that it reports; here the option is chosen on other tasks than those. Everything
plays the same tasks, drawn anew: agents have been trained on others.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar, final

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from metarl.agents.bandit_algorithms import (
    ArmValues,
    BanditPolicy,
    GittinsIndex,
    PosteriorMean,
    ThompsonSampling,
    Ucb1,
)
from metarl.agents.mdp_algorithms import Known, MaximumLikelihood, ModelBasedPolicy, Planner, Psrl, Ucrl2
from metarl.envs import EnvDistribution
from metarl.envs.bandits import bernoulli_bandit
from metarl.envs.tabular_mdp import ACTIONS, HORIZON, STATES, random_mdp, tabular_mdp
from metarl.learning.collect import Collector
from metarl.learning.protocols import AdaptationProtocol, AdaptedPolicy
from metarl.learning.random_streams import task_seeds
from metarl.maths.statistics import Estimate, bootstrap, mean
from metarl.runs.trained import TrainedAgent
from metarl.tasks import Task

_Options = TypeVar("_Options")

RANDOM, GITTINS, THOMPSON, OPTIMISTIC, UCB1 = "random", "Gittins", "Thompson", "optimistic Thompson", "UCB1, tuned c"
EPSILON_GREEDY, GREEDY, RL2 = "ε-greedy, tuned ε", "greedy", "RL²"
PSRL, OPTIMISTIC_PSRL, UCRL2, OPTIMAL = "PSRL", "optimistic PSRL", "UCRL2, tuned c", "optimal"

_BANDIT_COLUMNS = (RANDOM, GITTINS, THOMPSON, OPTIMISTIC, UCB1, EPSILON_GREEDY, GREEDY, RL2)
PAPER_BANDITS: Mapping[tuple[int, int], Mapping[str, float]] = {
    setup: dict(zip(_BANDIT_COLUMNS, figures, strict=True))
    for setup, figures in {
        (10, 5): (5.0, 6.6, 5.7, 6.5, 6.7, 6.6, 6.6, 6.7),
        (10, 10): (5.0, 6.6, 5.5, 6.2, 6.7, 6.6, 6.6, 6.7),
        (10, 50): (5.1, 6.5, 5.2, 5.5, 6.6, 6.5, 6.5, 6.8),
        (100, 5): (49.9, 78.3, 74.7, 77.9, 78.0, 75.4, 74.8, 78.7),
        (100, 10): (49.9, 82.8, 76.7, 81.4, 82.4, 77.4, 77.1, 83.5),
        (100, 50): (49.8, 85.2, 64.5, 67.7, 84.3, 78.3, 78.0, 84.9),
        (500, 5): (249.8, 405.8, 402.0, 406.7, 405.8, 388.2, 380.6, 401.6),
        (500, 10): (249.0, 437.8, 429.5, 438.9, 437.1, 408.0, 395.0, 432.5),
        (500, 50): (249.6, 463.7, 427.2, 437.6, 457.6, 413.6, 402.8, 438.9),
    }.items()
}
"""Table 1 by (pulls, arms). Its optimistic Thompson sampling takes the likeliest of several draws, ours is that of May
et al. 2012: the row cannot be compared."""

_MDP_COLUMNS = (RANDOM, PSRL, OPTIMISTIC_PSRL, UCRL2, EPSILON_GREEDY, GREEDY, RL2)
PAPER_MDPS: Mapping[int, Mapping[str, float]] = {
    episodes: dict(zip(_MDP_COLUMNS, figures, strict=True))
    for episodes, figures in {
        10: (100.1, 138.1, 144.1, 146.6, 132.8, 134.8, 156.2),
        25: (250.2, 408.8, 425.2, 424.1, 377.3, 368.8, 445.7),
        50: (499.7, 904.4, 930.7, 918.9, 823.3, 769.3, 936.1),
        75: (749.9, 1417.1, 1449.2, 1427.6, 1293.9, 1172.9, 1428.8),
        100: (999.4, 1939.5, 1973.9, 1942.1, 1778.2, 1578.5, 1913.7),
    }.items()
}
"""Table 2 by episodes, without BEB, which is not among ours."""


@final
@dataclasses.dataclass(frozen=True)
class Row:
    """A figure of a table."""

    trial: str
    """`n=10, k=5` or `n=10`."""
    algorithm: str
    option: str
    """The option that was chosen on other tasks; empty where there is none to choose."""
    reward: Estimate
    """Mean total reward of a trial, with its 95 % bootstrap interval over tasks."""
    num_tasks: int
    paper: float | None
    """What the paper prints; None where it has no such row."""
    above: Estimate | None = None
    """How far the reward is above that of posterior sampling (Thompson's, in MDPs PSRL) on the same tasks, as a share
    of the latter; None where that was not played."""

    def __str__(self) -> str:
        paper = "–" if self.paper is None else f"{self.paper:g}"
        name = f"{self.algorithm} {self.option}".strip()
        line = f"{self.trial:12} {name:30} {self.reward:.2f}  paper {paper}  ({self.num_tasks} tasks)"
        if self.above is None:
            return line
        share = Estimate(*(100 * figure for figure in dataclasses.astuple(self.above)))
        return f"{line}  {share:+.1f} % above posterior sampling"


@final
@dataclasses.dataclass(frozen=True)
class _Bandit:
    """A bandit algorithm with its options."""

    rule: ArmValues
    epsilon: float = 0.0
    option: str = ""


def _bandits(pulls: int) -> dict[str, tuple[_Bandit, ...]]:
    """The algorithms, each with the options to choose from."""
    tenths = [number / 10 for number in range(1, 11)]
    return {
        RANDOM: (_Bandit(PosteriorMean(), 1.0),),
        GITTINS: (_Bandit(GittinsIndex.for_trial(pulls)),),
        THOMPSON: (_Bandit(ThompsonSampling()),),
        OPTIMISTIC: (_Bandit(ThompsonSampling(optimistic=True)),),
        UCB1: tuple(_Bandit(Ucb1(scale, 1.0), 0.0, f"c={scale:g}") for scale in (0.0, *tenths)),
        "UCB1, c=1": (_Bandit(Ucb1()),),
        EPSILON_GREEDY: tuple(_Bandit(PosteriorMean(), epsilon, f"ε={epsilon:g}") for epsilon in (0.0, *tenths)),
        GREEDY: (_Bandit(PosteriorMean()),),
    }


def bandit_table(
    arms: int,
    pulls: int,
    num_tasks: int = 1000,
    seed: int = 0,
    algorithms: Collection[str] | None = None,
    agents: Sequence[TrainedAgent] = (),
) -> tuple[Row, ...]:
    """A line of table 1: the algorithms (all if None) on `num_tasks` bandits, their options chosen on as many others.

    Agents play the same bandits.

    Raises:
        ValueError: there is no such algorithm, or an agent was trained on something else.
    """
    dist, rng = bernoulli_bandit(arms, pulls), np.random.default_rng(seed)
    tuning, tasks = dist.sample("train", num_tasks, rng), dist.sample("train", num_tasks, rng)
    collector, seeds = Collector(dist), task_seeds(seed, num_tasks=num_tasks)

    def played(policy: AdaptedPolicy, tasks: Sequence[Task]) -> Float[ndarray, " task"]:
        return collector.collect_episodes(policy, tasks, 1, seeds).returns[:, 0].double().numpy()

    def totals(bandit: _Bandit, tasks: Sequence[Task]) -> Float[ndarray, " task"]:
        return played(BanditPolicy.start(bandit.rule, len(tasks), arms, bandit.epsilon), tasks)

    found: dict[tuple[str, str], Float[ndarray, " task"]] = {}
    for name, options in _chosen(_bandits(pulls), algorithms).items():
        best = options[0]
        if len(options) > 1:
            best = max(options, key=lambda bandit: totals(bandit, tuning).mean())
        found[name, best.option] = totals(best, tasks)
    for agent in agents:
        _need_trained_on(agent, dist)
        found[_name(agent), _about(agent)] = played(agent.agent.start(agent.state, num_tasks), tasks)
    collector.close()
    return _rows(f"n={pulls}, k={arms}", found, THOMPSON, PAPER_BANDITS.get((pulls, arms), {}), seed)


_EPSILONS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)


@final
@dataclasses.dataclass(frozen=True)
class _Mdp:
    """An algorithm for MDPs with its options."""

    planner: Planner
    epsilon: float = 0.0
    option: str = ""


def _mdps(tasks: Sequence[Task]) -> dict[str, tuple[_Mdp, ...]]:
    """The algorithms, each with the options to choose from; the optimal one is told these tasks."""
    worlds = [random_mdp(task) for task in tasks]
    transitions = torch.from_numpy(np.stack([mdp.transitions for mdp in worlds]))
    rewards = torch.from_numpy(np.stack([mdp.rewards for mdp in worlds]))
    return {
        RANDOM: (_Mdp(MaximumLikelihood(), 1.0),),
        PSRL: (_Mdp(Psrl(reward_mean=0.0)),),  # as in the code behind the paper's table
        "PSRL, prior mean 1": (_Mdp(Psrl()),),
        OPTIMISTIC_PSRL: (_Mdp(Psrl(num_samples=10, reward_mean=0.0), 0.0, "10 draws"),),
        UCRL2: tuple(_Mdp(Ucrl2(scale), 0.0, f"c={scale:.2g}") for scale in np.geomspace(1e-4, 1.0, 9)),
        EPSILON_GREEDY: tuple(_Mdp(MaximumLikelihood(), epsilon, f"ε={epsilon:g}") for epsilon in _EPSILONS),
        GREEDY: (_Mdp(MaximumLikelihood()),),
        OPTIMAL: (_Mdp(Known(transitions, rewards)),),
    }


def mdp_table(
    episodes: Sequence[int] = (10, 25, 50, 75, 100),
    num_tasks: int = 1000,
    num_tuning: int = 300,
    seed: int = 0,
    algorithms: Collection[str] | None = None,
    agents: Sequence[TrainedAgent] = (),
) -> tuple[Row, ...]:
    """Table 2: the algorithms (all if None) on `num_tasks` MDPs, their options chosen on `num_tuning` others.

    A trial of n episodes is the beginning of a longer one: each algorithm plays the longest only. An agent plays the
    same MDPs, and has a row where n is the number of episodes that it was trained with.

    Raises:
        ValueError: there is no such algorithm, or an agent was trained on something else.
    """
    dist, rng = tabular_mdp(), np.random.default_rng(seed)
    tuning, tasks = dist.sample("train", num_tuning, rng), dist.sample("train", num_tasks, rng)
    collector, protocol = Collector(dist), AdaptationProtocol(max(episodes) - 1, 1)

    def played(policy: AdaptedPolicy, tasks: Sequence[Task]) -> Float[ndarray, "task episode"]:
        """Of the first 1, 2, … episodes."""
        trials = collector.collect_trials(policy, tasks, protocol, task_seeds(seed, num_tasks=len(tasks)))
        return torch.cat([point.returns for point in trials.episodes], 1).double().cumsum(1).numpy()

    def totals(mdp: _Mdp, tasks: Sequence[Task]) -> Float[ndarray, "task episode"]:
        policy = ModelBasedPolicy.start(mdp.planner, len(tasks), STATES, ACTIONS, HORIZON, mdp.epsilon)
        return played(policy, tasks)

    found: dict[int, dict[tuple[str, str], Float[ndarray, " task"]]] = {n: {} for n in episodes}
    for name, options in _chosen(_mdps(tasks), algorithms).items():
        tried = [totals(mdp, tuning).mean(0) if len(options) > 1 else np.zeros(max(episodes)) for mdp in options]
        best = {n: int(np.argmax([curve[n - 1] for curve in tried])) for n in episodes}
        curves = {index: totals(options[index], tasks) for index in set(best.values())}
        for n, index in best.items():
            found[n][name, options[index].option] = curves[index][:, n - 1]
    for agent in agents:
        _need_trained_on(agent, dist)
        n = agent.agent.protocol.num_adaptations + 1
        if n not in found:
            raise ValueError(f"{agent.run.folder} was trained with {n} episodes, and the table has no such line")
        found[n][_name(agent), _about(agent)] = played(agent.agent.start(agent.state, num_tasks), tasks)[:, n - 1]
    collector.close()
    return tuple(row for n in episodes for row in _rows(f"n={n}", found[n], PSRL, PAPER_MDPS.get(n, {}), seed))


def _rows(
    trial: str,
    found: Mapping[tuple[str, str], Float[ndarray, " task"]],
    posterior_sampling: str,
    paper: Mapping[str, float],
    seed: int,
) -> tuple[Row, ...]:
    """A row for each algorithm and option by its total rewards."""
    reference = next((totals for (name, _), totals in found.items() if name == posterior_sampling), None)
    rows: list[Row] = []
    for (name, option), totals in found.items():
        above = None if reference is None else _estimate((totals - reference) / reference.mean(), seed)
        rows.append(Row(trial, name, option, _estimate(totals, seed), len(totals), paper.get(name), above))
    return tuple(rows)


def _need_trained_on(agent: TrainedAgent, dist: EnvDistribution) -> None:
    if agent.dist.spaces != dist.spaces or agent.dist.horizon != dist.horizon:
        raise ValueError(f"{agent.run.folder} was trained on {agent.dist.id}, not on {dist.id}")


def _name(agent: TrainedAgent) -> str:
    """As the paper calls it."""
    return RL2 if agent.ref.learner == "rl2" else agent.ref.learner


def _about(agent: TrainedAgent) -> str:
    return f"seed {agent.ref.seed}, {agent.env_steps:,} steps"


def _chosen(table: Mapping[str, _Options], algorithms: Collection[str] | None) -> dict[str, _Options]:
    unknown = sorted(set(algorithms or ()) - set(table))
    if unknown:
        raise ValueError(f"there is no algorithm {unknown[0]!r}; there are {', '.join(table)}")
    return {name: options for name, options in table.items() if algorithms is None or name in algorithms}


def _estimate(totals: Float[ndarray, " task"], seed: int) -> Estimate:
    return bootstrap(totals[None], mean, np.random.default_rng(seed), resample="tasks")
