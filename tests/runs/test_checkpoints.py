import dataclasses
import json
import os
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from metarl.errors import RunError, UsageError
from metarl.learning.protocols import State
from metarl.runs import tensors
from metarl.runs.checkpoints import BrokenCheckpointError, CheckpointFolder, check_state
from metarl.runs.run_folder import Run
from metarl.tasks import content_hash
from tests.runs.tiny import EXPERIMENT, check_equal, make_run, make_state

EXPECTED = make_state()
FILES = ("params.safetensors", "optimizer.safetensors", "state.json")


def saved(run: Run, *steps: int, keep_last: int = 10) -> CheckpointFolder:
    """The run's checkpoints of these steps."""
    checkpoints = CheckpointFolder(run)
    for step in steps:
        checkpoints.save(step, make_state(step), env_steps=100 * step, keep_last=keep_last)
    return checkpoints


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "run")


def test_what_is_loaded_is_what_was_saved_in_the_same_order(run: Run) -> None:
    state = make_state(chunks=3)
    path = CheckpointFolder(run).save(12, state, env_steps=2**40, score=0.1 + 0.2)
    assert sorted(os.listdir(path)) == sorted(FILES)
    loaded = CheckpointFolder(run).load(12, EXPECTED)
    assert (loaded.step, loaded.score, loaded.env_steps) == (12, 0.1 + 0.2, 2**40)
    check_equal(loaded.state, state)
    assert set(load_file(path / "params.safetensors")) == set(state.parameters)
    assert json.loads((path / "state.json").read_text())["random"]["next_seed"] == [3, 12]


def test_an_exported_checkpoint_is_its_parameters(run: Run, tmp_path: Path) -> None:
    checkpoints, other = CheckpointFolder(run), make_run(tmp_path / "other")
    checkpoints.save(7, dataclasses.replace(make_state(7, chunks=2), behaviour=make_state(8).parameters), score=0.5)
    checkpoints.export(7, other.checkpoints / "7")
    assert sorted(os.listdir(other.checkpoints / "7")) == ["params.safetensors", "state.json"]
    saved, exported = checkpoints.load(7, EXPECTED), CheckpointFolder(other).load(7, EXPECTED)
    assert saved.whole and not exported.whole
    assert (exported.content, exported.score) == (saved.content, 0.5)
    check_equal(exported.state, State(make_state(7).parameters, {}))
    assert exported.state.behaviour is None and not other.store.exists()
    with pytest.raises(BrokenCheckpointError, match="parameter"):
        CheckpointFolder(other).load(7, State({}, EXPECTED.optimizer))


def lagging(run: Run) -> CheckpointFolder:
    """A checkpoint of step 1 with a behaviour policy."""
    checkpoints = CheckpointFolder(run)
    checkpoints.save(1, dataclasses.replace(make_state(1), behaviour=make_state(2).parameters))
    return checkpoints


def test_a_behaviour_policy_is_saved_with_the_state(run: Run) -> None:
    loaded = lagging(run).load(1, EXPECTED).state
    check_equal(loaded, make_state(1))
    assert loaded.behaviour is not None and list(loaded.behaviour) == list(loaded.parameters)
    assert all(torch.equal(value, make_state(2).parameters[name]) for name, value in loaded.behaviour.items())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda tensors: {name: x + torch.nan if name == "a.bias" else x for name, x in tensors.items()}, "not finite"),
        (lambda tensors: {**tensors, "a.bias": torch.zeros(9)}, r"'a.bias' has the shape \[9\]"),
        (lambda tensors: {"a.bias": tensors["a.bias"]}, "is missing"),
    ],
)
def test_a_behaviour_policy_that_the_learner_cannot_have_had_is_noticed(
    run: Run, change: Callable[[Mapping[str, torch.Tensor]], dict[str, torch.Tensor]], told: str
) -> None:
    checkpoints = CheckpointFolder(run)
    checkpoints.save(1, dataclasses.replace(make_state(1), behaviour=change(make_state(2).parameters)))
    with pytest.raises(BrokenCheckpointError, match=f"behaviour.safetensors: .*{told}"):
        checkpoints.load(1, EXPECTED)


def test_a_behaviour_policy_that_is_damaged_or_gone_is_noticed(run: Run) -> None:
    file = run.checkpoints / "1" / "behaviour.safetensors"
    checkpoints, content = lagging(run), file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BrokenCheckpointError, match="behaviour.safetensors .*damaged"):
        checkpoints.load(1, EXPECTED)
    file.unlink()
    with pytest.raises(BrokenCheckpointError, match="behaviour.safetensors"):
        checkpoints.load(1, EXPECTED)


