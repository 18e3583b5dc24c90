"""Evaluates runs on the frozen list of a split: `evaluate.py runs/ice --split test`. Several runs count as seeds.

Or a policy that learns nothing, as a floor or a ceiling: `evaluate.py --policy random --env metaworld-ml10`.
"""

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from metarl.commands.options import Machine, distribution, parse, trial_schedule, usage
from metarl.errors import warn
from metarl.evaluation.evaluate import SEED, Candidate, Evaluation, EvaluationSource, Source, aggregate, evaluate
from metarl.evaluation.evaluate import Trained as Evaluable
from metarl.runs.files import encode_json, write_atomically
from metarl.runs.progress import progress
from metarl.runs.trained import Trained, Which, load
from metarl.tasks import Json, Split

Policy = Literal["random", "expert"]


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """What to evaluate, on what, and how thoroughly."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Folders of runs; more than one are taken as seeds of one experiment and summed up together."""
    split: Split = "test"
    """Which of the distribution's frozen lists."""
    checkpoint: Which = "last"
    """The last checkpoint, or the best on validation."""
    rounds: int | None = None
    """Adaptations in a trial; as trained if not given."""
    episodes: int | None = None
    """Episodes on each task at each point of the curve; as trained if not given."""
    trials: int = 1
    """Trials on each task, averaged. Take many where a point is a single episode, as with RL²."""
    num_tasks: int | None = None
    """Only the first tasks of the list; all if not given."""
    evaluation_seed: int = SEED
    """Decides every reset and every action's noise; the same for all runs that are to be compared."""
    metaworld_protocol: bool = False
    """Also run Meta-World's own evaluation, and print what it says beside ours. Slow: its environments are its own."""
    policy: Policy | None = None
    """Instead of runs: random actions, or the scripted policies of Meta-World, which are told the goal."""
    env: tuple[str, ...] = ()
    """The distributions that the policy is evaluated on, one after the other."""
    output: Path | None = None
    """Also write the raw numbers of everything together to this JSON file."""
    machine: Machine = Machine()

    def __post_init__(self) -> None:
        if self.policy is None and (not self.runs or self.env):
            raise ValueError("name at least one run's folder; --env goes with --policy")
        if self.policy is not None and (self.runs or not self.env):
            raise ValueError("--policy is evaluated on --env, without runs")
        if self.policy is not None and (self.rounds or self.metaworld_protocol or self.checkpoint != "last"):
            raise ValueError("--policy learns nothing: --rounds, --checkpoint and --metaworld-protocol are for runs")
        if self.output is not None and not self.output.parent.is_dir():
            raise ValueError(f"--output {self.output}: there is no folder {self.output.parent}")


def program(arguments: Sequence[str], name: str) -> None:
    """Evaluates, writes and prints."""
    options = parse(EvaluateOptions, arguments, name, __doc__)
    options.machine.use()
    if options.policy is not None:
        evaluate_policy(options.policy, options)
    else:
        evaluate_runs(options)


def evaluate_runs(options: EvaluateOptions) -> None:
    """Evaluates each run, writes `evaluations/<split>.json` into its folder and prints the table."""
    found: list[Evaluation] = []
    beside: list[str] = []
    for folder in options.runs:
        trained = load(folder, options.checkpoint, options.machine.threads, options.machine.device)
        evaluation = with_progress(trained, trained.dist, options)
        content = evaluation.to_json()
        if options.metaworld_protocol:
            content["metaworld"] = as_metaworld(trained, evaluation, options)
            beside.append(_comparison(folder, content["metaworld"]))
        path = trained.run.write_evaluation(options.split, content, best=options.checkpoint == "best")
        print(f"written to {path}")
        found.append(evaluation)
    with usage():
        together = aggregate(found)
    _write(options, together.to_json())
    if options.output is not None:
        print(f"all runs together written to {options.output}")
    print("\n".join((together.table(), *beside)))


