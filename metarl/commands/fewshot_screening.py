"""Screens for a finding after a few examples: `fewshot.py screening runs/cells --data breast --shots 1 2 5`.

The run's learner, trained on other classes or other tissue, beside logistic regression on pixels and the nearest
centroid of pixels, which learn from the shown examples alone. Sensitivity at fixed specificity, AUROC, calibration, and
what abstention would leave. docs/medicine.md says what such a figure does not show.

How long it takes: one run on `breast` 22 s of a processor's time.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from jaxtyping import Bool, Float, Shaped

from metarl.commands.options import ComputeOptions, TrustOptions, check_output, parse, usage
from metarl.errors import UsageError
from metarl.fewshot import classical
from metarl.fewshot.conversion import as_examples
from metarl.fewshot.datasets.medical import Screening, screening
from metarl.fewshot.datasets.storage import existing_data_root
from metarl.fewshot.screening import COVERAGES, SPECIFICITIES, Detector, ScreeningTrials
from metarl.maths import statistics
from metarl.maths.statistics import Estimate
from metarl.runs.files import encode_json, write_atomically
from metarl.runs.progress import progress_of_share
from metarl.runs.provenance import environment
from metarl.runs.run_folder import Which
from metarl.runs.trained import TrainedFewShot, labels_of, load_few_shot

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class ScreeningOptions:
    """What is looked for, by whom, after how many examples."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of few-shot runs on images."""
    data: Literal["blood-cells", "pneumonia", "breast"]
    """Where the finding is looked for."""
    finding: str | None = None
    """Of blood cells, the type that is looked for; one that the runs were not trained on."""
    shots: tuple[int, ...] = (1, 2, 5)
    """Examples of the finding that are shown: a table for each."""
    negatives: int = 20
    """Examples of everything else that are shown."""
    trials: int = 50
    """How often examples are drawn anew."""
    most_asked: int = 400
    """Images that are asked about in a trial, at most."""
    data_root: Path | None = None
    """The folder of the published data sets; METARL_DATA, or `data`, if not given."""
    checkpoint: Which = "last"
    """The last checkpoint of the runs, or the best on validation."""
    output: Path | None = None
    """Also write everything to this JSON file."""
    trust: TrustOptions = TrustOptions()
    compute: ComputeOptions = ComputeOptions(threads=1)

    def __post_init__(self) -> None:
        if not self.shots:
            raise ValueError("--shots needs a number")
        _ = self.sizes
        if self.output is not None:
            check_output(self.output)

    @property
    def sizes(self) -> list[ScreeningTrials]:
        """One for each number of shots."""
        return [ScreeningTrials(shots, self.negatives, self.trials, self.most_asked) for shots in self.shots]


def program(arguments: Sequence[str], name: str) -> None:
    """Measures, prints a table for each number of shots, and writes."""
    options = parse(ScreeningOptions, arguments, name, __doc__)
    options.compute.use(linear_algebra_threads=options.compute.threads)
    classical.need_scikit_learn("screening")
    with usage():
        data = screening(options.data, existing_data_root(options.data_root), options.finding)
        for size in options.sizes:
            size.draw(data, 0)
    runs: list[TrainedFewShot] = []
    for folder in options.runs:
        run = load_few_shot(folder, options.checkpoint, options.compute.device, trust_code=options.trust.trust_code)
        if not run.trained.tasks.signature.images:
            raise UsageError(f"{folder} was not trained on images")
        if not run.trained.learner.training.any_ways and run.trained.tasks.signature.ways != 2:
            raise UsageError(f"{folder} tells {run.trained.tasks.signature.ways} classes apart; a screening has two")
        known = run.classes
        if known is not None and data.finding in (*known.train, *known.validation):
            raise UsageError(f"{folder} was trained on {data.finding!r}: choose another --finding")
        runs.append(run)
    labels = labels_of(runs)
    sources = {label: dataclasses.asdict(run.ref) for label, run in zip(labels, runs, strict=True)}
    detectors: dict[str, Detector] = {label: learned(run) for label, run in zip(labels, runs, strict=True)}
    detectors |= {"logistic on pixels": logistic, "centroid of pixels": centroid}
    print(f"{data.id}: {data.finding}, {int(data.positive.sum())} of {len(data.positive)} images; docs/medicine.md")
    found: dict[int, dict[str, Mapping[str, Float[np.ndarray, " trial"]]]] = {}
    for size in options.sizes:
        found[size.shots] = {}
        for label, detector in detectors.items():
            with progress_of_share(f"{label}, {size.shots} shots") as on_progress, usage():
                found[size.shots][label] = size.measure(data, detector, on_progress)
        print(
            f"\n{size.shots} examples of {data.finding}, {size.negatives} others\n{table(found[size.shots], size.seed)}"
        )
    if options.output is not None:
        write_atomically(options.output, encode_json(_json(data, found, sources, options)))
        print(f"\nwritten to {options.output}")


