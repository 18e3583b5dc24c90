"""Evaluation: the quota, the curve, the record and what it refuses."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import NamedTuple, final

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl import envs
from metarl.errors import RunError, UsageError
from metarl.evaluation.ablations import AblatedPolicy, ablated
from metarl.evaluation.evaluate import Candidate, aggregate, evaluate_with
from metarl.evaluation.judge import Ablation, EvaluationSettings
from metarl.evaluation.records import CheckpointRef, EvaluationConfig
from metarl.evaluation.results import Evaluation
from metarl.evaluation.table import table
from metarl.evaluation.trials import TrialJudge, foreign_tasks
from metarl.learning.collect import Collector, point_seeds
from metarl.learning.episodes import Episodes, Trials
from metarl.learning.protocols import AdaptationProtocol, AdaptedPolicy, Carry, Memoryless, Metrics, State, Transition
from metarl.learning.random_streams import TaskRandom, task_seeds
from metarl.tasks import Score, Split, Task

FAMILIES = ("ice", "icy-slope", "rough")
TASKS = tuple(Task.of(FAMILIES[index % 3], value=float(index)) for index in range(12))
STATE = State({"weight": torch.ones(2)}, {})


@final
@dataclasses.dataclass(frozen=True)
class FakeDistribution:
    """Twelve tasks without a simulator: the scripted collector makes up the scores."""

    held_out: bool = True
    hash: str = "0123456789abcdef"
    id: str = "fake-terrain"
    score: Score = "return"

    def sample(self, split: Split, count: int, rng: np.random.Generator) -> tuple[Task, ...]:
        raise AssertionError("an evaluation is on the frozen list, not on a draw")

    def tasks(self, split: Split) -> tuple[Task, ...]:
        return TASKS


@final
@dataclasses.dataclass(frozen=True)
class FakePolicy:
    """Knows what it has adapted to."""

    tasks: int
    supports: tuple[Episodes, ...] = ()

    def initial_carry(self, num_episodes: int, random: TaskRandom | None) -> Carry:
        raise AssertionError("the scripted collector plays nothing")

    def act(self, observations: Tensor, carry: Carry, random: TaskRandom | None) -> tuple[Tensor, Carry]:
        raise AssertionError("the scripted collector plays nothing")

    def observe(self, carry: Carry, transition: Transition) -> Carry:
        raise AssertionError("the scripted collector plays nothing")

    def adapt(self, support: Episodes) -> "FakePolicy":
        return FakePolicy(self.tasks, (*self.supports, support))


@final
@dataclasses.dataclass(frozen=True)
class FakeAgent:
    """An agent of which only `start` and `protocol` are wanted."""

    protocol: AdaptationProtocol
    policy: Callable[[int], AdaptedPolicy] = FakePolicy
    meta_batch: int = 1
    progress_keys: tuple[str, ...] = ()
    adaptation_name: str = "round"

    def init(self, seed: int) -> State:
        return STATE

    def start(self, state: State, num_tasks: int) -> AdaptedPolicy:
        assert state is STATE
        return self.policy(num_tasks)

    def meta_step(self, state: State, experience: Trials, rng: np.random.Generator) -> tuple[State, Metrics]:
        raise AssertionError("an evaluation does not train")


@final
@dataclasses.dataclass
class ScriptedCollector:
    """Score = the task's value + `gain` for each adaptation to its own experience + noise of the seed.

    Experience of another task gains `foreign_gain`. Keeps a list of the calls.
    """

    gain: float = 5.0
    foreign_gain: float = 1.0
    noise: float = 0.0
    diverging: int = 0
    solved_from: float | None = None
    """The return from which on an episode is a success; None where there is no such thing."""
    calls: list[tuple[FakePolicy, tuple[Task, ...], int, tuple[int, ...], bool]] = dataclasses.field(
        default_factory=list
    )
    given: list[Episodes] = dataclasses.field(default_factory=list)

    def collect_trials(
        self, adapted: AdaptedPolicy, tasks: Sequence[Task], protocol: AdaptationProtocol, seeds: Sequence[int]
    ) -> Trials:
        points: list[Episodes] = []
        for point in range(protocol.num_adaptations + 1):
            if points:
                adapted = adapted.adapt(points[-1])
            count = protocol.episodes_per_adaptation
            points.append(self.collect_episodes(adapted, tasks, count, point_seeds(seeds, point)))
        return Trials(tuple(tasks), tuple(points))

    def collect_episodes(
        self,
        policy: AdaptedPolicy,
        tasks: Sequence[Task],
        num_episodes: int,
        seeds: Sequence[int],
        *,
        noise: bool = True,
    ) -> Episodes:
        if isinstance(policy, AblatedPolicy):
            policy = policy.policy
        assert isinstance(policy, FakePolicy)
        self.calls.append((policy, tuple(tasks), num_episodes, tuple(seeds), noise))
        shape = (len(tasks), num_episodes)
        values = torch.tensor([task["value"] for task in tasks])
        scores = values[:, None].expand(shape).clone()
        for support in policy.supports:
            own = support.observations[:, 0, 0, 0] == values
            scores += torch.where(own, self.gain, self.foreign_gain)[:, None]
        if noise:
            rows = [np.random.default_rng(seed).standard_normal(num_episodes) for seed in seeds]
            scores += self.noise * torch.from_numpy(np.stack(rows)).float()
        ended = torch.zeros(shape, dtype=torch.bool)
        ended[0, : self.diverging] = True
        solved = None if self.solved_from is None else scores >= self.solved_from
        self.given.append(
            Episodes(
                observations=values[:, None, None, None].expand(*shape, 4, 2).clone(),
                final_observations=torch.zeros(*shape, 2),
                actions=torch.zeros(*shape, 4, 1),
                rewards=scores[..., None] * torch.tensor([0.25, 0.25, 0.5, 0.0]),
                terminated=ended,
                diverged=ended,
                lengths=torch.full(shape, 3),
                success=solved,
                success_at_end=solved,
            )
        )
        return self.given[-1]


def candidate(
    adaptations: int = 2,
    episodes: int = 4,
    seed: int = 0,
    policy: Callable[[int], AdaptedPolicy] = FakePolicy,
    distribution_hash: str | None = FakeDistribution().hash,
) -> Candidate[FakeAgent]:
    ref = CheckpointRef("maml", f"fake-{seed}", seed, "last", 300, content=f"digest {seed}")
    return Candidate(FakeAgent(AdaptationProtocol(adaptations, episodes), policy), STATE, ref, distribution_hash)


def judged(
    collector: ScriptedCollector | None = None,
    who: Candidate[FakeAgent] | None = None,
    dist: FakeDistribution = FakeDistribution(),
    **settings: object,
) -> Evaluation:
    judge = TrialJudge(dist, collector or ScriptedCollector())
    return evaluate_with(judge, who or candidate(), dataclasses.replace(EvaluationSettings(), **settings))


def evaluated(seed: int = 0, *, held_out: bool = True, trials: int = 2, noise: float = 1.0) -> Evaluation:
    """One seed's evaluation; the seeds differ by their gain."""
    collector = ScriptedCollector(noise=noise, gain=5.0 + seed)
    return judged(collector, candidate(seed=seed), FakeDistribution(held_out=held_out), trials=trials)


