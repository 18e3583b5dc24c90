"""Beginning with what another run had learned: one of its checkpoints, `runs/other/checkpoints/500`."""

from pathlib import Path

from metarl.errors import UsageError
from metarl.learning.protocols import Parameters, State
from metarl.runs import run_folder
from metarl.runs.checkpoints import CheckpointFolder
from metarl.runs.run_folder import Run
from metarl.runs.tensors import BrokenCheckpointError, check_structure


def warm_state(path: Path, fresh: State) -> State:
    """The parameters and the optimiser's state of a checkpoint, for a learner that would begin with `fresh`.

    The store begins anew.

    Raises:
        UsageError: it is not a checkpoint's folder, or of a learner of another kind or size.
        RunError: it is damaged.
    """
    run, step = _run_of(path)
    saved = CheckpointFolder(run).load(step, None).state
    try:
        check_structure(saved, fresh, path)
    except BrokenCheckpointError as error:
        raise UsageError(f"it is of another learner: {error}") from error
    return State(saved.parameters, saved.optimizer, fresh.store).to(fresh.device)


def warm_parameters(path: Path) -> tuple[Run, Parameters]:
    """The run of a checkpoint and its parameters, of whatever learner: the caller takes those that fit.

    Raises:
        UsageError: it is not a checkpoint's folder.
        RunError: it is damaged.
    """
    run, step = _run_of(path)
    return run, CheckpointFolder(run).load(step, None).state.parameters


def _run_of(path: Path) -> tuple[Run, int]:
    path = path.absolute()
    if not (path.name.isascii() and path.name.isdigit()) or path.parent.name != "checkpoints":
        raise UsageError(f"a checkpoint's folder is named runs/other/checkpoints/500, got {path}")
    return run_folder.read(path.parent.parent), int(path.name)