def learned(run: TrainedFewShot) -> Detector:
    """A trained learner as a detector."""

    def detect(
        shown: Shaped[np.ndarray, "example ..."],
        positive: Bool[np.ndarray, " example"],
        asked: Shaped[np.ndarray, "query ..."],
    ) -> Float[np.ndarray, " query"]:
        return run.adapt(shown, positive.astype(np.int64)).predict(asked)[:, 1].astype(np.float64)

    return detect


def logistic(
    shown: Shaped[np.ndarray, "example ..."],
    positive: Bool[np.ndarray, " example"],
    asked: Shaped[np.ndarray, "query ..."],
) -> Float[np.ndarray, " query"]:
    """scikit-learn's logistic regression on pixels in [0, 1]."""
    model = classical.classifier("logistic", len(shown))
    model.fit(_pixels(shown), positive.astype(np.int64))
    return np.asarray(model.predict_proba(_pixels(asked)))[:, 1]


def centroid(
    shown: Shaped[np.ndarray, "example ..."],
    positive: Bool[np.ndarray, " example"],
    asked: Shaped[np.ndarray, "query ..."],
) -> Float[np.ndarray, " query"]:
    """A softmax of minus the squared distances to the mean of findings and the mean of others."""
    x, queries = _pixels(shown), _pixels(asked)
    distances = [((queries - x[positive == kind].mean(0)) ** 2).sum(1) for kind in (False, True)]
    return torch.softmax(-torch.from_numpy(np.stack(distances, 1)), dim=1)[:, 1].numpy()


def _pixels(images: Shaped[np.ndarray, "example ..."]) -> Float[np.ndarray, "example pixel"]:
    return as_examples(images).flatten(1).double().numpy() / 255


def table(found: Mapping[str, Mapping[str, Float[np.ndarray, " trial"]]], seed: int) -> str:
    """A line for each detector."""
    columns = ["auroc", *(f"sensitivity_at_{s:g}" for s in SPECIFICITIES), "calibration_error", "brier"]
    columns += [f"error_at_coverage_{coverage:g}" for coverage in COVERAGES]
    width = max(map(len, found))
    lines = []
    for name in columns:
        lines.append(name.replace("_", " ") + " [95 % interval over trials]")
        lines += [f"  {label:{width}}  {estimate(rows[name], seed):.3f}" for label, rows in found.items()]
    return "\n".join(lines)


def estimate(values: Float[np.ndarray, " trial"], seed: int) -> Estimate:
    """The mean over trials, with its interval."""
    return statistics.bootstrap(values[None], statistics.mean, np.random.default_rng(seed))


def _json(
    data: Screening,
    found: Mapping[int, Mapping[str, Mapping[str, Float[np.ndarray, " trial"]]]],
    sources: Mapping[str, object],
    options: ScreeningOptions,
) -> dict[str, object]:
    seed = options.sizes[0].seed
    return {
        "format": FORMAT,
        "data": data.id,
        "finding": data.finding,
        "images": len(data.positive),
        "with_finding": int(data.positive.sum()),
        "split": "by slide, anew in every trial" if data.by_slide else "published training and test parts",
        "negatives": options.negatives,
        "trials": options.trials,
        "seed": seed,
        "environment": environment(options.compute.threads).to_json(),
        "sources": dict(sources),
        "figures": {
            str(shots): {
                label: {
                    name: {**dataclasses.asdict(estimate(values, seed)), "trials": values.tolist()}
                    for name, values in rows.items()
                }
                for label, rows in by_label.items()
            }
            for shots, by_label in found.items()
        },
    }
