"""Evaluation: the quota, the curve, the record and what it refuses."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import final

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl import agents, envs
from metarl.envs import TaskVectorEnv
from metarl.evaluation.evaluate import Candidate, Evaluation, Source, aggregate, evaluate
from metarl.evaluation.results import Setting
from metarl.learning.collect import Sampler
from metarl.learning.episodes import Episodes
from metarl.learning.protocols import Actor, Figures, Memory, Schedule, State
from metarl.tasks import Score, Split, Task

FAMILIES = ("ice", "icy-slope", "rough")
TASKS = tuple(Task.of(FAMILIES[index % 3], value=float(index)) for index in range(12))
STATE = State({}, {})


@final
@dataclasses.dataclass(frozen=True)
class FakeDistribution:
    """Twelve tasks without a simulator: the scripted sampler makes up the scores."""

    held_out: bool = True
    hash: str = "0123456789abcdef"
    id: str = "fake-terrain"
    horizon: int = 4
    score: Score = "return"

    def sample(self, split: Split, count: int, rng: np.random.Generator) -> tuple[Task, ...]:
        raise AssertionError("an evaluation is on the frozen list, not on a draw")

    def tasks(self, split: Split) -> tuple[Task, ...]:
        return TASKS

    def vector_env(self, num_envs: int, threads: int = 1) -> TaskVectorEnv:
        raise AssertionError("the sampler given is the one to use")


@final
@dataclasses.dataclass(frozen=True)
class FakeActor:
    """Knows how often it has adapted and to what; moves to and fro if it is asked to act."""

    tasks: int
    supports: tuple[Episodes, ...] = ()

    def begin(self, episodes: int) -> Memory:
        return (torch.zeros(self.tasks, episodes),)

    def act(self, observations: Tensor, memory: Memory, generator: torch.Generator) -> tuple[Tensor, Memory]:
        return 0.1 * torch.randn(observations.shape, generator=generator), memory

    def feedback(self, memory: Memory, actions: Tensor, rewards: Tensor, done: Tensor) -> Memory:
        return (memory[0] + rewards,)

    def adapt(self, support: Episodes) -> "FakeActor":
        return FakeActor(self.tasks, (*self.supports, support))


@final
@dataclasses.dataclass(frozen=True)
class FakeAgent:
    """An agent of which only `start` and `schedule` are wanted."""

    schedule: Schedule
    meta_batch: int = 1
    shown: tuple[str, ...] = ()
    round_name: str = "round"
    actor: Callable[[int], "FakeActor | Follower"] = FakeActor

    def init(self, seed: int) -> State:
        return STATE

    def meta_step(self, state: State, batch: tuple[Task, ...], rng: np.random.Generator) -> tuple[State, Figures]:
        raise AssertionError("an evaluation does not train")

    def start(self, state: State, num_tasks: int) -> "FakeActor | Follower":
        assert state is STATE
        return self.actor(num_tasks)


@final
@dataclasses.dataclass
class ScriptedSampler:
    """Score = task's value + `gain` for each round of adaptation + noise of the seed; and a list of the calls."""

    gain: float = 5.0
    noise: float = 0.0
    diverging: int = 0
    solved_from: float | None = None
    """The return from which on an episode is a success; None where there is no such thing."""
    calls: list[tuple[Actor, tuple[Task, ...], int, int]] = dataclasses.field(default_factory=list)
    given: list[Episodes] = dataclasses.field(default_factory=list)

    def collect(self, actor: Actor, tasks: Sequence[Task], episodes: int, seed: int) -> Episodes:
        assert isinstance(actor, FakeActor)
        self.calls.append((actor, tuple(tasks), episodes, seed))
        shape = (len(tasks), episodes)
        scores = torch.tensor([[task["value"]] * episodes for task in tasks]) + self.gain * len(actor.supports)
        scores += self.noise * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        ended = torch.zeros(shape, dtype=torch.bool)
        ended[0, : self.diverging] = True
        self.given.append(
            Episodes(
                observations=torch.zeros(*shape, 4, 2),
                final_observations=torch.zeros(*shape, 2),
                actions=torch.zeros(*shape, 4, 1),
                rewards=scores[..., None] * torch.tensor([0.25, 0.25, 0.5, 0.0]),
                terminated=ended,
                diverged=ended,
                lengths=torch.full(shape, 3),
                success=None if self.solved_from is None else scores >= self.solved_from,
            )
        )
        return self.given[-1]


