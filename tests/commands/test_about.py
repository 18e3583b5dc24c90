"""What there is and what works: `metarl list`, `describe`, `doctor`."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from metarl import agents, envs
from metarl.commands import catalogue, describe, doctor, fewshot
from metarl.commands import list as listing
from metarl.commands.catalogue import KINDS, Entry
from metarl.commands.doctor import Finding
from metarl.commands.help_texts import help_text
from metarl.commands.main import PROGRAMS, _dispatch, _run  # pyright: ignore[reportPrivateUsage]
from metarl.errors import RunError, UsageError
from metarl.fewshot.datasets import DATASETS
from metarl.fewshot.registry import LEARNERS
from metarl.runs import run_folder, zoo
from tests.evaluation.evaluations import write_run
from tests.programs import call


def test_the_catalogue_is_what_the_registries_say() -> None:
    assert catalogue.FILE.read_text() == catalogue.encoded(catalogue.made()), (
        "python -m metarl.commands.catalogue writes it anew"
    )
    names = {kind: {entry.name for entry in catalogue.entries() if entry.kind == kind} for kind in KINDS}
    assert names["distributions"] >= set(envs.list())
    assert names["agents"] >= set(agents.list())
    assert names["learners"] >= set(LEARNERS)
    assert names["data"] >= {"sinusoid", *DATASETS}


def test_a_list_has_a_line_for_each_within_the_width() -> None:
    entries = catalogue.entries()
    for kind in (None, *KINDS):
        text = listing.listing(entries, kind, 80)
        assert max(map(len, text.splitlines())) <= 80
    short = listing.listing(entries, None, 80)
    assert "  metaworld-ml1-…  " in short
    assert "metaworld-ml1-reach-v3" not in short
    in_full = listing.listing(entries, "distributions", 200).splitlines()
    assert Counter(line.split()[0] for line in in_full[1:]) == Counter(envs.list())
    assert not [line for line in in_full if line.endswith("…")]


def test_the_zoo_is_listed_and_what_needs_adaptation(capsys: pytest.CaptureFixture[str]) -> None:
    entries = catalogue.entries()
    lines = listing.listing(entries, None, 200).splitlines()
    (rl2,) = [line for line in lines if line.startswith("  zoo:cheetah-terrain/rl2 ")]
    found = zoo.evaluation("cheetah-terrain/rl2")
    place, curve = found.normalised(), found.curve()
    assert place is not None
    expected = f"{place.value:.2f}, test return {curve[0].mean.value:.4g} → {curve[-1].mean.value:.4g}, rl2"
    assert rl2.split(maxsplit=1)[1] == expected
    (terrain,) = [line for line in lines if line.startswith("  cheetah-terrain ")]
    need = zoo.need("cheetah-terrain")
    assert need is not None
    assert terrain.split()[1] == f"{need.value:.2f}"
    (bandit,) = [line for line in lines if line.startswith("  bernoulli-bandit ")]
    assert bandit.split()[1] == "?"
    _run("describe", ["zoo:cheetah-terrain/rl2"], "metarl describe")
    assert "seed 0, 148 outer steps" in capsys.readouterr().out


def test_listing_and_help_load_nothing_slow(tmp_path: Path) -> None:
    code = (
        "import sys; from metarl.commands.main import _dispatch; _dispatch(['list']); _dispatch(['--help']);"
        "print('slow:', sorted({'torch', 'numpy', 'mujoco', 'gymnasium', 'matplotlib', 'scipy'} & set(sys.modules)))"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.endswith("slow: []\n")


def test_help_fits_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    _dispatch(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) >= len(PROGRAMS)


@pytest.mark.parametrize("words", [(name,) for name in PROGRAMS] + [("fewshot", part) for part in fewshot.PROGRAMS])
def test_the_help_of_every_program_fits_80_columns(words: tuple[str, ...]) -> None:
    usage, *lines = help_text(*words, columns=80).splitlines()
    assert usage.startswith("usage: ")  # which the terminal breaks
    assert [line for line in lines if len(line) > 80] == []
    assert any("--help" in line for line in lines)


def test_a_distribution_is_described_from_itself() -> None:
    page = describe.distribution_page("cheetah-terrain")
    dist = envs.make("cheetah-terrain")
    assert page["hash"] == dist.hash
    assert page["body"] == "HalfCheetah-v5"
    assert "ice: friction 0.03 to 0.1, direction -1 or 1" in page["test"]
    assert page["validation"] == ["20 tasks: drawn as in training"]
    assert page["test"][0] == "40 tasks: ice, icy-slope, rough"
    assert page["train"][0] == "40 tasks: flat, slope-up, slope-down, sand"
    assert page["horizon"] == "200 environment steps, 10 s at 0.05 s a step"
    text = describe.as_text(page, 80)
    assert max(map(len, text.splitlines())) <= 80
    for each in ("metaworld-ml1-reach-v3", "bernoulli-bandit-k3-n7"):  # the second is on no list
        assert describe.kinds_of(each) == ["distributions"]
        assert describe.distribution_page(each)["hash"]


@pytest.mark.parametrize(
    ("id", "expected"),
    [("maml", ["(agent)", "(few-shot learner)", "inner-lr = 0.1"]), ("omniglot", ["(data set)", "METARL_DATA"])],
)
def test_other_kinds_are_described(id: str, expected: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    _run("describe", [id], "metarl describe")
    printed = capsys.readouterr().out
    for text in expected:
        assert text in printed


def test_a_misspelt_name_is_met_with_what_is_near(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean cheetah-terrain"):
        describe.kinds_of("chetah-terrain")
    with pytest.raises(UsageError, match="did you mean prototypical"):
        describe.kinds_of("prototypicl")
    with pytest.raises(UsageError, match="`metarl list` names"):
        describe.kinds_of("0000")
    write_run(tmp_path / "runs" / "ice")
    with pytest.raises(UsageError, match="did you mean .*runs/ice"):
        run_folder.read(tmp_path / "runs" / "icee")
    with pytest.raises(UsageError, match="it holds runs, did you mean .*runs/ice"):
        run_folder.read(tmp_path / "runs")
    with pytest.raises(UsageError, match="did you mean doctor"):
        _dispatch(["docter"])


def test_every_check_of_the_doctor_answers(drawing: str) -> None:
    for topic, check in doctor.CHECKS.items():
        finding = doctor.examined(check)
        assert finding.health != "fault", topic
        assert max(map(len, doctor.line(topic, finding, 80).splitlines())) <= 80


def test_a_fault_is_one_line_with_the_reason_and_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> Finding:
        raise OSError("no such library\nand a traceback")

    monkeypatch.setattr(doctor, "CHECKS", {"good": lambda: Finding("ok", "fine"), "bad": broken})
    with pytest.raises(RunError, match="1 of 2 checks found a fault: bad"):
        doctor.program([], "metarl doctor")
    assert capsys.readouterr().out == "ok    good       fine\nfault bad        no such library\n"


def test_the_doctor_clears_caches_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder, mine = tmp_path / "cache" / "metarl", tmp_path / "mine"
    folder.mkdir(parents=True)
    mine.write_text("precious")
    (folder / "images.npz").write_bytes(b"x" * 2048)
    (folder / "link").symlink_to(mine)
    assert "1 files, 2.0 KiB" in doctor.caches().text
    assert "1 files deleted, 2.0 KiB" in doctor.clear_caches().text
    assert mine.read_text() == "precious"
    assert not (folder / "images.npz").exists()


def test_a_data_root_that_was_named_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METARL_DATA", str(tmp_path / "none"))
    assert doctor.data().health == "fault"
    (tmp_path / "none" / "omniglot").mkdir(parents=True)
    assert doctor.data() == Finding("ok", f"omniglot in {tmp_path / 'none'}")


def test_what_other_packages_offer_is_listed_without_being_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    offered = Entry("agents", "theirs", "of the installed package other")
    monkeypatch.setattr(catalogue, "_offered", lambda: iter([offered, Entry("agents", "maml", "a copy")]))
    names = [entry.name for entry in catalogue.entries() if entry.kind == "agents"]
    assert names.count("maml") == 1
    assert "theirs" in names


def test_texts_of_options_flow(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the lines of the source: a text of four of them is one paragraph."""
    monkeypatch.setenv("COLUMNS", "600")
    assert call("fewshot", "prototypical", "--help") == 0
    assert "with the columns text and label; or one's own tables: a folder" in capsys.readouterr().out.replace("`", "")