def test_the_curve_is_the_score_after_each_adaptation() -> None:
    found = judged()
    values = np.array([task["value"] for task in TASKS])
    np.testing.assert_allclose(found.scores, np.stack([values, values + 5, values + 10])[None, None], rtol=1e-6)
    assert [(point.adaptations, point.amount) for point in found.curve()] == [(0, 0), (1, 4), (2, 8)]
    assert [point.mean.value for point in found.curve()] == pytest.approx([5.5, 10.5, 15.5])
    gain = found.gain()
    assert (gain.mean.value, gain.mean.low, gain.mean.high) == pytest.approx((10, 10, 10))
    assert (gain.adaptations, gain.amount) == (2, 8)


def test_each_task_gets_its_quota_and_adaptation_gets_those_very_episodes() -> None:
    collector = ScriptedCollector(noise=1.0)
    judged(collector, trials=3, swap_control=False)
    assert [(tasks, episodes) for _, tasks, episodes, *_ in collector.calls] == [(TASKS, 4)] * 9
    for trial in range(3):  # each begins unadapted and goes on with what it has just seen
        for point in range(3):
            policy = collector.calls[3 * trial + point][0]
            assert policy.tasks == len(TASKS)
            seen = collector.given[3 * trial : 3 * trial + point]
            assert all(one is two for one, two in zip(policy.supports, seen, strict=True))