def _candidate(rounds: int = 2, episodes: int = 4, seed: int = 0, **changes: str | None) -> Candidate:
    source = Source(agent="maml", run=f"runs/fake-{seed}", seed=seed, checkpoint="last", step=300)
    known = changes.pop("distribution_hash", FakeDistribution().hash)
    agent = FakeAgent(Schedule(rounds, episodes))
    return Candidate(agent, STATE, dataclasses.replace(source, **changes), distribution_hash=known)


def _evaluated(seed: int = 0, *, held_out: bool = True, trials: int = 2, noise: float = 1.0) -> Evaluation:
    """One seed's evaluation; the seeds differ by the sampler's noise."""
    sampler = ScriptedSampler(noise=noise, gain=5.0 + seed)
    return evaluate(_candidate(seed=seed), FakeDistribution(held_out=held_out), trials=trials, sampler=sampler)


def test_the_curve_is_the_score_after_each_round_of_adaptation() -> None:
    found = evaluate(_candidate(rounds=2, episodes=4), FakeDistribution(), sampler=ScriptedSampler(gain=5.0))
    values = np.array([task["value"] for task in TASKS])
    np.testing.assert_allclose(found.scores, np.stack([values, values + 5, values + 10])[None, None], rtol=1e-6)
    assert [(point.rounds, point.episodes) for point in found.curve()] == [(0, 0), (1, 4), (2, 8)]
    assert [point.mean.value for point in found.curve()] == pytest.approx([5.5, 10.5, 15.5])
    gain = found.gain()
    assert (gain.mean.value, gain.mean.low, gain.mean.high) == pytest.approx((10, 10, 10))
    assert (gain.rounds, gain.episodes) == (2, 8)


def test_each_task_gets_its_quota_and_adaptation_gets_those_very_episodes() -> None:
    sampler = ScriptedSampler(noise=1.0)
    evaluate(_candidate(rounds=2, episodes=4), FakeDistribution(), trials=3, sampler=sampler)
    assert [(tasks, episodes) for _, tasks, episodes, _ in sampler.calls] == [(TASKS, 4)] * 9
    for trial in range(3):  # each begins unadapted and goes on with what it has just seen
        for point in range(3):
            actor = sampler.calls[3 * trial + point][0]
            assert isinstance(actor, FakeActor)
            assert actor.tasks == len(TASKS)
            seen = sampler.given[3 * trial : 3 * trial + point]
            assert len(actor.supports) == point
            assert all(one is two for one, two in zip(actor.supports, seen, strict=True))


def test_each_point_has_chance_of_its_own_and_more_trials_change_no_earlier_one() -> None:
    few, many = ScriptedSampler(noise=1.0), ScriptedSampler(noise=1.0)
    one = evaluate(_candidate(), FakeDistribution(), trials=1, sampler=few)
    three = evaluate(_candidate(), FakeDistribution(), trials=3, sampler=many)
    seeds = [seed for *_, seed in many.calls]
    assert len(set(seeds)) == 9
    np.testing.assert_array_equal(one.scores, three.scores[:, :1])
    again = evaluate(_candidate(), FakeDistribution(), trials=1, sampler=ScriptedSampler(noise=1.0), seed=1)
    assert (again.scores != one.scores).all()
    assert (again.setting.seed, one.setting.seed) == (1, 20_210_830)


