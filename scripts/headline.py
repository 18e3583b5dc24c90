"""Prints the table that docs/results.md begins with: every evaluated agent beside its yardsticks.

`python scripts/headline.py` reads the raw numbers under docs/results/ and prints Markdown; nothing in the table is
typed by hand.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from metarl.evaluation.reading import evaluation_of
from metarl.evaluation.records import BLIND, FINE_TUNED, INFORMED, RANDOM
from metarl.evaluation.results import Evaluation
from metarl.evaluation.table import decimals
from metarl.maths.statistics import Estimate

RESULTS = Path("docs/results")
HEADER = (
    "distribution, test tasks", "agent", "seeds", "random", "blind", "blind, fine-tuned", "agent, first episodes",
    "agent, adapted", "informed", "0 is blind, 1 informed", "own − foreign experience",
)  # fmt: skip


def main() -> int:
    """Prints the table."""
    if sys.argv[1:]:
        print(__doc__)
        return 0 if sys.argv[1:] in (["-h"], ["--help"]) else 2
    print(headline(RESULTS))
    return 0


def headline(results: Path) -> str:
    """The table, as Markdown.

    Args:
        results: a folder of raw numbers; evaluations of agents with yardsticks are taken, whatever else is there.
    """
    rows = [HEADER, tuple("---" for _ in HEADER)]
    for evaluation in _evaluations(results):
        rows += _rows(evaluation)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _evaluations(results: Path) -> Iterator[Evaluation]:
    """Of each agent that stands beside yardsticks on test tasks, the evaluation of the most seeds."""
    found: dict[tuple[str, str, str], Evaluation] = {}
    for path in sorted(results.glob("*.json")):
        content = json.loads(path.read_text())
        if content.get("yardsticks") and "metrics" in content and content["config"]["split"] == "test":
            evaluation = evaluation_of(content)
            key = (evaluation.config.distribution, _learners(evaluation), evaluation.config.ablation)
            if key not in found or len(evaluation.sources) > len(found[key].sources):
                found[key] = evaluation
    yield from (found[key] for key in sorted(found))


def _rows(evaluation: Evaluation) -> Iterator[tuple[str, ...]]:
    """A row for all tasks, and one for each family where there are few."""
    config = evaluation.config
    families = evaluation.families if 1 < len(evaluation.families) <= 3 else ()
    for family in ("all", *families):
        part = evaluation if family == "all" else evaluation.only(family)
        curve = part.curve()
        number = f".{decimals(max(abs(point.mean.value) for point in curve))}f"
        own = part.specific_gain()
        name = f"`{config.distribution}`" if family == "all" else f"… {family}"
        yield (
            f"{name}, {len(part.tasks)}",
            _learners(evaluation),
            str(len(evaluation.sources)),
            *(_shown(part.yardstick(each), number) for each in (RANDOM, BLIND, FINE_TUNED)),
            _shown(curve[0].mean, number),
            f"**{_shown(curve[-1].mean, number)}**",
            _shown(part.yardstick(INFORMED), number),
            _shown(part.normalised(), ".2f"),
            _shown(own and own.mean, number),
        )


def _learners(evaluation: Evaluation) -> str:
    return " and ".join(sorted({source.learner for source in evaluation.sources}))


def _shown(estimate: Estimate | None, number: str) -> str:
    return "–" if estimate is None else f"{estimate:{number}}".replace("-", "−")


if __name__ == "__main__":
    sys.exit(main())