def evaluate_policy(policy: Policy, options: EvaluateOptions) -> None:
    """Evaluates a policy that learns nothing on each distribution, and prints a line each, or the table of one."""
    found: dict[str, Evaluation] = {}
    for id in options.env:
        with usage():
            dist, candidate = policy_candidate(policy, id, options)
        found[id] = with_progress(candidate, dist, options)
        everything: dict[str, Json] = {id: evaluation.to_json() for id, evaluation in found.items()}
        _write(options, {"policy": policy, "evaluations": everything})  # each time: what is done is not lost
    if len(found) == 1:
        print(next(iter(found.values())).table())
        return
    for id, evaluation in found.items():
        print(f"{id:40} {evaluation.curve()[0].mean:.3f}   {len(evaluation.tasks)} {options.split} tasks")


def policy_candidate(policy: Policy, id: str, options: EvaluateOptions) -> tuple[EvaluationSource, Candidate]:
    """A policy that learns nothing, and where it is to act.

    Raises:
        ValueError: an unknown distribution, or scripted policies for what is not Meta-World.
    """
    from metarl.agents.fixed import NOTHING, FixedPolicy, random_policy
    from metarl.learning.collect import box

    source, episodes = Source(policy, policy, None, "none", 0), options.episodes or 1
    if policy == "random":
        dist = distribution(id)
        size = int(box(dist.action_space).shape[0])
        return dist, Candidate(random_policy(size, episodes), NOTHING, source)
    from metarl.envs.metaworld import PREFIX

    if not id.startswith(PREFIX):
        raise ValueError(f"there are scripted policies for Meta-World only, not for {id}")
    from metarl.envs.metaworld.experts import SHOWN, expert_actions

    dist = distribution(id if SHOWN in id else id + SHOWN)
    tasks = dist.tasks(options.split)[: options.num_tasks]
    return dist, Candidate(FixedPolicy(expert_actions(tasks), episodes), NOTHING, source)


def with_progress(trained: Evaluable, dist: EvaluationSource, options: EvaluateOptions) -> Evaluation:
    """One evaluation, with progress; a change of the distribution is one warning line."""
    schedule = trial_schedule(trained.agent.schedule, options.rounds, options.episodes)
    total = options.trials * (schedule.rounds + 1)
    with (
        usage(),
        warnings.catch_warnings(record=True) as caught,
        progress(f"evaluating {trained.source.run} on {dist.id}", max(total, 1)) as shown,
    ):
        warnings.simplefilter("always")
        evaluation = evaluate(
            trained,
            dist,
            options.split,
            schedule=schedule,
            trials=options.trials,
            num_tasks=options.num_tasks,
            seed=options.evaluation_seed,
            threads=options.machine.threads,
            on_progress=lambda done, _: shown.update(done, {}),
        )
    for message in caught:
        warn(str(message.message))
    return evaluation


def as_metaworld(trained: Trained, evaluation: Evaluation, options: EvaluateOptions) -> dict[str, Json]:
    """What Meta-World's own evaluation says of a run, beside ours."""
    from metarl.envs.metaworld import official_evaluation
    from metarl.envs.metaworld.distribution import benchmark

    schedule = trial_schedule(trained.agent.schedule, options.rounds, options.episodes)
    with usage(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if options.split != "test":
            raise ValueError(f"--metaworld-protocol is about the test split, not {options.split}")
        found = official_evaluation.evaluate(trained, benchmark(trained.dist.id), schedule, options.evaluation_seed)
    ours = evaluation.curve()[-1].mean.value
    by_class: dict[str, Json] = dict(found.by_class)
    return {"success": found.success, "ours": ours, "difference": found.success - ours, "by_class": by_class}


def _comparison(folder: Path, figures: dict[str, Json]) -> str:
    from metarl.envs.metaworld.official_evaluation import JUDGED

    theirs, ours, difference = figures["success"], figures["ours"], figures["difference"]
    return (
        f"{folder}: after adaptation {ours:.3f} here, {theirs:.3f} by Meta-World's own evaluation "
        f"(goals of its own, first {JUDGED} episodes to end of each class): difference {difference:+.3f}"
    )


def _write(options: EvaluateOptions, content: dict[str, Json]) -> None:
    if options.output is None:
        return
    write_atomically(options.output, encode_json(content))
