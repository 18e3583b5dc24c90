import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from metarl.errors import RunError, UsageError
from metarl.learning.protocols import State
from metarl.runs import checkpoints
from metarl.tasks import content_hash


def state(seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)
    flat = torch.randn(20, generator=generator)
    return State(
        {"z.weight": flat[:12].view(3, 4), "a.bias": flat[12:], "count": torch.tensor(3), "none": torch.empty(0, 2)},
        {"moment": torch.randn(5, generator=generator, dtype=torch.float64), "mask": torch.tensor([True, False])},
    )


def check_equal(left: State, right: State) -> None:
    for one, other in ((left.parameters, right.parameters), (left.optimizer, right.optimizer)):
        assert list(one) == list(other)
        for name, tensor in one.items():
            assert tensor.dtype == other[name].dtype and torch.equal(tensor, other[name])


def saved(folder: Path, *steps: int) -> Path:
    for step in steps:
        checkpoints.save(folder, step, state(step), {"env_steps": 100 * step}, keep_last=10)
    return folder


def test_what_is_loaded_is_what_was_saved_in_the_same_order(tmp_path: Path) -> None:
    extra = {"env_steps": 12, "rng": {"state": 2**127 + 1, "text": "Größe"}, "list": [1.5, None, True]}
    path = checkpoints.save(tmp_path / "checkpoints", 12, state(), extra, score=0.1 + 0.2)
    assert sorted(os.listdir(path)) == ["optimizer.safetensors", "params.safetensors", "state.json"]
    loaded = checkpoints.load(tmp_path / "checkpoints", 12)
    assert (loaded.step, loaded.score, loaded.extra) == (12, 0.1 + 0.2, extra)
    check_equal(loaded.state, state())
    assert set(load_file(path / "params.safetensors")) == set(state().parameters)


def test_loaded_tensors_are_aligned_as_new_ones(tmp_path: Path) -> None:
    """Some kernels add up in another order where memory is not aligned; a resumed run must not."""
    loaded = checkpoints.load(saved(tmp_path, 1), 1).state
    assert all(tensor.data_ptr() % 64 == 0 for tensor in loaded.parameters.values())


def test_the_files_are_the_same_byte_for_byte_whenever_they_are_written(tmp_path: Path) -> None:
    one, other = saved(tmp_path / "one", 1), saved(tmp_path / "other", 1)
    for name in ("params.safetensors", "optimizer.safetensors", "state.json"):
        assert (one / "1" / name).read_bytes() == (other / "1" / name).read_bytes()


def test_an_empty_state_can_be_saved(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, 0, State({}, {}), {})
    check_equal(checkpoints.load(tmp_path, 0).state, State({}, {}))


def test_the_last_and_the_best_are_kept(tmp_path: Path) -> None:
    for step, score in enumerate([1.0, 7.0, None, 7.0, float("nan"), 2.0, float("inf"), 3.0]):
        checkpoints.save(tmp_path, step, state(), {}, score=score, keep_last=2)
    best = checkpoints.best(tmp_path)
    assert checkpoints.steps(tmp_path) == (1, 6, 7)
    assert best is not None and (best.step, best.score) == (1, 7.0)


def test_nothing_saved_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "007").mkdir()
    for folder in (tmp_path, tmp_path / "missing"):
        assert checkpoints.steps(folder) == ()
        assert checkpoints.latest(folder) is None and checkpoints.best(folder) is None
        checkpoints.clean_up(folder)


def test_no_score_no_best(tmp_path: Path) -> None:
    assert checkpoints.best(saved(tmp_path, 1, 2)) is None


def test_a_step_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no checkpoint of step 3; there are: 1, 2"):
        checkpoints.load(saved(tmp_path, 1, 2), 3)


@pytest.mark.parametrize(("step", "keep_last"), [(-1, 1), (1, 0)])
def test_negative_counts_are_refused(tmp_path: Path, step: int, keep_last: int) -> None:
    with pytest.raises(ValueError, match=f"got step {step} and keep_last {keep_last}"):
        checkpoints.save(tmp_path, step, state(), {}, keep_last=keep_last)


def test_a_nan_counter_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        checkpoints.save(tmp_path / "checkpoints", 1, state(), {"counter": float("nan")})
    assert not (tmp_path / "checkpoints").exists()


def damaged_latest(folder: Path) -> str:
    """Checks that step 2 is used in place of step 3, and returns the one warning."""
    warnings: list[str] = []
    latest = checkpoints.latest(folder, warnings.append)
    assert latest is not None and latest.step == 2 and len(warnings) == 1, warnings
    assert "using the checkpoint of step 2 instead" in warnings[0] and "\n" not in warnings[0]
    return warnings[0]