def test_schedule_and_number_of_tasks_can_be_chosen() -> None:
    sampler = ScriptedSampler()
    found = evaluate(
        _candidate(), FakeDistribution(), schedule=Schedule(rounds=0, episodes=7), num_tasks=6, sampler=sampler
    )
    assert [(tasks, episodes) for _, tasks, episodes, _ in sampler.calls] == [(TASKS[:6], 7)]
    assert found.scores.shape == (1, 1, 1, 6)
    assert found.gain().mean.value == 0


def test_an_agent_that_does_not_adapt_shows_no_gain() -> None:
    found = evaluate(_candidate(), FakeDistribution(), trials=4, sampler=ScriptedSampler(gain=0.0, noise=1.0))
    assert found.gain().mean.low < 0 < found.gain().mean.high


def test_diverged_episodes_and_steps_are_counted() -> None:
    found = evaluate(_candidate(), FakeDistribution(), trials=2, sampler=ScriptedSampler(diverging=3))
    assert found.diverged.shape == (1, 3, 12)
    assert found.diverged[0, :, 0].tolist() == [6, 6, 6]
    assert found.diverged[0, :, 1:].sum() == 0
    assert (found.env_steps == 2 * 4 * 3).all()
    assert "18 of 288 episodes diverged; 864 environment steps" in found.table()


def test_families_are_told_apart() -> None:
    found = _evaluated(noise=0.0)
    assert found.families == FAMILIES
    rough = found.only("rough")
    assert {task.family for task in rough.tasks} == {"rough"}
    assert rough.curve()[0].mean.value == pytest.approx(np.mean([2, 5, 8, 11]))
    with pytest.raises(ValueError, match=r"no task of family 'sand'.*ice, icy-slope, rough"):
        found.only("sand")


def test_another_distribution_is_warned_about() -> None:
    with pytest.warns(UserWarning, match=r"runs/fake-0 was trained on .* hash feed; fake-terrain has 0123456789abcdef"):
        evaluate(_candidate(distribution_hash="feed"), FakeDistribution(), sampler=ScriptedSampler())
    evaluate(_candidate(distribution_hash=None), FakeDistribution(), sampler=ScriptedSampler())


def test_training_tasks_are_labelled() -> None:
    assert "held-out test tasks" in _evaluated().table()
    assert "training tasks: nothing is held out" in _evaluated(held_out=False).table()
    on_train = evaluate(_candidate(), FakeDistribution(), split="train", sampler=ScriptedSampler())
    assert "· training tasks\n" in on_train.table()


def test_what_is_resampled_follows_from_what_is_a_sample() -> None:
    one, fixed = _evaluated(), _evaluated(held_out=False)
    assert one.resampled == "tasks within families"
    assert aggregate([one, _evaluated(1)]).resampled == "seeds, and tasks within families"
    # Fixed tasks differ by 11, trials by next to nothing: resampling tasks would give a wide interval.
    assert fixed.resampled == "the trials of one run"
    interval = fixed.curve()[0].mean
    assert 0 < interval.high - interval.low < 0.5 < one.curve()[0].mean.high - one.curve()[0].mean.low
    assert aggregate([fixed, _evaluated(1, held_out=False)]).resampled == "seeds (the tasks are all there are)"
    single = _evaluated(held_out=False, trials=1)
    assert single.resampled == "nothing (one run, one trial, fixed tasks)"
    assert np.isnan(single.gain().mean.low)
    assert "[no interval]" in single.table()


def test_a_family_of_its_own_does_not_move_with_the_others() -> None:
    """Tasks are drawn within families, so the interval of all tasks does not hold the families' differences."""
    found = _evaluated(noise=0.0)
    shifted = dataclasses.replace(
        found, scores=found.scores + 1000 * np.array([task.family == "ice" for task in TASKS])
    )
    before, after = found.curve()[0].mean, shifted.curve()[0].mean
    assert after.high - after.low == pytest.approx(before.high - before.low)


