"""An evaluation as short, aligned text for people to read."""

from collections.abc import Sequence

from metarl.evaluation.html import table_html
from metarl.evaluation.records import (
    BLIND,
    COUNTS,
    FINE_TUNED,
    FOREIGN,
    INFORMED,
    YARDSTICKS,
    CheckpointRef,
    EvaluationConfig,
)
from metarl.evaluation.results import Evaluation
from metarl.maths.calibration import calibration_error
from metarl.maths.statistics import Estimate

_MEANING = {
    "return": "undiscounted return",
    "success": "share of episodes with success at any step",
    "success_at_end": "share of episodes with success at the last step",
    "length": "environment steps in an episode",
    "accuracy": "share of queries answered right",
    "error": "mean squared error (less is better)",
    "negative_log_likelihood": "negative log-likelihood of a query's answer, nats (less is better)",
}
"""What the scores that the package makes are."""


def table(evaluation: Evaluation) -> str:
    """Before, after and gain with their intervals, the curve, and what else was measured."""
    config, curve = evaluation.config, evaluation.curve()
    places = decimals(max(abs(point.mean.value) for point in curve))
    spent = counted(curve[-1].amount, config.unit)
    lines = [
        f"{config.distribution} ({config.distribution_hash}) · {_label(config)}",
        _sources_line(evaluation.sources),
        f"{config.score} before adaptation and after {spent} of it: {_MEANING.get(config.score, config.score)}",
        "[95 % interval]",
        "",
        *aligned(_headline(evaluation, f".{places}f")),
        "",
    ]
    if len(curve) > 2:
        points = [[f"{config.unit}s", *(str(point.amount) for point in curve)]]
        points.append([f"mean {config.score}", *(f"{point.mean.value:.{places}f}" for point in curve)])
        lines += [*aligned(points), ""]
    if len(within := evaluation.within_episode()) > 1:
        steps = ["steps of the first episode, until", *(str(step) for step, _ in within)]
        rewards = ["mean reward since the one before", *(f"{reward.value:.{places}f}" for _, reward in within)]
        lines += [*aligned([steps, rewards]), ""]
    if evaluation.yardsticks:
        lines += [*aligned(_yardsticks(evaluation, f".{places}f")), ""]
    if beside := _beside(evaluation):
        lines += [*aligned(beside), ""]
    return "\n".join([*lines, *_footer(evaluation)])


def html_table(evaluation: Evaluation) -> str:
    """The headline as HTML: before, after and gain with their intervals."""
    places = decimals(max(abs(point.mean.value) for point in evaluation.curve()))
    header, *rows = _headline(evaluation, f".{places}f")
    config = evaluation.config
    caption = f"{evaluation.label} on {config.distribution}, {_label(config)}: {config.score}, 95 % intervals"
    return table_html(caption, header, rows)


def _headline(evaluation: Evaluation, number: str) -> list[list[str]]:
    """Before, after and gain: of all tasks, then of each family."""
    parts = [("", evaluation)]
    if len(evaluation.families) > 1:
        parts += [(family, evaluation.only(family)) for family in evaluation.families]
    rows = [["", "tasks", "before", "after", "gain"]]
    if specific := evaluation.specific_gain() is not None:
        rows[0].append("own − foreign support")
    for name, part in parts:
        curve, gain, own = part.curve(), part.gain(), part.specific_gain()
        ends = [curve[0], curve[-1], gain, *([own] if specific and own is not None else [])]
        count = str(len(part.tasks))
        rows.append([f"mean{f', {name}' if name else ''}", count, *(f"{point.mean:{number}}" for point in ends)])
        if not name:
            middle = (f"{point.interquartile_mean:{number}}" for point in ends)
            rows.append(["interquartile mean", count, *middle])
    rows.append(
        ["worst tenth, mean", "", f"{evaluation.worst_tenth(0):{number}}", f"{evaluation.worst_tenth():{number}}"]
    )
    rows[-1] += [""] * (len(rows[0]) - len(rows[-1]))
    return rows


def yardsticks_html(evaluation: Evaluation) -> str:
    """What other policies reach on the same tasks, as HTML."""
    places = decimals(max(abs(point.mean.value) for point in evaluation.curve()))
    header, *rows = _yardsticks(evaluation, f".{places}f")
    return table_html(f"{evaluation.label} and other policies, 95 % intervals", header, rows)


