"""The page of a report: what it says, what it says of what is missing, and that a browser shows it."""

import dataclasses
import html.parser
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metarl.commands.main import _run  # pyright: ignore[reportPrivateUsage]
from metarl.errors import UsageError
from metarl.evaluation import encoding
from metarl.evaluation.records import CheckpointRef, Yardstick
from metarl.evaluation.report import material, page
from metarl.evaluation.results import Evaluation
from metarl.evaluation.stills import png
from metarl.runs.files import encode_json
from metarl.tasks import Task
from tests.evaluation.evaluations import made_up, write_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ROWS = [{"env_steps": 100.0 * step, "return_after": float(step), "validation": 2.0 * step} for step in (1, 2, 3)]

FILM = '<script type="video/mp4;base64"'
"""What every video of a page begins with."""


def report(*paths: Path) -> str:
    """The page of these paths."""
    return page.render(material.groups([material.look(path) for path in paths]))


def write_film(path: Path) -> None:
    """A second of a moving square."""
    path.parent.mkdir(exist_ok=True)
    with encoding.writer(path, (64, 48), 10.0) as write:
        for number in range(10):
            picture = np.zeros((48, 64, 3), np.uint8)
            picture[8:24, 4 * number : 4 * number + 16] = 255
            write(picture)


def agents(folder: Path) -> list[Path]:
    """Two seeds of one agent, one with a video, and another agent that spends its episodes at once."""
    first = {"test": made_up("maml", "a", amounts=(0, 20), gain=1.0)}
    second = {"test": made_up("maml", "b", seeds=(1,), amounts=(0, 20), gain=1.0)}
    other = {"test": made_up("rl2", "c", gain=2.0)}
    paths = [
        write_run(folder / "a", ROWS, evaluations=first),
        write_run(folder / "b", ROWS, seed=1, evaluations=second),
        write_run(folder / "c", ROWS, learner="rl2", evaluations=other),
    ]
    write_film(paths[0] / "videos" / "test-ice.mp4")
    return paths