@pytest.mark.parametrize("trials", [1, 2])
@pytest.mark.parametrize("held_out", [True, False])
def test_json_and_back(trials: int, held_out: bool) -> None:
    found = _evaluated(trials=trials, held_out=held_out)
    text = json.dumps(found.to_json(), allow_nan=False)
    again = Evaluation.from_json(json.loads(text))
    assert json.dumps(again.to_json()) == text
    assert again.curve() == found.curve() or not held_out  # NaN is not itself
    assert (again.setting, again.tasks, again.sources) == (found.setting, found.tasks, found.sources)
    np.testing.assert_array_equal(again.scores, found.scores)


def test_json_has_the_figures_with_their_numbers() -> None:
    figures = json.loads(json.dumps(_evaluated().to_json()))["figures"]
    assert list(figures) == ["all", *FAMILIES]
    assert [figures["ice"][name] for name in ("seeds", "tasks", "episodes_per_point")] == [1, 4, 32]
    assert figures["all"]["curve"][2]["rounds"] == 2
    assert figures["all"]["curve"][2]["episodes"] == 8
    gain = figures["all"]["gain"]["interquartile_mean"]
    assert gain["low"] < gain["value"] < gain["high"]


def test_damaged_json_is_refused_in_words() -> None:
    whole = _evaluated().to_json()
    with pytest.raises(ValueError, match="no 'scores': the file is not whole"):
        Evaluation.from_json({name: part for name, part in whole.items() if name != "scores"})
    with pytest.raises(ValueError, match="format 1, got 99"):
        Evaluation.from_json(whole | {"format": 99})
    with pytest.raises(ValueError, match=r"scores must have the shape \(1, 2, 3, 12\)"):
        Evaluation.from_json(whole | {"scores": _evaluated(trials=1).to_json()["scores"]})
    setting = whole["setting"]
    assert isinstance(setting, dict)
    with pytest.raises(ValueError, match=r"Setting's rounds must be .*'two'"):
        Evaluation.from_json(whole | {"setting": setting | {"rounds": "two"}})
    with pytest.raises(ValueError, match="Setting has the fields"):
        Evaluation.from_json(whole | {"setting": {}})
    with pytest.raises(ValueError, match="need a list"):
        Evaluation.from_json(whole | {"tasks": 3})


def test_aggregate_puts_seeds_side_by_side() -> None:
    runs = [_evaluated(seed) for seed in range(3)]
    together = aggregate(runs)
    np.testing.assert_array_equal(together.scores, np.concatenate([run.scores for run in runs]))
    assert [source.seed for source in together.sources] == [0, 1, 2]
    assert together.gain().mean.value == pytest.approx(np.mean([run.gain().mean.value for run in runs]))
    # The seeds' gains are about 10, 12 and 14: one of them alone does not know that.
    wide, narrow = together.gain().mean, runs[0].gain().mean
    assert wide.high - wide.low > 2 > narrow.high - narrow.low
    assert "3 seeds × 12 tasks × 2 trials × 4 episodes = 288 episodes a point" in together.table()
    nested = aggregate([aggregate(runs[:2]), runs[2]])
    assert nested.to_json() == together.to_json()


def _with(evaluation: Evaluation, setting: Setting) -> Evaluation:
    return dataclasses.replace(evaluation, setting=setting)