def test_each_point_has_chance_of_its_own_and_more_trials_or_tasks_change_no_earlier_one() -> None:
    many = ScriptedCollector(noise=1.0)
    one, three = judged(ScriptedCollector(noise=1.0)), judged(many, trials=3, swap_control=False)
    seeds = [seed for *_, seeds, _ in many.calls for seed in seeds]
    assert len(set(seeds)) == 9 * len(TASKS)
    np.testing.assert_array_equal(one.scores, three.scores[:, :1])
    few = judged(ScriptedCollector(noise=1.0), num_tasks=5)
    np.testing.assert_array_equal(few.scores, one.scores[..., :5])
    again = judged(ScriptedCollector(noise=1.0), seed=1)
    assert (again.scores != one.scores).all()
    assert (again.config.seed, one.config.seed) == (1, 20_210_830)


def test_the_swap_control_tells_a_specific_gain_from_one_that_any_support_gives() -> None:
    found = judged(ScriptedCollector(gain=5.0, foreign_gain=1.0))
    specific = found.specific_gain()
    assert specific is not None
    assert (found.gain().mean.value, specific.mean.value) == pytest.approx((10, 8))
    unspecific = judged(ScriptedCollector(gain=5.0, foreign_gain=5.0)).specific_gain()
    assert unspecific is not None
    assert unspecific.mean.value == 0
    assert judged(who=candidate(adaptations=0)).specific_gain() is None
    foreign = foreign_tasks(TASKS)
    assert all(TASKS[other].family != TASKS[own].family for own, other in enumerate(foreign))
    assert sorted(foreign_tasks(TASKS[::3])) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="two different tasks"):
        foreign_tasks([TASKS[0], TASKS[0]])


def test_mean_actions_are_scored_beside_sampled_adaptation() -> None:
    collector = ScriptedCollector(noise=1.0)
    found = judged(collector, actions="mean", swap_control=False)
    assert [noise for *_, noise in collector.calls] == [True] * 3 + [False] * 3
    values = np.array([task["value"] for task in TASKS])
    np.testing.assert_allclose(found.scores[0, 0], np.stack([values, values + 5, values + 10]), rtol=1e-6)
    assert found.config.actions == "mean"
    assert "actions: mean" in table(found)


def test_protocol_and_number_of_tasks_can_be_chosen() -> None:
    collector = ScriptedCollector()
    found = judged(collector, num_adaptations=0, episodes_per_adaptation=7, num_tasks=6)
    assert [(tasks, episodes) for _, tasks, episodes, *_ in collector.calls] == [(TASKS[:6], 7)]
    assert found.scores.shape == (1, 1, 1, 6)
    assert found.gain().mean.value == 0


def test_an_agent_that_does_not_adapt_shows_no_gain() -> None:
    found = judged(ScriptedCollector(gain=0.0, foreign_gain=0.0, noise=1.0), trials=4, seed=2)
    assert found.gain().mean.low < 0 < found.gain().mean.high
    specific = found.specific_gain()
    assert specific is not None
    assert specific.mean.value == pytest.approx(0, abs=1e-6)  # own and foreign support have the same noise


