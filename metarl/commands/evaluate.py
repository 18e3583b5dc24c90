"""Evaluates runs on the frozen list of a split: `evaluate.py runs/ice --split test`. Several runs count as seeds.

Or a policy that learns nothing here, as a floor, a ceiling or a guest: `evaluate.py --policy random --env
metaworld-ml10`, `evaluate.py --policy my_model.zip --trust-pickle --env cheetah-terrain`.

How long it takes: zoo:cheetah-terrain/rl2 with `--trials 4` and its yardsticks about three minutes, random actions in
maze-navigation some seconds.
"""

import contextlib
import dataclasses
import shlex
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import tyro

from metarl.commands.options import ComputeOptions, TrustOptions, check_output, distribution, parse, usage
from metarl.commands.other_tasks import OtherTasks
from metarl.commands.workers import WorkerOptions
from metarl.envs.variants import base_id
from metarl.errors import RunError, UsageError, warn
from metarl.evaluation.evaluate import aggregate, evaluate, evaluate_with
from metarl.evaluation.judge import Ablation, Actions, EvaluationSettings, OnProgress
from metarl.evaluation.references import check_official, official, reference
from metarl.evaluation.results import Evaluation
from metarl.evaluation.table import table
from metarl.evaluation.trials import TrialJudge
from metarl.fewshot.benchmarks import ClassificationBenchmark
from metarl.fewshot.class_choice import listed
from metarl.learning.collect import CollectorFactory
from metarl.runs import zoo
from metarl.runs.files import encode_json, write_atomically
from metarl.runs.progress import progress_of_share
from metarl.runs.run_folder import Which, evaluation_name
from metarl.runs.trained import TrainedAgent, TrainedFewShot, load, load_agent
from metarl.runs.yardsticks import YardstickRuns, in_zoo
from metarl.tasks import Json, Split

SEED = EvaluationSettings().seed


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """What to evaluate, on what, and how thoroughly."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Folders of runs; more than one are taken as seeds of one experiment and summed up together."""
    split: Split = "test"
    """Which of the frozen lists."""
    checkpoint: Which = "last"
    """The last checkpoint, or the best on validation."""
    adaptations: int | None = None
    """Adaptations in a trial; as trained if not given."""
    episodes: int | None = None
    """Episodes on each task before each adaptation and after the last; as trained if not given. For agents."""
    trials: int = 1
    """Trials on each task, averaged. Take many where a point is a single episode, as with RL²."""
    num_tasks: int | None = None
    """Only the first tasks of the list; all if not given."""
    actions: Actions = "sampled"
    """Whether the scored episodes' actions are drawn or the mean ones: two policies. For agents."""
    swap_control: bool = True
    """Also score agents that have adapted to another task's experience."""
    ablation: Ablation = "none"
    """Evaluate agents without a part of what they adapt by: `wipe-memory` begins every episode as if it were the
    first, `hide-reward` tells 0 for every reward. Yardsticks keep everything."""
    beside: tuple[Path, ...] = ()
    """Folders of runs to hold agents against, beside those that come with the package: task-blind PPO on the same
    distribution, on its variant ID+informed, or on ID+only-FAMILY."""
    yardsticks: bool = True
    """Also evaluate random, blind, fine-tuned and informed policies on the same tasks, as far as there are any."""
    batch_norm: str | None = None
    """Where batch norm takes its statistics from; as the learner has it if not given. For few-shot learners."""
    evaluation_seed: int = SEED
    """Decides every reset, every action's noise, every support and query; the same for all that are to be compared."""
    official_protocol: bool = False
    """Also run the benchmark's own evaluation (Meta-World has one), and print what it says beside ours. Slow."""
    policy: str | None = None
    """Instead of runs: `random` actions, another policy that is known by name (Meta-World's scripted `expert`,
    the `planner` of mazes), my_file.py:name for a function of one observation of yours, or a model of
    Stable-Baselines3, my_model.zip."""
    trust_pickle: bool = False
    """Read the --policy's .zip file although what is pickled in it can run any code here: for files of your own, or of
    somebody you trust."""
    env: tuple[str, ...] = ()
    """The distributions that the policy is evaluated on, one after the other."""
    output: Path | None = None
    """Also write the raw numbers of everything together to this JSON file."""
    other: OtherTasks = OtherTasks()
    trust: TrustOptions = TrustOptions()
    compute: ComputeOptions = ComputeOptions()
    workers: WorkerOptions = WorkerOptions()

    def __post_init__(self) -> None:
        if self.policy is None and (not self.runs or self.env):
            raise ValueError("name at least one run's folder; --env goes with --policy")
        if self.policy is not None and (self.runs or not self.env):
            raise ValueError("--policy is evaluated on --env, without runs")
        if self.policy is not None and (self.adaptations or self.official_protocol or self.checkpoint != "last"):
            raise ValueError(
                "--policy learns nothing: --adaptations, --checkpoint and --official-protocol are for runs"
            )
        if self.policy is not None and self.other.given:
            raise ValueError("--data, --test-classes, --ways, --shots and --queries are for few-shot runs")
        if self.trust_pickle and (self.policy is None or not self.policy.endswith(".zip")):
            raise ValueError("--trust-pickle is about a --policy's .zip file")
        if self.output is not None:
            check_output(self.output)
        if self.beside and not self.yardsticks:
            raise ValueError("--beside names yardsticks, which --no-yardsticks leaves out")
        _ = self.settings

    @property
    def settings(self) -> EvaluationSettings:
        """What the options say of the evaluation."""
        return EvaluationSettings(
            split=self.split,
            num_tasks=self.num_tasks,
            num_adaptations=self.adaptations,
            episodes_per_adaptation=self.episodes,
            trials=self.trials,
            seed=self.evaluation_seed,
            actions=self.actions,
            swap_control=self.swap_control,
            ablation=self.ablation,
            batch_norm=self.batch_norm,
        )