def test_aggregate_refuses_what_cannot_be_compared() -> None:
    one, two = _evaluated(0), _evaluated(1)
    with pytest.raises(ValueError, match="at least one evaluation"):
        aggregate([])
    with pytest.raises(ValueError, match=r"runs/fake-0 and runs/fake-1 .* distribution_hash is '0123.*' and 'feed'"):
        aggregate([one, _with(two, dataclasses.replace(two.setting, distribution_hash="feed"))])
    with pytest.raises(ValueError, match="split is 'test' and 'validation'"):
        aggregate([one, _with(two, dataclasses.replace(two.setting, split="validation"))])
    with pytest.raises(ValueError, match="trials is 2 and 1"):
        aggregate([one, _evaluated(1, trials=1)])
    other = dataclasses.replace(two, tasks=(*TASKS[:-1], Task.of("rough", value=99.0)))
    with pytest.raises(ValueError, match="lists of 12 and 12 with 11 in common"):
        aggregate([one, other])
    with pytest.raises(ValueError, match="given twice: runs/fake-0"):
        aggregate([one, two, one])
    best = dataclasses.replace(two, sources=(dataclasses.replace(two.sources[0], checkpoint="best on validation"),))
    with pytest.raises(ValueError, match=r"maml \(best on validation\), maml \(last\)"):
        aggregate([one, best])


def test_wrong_counts_are_refused() -> None:
    dist, sampler = FakeDistribution(), ScriptedSampler()
    with pytest.raises(ValueError, match="got 0 trials"):
        evaluate(_candidate(), dist, trials=0, sampler=sampler)
    with pytest.raises(ValueError, match="rounds=-1"):
        evaluate(_candidate(), dist, schedule=Schedule(-1, 4), sampler=sampler)
    with pytest.raises(ValueError, match="fake-terrain has 12 test tasks; 13 were asked for"):
        evaluate(_candidate(), dist, num_tasks=13, sampler=sampler)
    with pytest.raises(ValueError, match="0 were asked for"):
        evaluate(_candidate(), dist, num_tasks=0, sampler=sampler)
    assert sampler.calls == []


def test_scores_that_are_no_numbers_are_refused() -> None:
    found = _evaluated()
    scores = found.scores.copy()
    scores[0, 0, 1, 3] = np.nan
    with pytest.raises(ValueError, match="1 of 72 scores are not finite"):
        dataclasses.replace(found, scores=scores)