def test_diverged_episodes_are_left_out_with_a_warning_and_steps_are_counted() -> None:
    found = judged(ScriptedCollector(diverging=3), trials=2)
    assert found.metrics["diverged"][0, :, :, 0].tolist() == [[3, 3, 3]] * 2
    assert found.metrics["diverged"][..., 1:].sum() == 0
    assert (found.metrics["env_steps"] == 4 * 3).all()
    text = table(found)
    assert "WARNING: 18 episodes diverged and left out of the means; 864 environment steps" in text
    with pytest.raises(RunError, match=r"all 4 episodes on ice\(value=0\) diverged at point 0"):
        judged(ScriptedCollector(diverging=4))


def test_parameters_that_are_no_numbers_are_refused() -> None:
    broken = dataclasses.replace(candidate(), state=State({"weight": torch.tensor([1.0, torch.nan])}, {}))
    with pytest.raises(UsageError, match="fake-0 is damaged: its parameter weight is not finite"):
        judged(who=broken)


def test_families_are_told_apart() -> None:
    found = evaluated(noise=0.0)
    assert found.families == FAMILIES
    rough = found.only("rough")
    assert {task.family for task in rough.tasks} == {"rough"}
    assert rough.curve()[0].mean.value == pytest.approx(np.mean([2, 5, 8, 11]))
    with pytest.raises(ValueError, match=r"no task of family 'sand'.*ice, icy-slope, rough"):
        found.only("sand")


def test_another_distribution_is_warned_about() -> None:
    with pytest.warns(UserWarning, match=r"fake-0 was trained on .* hash feed; fake-terrain has 0123456789abcdef"):
        judged(who=candidate(distribution_hash="feed"))
    judged(who=candidate(distribution_hash=None))


def test_held_out_says_whether_these_tasks_were_trained_on() -> None:
    assert evaluated().config.held_out
    assert "held-out test tasks" in table(evaluated())
    assert not evaluated(held_out=False).config.held_out
    assert "training tasks: nothing is held out" in table(evaluated(held_out=False))
    on_train = judged(split="train")
    assert not on_train.config.held_out
    assert "· training tasks\n" in table(on_train)


def test_what_is_resampled_follows_from_what_is_a_sample() -> None:
    one, fixed = evaluated(), evaluated(held_out=False)
    assert one.resampled == "tasks within families"
    assert aggregate([one, evaluated(1)]).resampled == "seeds, and tasks within families"
    # Fixed tasks differ by 11, trials by next to nothing: resampling tasks would give a wide interval.
    assert fixed.resampled == "the trials of one run"
    interval = fixed.curve()[0].mean
    assert 0 < interval.high - interval.low < 0.5 < one.curve()[0].mean.high - one.curve()[0].mean.low
    assert aggregate([fixed, evaluated(1, held_out=False)]).resampled == "seeds (the tasks are all there are)"
    single = evaluated(held_out=False, trials=1)
    assert single.resampled == "nothing (one run, one trial, fixed tasks)"
    assert np.isnan(single.gain().mean.low)
    assert "[no interval]" in table(single)


def test_one_seed_says_that_it_is_one() -> None:
    assert "one seed: the interval says nothing about runs of other seeds" in table(evaluated())
    assert "one seed" not in table(aggregate([evaluated(), evaluated(1)]))
    assert json.loads(json.dumps(evaluated().to_json()))["figures"]["all"]["caveat"].startswith("one seed")


def test_outcomes_that_are_all_alike_have_wilsons_interval() -> None:
    """0 of 12: [0, 0] would say that success is impossible. (Wilson 1927; statsmodels' proportion_confint agrees.)"""
    never = judged(ScriptedCollector(solved_from=99.0), dist=FakeDistribution(score="success"))
    interval = never.curve()[0].mean
    assert interval.low == 0
    assert interval.high == pytest.approx(0.242494, abs=1e-5)
    always = judged(ScriptedCollector(solved_from=-99.0), dist=FakeDistribution(score="success"))
    assert always.curve()[0].mean.low == pytest.approx(1 - 0.242494, abs=1e-5)
    returns = judged(ScriptedCollector(gain=0.0), num_tasks=1)  # a return that happens to be 0 is no outcome
    assert np.isnan(returns.gain().mean.low)
    gain = never.gain().mean  # a difference is no outcome
    assert (gain.low, gain.high) == (0, 0)


