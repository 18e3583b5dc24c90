"""Putting a trained agent into the zoo: config, last checkpoint, evaluation, and a card for people."""

import dataclasses
import re
import shutil
from pathlib import Path

from metarl.envs.variants import base_id
from metarl.errors import UsageError
from metarl.evaluation.results import Evaluation
from metarl.evaluation.table import table
from metarl.runs import zoo
from metarl.runs.checkpoints import CheckpointFolder
from metarl.runs.command import command
from metarl.runs.files import encode_json, write_atomically
from metarl.runs.trained import TrainedAgent

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # the folder of this name is replaced: no ".." among them


def publish(run: TrainedAgent, name: str, evaluation: Evaluation) -> Path:
    """Copies a run's parameters and config into the zoo and writes its card; an entry of the name is replaced.

    Args:
        run: the trained agent.
        name: `cheetah-terrain/maml`.
        evaluation: on held-out tasks, of this very checkpoint.

    Raises:
        UsageError: the name is not two words, the run was trained with local changes or elsewhere than its name says,
            or the evaluation is of something else.
    """
    dist, _, agent = name.partition("/")
    base = base_id(run.dist.id)
    if dist != base or not _WORD.fullmatch(agent):
        raise UsageError(f"an agent on {run.dist.id} is called {base}/NAME in the zoo, not {name!r}")
    if any(environment.dirty for environment in run.run.config.environments):
        raise UsageError(f"{run.run.folder} was trained with local changes: nobody could repeat it")
    if evaluation.sources != (run.ref,) or evaluation.config.distribution_hash != run.dist.hash:
        raise UsageError(f"the evaluation is of {evaluation.sources}, not of {run.ref}: evaluate again")
    folder = zoo.FOLDER / dist / agent
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    CheckpointFolder(run.run).export(run.ref.step, folder / "checkpoints" / str(run.ref.step))
    shutil.copyfile(run.run.folder / "config.json", folder / "config.json")
    named = dataclasses.replace(run.ref, run=f"{zoo.PREFIX}{name}")
    evaluation = dataclasses.replace(evaluation, sources=(named,))
    write_atomically(folder / "card.md", card(run, name, evaluation).encode())
    write_atomically(folder / zoo.EVALUATION, encode_json(evaluation.to_json()))
    return folder


def card(run: TrainedAgent, name: str, evaluation: Evaluation) -> str:
    """What an entry of the zoo is, how it was made, and what it reaches."""
    last, experiment = run.run.config.environments[-1], run.run.config.experiment
    trained = dataclasses.replace(run.run.config, steps=run.ref.step)  # it may have been asked for more
    versions = ", ".join(f"{package} {version}" for package, version in last.versions.items())
    lines = [
        f"# {zoo.PREFIX}{name}",
        "",
        f"`{experiment.learner}` on `{experiment.distribution}` ({experiment.distribution_hash}): {run.dist.about}",
        "",
        f"- seed {experiment.seed}, {run.ref.step} outer steps, {run.env_steps:,} environment steps",
        f"- made by `{command(dataclasses.replace(run.run, folder=Path('runs', run.ref.run), config=trained))}`",
        f"- revision {last.revision[:12]}; {versions}",
        "",
        "On held-out tasks, with the last checkpoint:",
        "",
        "```text",
        table(evaluation),
        "```",
        "",
        "One seed: other seeds may do better or worse. It knows the simulator, not a robot.",
        "",
    ]
    return "\n".join(lines)