def test_the_content_is_that_of_the_parameters_alone(run: Run) -> None:
    checkpoints = saved(run, 1)
    checkpoints.save(2, State(make_state(1).parameters, EXPECTED.optimizer), keep_last=10)
    checkpoints.save(3, make_state(3), keep_last=10)
    contents = [checkpoints.load(step, EXPECTED).content for step in (1, 2, 3)]
    assert contents[0] == contents[1] != contents[2]
    assert contents[0] == tensors.digest((run.checkpoints / "1" / "params.safetensors").read_bytes())


def test_loaded_tensors_are_aligned_as_new_ones(run: Run) -> None:
    """Some kernels add up in another order where memory is not aligned; a resumed run must not."""
    loaded = saved(run, 1).load(1, EXPECTED).state
    assert all(tensor.data_ptr() % 64 == 0 for tensor in loaded.parameters.values())


def test_the_files_are_the_same_byte_for_byte_whenever_they_are_written(tmp_path: Path) -> None:
    one, other = make_run(tmp_path / "one"), make_run(tmp_path / "other")
    for run in (one, other):
        saved(run, 1)
    for name in FILES:
        assert (one.checkpoints / "1" / name).read_bytes() == (other.checkpoints / "1" / name).read_bytes()


def test_an_empty_state_can_be_saved(run: Run) -> None:
    CheckpointFolder(run).save(0, State({}, {}))
    check_equal(CheckpointFolder(run).load(0, State({}, {})).state, State({}, {}))


def test_the_last_and_the_best_are_kept(run: Run) -> None:
    checkpoints = CheckpointFolder(run)
    for step, score in enumerate([1.0, 7.0, None, 7.0, float("nan"), 2.0, float("inf"), 3.0]):
        checkpoints.save(step, make_state(), score=score, keep_last=2)
    assert checkpoints.steps() == (1, 6, 7)
    best, last = checkpoints.find("best", EXPECTED), checkpoints.find("last", EXPECTED)
    assert best is not None and (best.step, best.score) == (1, 7.0)
    assert last is not None and (last.step, last.score) == (7, 3.0)


def test_nothing_saved_is_no_error(run: Run) -> None:
    checkpoints = CheckpointFolder(run)
    for name in ("007", "notes"):
        assert checkpoints.steps() == ()
        assert checkpoints.latest(EXPECTED) is None and checkpoints.best(EXPECTED) is None
        checkpoints.clean_up()
        (run.checkpoints / name).mkdir(parents=True)


def test_no_score_no_best(run: Run) -> None:
    assert saved(run, 1, 2).best(EXPECTED) is None


def test_a_step_that_is_not_there_names_those_that_are(run: Run) -> None:
    with pytest.raises(UsageError, match="no checkpoint of step 3; there are: 1, 2"):
        saved(run, 1, 2).load(3, EXPECTED)


@pytest.mark.parametrize(("step", "keep_last"), [(-1, 1), (1, 0)])
def test_negative_counts_are_refused(run: Run, step: int, keep_last: int) -> None:
    with pytest.raises(ValueError, match=f"got step {step} and keep_last {keep_last}"):
        CheckpointFolder(run).save(step, make_state(), keep_last=keep_last)


# Damage


def damaged_latest(run: Run, expected: State | None = EXPECTED) -> str:
    """Checks that step 2 is used in place of step 3, and returns the one warning."""
    warnings: list[str] = []
    latest = CheckpointFolder(run).latest(expected, warnings.append)
    assert latest is not None and latest.step == 2 and len(warnings) == 1, warnings
    assert "using the checkpoint of step 2 instead" in warnings[0] and "\n" not in warnings[0]
    return warnings[0]


@pytest.mark.parametrize("name", FILES)
def test_any_flipped_bit_is_noticed(run: Run, name: str) -> None:
    saved(run, 2, 3)
    path = run.checkpoints / "3" / name
    content, rng = path.read_bytes(), random.Random(0)
    for _ in range(100):
        position = rng.randrange(len(content))
        flipped = bytearray(content)
        flipped[position] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        assert str(path) in damaged_latest(run)


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_short_anywhere_is_noticed(run: Run, name: str) -> None:
    saved(run, 2, 3)
    path = run.checkpoints / "3" / name
    content = path.read_bytes().rstrip()
    for length in [*range(0, len(content), 11), len(content) - 1]:
        path.write_bytes(content[:length])
        assert str(path) in damaged_latest(run)


def remove_file(path: Path) -> None:
    path.unlink()


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_link(path: Path) -> None:
    path.rename(path.parent.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent.parent / "elsewhere")