def test_a_family_of_its_own_does_not_move_with_the_others() -> None:
    """Tasks are drawn within families, so the interval of all tasks does not hold the families' differences."""
    found = evaluated(noise=0.0)
    shifted = found.scores + 1000 * np.array([task.family == "ice" for task in TASKS])
    moved = dataclasses.replace(found, metrics={**found.metrics, "return": shifted})
    before, after = found.curve()[0].mean, moved.curve()[0].mean
    assert after.high - after.low == pytest.approx(before.high - before.low)


@pytest.mark.parametrize("trials", [1, 2])
@pytest.mark.parametrize("held_out", [True, False])
def test_json_and_back(trials: int, held_out: bool) -> None:
    found = evaluated(trials=trials, held_out=held_out)
    text = json.dumps(found.to_json(), allow_nan=False)
    again = Evaluation.from_json(json.loads(text))
    assert json.dumps(again.to_json()) == text
    assert (again.config, again.tasks, again.sources) == (found.config, found.tasks, found.sources)
    assert table(again) == table(found)


def test_json_has_the_figures_with_their_numbers() -> None:
    figures = json.loads(json.dumps(evaluated().to_json()))["figures"]
    assert list(figures) == ["all", *FAMILIES]
    assert [figures["ice"][name] for name in ("seeds", "tasks")] == [1, 4]
    assert (figures["all"]["curve"][2]["adaptations"], figures["all"]["curve"][2]["amount"]) == (2, 8)
    gain = figures["all"]["gain"]["interquartile_mean"]
    assert gain["low"] < gain["value"] < gain["high"]
    assert figures["all"]["specific_gain"]["mean"]["value"] == pytest.approx(8)


def test_damaged_json_is_refused_in_words() -> None:
    whole = evaluated().to_json()
    with pytest.raises(ValueError, match="missing required field `metrics`"):
        Evaluation.from_json({name: part for name, part in whole.items() if name != "metrics"})
    with pytest.raises(ValueError, match="format 3, got 1: evaluate again"):
        Evaluation.from_json(whole | {"format": 1})
    with pytest.raises(ValueError, match=r"must have the shape \(1, 2, 3, 12\)"):
        Evaluation.from_json(whole | {"metrics": evaluated(trials=1).to_json()["metrics"]})
    config = whole["config"]
    assert isinstance(config, dict)
    with pytest.raises(ValueError, match=r"config: Expected `int`, got `str` - at `\$.trials`"):
        Evaluation.from_json(whole | {"config": config | {"trials": "two"}})
    with pytest.raises(ValueError, match="config: Object missing required field"):
        Evaluation.from_json(whole | {"config": {}})
    with pytest.raises(ValueError, match="config has the unknown fields rounds"):
        Evaluation.from_json(whole | {"config": config | {"rounds": 2}})
    with pytest.raises(ValueError, match="Expected `array`, got `int`"):
        Evaluation.from_json(whole | {"tasks": 3})
    with pytest.raises(ValueError, match="metrics.return is not an array of numbers"):
        Evaluation.from_json(whole | {"metrics": {"return": [[["x"]]]}})


def test_aggregate_puts_seeds_side_by_side() -> None:
    runs = [evaluated(seed) for seed in range(3)]
    together = aggregate(runs)
    np.testing.assert_array_equal(together.scores, np.concatenate([run.scores for run in runs]))
    assert [source.seed for source in together.sources] == [0, 1, 2]
    assert together.gain().mean.value == pytest.approx(np.mean([run.gain().mean.value for run in runs]))
    # The seeds' gains are about 10, 12 and 14: one of them alone does not know that.
    wide, narrow = together.gain().mean, runs[0].gain().mean
    assert wide.high - wide.low > 2 > narrow.high - narrow.low
    assert "3 seeds × 12 tasks × 2 trials × 4 episodes a point" in table(together)
    nested = aggregate([aggregate(runs[:2]), runs[2]])
    assert nested.to_json() == together.to_json()