class Tags(html.parser.HTMLParser):
    """Counts tags, and collects what stands on the page and what it points to."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.sources: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            self.ids += [value or ""] if name == "id" else []
            self.sources += [value or ""] if name in ("src", "href", "xlink:href", "poster") else []

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_seeds_are_one_agent_and_agents_are_compared(tmp_path: Path) -> None:
    content = report(*agents(tmp_path))
    tags = Tags()
    tags.feed(content)
    text = " ".join(" ".join(tags.text).split())
    assert "maml (2 seeds) goes from a return of 35.5" in text
    assert "Adaptation brings 20.0" in text
    assert "better beyond chance" in text
    assert "maml does better than rl2 after at most 20 episodes" in text
    assert "rl2 was measured to 2 episodes only" in text
    assert "Beside the same after another task’s experience" in text
    assert "environment steps" in text
    assert "metarl train maml --env fake-terrain" in text
    assert "What is missing" not in text
    assert len(tags.ids) == len(set(tags.ids))
    # Nothing is asked of a network: sources are data, or places on the page.
    assert all(source.startswith(("data:", "#")) for source in tags.sources)
    assert not re.findall(r"@import|url\((?!#)", content)
    assert {source[1:] for source in tags.sources if source.startswith("#")} <= set(tags.ids)


def test_a_references_curve_appears_by_itself(tmp_path: Path) -> None:
    evaluation = made_up()
    evaluation = Evaluation(
        evaluation.config,
        evaluation.tasks,
        evaluation.sources,
        {**evaluation.metrics, "blind_return": evaluation.scores - 3},
    )
    content = report(write_run(tmp_path / "a", ROWS, evaluations={"test": evaluation}))
    assert "Beside blind (42.0 " in content
    assert "it is 3.0 [3.0, 3.0], better beyond chance" in content


def test_yardsticks_are_levels_and_sentences(tmp_path: Path) -> None:
    evaluation = made_up()
    blind = Yardstick((CheckpointRef("ppo", "blind", 0, "last", 5),), 10.0 * np.arange(8.0)[None] + 2)
    evaluation = dataclasses.replace(evaluation, yardsticks={"blind": blind})
    content = report(write_run(tmp_path / "a", ROWS, evaluations={"test": evaluation}))
    assert "Beside blind (37.0 " in content  # on task t 10 t + 2
    assert "it is 8.0 [8.0, 8.0], better beyond chance" in content
    assert "what it is held against" in content
    assert ">blind</text>" in content


def test_what_is_missing_is_said_and_the_rest_is_shown(tmp_path: Path) -> None:
    good = write_run(tmp_path / "good", ROWS, evaluations={"test": made_up()})
    bare = write_run(tmp_path / "bare", learner="rl2")
    half = write_run(
        tmp_path / "half", ROWS[:1], learner="ppo", evaluations={"test": made_up("ppo"), "b": made_up("ppo")}
    )
    (half / "evaluations" / "b.json").write_text('{"format": 2, "conf')
    elsewhere = made_up("mine", distribution="other-world")
    other = write_run(
        tmp_path / "other", ROWS, learner="mine", distribution="other-world", evaluations={"test": elsewhere}
    )
    broken = write_run(tmp_path / "broken", ROWS)
    (broken / "config.json").write_text("{")
    content = report(good, bare, half, other, broken)
    for line in (
        "bare has no metrics yet",
        "bare has no evaluation: metarl evaluate",
        "b.json cannot be read",
        "broken/config.json cannot be read",
    ):
        assert line in content
    for title in ("fake-terrain: test", "other-world: test"):
        assert f">{title}</h2>" in content
    assert "mine (1 seed) goes from" in content
    with pytest.raises(UsageError, match="is not a run"):
        material.look(tmp_path / "nothing")
    with pytest.raises(UsageError, match="there is no evaluation"):
        material.look(tmp_path / "nothing.json")


def test_a_run_under_way_says_how_far_it_is(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", ROWS, evaluations={"test": made_up()})
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:2]) + lines[2][:10])  # torn
    assert "is at step 2 of 3" in report(run)


def test_two_runs_of_a_seed_are_no_two_seeds(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", ROWS, evaluations={"test": made_up(run="a")})
    second = write_run(tmp_path / "b", ROWS, evaluations={"test": made_up(run="b")})
    content = report(first, second)
    assert "each seed counts once" in content
    assert "maml (1 seed) goes" in content


def test_names_of_strangers_are_text(tmp_path: Path) -> None:
    nasty = '<img src=x onerror="alert(1)">'
    run = write_run(tmp_path / "a", ROWS, learner=nasty, evaluations={"test": made_up(nasty, run=nasty)})
    content = report(run)
    assert "<img" not in content
    assert "&lt;img src=x" in content


def test_a_policys_file_stands_beside_runs(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", ROWS, evaluations={"test": made_up()})
    random = made_up("random", "random", amounts=(0,), gain=0.0, foreign=False)
    file = tmp_path / "random.json"
    file.write_bytes(encode_json({"policy": "random", "evaluations": {"fake-terrain": random.to_json()}}))
    content = report(run, file)
    assert "maml does better than random after at most 2 episodes" in content


def test_large_videos_stay_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run, *_) = agents(tmp_path)
    assert report(run).count(FILM) == 1
    monkeypatch.setattr(page, "MEDIA_BYTES", 100)
    content = report(run)
    assert FILM not in content
    assert "is not on this page, to keep it small" in content


def test_a_videos_first_frame_takes_room_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run, *_) = agents(tmp_path)
    (path,) = (run / "videos").glob("*.mp4")
    content = path.read_bytes()
    whole = len(content) + len(encoding.first_frame(content))
    monkeypatch.setattr(page, "MEDIA_BYTES", whole)
    assert report(run).count(FILM) == 1
    monkeypatch.setattr(page, "MEDIA_BYTES", whole - 1)
    assert report(run).count(FILM) == 0


def test_45_tasks_of_10_seeds_with_videos_weigh_less_than_10_megabytes(tmp_path: Path) -> None:
    tasks = tuple(Task.of(f"class-{number}", goal_x=0.01 * number, goal_y=0.3) for number in range(45))
    rows = [{"env_steps": 1000.0 * step, "return_after": float(step)} for step in range(1, 301)]
    paths = []
    for seed in range(10):
        evaluation = made_up("rl2", f"ml45-{seed}", seeds=(seed,), tasks=tasks, foreign=False)
        path = write_run(tmp_path / f"{seed}", rows, learner="rl2", seed=seed, evaluations={"test": evaluation})
        write_film(path / "videos" / "test-worst.mp4")
        with (path / "videos" / "test-worst.mp4").open("ab") as film:  # and a box that players pass over
            film.write((900_000).to_bytes(4, "big") + b"free" + bytes(899_992))
        paths.append(path)
    content = report(*paths).encode()
    assert len(content) < 10e6
    assert content.count(FILM.encode()) == 7  # what there is room for
    assert content.count(b"is not on this page, to keep it small") == 3


def test_what_is_no_video_is_told_and_not_shown(tmp_path: Path) -> None:
    (run, *_) = agents(tmp_path)
    (run / "videos" / "torn.mp4").write_bytes((run / "videos" / "test-ice.mp4").read_bytes()[:200])
    (run / "videos" / "list.mp4").write_text(f"ffconcat version 1.0\nfile {tmp_path}/a/videos/test-ice.mp4\n")
    content = report(run)
    assert content.count(FILM) == 1
    for name in ("torn", "list"):
        assert f"{name}.mp4 is no MP4, or a damaged one" in content


@pytest.mark.parametrize("linked", ["videos", "videos/test-ice.mp4", "videos/another.mp4"])
def test_a_page_holds_nothing_that_a_strangers_link_points_to(tmp_path: Path, linked: str) -> None:
    """A page is given away: it would take the file along."""
    (run, *_) = agents(tmp_path)
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key.mp4").write_bytes(b"of the user")
    path = run / linked
    target = tmp_path / "private" if linked == "videos" else tmp_path / "private" / "key.mp4"
    if linked == "videos":
        (path / "test-ice.mp4").unlink()
        path.rmdir()
    path.unlink(missing_ok=True)
    path.symlink_to(target)
    content = report(run)
    assert content.count(FILM) == (linked == "videos/another.mp4")
    assert "b2YgdGhlIHVzZX" not in content  # in base64
    assert "cannot be read: it is a symbolic link" in content


def test_evaluations_are_read_through_no_link(tmp_path: Path) -> None:
    (run, *_) = agents(tmp_path)
    (run / "evaluations").rename(tmp_path / "elsewhere")
    (run / "evaluations").symlink_to(tmp_path / "elsewhere")
    found = material.look(run)
    assert not found.evaluations and "it is a symbolic link" in " ".join(found.problems)
    (run / "evaluations").unlink()
    (run / "evaluations").mkdir()
    (run / "evaluations" / "test.json").symlink_to(tmp_path / "elsewhere" / "test.json")
    found = material.look(run)
    assert not found.evaluations and "it is a symbolic link" in " ".join(found.problems)


def test_few_shot_runs_have_calibration_and_their_worst_tenth(tmp_path: Path) -> None:
    evaluation = made_up("prototypical", amounts=(0,), foreign=False)
    config = evaluation.config
    bins = np.array([[4.0, 1.0, 2.0], [6.0, 5.4, 6.0]])[None, None]
    evaluation = Evaluation(config, evaluation.tasks, evaluation.sources, evaluation.metrics, bins)
    run = write_run(
        tmp_path / "a", [{"loss": 1.0, "accuracy": 0.5}], learner="prototypical", kind="fewshot",
        evaluations={"test": evaluation},
    )  # fmt: skip
    content = report(run)
    assert "does it know how sure it may be?" in content
    assert "expected error 0.160" in content  # (|2 − 1| + |6 − 5.4|) / 10
    assert "worst tenth" in content
    assert "outer steps" in content


def test_tasks_with_answers_are_shown_and_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", [{"loss": 1.0}], learner="prototypical", kind="fewshot")
    (run / "pictures").mkdir()
    still = Image.new("RGB", (8, 8))
    (run / "pictures" / "test.png").write_bytes(png(still, "test task 0: 7 of <10> are right"))
    (run / "pictures" / "torn.png").write_bytes(png(still, "")[:20])
    content = report(run)
    assert content.count("data:image/png;base64,") == 1
    assert 'alt="prototypical: test task 0: 7 of &lt;10&gt; are right"' in content
    assert "torn.png is no PNG, or a damaged one" in content


def test_the_programs_write_and_print(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(path) for path in agents(tmp_path)]
    _run("report", paths, "metarl report")
    assert f"{paths[0]}/report.html" in capsys.readouterr().out
    assert (tmp_path / "a" / "report.html").read_text().startswith("<!doctype html>")
    _run("compare", paths, "metarl compare")
    printed = capsys.readouterr().out
    assert "maml − rl2" in printed
    assert max(map(len, printed.splitlines())) <= 80
    with pytest.raises(UsageError, match="has no evaluation 'train', but test"):
        _run("compare", [*paths, "--evaluation", "train"], "metarl compare")


PROBE = """
<script>
const errors = [];
addEventListener("error", (event) => errors.push(event.message));
addEventListener("load", async () => {
  const first = () => document.querySelector("table.tasks tbody tr:not([hidden])").cells;
  const shown = () => document.querySelectorAll("table.tasks tbody tr:not([hidden])").length;
  const result = {rows: shown()};
  document.querySelector("[data-worst]").click();
  result.worst = first()[3].textContent;
  const head = document.querySelectorAll("table.tasks th")[3];
  head.querySelector("button").click();
  result.best = first()[3].textContent;
  result.sorted = head.getAttribute("aria-sort");
  const family = document.querySelector("[data-family]");
  family.value = "ice"; family.dispatchEvent(new Event("change"));
  result.ice = shown();
  const video = document.querySelector("video");
  result.loaded = video.src !== "";
  video.scrollIntoView();
  const until = async (done) => { while (!done()) await new Promise((wake) => setTimeout(wake, 20)); };
  await until(() => video.readyState >= 3);
  try { await video.play(); await until(() => video.currentTime > 0); }
  catch (error) { errors.push(String(error)); }
  result.time = video.currentTime;
  const mark = document.querySelector("svg [data-tip]");
  mark.dispatchEvent(new PointerEvent("pointermove", {bubbles: true}));
  result.tip = document.querySelector("#tip").textContent;
  result.overflow = document.documentElement.scrollWidth > innerWidth;
  const output = document.createElement("pre");
  output.id = "probe";
  output.textContent = JSON.stringify({...result, errors});
  document.body.append(output);
});
</script>
</head>"""


def chromium(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs the browser without a window."""
    assert CHROMIUM is not None
    always = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"]
    always += ["--autoplay-policy=no-user-gesture-required", "--disable-dev-shm-usage"]
    return subprocess.run([CHROMIUM, *always, *arguments], capture_output=True, text=True, timeout=300)