def test_progress_counts_collections() -> None:
    told: list[tuple[int, int]] = []
    evaluate(
        _candidate(rounds=1),
        FakeDistribution(),
        trials=2,
        sampler=ScriptedSampler(),
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


TABLE = """\
fake-terrain (0123456789abcdef) · held-out test tasks
maml · runs/fake-0 · checkpoint: last (outer step 300)
score before adaptation and after 8 episodes (2 rounds) of it: undiscounted return [95 % interval]

                    tasks          before               after               gain
mean                   12  5.5 [5.0, 6.0]  15.5 [15.0, 16.0]  10.0 [10.0, 10.0]
"""


def test_the_table_is_short_and_aligned() -> None:
    lines = _evaluated(noise=0.0).table().splitlines()
    assert max(map(len, lines)) <= 110
    assert lines[:3] == TABLE.splitlines()[:3]
    assert lines[4].split() == ["tasks", "before", "after", "gain"]
    assert lines[5].startswith("mean  ")
    assert lines[5].endswith("10.0 [10.0, 10.0]")
    assert len({len(line) for line in lines[4:10]}) == 1
    assert [line.split()[:2] for line in lines[7:10]] == [["mean,", family] for family in FAMILIES]
    assert lines[11:13] == ["adaptation episodes    0     4     8", "mean score           5.5  10.5  15.5"]


@final
@dataclasses.dataclass(frozen=True)
class Follower:
    """A point robot that goes the way its best episode went: a tiny agent that truly adapts."""

    tasks: int
    way: Tensor | None = None

    def begin(self, episodes: int) -> Memory:
        return (torch.full((self.tasks, episodes, 2), torch.nan),)

    def act(self, observations: Tensor, memory: Memory, generator: torch.Generator) -> tuple[Tensor, Memory]:
        drawn = 0.05 * torch.randn(observations.shape, generator=generator)
        chosen = torch.where(memory[0].isnan(), drawn, memory[0])
        return chosen if self.way is None else self.way[:, None].expand_as(chosen), (chosen,)

    def feedback(self, memory: Memory, actions: Tensor, rewards: Tensor, done: Tensor) -> Memory:
        return memory

    def adapt(self, support: Episodes) -> "Follower":
        best = support.scores.argmax(1)
        return Follower(self.tasks, support.actions[torch.arange(self.tasks), best, 0])


def test_a_real_distribution_and_sampler() -> None:
    dist = envs.make("point-navigation")
    candidate = dataclasses.replace(
        _candidate(), agent=FakeAgent(Schedule(1, 10), actor=Follower), distribution_hash=dist.hash
    )
    found = evaluate(candidate, dist, num_tasks=16, trials=2)
    assert found.tasks == dist.tasks("test")[:16]
    assert found.gain().mean.low > 0
    assert (found.env_steps == 2 * 10 * dist.horizon).all()
    threads = evaluate(candidate, dist, num_tasks=16, trials=2, threads=2)
    assert threads.to_json() == found.to_json()
    given = evaluate(candidate, dist, num_tasks=16, trials=2, sampler=Sampler(dist))
    assert given.to_json() == found.to_json()


@pytest.mark.parametrize("kind", sorted(agents.CONFIGS))
def test_every_kind_of_agent_goes_through_the_same_function(kind: str) -> None:
    dist = envs.make("point-navigation")
    agent = agents.make(agents.CONFIGS[kind](), dist, 1, "cpu")
    candidate = Candidate(agent, agent.init(0), Source(kind, "untrained", None, "last", 0))
    schedule = Schedule(rounds=2, episodes=min(3, agent.schedule.episodes))
    found = evaluate(candidate, dist, "validation", schedule=schedule, num_tasks=2)
    assert found.scores.shape == (1, 1, 3, 2)
    assert (found.env_steps == schedule.episodes * dist.horizon).all()
    assert found.diverged.sum() == 0
    assert [point.episodes for point in found.curve()] == [0, schedule.episodes, 2 * schedule.episodes]


def test_success_is_the_score_where_the_distribution_says_so() -> None:
    dist, sampler = FakeDistribution(score="success"), ScriptedSampler(noise=1.0, solved_from=8.0)
    found = evaluate(_candidate(), dist, sampler=sampler)
    solved = torch.stack([episodes.scores.double() >= 8.0 for episodes in sampler.given]).double().mean(-1)
    np.testing.assert_allclose(found.scores[0, 0], solved)
    assert found.setting.score == "success"
    assert found.returns is not None
    plain = evaluate(_candidate(), FakeDistribution(), sampler=ScriptedSampler(noise=1.0))
    np.testing.assert_array_equal(found.returns, plain.scores)
    assert found.of_returns().curve() == plain.curve()
    assert plain.returns is None
    assert plain.of_returns() is plain

    table = found.table()
    assert "share of episodes with success" in table
    assert "undiscounted return: 5" in table
    value = json.loads(json.dumps(found.to_json()))
    again = Evaluation.from_json(value)
    assert again.table() == table
    assert value["figures"]["all, returns"]["curve"][0]["mean"]["value"] == plain.curve()[0].mean.value
    assert again.only(found.families[0]).returns is not None
    both = aggregate([found, dataclasses.replace(again, sources=(dataclasses.replace(found.sources[0], run="b"),))])
    assert both.returns is not None
    assert both.returns.shape == both.scores.shape


def test_success_has_to_be_told_by_the_environment() -> None:
    with pytest.raises(ValueError, match="does not tell it"):
        evaluate(_candidate(), FakeDistribution(score="success"), sampler=ScriptedSampler())
    found = _evaluated()
    with pytest.raises(ValueError, match="returns go with scores of another kind"):
        dataclasses.replace(found, returns=found.scores)


def test_files_from_before_there_was_success_are_read() -> None:
    found = _evaluated()
    value = json.loads(json.dumps(found.to_json()))
    del value["setting"]["score"]
    assert Evaluation.from_json(value).table() == found.table()