def with_config(evaluation: Evaluation, config: EvaluationConfig) -> Evaluation:
    return dataclasses.replace(evaluation, config=config)


def with_source(evaluation: Evaluation, **changes: object) -> Evaluation:
    return dataclasses.replace(evaluation, sources=(dataclasses.replace(evaluation.sources[0], **changes),))


def test_aggregate_refuses_what_cannot_be_compared() -> None:
    one, two = evaluated(0), evaluated(1)
    with pytest.raises(ValueError, match="at least one evaluation"):
        aggregate([])
    with pytest.raises(ValueError, match=r"fake-0 and fake-1 .* distribution_hash is '0123.*' and 'feed'"):
        aggregate([one, with_config(two, dataclasses.replace(two.config, distribution_hash="feed"))])
    with pytest.raises(ValueError, match="split is 'test' and 'validation'"):
        aggregate([one, with_config(two, dataclasses.replace(two.config, split="validation"))])
    with pytest.raises(ValueError, match="trials is 2 and 1"):
        aggregate([one, evaluated(1, trials=1)])
    other = dataclasses.replace(two, tasks=(*TASKS[:-1], Task.of("rough", value=99.0)))
    with pytest.raises(ValueError, match="lists of 12 and 12 with 11 in common"):
        aggregate([one, other])
    with pytest.raises(ValueError, match=r"maml \(best on validation\), maml \(last\)"):
        aggregate([one, with_source(two, checkpoint="best on validation")])


def test_a_copy_of_a_run_or_two_runs_of_one_seed_are_no_second_seed() -> None:
    one, two = evaluated(0), evaluated(1)
    with pytest.raises(ValueError, match="fake-0 and copy hold the same parameters"):
        aggregate([one, with_source(two, run="copy", content="digest 0")])
    with pytest.raises(ValueError, match="fake-0 and again are both of seed 0"):
        aggregate([one, with_source(two, run="again", seed=0)])


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="trials must be at least 1, got 0"):
        judged(trials=0)
    with pytest.raises(ValueError, match="num_adaptations must be at least 0, got -1"):
        judged(num_adaptations=-1)
    with pytest.raises(ValueError, match="fake-terrain has 12 test tasks; 13 were asked for"):
        judged(num_tasks=13)
    with pytest.raises(ValueError, match="num_tasks must be at least 1, got 0"):
        judged(num_tasks=0)
    with pytest.raises(ValueError, match="seed must be between 0"):
        judged(seed=-1)
    with pytest.raises(ValueError, match="batch_norm is a setting of few-shot learners"):
        judged(batch_norm="support")


def test_scores_that_are_no_numbers_are_refused() -> None:
    found = evaluated()
    scores = found.scores.copy()
    scores[0, 0, 1, 3] = np.nan
    with pytest.raises(ValueError, match="1 of 72 values of return are not finite"):
        dataclasses.replace(found, metrics={**found.metrics, "return": scores})


def test_progress_is_told_as_a_share() -> None:
    told: list[float] = []
    judge = TrialJudge(FakeDistribution(), ScriptedCollector())
    evaluate_with(judge, candidate(), EvaluationSettings(trials=2), told.append)
    assert told == sorted(told)
    assert (told[0], told[-1]) == (0.25, 1.0)


TABLE = """\
fake-terrain (0123456789abcdef) · held-out test tasks
maml · fake-0 · checkpoint: last (outer step 300)
return before adaptation and after 8 episodes of it: undiscounted return
[95 % interval]
"""


def test_the_table_is_short_and_aligned() -> None:
    lines = table(evaluated(noise=0.0)).splitlines()
    assert max(map(len, lines)) <= 110
    assert lines[:4] == TABLE.splitlines()
    assert lines[5].split() == ["tasks", "before", "after", "gain", "own", "−", "foreign", "support"]
    assert lines[6].startswith("mean  ")
    assert lines[6].endswith("8.0 [8.0, 8.0]")
    assert [line.split()[:2] for line in lines[8:11]] == [["mean,", family] for family in FAMILIES]
    assert lines[13:15] == ["episodes       0     4     8", "mean return  5.5  10.5  15.5"]
    assert repr(evaluated(noise=0.0)) == (
        "<Evaluation of fake-0 on fake-terrain test: return 5.5 before, 15.5 after adaptation>"
    )