with_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")


@with_browser
def test_a_browser_sorts_filters_plays_and_complains_of_nothing(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(report(*agents(tmp_path)).replace("</head>", PROBE, 1))
    result = chromium(
        f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=2000000", "--dump-dom", path.as_uri()
    )
    assert "CONSOLE" not in result.stderr, result.stderr
    probe = re.search(r'<pre id="probe">(.*?)</pre>', result.stdout)
    assert probe is not None, result.stderr[-2000:]
    found = json.loads(probe[1].replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&"))
    assert found["errors"] == []
    assert (found["rows"], found["ice"]) == (8, 4)
    assert (found["worst"], found["best"], found["sorted"]) == ("20.5", "90.5", "descending")
    assert not found["loaded"]  # it lies far below: the page opens without it
    assert found["time"] > 0
    assert found["tip"].startswith("maml: 35.5 [")
    assert not found["overflow"]


@with_browser
@pytest.mark.parametrize(("size", "dark"), [("1100,900", False), ("1100,900", True), ("500,900", False)])
def test_screenshots_light_dark_and_narrow(tmp_path: Path, size: str, dark: bool) -> None:
    path, picture = tmp_path / "report.html", tmp_path / "picture.png"
    path.write_text(report(*agents(tmp_path)))
    mode = ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if dark else []
    arguments = [*mode, f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={size}", f"--screenshot={picture}"]
    chromium(*arguments, path.as_uri())
    corner = Image.open(picture).convert("L").getpixel((3, 3))
    assert isinstance(corner, int)
    assert (corner < 64) == dark