def make_zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("harm", [remove_file, make_folder, make_pipe, make_link, make_zeros])
@pytest.mark.parametrize("name", FILES)
def test_a_missing_or_strange_file_is_noticed(run: Run, name: str, harm: Callable[[Path], None]) -> None:
    saved(run, 2, 3)
    harm(run.checkpoints / "3" / name)
    assert str(run.checkpoints / "3" / name) in damaged_latest(run)


def test_a_checkpoint_that_is_a_link_is_not_followed(run: Run, tmp_path: Path) -> None:
    saved(run, 2, 3)
    (run.checkpoints / "3").rename(tmp_path / "elsewhere")
    (run.checkpoints / "3").symlink_to(tmp_path / "elsewhere")
    assert "symbolic link" in damaged_latest(run)
    run.checkpoints.rename(tmp_path / "checkpoints")
    run.checkpoints.symlink_to(tmp_path / "checkpoints")
    with pytest.raises(RunError, match="checkpoints cannot be opened: it is a symbolic link"):
        CheckpointFolder(run).latest(EXPECTED)
    with pytest.raises(RunError, match="symbolic link"):
        CheckpointFolder(run).save(4, make_state())


def test_a_file_that_is_far_too_large_is_not_read(run: Run) -> None:
    saved(run, 2, 3)
    os.truncate(run.checkpoints / "3" / "params.safetensors", 1 << 40)
    assert "1099511627776 bytes, the limit is" in damaged_latest(run)


def rewrite_state(path: Path, **changes: object) -> None:
    """A `state.json` with other content and the right checksum of itself."""
    content = json.loads((path / "state.json").read_text()) | changes
    del content["checksum"]
    (path / "state.json").write_text(json.dumps(content | {"checksum": content_hash(content)}))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"step": 4}, "of step 4, in the folder of step 3"),
        ({"step": True}, "$.step: expected int, got bool"),
        ({"format": 99}, "format 99, this one reads format 2"),
        ({"format": 1}, "another version of metarl wrote it: format 1"),
        ({"parameters": {}}, "$.parameters: field 'sha256' is missing"),
        ({"parameters": {"sha256": "0", "order": []}}, "checksum differs"),
        ({"env_steps": -1}, "env_steps must be at least 0, got -1"),
        ({"score": "high"}, "$.score: expected float, got str"),
        ({"store": {"first": 0, "sha256": ["0"]}}, "0.safetensors cannot be read"),
        ({"store": {"first": -1, "sha256": []}}, "first must be at least 0, got -1"),
        ({"more": 1}, "unknown field 'more'"),
        ({"random": {"bit_generator": "PCG64", "next_seed": [4, 3]}}, "in the folder of step 3"),
    ],
)
def test_a_state_that_makes_no_sense_is_noticed(run: Run, changes: dict[str, object], told: str) -> None:
    saved(run, 2, 3)
    rewrite_state(run.checkpoints / "3", **changes)
    assert told in damaged_latest(run)


@pytest.mark.parametrize("text", ["", "null", "[1]", '{"step": NaN}', "[" * 100_000, '{"step": ' + "9" * 10_000 + "}"])
def test_json_of_a_stranger_does_no_harm(run: Run, text: str) -> None:
    saved(run, 2, 3)
    (run.checkpoints / "3" / "state.json").write_text(text)
    assert "state.json" in damaged_latest(run)


def test_a_checkpoint_of_another_run_is_noticed(run: Run, tmp_path: Path) -> None:
    """Also where everything about it but the seed is the same."""
    other = make_run(tmp_path / "other", dataclasses.replace(EXPERIMENT, seed=4))
    saved(run, 2)
    saved(other, 3)
    shutil.copytree(other.checkpoints / "3", run.checkpoints / "3")
    assert f"is of another run: of experiment {other.config.experiment.hash}" in damaged_latest(run)


def with_tensors(run: Run, name: str, **changes: torch.Tensor | None) -> None:
    """Step 3 with other tensors in a file and the right checksums: what a stranger could write."""
    path = run.checkpoints / "3"
    content = {key: value for key, value in (load_file(path / name) | changes).items() if value is not None}
    save_file(content, path / name)
    part = {"params.safetensors": "parameters", "optimizer.safetensors": "optimizer"}[name]
    rewrite_state(path, **{part: {"sha256": tensors.digest((path / name).read_bytes()), "order": list(content)}})