def program(arguments: Sequence[str], name: str) -> None:
    """Evaluates, writes and prints."""
    options = parse(EvaluateOptions, arguments, name, __doc__)
    options.compute.use()
    with options.workers.open(options.compute) as collectors:
        if options.policy is not None:
            evaluate_policy(options.policy, options, collectors)
        else:
            evaluate_runs(options, collectors)


def evaluate_runs(options: EvaluateOptions, collectors: CollectorFactory) -> None:
    """Evaluates each run, writes `evaluations/<split>.json` into its folder and prints the table."""
    found: list[Evaluation] = []
    beside: list[str] = []
    unwritten: RunError | None = None
    for folder in options.runs:
        run = load(folder, options.checkpoint, options.compute.device, trust_code=options.trust.trust_code)
        if options.official_protocol:
            if not isinstance(run, TrainedAgent):
                raise UsageError("--official-protocol is about agents")
            with usage():
                check_official(run.dist, options.settings)
        with usage(), _told(f"evaluating {folder.name}") as on_progress:
            evaluation = _evaluated(run, options, collectors, on_progress)
        if isinstance(run, TrainedAgent) and options.yardsticks:
            evaluation = _held_against_yardsticks(evaluation, run, options, collectors)
        elif options.beside:
            raise UsageError("--beside names yardsticks, which are for agents")
        content = evaluation.to_json()
        if options.official_protocol and isinstance(run, TrainedAgent):
            with usage():
                line, figures = official(run.dist, run.candidate, options.settings)
            content["official"] = dict(figures)
            beside.append(f"{folder}: {evaluation.curve()[-1].mean.value:.3f} after adaptation here; {line}")
        labels = (*options.other.labels, *unusual(options.settings))
        name = evaluation_name(options.split, *labels, checkpoint=options.checkpoint)
        if not zoo.contains(run.run.folder):
            try:
                print(f"written to {run.run.write_evaluation(name, content)}")
            except RunError as error:  # the table is printed all the same
                unwritten = unwritten or error
        found.append(evaluation)
    with usage():
        together = aggregate(found)
    print("\n".join((table(together), *beside)))
    if unwritten is not None:
        raise unwritten
    if options.output is not None:
        write_atomically(options.output, encode_json(together.to_json()))
        print(f"all runs together written to {options.output}")
    elif not any(zoo.contains(zoo.resolve(folder)) for folder in options.runs):
        print(f"next: metarl report {shlex.join(map(str, options.runs))}")


