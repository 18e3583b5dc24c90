"""The documentation's site: what its pages are made of. `make site` builds it, with warnings as errors."""

import re
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="the extra [docs] is not installed")

from metarl.commands import fewshot
from metarl.commands.catalogue import entries
from metarl.commands.main import PROGRAMS
from scripts import headline, picture_distributions, site_docstrings, site_hooks

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    for page in PAGES:
        assert re.search(rf"[ :]{re.escape(page.name)}$", navigation, re.MULTILINE), page.name


def test_every_distribution_has_its_picture_and_its_video() -> None:
    page = site_hooks.distributions()
    for id in picture_distributions.shown():
        for suffix in ("jpg", "mp4"):
            assert (picture_distributions.FOLDER / f"{id}.{suffix}").is_file(), (
                f"python scripts/picture_distributions.py {id}"
            )
            assert f"images/distributions/{id}.{suffix}" in page
    assert [entry.name for entry in entries() if entry.kind == "distributions" and f"{entry.name}`" not in page] == []


def test_the_first_table_of_the_results_is_made_of_their_raw_numbers() -> None:
    page = (ROOT / "docs" / "results.md").read_text()
    table = headline.headline(ROOT / "docs" / "results")
    assert table.count("\n") > 2 and table in page, "paste what python scripts/headline.py prints"


@pytest.mark.parametrize(
    ("link", "source", "there"),
    [
        ("docs/results.md", "README.md", "results.md"),
        ("../README.md#your-own-environment", "docs/extending.md", "quick-start.md#your-own-environment"),
        ("quick-start.md", "docs/index.md", "quick-start.md"),
        ("reference/metarl.md", "docs/index.md", "reference/metarl.md"),
        ("../metarl/learning/collect.py", "docs/architecture.md", "reference/learning.md#metarl.learning.collect"),
        ("../envs/body.py", "docs/extending.md", "reference/envs.md#metarl.envs.body"),
        ("../metarl/registry.py", "docs/architecture.md", "reference/metarl.md#metarl.registry"),
        ("results/speed.json", "docs/results.md", "results/speed.json"),
        ("LICENSE", "README.md", None),
    ],
)
def test_links_lead_to_pages_or_nowhere(link: str, source: str, there: str | None) -> None:
    assert site_hooks.target(link, source) == there
    expected = "x" if there is None else f"[x]({there})"
    assert site_hooks.linked(f"see [x]({link})", source) == f"see {expected}"


def test_nothing_is_loaded_from_elsewhere() -> None:
    for page in PAGES:
        assert not re.search(r"!\[[^\]]*\]\(https?:|<(script|img|link|video|iframe)[^>]*https?:", page.read_text())


def test_examples_and_columns_of_docstrings_are_code() -> None:
    text = "Adds.\n\n>>> add(1, 2)\n3\n\nmean      of all\nmedian    the middle one\n\nA sentence.  Another\none."
    assert site_docstrings.as_markdown(text) == (
        "Adds.\n\n```pycon\n>>> add(1, 2)\n3\n```\n\n```text\nmean      of all\nmedian    the middle one\n```\n\n"
        "A sentence.  Another\none."
    )


def test_every_program_is_on_the_page_of_programs_and_says_how_long_it_takes() -> None:
    page = site_hooks.commands()
    for title in (*PROGRAMS, *(f"fewshot {part}" for part in fewshot.PROGRAMS)):
        text = page.partition(f"# metarl {title}\n")[2].partition("\n```\n")[0]
        assert f"usage: metarl {title}" in text and "--help" in text, title
        assert "How long it takes: " in text, title