@final
@dataclasses.dataclass(frozen=True)
class Follower:
    """A point robot that goes the way its best episode went: a tiny agent that truly adapts."""

    tasks: int
    way: Tensor | None = None

    def initial_carry(self, num_episodes: int, random: TaskRandom | None) -> Carry:
        return (torch.full((self.tasks, num_episodes, 2), torch.nan),)

    def act(self, observations: Tensor, carry: Carry, random: TaskRandom | None) -> tuple[Tensor, Carry]:
        assert random is not None
        chosen = torch.where(carry[0].isnan(), 0.05 * random.normal(2), carry[0])
        return chosen if self.way is None else self.way[:, None].expand_as(chosen), (chosen,)

    def observe(self, carry: Carry, transition: Transition) -> Carry:
        return carry

    def adapt(self, support: Episodes) -> "Follower":
        best = support.returns.argmax(1)
        return Follower(self.tasks, support.actions[torch.arange(self.tasks), best, 0])


def test_a_real_distribution_and_collector() -> None:
    dist = envs.make("point-navigation")
    who = candidate(adaptations=1, episodes=10, policy=Follower, distribution_hash=dist.hash)
    settings = EvaluationSettings(num_tasks=16, trials=2)
    found = evaluate_with(TrialJudge(dist, Collector(dist)), who, settings)
    assert found.tasks == dist.tasks("test")[:16]
    assert found.gain().mean.low > 0
    specific = found.specific_gain()  # the positive control: where the goal is can only be told by one's own episodes
    assert specific is not None
    assert specific.mean.low > 0
    assert (found.metrics["env_steps"] == 10 * dist.horizon).all()
    threads = evaluate_with(TrialJudge(dist, Collector(dist, threads=2)), who, settings)
    assert threads.to_json() == found.to_json()


def test_success_is_the_score_where_the_distribution_says_so() -> None:
    dist, collector = FakeDistribution(score="success"), ScriptedCollector(noise=1.0, solved_from=8.0)
    found = judged(collector, dist=dist, swap_control=False)
    solved = torch.stack([episodes.returns.double() >= 8.0 for episodes in collector.given]).double().mean(-1)
    np.testing.assert_allclose(found.scores[0, 0], solved)
    assert found.config.score == "success"
    plain = judged(ScriptedCollector(noise=1.0), swap_control=False)
    np.testing.assert_array_equal(found.metrics["return"], plain.scores)
    assert found.judged_by("return").curve() == plain.curve()
    text = table(found)
    assert "share of episodes with success at any step" in text
    assert "success at end" in text
    assert "\nreturn  " in text
    value = json.loads(json.dumps(found.to_json()))
    assert table(Evaluation.from_json(value)) == text


def test_success_has_to_be_told_by_the_environment() -> None:
    with pytest.raises(ValueError, match="the score 'success' is not among the metrics"):
        judged(dist=FakeDistribution(score="success"), swap_control=False)


def test_seeds_of_tasks_are_independent_of_how_many_there_are() -> None:
    assert task_seeds(3, 1, num_tasks=5)[:2] == task_seeds(3, 1, num_tasks=2)
    assert not set(task_seeds(3, 1, num_tasks=5)) & set(task_seeds(3, 2, num_tasks=5))


# Within the first episode, and ablations.


@pytest.mark.parametrize("shape", [(1,), (1, 2, 8), (2, 2, 8, 12), (1, 2, 8, 4), (1, 2, 8, 12, 1)], ids=str)
def test_windows_of_other_axes_are_refused(shape: tuple[int, ...]) -> None:
    whole = evaluated(trials=2).to_json()
    assert Evaluation.from_json(whole | {"first_episode": np.zeros((1, 2, 8, 12)).tolist()}).first_episode is not None
    with pytest.raises(ValueError, match="first_episode"):
        Evaluation.from_json(whole | {"first_episode": np.zeros(shape).tolist()})


