"""The command that repeats a run, from what stands in its config."""

import dataclasses
import shlex
from collections.abc import Mapping

from metarl import agents
from metarl.fewshot import encoders
from metarl.fewshot.registry import LEARNERS
from metarl.runs.run_folder import Run

_ENCODER, _TYPE = "encoder", "type"
_RENAMED = {"validation": {"tasks": "validation_tasks"}, "start": {"from": "start_from"}}
"""Options whose names in a program differ from those in the config, by group."""
_DERIVED = ("tasks",)
"""Groups that follow from the others."""


def command(run: Run) -> str:
    """What to type to train the same again, in the run's folder: `metarl train rl2 --env ... --run ... --seed 0`.

    Options of the learner that are its defaults are left out where the learner is installed here.
    """
    experiment = run.config.experiment
    words = ["metarl", "train" if experiment.kind == "agent" else "fewshot", experiment.learner]
    groups = {name: dict(group) for name, group in experiment.options.items() if isinstance(group, Mapping)}
    encoder = groups.get("learner", {}).get(_ENCODER)
    if isinstance(encoder, Mapping):
        words += [str(encoder[_TYPE]), *_words(_without_defaults(encoder, _encoder_defaults(str(encoder[_TYPE]))))]
    if experiment.kind == "agent":
        words += ["--env", experiment.distribution]
    words += ["--run", str(run.folder), "--seed", str(experiment.seed), "--steps", str(run.config.steps)]
    words += ["--device", experiment.device] * (experiment.device != "cpu")
    for name, group in groups.items():
        if name in _DERIVED:
            continue
        known = _learner_defaults(run) if name == "learner" else {}
        own = _without_defaults({key: value for key, value in group.items() if key != _ENCODER}, known)
        renamed = _RENAMED.get(name, {})
        words += _words({renamed.get(key, key): value for key, value in own.items()})
    return shlex.join(words)


def _learner_defaults(run: Run) -> Mapping[str, object]:
    """A learner's defaults by name; none where it is not installed here, or is code of a file of one's own."""
    experiment = run.config.experiment
    registry = agents.REGISTRY if experiment.kind == "agent" else LEARNERS
    if ":" in experiment.learner or experiment.learner not in registry:
        return {}
    return _fields(registry[experiment.learner]())


def _encoder_defaults(id: str) -> Mapping[str, object]:
    return {} if ":" in id or id not in encoders.ENCODERS else _fields(encoders.default_options(id))


def _fields(options: object) -> Mapping[str, object]:
    assert dataclasses.is_dataclass(options), "the registries checked it"
    return {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}


def _without_defaults(options: Mapping[str, object], defaults: Mapping[str, object]) -> dict[str, object]:
    absent = object()
    return {
        name: value
        for name, value in options.items()
        if name != _TYPE and _as_json(defaults.get(name, absent)) != _as_json(value)
    }


def _as_json(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _words(options: Mapping[str, object]) -> list[str]:
    """Options as words: `--hidden 64 64 --no-anil`. What is null or empty was not given."""
    words: list[str] = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{flag}")
        elif isinstance(value, list | tuple):
            words += [f"--{flag}", *map(str, value)] if value else []
        elif value is not None:
            words += [f"--{flag}", str(value)]
    return words