@pytest.mark.parametrize("name", ["params.safetensors", "optimizer.safetensors", "state.json"])
def test_any_flipped_bit_is_noticed(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, 2, 3) / "3" / name
    content, rng = path.read_bytes(), random.Random(0)
    for _ in range(150):
        position = rng.randrange(len(content))
        flipped = bytearray(content)
        flipped[position] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        assert str(path) in damaged_latest(tmp_path)


@pytest.mark.parametrize("name", ["params.safetensors", "optimizer.safetensors", "state.json"])
def test_a_file_cut_short_anywhere_is_noticed(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, 2, 3) / "3" / name
    content = path.read_bytes().rstrip()
    for length in [*range(0, len(content), 7), len(content) - 1]:
        path.write_bytes(content[:length])
        assert str(path) in damaged_latest(tmp_path)


def remove_file(path: Path) -> None:
    path.unlink()


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("harm", [remove_file, make_folder, make_pipe, make_zeros])
@pytest.mark.parametrize("name", ["params.safetensors", "optimizer.safetensors", "state.json"])
def test_a_missing_or_strange_file_is_noticed(tmp_path: Path, name: str, harm: Callable[[Path], None]) -> None:
    path = saved(tmp_path, 2, 3) / "3" / name
    harm(path)
    assert str(path) in damaged_latest(tmp_path)


def rewrite_state(path: Path, **changes: object) -> None:
    """A `state.json` with other content and the right checksum of itself."""
    content = json.loads((path / "state.json").read_text()) | changes
    del content["checksum"]
    (path / "state.json").write_text(json.dumps(content | {"checksum": content_hash(content)}))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"step": 4}, "of step 4, in the folder of step 3"),
        ({"format": 99}, "format 99; this version reads format 1"),
        ({"files": {}}, "state.json does not describe it"),
        ({"files": []}, "must be objects"),
        ({"extra": None}, "must be objects"),
    ],
)
def test_a_state_that_makes_no_sense_is_noticed(tmp_path: Path, changes: dict[str, object], told: str) -> None:
    rewrite_state(saved(tmp_path, 2, 3) / "3", **changes)
    assert told in damaged_latest(tmp_path)


@pytest.mark.parametrize("text", ["", "null", "[1]", '{"step": NaN}', "[" * 100_000, '{"step": ' + "9" * 10_000 + "}"])
def test_json_of_a_stranger_does_no_harm(tmp_path: Path, text: str) -> None:
    (saved(tmp_path, 2, 3) / "3" / "state.json").write_text(text)
    assert "state.json" in damaged_latest(tmp_path)


def test_several_damaged_ones_are_named_in_one_warning(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2, 3, 4)
    for step in (3, 4):
        (tmp_path / str(step) / "params.safetensors").write_bytes(b"")
    warning = damaged_latest(tmp_path)
    assert str(tmp_path / "3") in warning and str(tmp_path / "4") in warning


def test_none_whole_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (saved(tmp_path, 1) / "1" / "params.safetensors").unlink()
    with pytest.raises(RunError, match=r"params.safetensors is missing; there is no whole checkpoint: delete"):
        checkpoints.latest(tmp_path)


def test_a_damaged_best_gives_way_to_the_next_best(tmp_path: Path) -> None:
    for step, score in ((1, 3.0), (2, 5.0), (3, 4.0)):
        checkpoints.save(tmp_path, step, state(), {}, score=score)
    (tmp_path / "2" / "optimizer.safetensors").unlink()
    warnings: list[str] = []
    best = checkpoints.best(tmp_path, warnings.append)
    assert best is not None and best.step == 3 and "step 3 instead" in warnings[0]


def test_training_goes_on_over_a_damaged_checkpoint(tmp_path: Path) -> None:
    """Damaged ones ahead of the resumed step do not count as the last K, and are replaced when their step comes."""
    saved(tmp_path, 1, 2, 3)
    (tmp_path / "3" / "state.json").write_bytes(b"")
    checkpoints.save(tmp_path, 2, state(2), {}, keep_last=1)
    assert checkpoints.steps(tmp_path) == (2, 3)
    checkpoints.save(tmp_path, 3, state(3), {}, keep_last=1)
    assert checkpoints.steps(tmp_path) == (3,)
    check_equal(checkpoints.load(tmp_path, 3).state, state(3))


def test_clean_up_removes_only_what_is_half_written(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    (tmp_path / ".tmp-2").mkdir()
    (tmp_path / ".tmp-2" / "params.safetensors").write_bytes(b"half")
    (tmp_path / ".tmp-file").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    checkpoints.clean_up(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["1", "notes.txt"]
