"""Programs about few-shot learners refuse agents' runs, and programs about agents refuse learners', in one line."""

from pathlib import Path

import pytest

from tests.programs import call

ABOUT_LEARNERS: dict[str, tuple[str, ...]] = {
    "insight": ("fewshot", "insight", "RUN"),
    "robustness": ("fewshot", "robustness", "RUN"),
    "ranks": ("fewshot", "ranks", "RUN"),
    "domains": ("fewshot", "domains", "RUN"),
    "classify": ("classify", "--run", "RUN", "--support", "FEW", "--input", "REST", "--output", "OUT"),
}
ABOUT_AGENTS: dict[str, tuple[str, ...]] = {
    "video": ("record_video", "RUN"),
    "publish": ("publish", "RUN", "--as", "point-navigation/mine"),
    "tables": ("rl2_tables", "RUN", "--bandits", "5x10"),
    "yardsticks": ("evaluate", "AGENT", "--beside", "RUN", "--num-tasks", "2", "--threads", "1", "--output", "OUT"),
}


def typed(words: tuple[str, ...], places: dict[str, Path]) -> tuple[str | Path, ...]:
    """The words with their places filled in."""
    return tuple(places.get(word, word) for word in words)


@pytest.mark.parametrize("words", ABOUT_LEARNERS.values(), ids=ABOUT_LEARNERS.keys())
def test_an_agent_is_no_few_shot_learner(
    words: tuple[str, ...], made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "few.csv").write_text("a,label\n1,x\n2,y\n3,x\n4,y\n")
    (tmp_path / "rest.csv").write_text("a\n1\n")
    files = {"FEW": tmp_path / "few.csv", "REST": tmp_path / "rest.csv", "OUT": tmp_path / "out.csv"}
    program, *arguments = typed(words, {"RUN": made / "agent", **files})
    assert call(str(program), *arguments) == 2
    assert f"{made / 'agent'} is an agent; this is about few-shot learners" in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("words", ABOUT_AGENTS.values(), ids=ABOUT_AGENTS.keys())
def test_a_few_shot_learner_is_no_agent(
    words: tuple[str, ...], made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"RUN": made / "fewshot", "AGENT": made / "agent", "OUT": tmp_path / "out.json"}
    program, *arguments = typed(words, places)
    assert call(str(program), *arguments) == 2
    assert f"{made / 'fewshot'} is a few-shot learner; this is about agents" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()