def _yardsticks(evaluation: Evaluation, number: str) -> list[list[str]]:
    """What other policies reach on the same tasks, by family, and where the score stands between them."""
    parts = [evaluation]
    if len(evaluation.families) > 1:
        parts += [evaluation.only(family) for family in evaluation.families]
    names = [part.tasks[0].family for part in parts[1:]]
    rows = [["on the same tasks, mean", "all" if names else "", *names]]
    rows += [
        [name, *(_shown(part.yardstick(name), number) for part in parts)]
        for name in YARDSTICKS
        if name in evaluation.yardsticks
    ]
    agent = " and ".join(sorted({source.learner for source in evaluation.sources}))
    rows.append([f"{agent}, adapted", *(f"{part.curve()[-1].mean:{number}}" for part in parts)])
    rows += [
        [f"above {name}", *(_shown(part.above(name), number) for part in parts)]
        for name in (BLIND, FINE_TUNED)
        if name in evaluation.yardsticks
    ]
    if INFORMED in evaluation.yardsticks and BLIND in evaluation.yardsticks:
        rows.append(["0 is blind, 1 informed", *(_shown(part.normalised(), ".2f") for part in parts)])
    return rows


def _shown(estimate: Estimate | None, number: str) -> str:
    return "–" if estimate is None else f"{estimate:{number}}"


def _beside(evaluation: Evaluation) -> list[list[str]]:
    """The metrics that are not the score, and the calibration error of classifiers."""
    rows = []
    for name in evaluation.metrics:
        if name in (evaluation.config.score, *COUNTS) or name.startswith(FOREIGN):
            continue
        ends = [evaluation.estimate(name, point) for point in (0, -1)]
        places = decimals(max(abs(end.value) for end in ends))
        rows.append([name.replace("_", " "), *(f"{end:.{places}f}" for end in ends)])
    if evaluation.calibration is not None:
        ends = [calibration_error(evaluation.calibration[:, point].sum(0)) for point in (0, -1)]
        rows.append(["expected calibration error", *(f"{end:.3f}" for end in ends)])
    return [["beside it", "before", "after"], *rows] if rows else []


def _footer(evaluation: Evaluation) -> list[str]:
    config = evaluation.config
    parts = [counted(len(evaluation.sources), "seed"), counted(len(evaluation.tasks), "task")]
    if config.episodes_per_adaptation is not None:
        parts += [counted(config.trials, "trial"), counted(config.episodes_per_adaptation, "episode") + " a point"]
    lines = [" × ".join(parts)]
    settings = [f"intervals resample {evaluation.resampled}", f"evaluation seed {config.seed}"]
    settings += [f"actions: {config.actions}"] if config.actions else []
    settings += [f"batch norm: {config.batch_norm}"] if config.batch_norm else []
    settings += [f"ablation: {config.ablation}"] if config.ablation != "none" else []
    lines.append("; ".join(settings))
    if evaluation.caveat:
        lines.append(evaluation.caveat)
    if "env_steps" in evaluation.metrics:
        steps, diverged = (int(evaluation.metrics[name].sum()) for name in COUNTS)
        warning = "WARNING: " if diverged else ""
        lines.append(
            f"{warning}{counted(diverged, 'episode')} diverged and left out of the means; {steps:,} environment steps"
        )
    return lines


def _label(config: EvaluationConfig) -> str:
    if config.held_out:
        return f"held-out {config.split} tasks"
    return "training tasks" if config.split == "train" else "training tasks: nothing is held out"


def _sources_line(sources: Sequence[CheckpointRef]) -> str:
    steps = sorted({source.step for source in sources})
    shown = str(steps[0]) if len(steps) == 1 else f"{steps[0]}-{steps[-1]}"
    learners = ", ".join(sorted({source.learner for source in sources}))
    checkpoints = ", ".join(sorted({source.checkpoint for source in sources}))
    runs = ", ".join(source.run for source in sources[:3]) + (f" and {len(sources) - 3} more" * (len(sources) > 3))
    return f"{learners} · {runs} · checkpoint: {checkpoints} (outer step {shown})"


def decimals(largest: float) -> int:
    """Digits after the point that leave about three that count."""
    return 0 if largest >= 1000 else 1 if largest >= 10 else 2 if largest >= 1 else 3


def counted(number: int, noun: str) -> str:
    """`1 episode`, `20 episodes`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns padded to their widest entry: the first to the left, the others to the right."""
    widths = [max(len(entry) for entry in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            entry.ljust(width) if column == 0 else entry.rjust(width)
            for column, (entry, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
