"""Beginning with what another run had learned: `runs/other`, one of its checkpoints, or an entry of the zoo."""

import dataclasses
from pathlib import Path

from metarl import agents
from metarl.errors import UsageError
from metarl.learning.protocols import Agent, Parameters, State, WarmStarting
from metarl.learning.spaces import Spaces
from metarl.runs import run_folder, zoo
from metarl.runs.checkpoints import Checkpoint, CheckpointFolder
from metarl.runs.run_folder import Run
from metarl.runs.tensors import BrokenCheckpointError, check_structure


def warm_state(path: Path, fresh: State) -> State:
    """The parameters and the optimiser's state of a run, for a learner of the same kind that would begin with `fresh`.

    The store begins anew, and so does the optimiser where the run was published without its state.

    Raises:
        UsageError: it is no run and no checkpoint's folder, or of a learner of another kind or size.
        RunError: it is damaged.
    """
    _, saved = _load(path)
    return _continued(saved, fresh, path)


def warm_agent(path: Path, id: str, agent: Agent, spaces: Spaces, fresh: State) -> State:
    """`warm_state` for an agent, which may also be able to begin with what one of another kind has learned.

    Args:
        path: a run's folder, whose last checkpoint is taken, or that of one of its checkpoints.
        id: the agent's.
        agent: the agent.
        spaces: of its environment.
        fresh: what it would begin with otherwise.

    Raises:
        UsageError: it is no run and no checkpoint's folder, or of an agent that this one cannot begin with.
        RunError: it is damaged.
    """
    run, saved = _load(path)
    experiment = run.config.experiment
    if experiment.learner == id:
        return _continued(saved, fresh, path)
    if experiment.kind != "agent" or not isinstance(agent, WarmStarting):
        raise UsageError(f"--start-from {path} is of {experiment.learner}, and {id} can only begin with its own kind")
    try:
        other = run.options("learner", agents.config_class(experiment.learner)).build(spaces, fresh.device)
        state = _fitting(saved, other.init(0), path, f"{experiment.learner} for other spaces")
        return agent.warm_start(fresh, other, state.to(fresh.device))
    except ValueError as error:
        raise UsageError(f"--start-from {path}, of {experiment.learner}, does not fit {id}: {error}") from error


def warm_parameters(path: Path) -> tuple[Run, Parameters]:
    """The run and its parameters, of whatever learner: the caller takes those that fit.

    Raises:
        UsageError: it is no run and no checkpoint's folder.
        RunError: it is damaged.
    """
    run, saved = _load(path)
    return run, saved.state.parameters


def _continued(saved: Checkpoint, fresh: State, path: Path) -> State:
    state = _fitting(saved, fresh, path, "another learner")
    return State(state.parameters, state.optimizer, fresh.store).to(fresh.device)


def _fitting(saved: Checkpoint, expected: State, path: Path, what: str) -> State:
    """The saved state of a learner that would begin with `expected`."""
    state = saved.state if saved.whole else dataclasses.replace(saved.state, optimizer=expected.optimizer)
    try:
        check_structure(state, expected, path)
    except BrokenCheckpointError as error:
        raise UsageError(f"it is of {what}: {error}") from error
    return state


def _load(path: Path) -> tuple[Run, Checkpoint]:
    """The run that a path names, and its last checkpoint or the one that is named."""
    path = zoo.resolve(path).absolute()
    if run_folder.begun(path):
        run = run_folder.read(path)
        last = CheckpointFolder(run).latest(None)
        if last is None:
            raise UsageError(f"{path} has no checkpoint yet; train it first")
        return run, last
    if not (path.name.isascii() and path.name.isdigit()) or path.parent.name != "checkpoints":
        raise UsageError(
            f"name a run's folder or that of one of its checkpoints, runs/other/checkpoints/500; {path} is neither"
        )
    run = run_folder.read(path.parent.parent)
    return run, CheckpointFolder(run).load(int(path.name), None)