def test_within_the_first_episode_rewards_are_summed_by_windows_and_diverged_episodes_left_out() -> None:
    found = judged(ScriptedCollector(noise=1.0, diverging=1), trials=2, swap_control=False)
    windows = found.first_episode
    assert windows is not None and windows.shape == (1, 2, 1, len(TASKS))  # episodes of 4 steps
    np.testing.assert_allclose(windows[:, :, 0], found.scores[:, :, 0], rtol=1e-5)
    assert [step for step, _ in found.within_episode()] == [25]
    again = Evaluation.from_json(json.loads(json.dumps(found.to_json())))
    assert again.first_episode is not None
    np.testing.assert_array_equal(again.first_episode, windows)
    assert aggregate([found]).first_episode is not None
    part = found.only(TASKS[0].family)
    assert part.first_episode is not None and part.first_episode.shape[-1] == len(part.tasks)


def test_a_window_is_25_steps_and_the_last_may_be_shorter() -> None:
    from metarl.evaluation.trials import _by_window  # pyright: ignore[reportPrivateUsage]

    rewards = torch.arange(2 * 3 * 60, dtype=torch.float32).view(2, 3, 60)
    no = torch.zeros(2, 3, dtype=torch.bool)
    diverged = no.clone()
    diverged[1, 2] = True
    empty = torch.zeros(2, 3, 60, 1)
    episodes = Episodes(empty, empty[:, :, 0], empty, rewards, no, diverged, torch.full((2, 3), 60))
    found = _by_window(episodes)
    assert found.shape == (3, 2)
    for task, good in ((0, [0, 1, 2]), (1, [0, 1])):
        for window, (first, end) in enumerate(((0, 25), (25, 50), (50, 60))):
            expected = np.mean([float(rewards[task, episode, first:end].sum()) for episode in good])
            assert found[window, task] == pytest.approx(expected)


def test_a_wiped_memory_adapts_to_nothing() -> None:
    found = judged(ablation="wipe-memory")
    assert found.gain().mean.value == 0 and found.config.ablation == "wipe-memory"
    assert "ablation: wipe-memory" in table(found)
    assert judged().config.ablation == "none" and "ablation" not in table(judged())


def test_an_agent_from_which_rewards_are_hidden_adapts_to_episodes_without_any() -> None:
    collector = ScriptedCollector()
    found = judged(collector, ablation="hide-reward", swap_control=False)
    assert found.gain().mean.value == pytest.approx(10)  # the scripted one goes by the observations
    supports = [policy.supports for policy, *_ in collector.calls]
    assert [len(each) for each in supports] == [0, 1, 2]
    assert not any(support.rewards.any() for each in supports for support in each)
    assert torch.equal(supports[2][0].observations, collector.given[0].observations)


class Echo(NamedTuple):
    """The last reward that it was told of."""

    reward: Tensor


@pytest.mark.parametrize("ablation", ["none", "wipe-memory", "hide-reward"])
def test_within_an_episode_only_hidden_rewards_are_hidden(ablation: Ablation) -> None:
    @dataclasses.dataclass(frozen=True)
    class Told(Memoryless):
        def act(self, observations: Tensor, carry: Carry, random: TaskRandom | None) -> tuple[Tensor, Carry]:
            return observations, carry

        def observe(self, carry: Carry, transition: Transition) -> Carry:
            return Echo(transition.rewards)

        def adapt(self, support: Episodes) -> "Told":
            return self

    policy = ablated(Told(), ablation)
    ones = torch.ones(2, 3)
    (reward,) = policy.observe(Echo(0 * ones), Transition(ones, ones, ones > 2, ones[..., None]))
    assert torch.equal(reward, 0 * ones if ablation == "hide-reward" else ones)