def _held_against_yardsticks(
    evaluation: Evaluation, run: TrainedAgent, options: EvaluateOptions, collectors: CollectorFactory
) -> Evaluation:
    """The evaluation with what other policies reach on its tasks; a line for each that is missing.

    A variant of a distribution has its test list, and so its yardsticks.
    """
    dist = distribution(base_id(run.run.config.experiment.distribution))
    trust, device = options.trust.trust_code, options.compute.device
    runs = [load_agent(folder, device=device, trust_code=trust) for folder in options.beside]
    known = YardstickRuns.of(dist, [*in_zoo(dist, device), *runs])
    with _told(f"yardsticks of {dist.id}") as on_progress:
        measured = known.measure(evaluation, collectors, on_progress)
    for line in known.missing():
        warn(line)
    return dataclasses.replace(evaluation, yardsticks=measured)


def unusual(settings: EvaluationSettings) -> list[str]:
    """A label for every setting that is not the default, for the name of the evaluation's file."""
    default, labels = EvaluationSettings(split=settings.split), list[str]()
    for field in dataclasses.fields(EvaluationSettings):
        value = getattr(settings, field.name)
        if value != getattr(default, field.name):
            labels.append(f"{field.name.replace('_', '-')}-{value}".lower())
    return labels


def evaluate_policy(policy: str, options: EvaluateOptions, collectors: CollectorFactory) -> None:
    """Evaluates a policy that learns nothing on each distribution, and prints a line each, or the table of one."""
    found: dict[str, Evaluation] = {}
    unwritten: RunError | None = None
    for id in options.env:
        with usage():
            dist = distribution(id)
            tasks = dist.tasks(options.split)[: options.num_tasks]
            dist, candidate = reference(policy, dist, tasks, trusted=options.trust_pickle)
        collector = collectors.open(dist, options.compute.device)
        with usage(), contextlib.closing(collector), _told(f"evaluating {policy} on {id}") as on_progress:
            found[id] = evaluate_with(TrialJudge(dist, collector), candidate, options.settings, on_progress)
        if options.output is not None:  # each time: what is done is not lost
            everything: dict[str, Json] = {id: evaluation.to_json() for id, evaluation in found.items()}
            try:
                write_atomically(options.output, encode_json({"policy": policy, "evaluations": everything}))
            except RunError as error:  # the table is printed all the same
                unwritten = unwritten or error
    if len(found) == 1:
        print(table(next(iter(found.values()))))
    else:
        for id, evaluation in found.items():
            print(f"{id:40} {evaluation.curve()[0].mean:.3f}   {len(evaluation.tasks)} {options.split} tasks")
    if unwritten is not None:
        raise unwritten


def _evaluated(
    run: TrainedAgent | TrainedFewShot, options: EvaluateOptions, collectors: CollectorFactory, on_progress: OnProgress
) -> Evaluation:
    settings = options.settings
    if isinstance(run, TrainedAgent):
        if options.other.given:
            raise UsageError("--data, --test-classes, --ways, --shots and --queries are for few-shot runs")
        return evaluate(run, settings=settings, collectors=collectors, on_progress=on_progress)
    benchmark = options.other.benchmark(run, options.split) if options.other.given else run.benchmark()
    if isinstance(benchmark, ClassificationBenchmark):
        names = [benchmark.data.classes[number] for number in benchmark.data.splits[options.split]]
        print(f"{options.split} classes ({len(names)}): {listed(names)}")
    return evaluate(run, benchmark, settings=settings, collectors=collectors, on_progress=on_progress)


@contextlib.contextmanager
def _told(title: str) -> Iterator[OnProgress]:
    """Progress while something is evaluated; a warning is one line."""
    with warnings.catch_warnings(record=True) as caught, progress_of_share(title) as on_progress:
        warnings.simplefilter("always")
        yield on_progress
    for message in caught:
        warn(str(message.message))