PARAMETERS, OPTIMIZER = FILES[:2]


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        (PARAMETERS, {"a.bias": None}, "parameter 'a.bias' is missing"),
        (PARAMETERS, {"more": torch.zeros(1)}, "parameter 'more' is there, the learner has none of that name"),
        (PARAMETERS, {"a.bias": torch.zeros(9)}, "parameter 'a.bias' has the shape [9], in the learner [8]"),
        (PARAMETERS, {"a.bias": torch.zeros(8).double()}, "'a.bias' has the type float64, in the learner float32"),
        (PARAMETERS, {"count": torch.tensor(3.0)}, "'count' has the type float32, in the learner int64"),
        (PARAMETERS, {"a.bias": torch.full((8,), torch.nan)}, "parameter 'a.bias' holds values that are not finite"),
        (PARAMETERS, {"a.bias": torch.full((8,), 1e30)}, "parameter 'a.bias' holds 1e+30, absurdly much"),
        (OPTIMIZER, {"moment": None}, "optimizer 'moment' is missing"),
        (OPTIMIZER, {"moment": torch.zeros(5)}, "optimizer 'moment' has the type float32, in the learner float64"),
        (OPTIMIZER, {"moment": torch.full((5,), torch.inf).double()}, "optimizer 'moment' holds values"),
    ],
)
def test_tensors_that_the_learner_does_not_expect_are_named(
    run: Run, name: str, changes: dict[str, torch.Tensor | None], told: str
) -> None:
    saved(run, 2, 3)
    with_tensors(run, name, **changes)
    assert told in damaged_latest(run)


def test_a_state_is_held_against_the_learner_directly() -> None:
    check_state(make_state(1), EXPECTED, "runs/ice/checkpoints/3")
    with pytest.raises(BrokenCheckpointError, match="runs/ice/checkpoints/3: optimizer 'mask' is missing"):
        check_state(
            State(EXPECTED.parameters, {"moment": EXPECTED.optimizer["moment"]}), EXPECTED, "runs/ice/checkpoints/3"
        )


def test_without_a_learner_only_values_are_checked(run: Run) -> None:
    saved(run, 2, 3)
    with_tensors(run, PARAMETERS, more=torch.zeros(1))
    latest = CheckpointFolder(run).latest(None)
    assert latest is not None and latest.step == 3
    with_tensors(run, PARAMETERS, more=torch.full((1,), torch.inf))
    assert "'more' holds values that are not finite" in damaged_latest(run, None)


def test_several_damaged_ones_are_named_in_one_warning(run: Run) -> None:
    saved(run, 1, 2, 3, 4)
    for step in (3, 4):
        (run.checkpoints / str(step) / "params.safetensors").write_bytes(b"")
    warning = damaged_latest(run)
    assert str(run.checkpoints / "3") in warning and str(run.checkpoints / "4") in warning


def test_none_whole_is_an_error_that_says_what_to_do(run: Run) -> None:
    saved(run, 1)
    (run.checkpoints / "1" / "params.safetensors").unlink()
    with pytest.raises(RunError, match=r"params.safetensors is missing; there is no whole checkpoint: delete"):
        CheckpointFolder(run).latest(EXPECTED)


def test_a_damaged_best_gives_way_to_the_next_best(run: Run) -> None:
    checkpoints = CheckpointFolder(run)
    for step, score in ((1, 3.0), (2, 5.0), (3, 4.0)):
        checkpoints.save(step, make_state(), score=score)
    (run.checkpoints / "2" / "optimizer.safetensors").unlink()
    warnings: list[str] = []
    best = checkpoints.best(EXPECTED, warnings.append)
    assert best is not None and best.step == 3 and "step 3 instead" in warnings[0]


def test_training_goes_on_over_a_damaged_checkpoint(run: Run) -> None:
    """Damaged ones ahead of the resumed step do not count as the last K, and are replaced when their step comes."""
    checkpoints = saved(run, 1, 2, 3)
    (run.checkpoints / "3" / "state.json").write_bytes(b"")
    checkpoints.save(2, make_state(2), keep_last=1)
    assert checkpoints.steps() == (2, 3)
    checkpoints.save(3, make_state(3), keep_last=1)
    assert checkpoints.steps() == (3,)
    check_equal(checkpoints.load(3, EXPECTED).state, make_state(3))


def test_clean_up_removes_only_what_is_half_written(run: Run) -> None:
    checkpoints = saved(run, 1)
    (run.checkpoints / ".tmp-2").mkdir()
    (run.checkpoints / ".tmp-2" / "params.safetensors").write_bytes(b"half")
    (run.checkpoints / ".tmp-file").write_bytes(b"half")
    (run.checkpoints / "notes.txt").write_text("mine")
    checkpoints.clean_up()
    assert sorted(os.listdir(run.checkpoints)) == ["1", "notes.txt"]
