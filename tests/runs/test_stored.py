"""A learner's store on the disk."""

import os
from pathlib import Path

import pytest
import torch

from metarl.errors import RunError
from metarl.learning.protocols import State
from metarl.learning.store import Store
from metarl.runs.checkpoints import CheckpointFolder
from metarl.runs.run_folder import Run
from metarl.runs.stored import StoreFolder
from tests.runs.tiny import check_equal, make_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "run")


def grown(state: State, *numbers: int, capacity: int | None = None) -> State:
    """The state with one chunk more for each number."""
    store = state.store
    for number in numbers:
        store = store.append({"z": torch.full((2, 2), float(number)), "a": torch.tensor(number)}, capacity)
    return State(state.parameters, state.optimizer, store)


EMPTY = State({"w": torch.zeros(1)}, {})


def files_of(run: Run) -> dict[str, int]:
    """The chunks' files and when each was written, ns."""
    return {name: (run.store / name).stat().st_mtime_ns for name in sorted(os.listdir(run.store))}


def test_a_store_comes_back_in_the_order_of_its_names_and_chunks(run: Run) -> None:
    state = grown(EMPTY, *range(12), capacity=11)
    CheckpointFolder(run).save(1, state)
    loaded = CheckpointFolder(run).load(1, EMPTY).state
    check_equal(loaded, state)
    assert loaded.store.dropped == 1 and list(loaded.store.chunks[0]) == ["z", "a"]


def test_a_checkpoint_writes_only_what_is_new(run: Run) -> None:
    checkpoints = CheckpointFolder(run)
    first = grown(EMPTY, 0, 1, 2)
    checkpoints.save(1, first)
    before = files_of(run)
    second = grown(first, 3)
    checkpoints.save(2, second)
    assert {name: time for name, time in files_of(run).items() if name in before} == before
    assert sorted(files_of(run)) == [f"{number}.safetensors" for number in range(4)]
    resumed = CheckpointFolder(run)
    loaded = resumed.latest(EMPTY)
    assert loaded is not None
    before = files_of(run)
    resumed.save(3, grown(loaded.state, 4))
    assert {name: time for name, time in files_of(run).items() if name in before} == before
    check_equal(CheckpointFolder(run).load(3, EMPTY).state, grown(EMPTY, 0, 1, 2, 3, 4))


def test_dropped_chunks_go_when_no_kept_checkpoint_needs_them(run: Run) -> None:
    checkpoints, state = CheckpointFolder(run), EMPTY
    for step in range(1, 9):
        state = grown(state, step, capacity=3)
        checkpoints.save(step, state, score=1.0 if step == 2 else 0.0, keep_last=2)
    assert checkpoints.steps() == (2, 7, 8)
    assert sorted(files_of(run)) == [f"{number}.safetensors" for number in (0, 1, 4, 5, 6, 7)]
    for step in checkpoints.steps():
        loaded = CheckpointFolder(run).load(step, EMPTY).state.store
        assert [int(chunk["a"]) for chunk in loaded.chunks] == list(range(max(1, step - 2), step + 1))


def test_chunks_of_a_killed_process_are_removed_or_replaced(run: Run) -> None:
    checkpoints = CheckpointFolder(run)
    state = grown(EMPTY, 0, 1)
    checkpoints.save(2, state)
    killed = grown(state, 77, 88)
    StoreFolder(run.store).write(killed.store)  # … and then no checkpoint
    resumed = CheckpointFolder(run)
    resumed.clean_up()
    assert sorted(files_of(run)) == ["0.safetensors", "1.safetensors"]
    StoreFolder(run.store).write(killed.store)
    latest = resumed.latest(EMPTY)
    assert latest is not None
    state = grown(latest.state, 2)
    resumed.save(3, state)
    check_equal(CheckpointFolder(run).load(3, EMPTY).state, state)


def test_no_checkpoint_no_chunks(run: Run) -> None:
    StoreFolder(run.store).write(grown(EMPTY, 1).store)
    (run.store / "notes.txt").write_text("mine")
    CheckpointFolder(run).clean_up()
    assert os.listdir(run.store) == ["notes.txt"]


def test_chunks_stay_while_a_checkpoint_cannot_say_which_it_has(run: Run) -> None:
    """It may be restored from a copy."""
    checkpoints = CheckpointFolder(run)
    checkpoints.save(1, grown(EMPTY, 0))
    checkpoints.save(2, grown(EMPTY, 0, 1))
    state = run.checkpoints / "2" / "state.json"
    content = state.read_bytes()
    state.write_bytes(b"")
    CheckpointFolder(run).clean_up()
    state.write_bytes(content)
    assert len(CheckpointFolder(run).load(2, EMPTY).state.store.chunks) == 2


@pytest.mark.parametrize("harm", ["remove", "cut", "other", "link"])
def test_a_damaged_chunk_damages_its_checkpoints_only(run: Run, harm: str, tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(run)
    checkpoints.save(1, grown(EMPTY, 0))
    checkpoints.save(2, grown(EMPTY, 0, 1))
    path = run.store / "1.safetensors"
    content = path.read_bytes()
    path.unlink()
    if harm == "cut":
        path.write_bytes(content[:-1])
    elif harm == "other":
        path.write_bytes((run.store / "0.safetensors").read_bytes())
    elif harm == "link":
        (tmp_path / "elsewhere").write_bytes(content)
        path.symlink_to(tmp_path / "elsewhere")
    warnings: list[str] = []
    latest = CheckpointFolder(run).latest(EMPTY, warnings.append)
    assert latest is not None and latest.step == 1
    assert len(warnings) == 1 and str(path) in warnings[0]


def test_a_store_that_is_a_link_is_not_followed(run: Run, tmp_path: Path) -> None:
    CheckpointFolder(run).save(1, grown(EMPTY, 0))
    run.store.rename(tmp_path / "elsewhere")
    run.store.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="symbolic link"):
        CheckpointFolder(run).latest(EMPTY)
    with pytest.raises(RunError, match="symbolic link"):
        CheckpointFolder(run).save(2, grown(EMPTY, 0, 1))
    assert os.listdir(tmp_path / "elsewhere") == ["0.safetensors"]


def test_a_store_may_not_change_what_it_has(run: Run) -> None:
    checkpoints = CheckpointFolder(run)
    checkpoints.save(1, grown(EMPTY, 0, 1))
    checkpoints.save(2, grown(EMPTY, 0, 1, 2))  # equal chunks are as good as the same
    with pytest.raises(ValueError, match="its chunk 1 is not the one that was saved"):
        checkpoints.save(3, grown(EMPTY, 0, 9, 2))


def test_a_capacity_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 chunk, got 0"):
        Store().append({}, 0)
