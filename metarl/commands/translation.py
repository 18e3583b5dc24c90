"""Meta-trains an adapter over language pairs, then finds translations in languages that it was never trained on.

`metarl translation --output translation.json` prints retrieval@1 among 500 candidates, before and after 10 to 100 pairs
of a language, beside maps that are fitted to the same pairs without meta-training. The data are Tatoeba's
(translation/tatoeba_v1 below the data root); the text encoder's features are kept for the next time.

How long it takes: 146 s of a processor's time where no features are kept yet.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from metarl import checks
from metarl.commands.options import ComputeOptions, check_output, parse, usage
from metarl.fewshot import texts
from metarl.fewshot.datasets.storage import existing_data_root
from metarl.fewshot.translation import pairs
from metarl.fewshot.translation.adapter import Adapter, meta_train
from metarl.fewshot.translation.baselines import Scores, procrustes, unadapted
from metarl.fewshot.translation.pairs import LANGUAGES, Language
from metarl.fewshot.translation.retrieval import Draw, accuracy, best_ridges, draws
from metarl.maths.statistics import t_interval
from metarl.runs import provenance
from metarl.runs.files import encode_json, write_atomically
from metarl.runs.progress import progress

_EVALUATION_SEED = 20_210_830


@dataclasses.dataclass(frozen=True)
class TranslationOptions:
    """How long it trains, and what it is judged on."""

    output: Path
    """The .json file to be written."""
    data_root: Path | None = None
    """The folder of the published data sets; METARL_DATA, or `data`, if not given."""
    text_encoder: str = texts.AUTO
    """What makes features of sentences."""
    split: Literal["validation", "test"] = "test"
    """Which languages it is judged on; choices are made on validation."""
    pairs: tuple[int, ...] = (10, 25, 50, 100)
    """Sentence pairs of a language that it adapts to."""
    candidates: int = 500
    """Sentences among which the translation is looked for; each is a query, too."""
    draws: int = 10
    """Random choices of the pairs and candidates."""
    steps: int = 300
    """Outer steps, of four tasks each."""
    seed: int = 0
    """Decides everything that is random in training."""
    compute: ComputeOptions = ComputeOptions(threads=1)

    def __post_init__(self) -> None:
        checks.count(candidates=self.candidates, steps=self.steps)
        checks.between(2, checks.MOST, draws=self.draws)
        checks.seed(self.seed)
        if not self.pairs or min(self.pairs) < 1:
            raise ValueError(f"--pairs takes numbers from 1, got {self.pairs}")
        if self.compute.device != "cpu":
            raise ValueError("adapting takes milliseconds on the CPU: leave --device out")


def program(arguments: Sequence[str], name: str) -> None:
    """Trains, judges, prints a table and writes the figures."""
    options = parse(TranslationOptions, arguments, name, __doc__)
    options.compute.use(linear_algebra_threads=options.compute.threads)
    with usage():
        check_output(options.output)
        root, encoder = existing_data_root(options.data_root), texts.text_encoder(options.text_encoder)
        print(texts.why(options.text_encoder))
        wanted = {split: LANGUAGES[split] for split in ("train", "validation", options.split)}
        total = sum(map(len, wanted.values()))
        with progress("encoding sentences", total) as shown:
            count = 0

            def told(language: str) -> None:
                nonlocal count
                count += 1
                shown.update(count, {})

            found = {split: pairs.load(root, encoder, names, told) for split, names in wanted.items()}
        judged = {split: _drawn(found[split], options) for split in found if split != "train"}
    most = max(options.pairs)
    ridges = best_ridges(judged["validation"], most)
    parameters, losses = meta_train(found["train"], options.steps, options.seed)
    methods: dict[str, Scores] = {"unadapted": unadapted, "Procrustes": procrustes}
    methods |= {label: scores for label, (_, scores) in ridges.items()}
    methods["meta-trained"] = Adapter(parameters).scores
    rows = _measured(judged[options.split], methods, (0, *options.pairs))
    print(table(rows, judged[options.split], methods, options.pairs))
    record = {
        "environment": provenance.environment(options.compute.threads).to_json(),
        "options": {**dataclasses.asdict(options), "output": None, "data_root": None},
        "evaluation_seed": _EVALUATION_SEED,
        "encoder": encoder.key,
        "languages": {split: list(names) for split, names in wanted.items()},
        "parameters": dataclasses.asdict(parameters),
        "ridges": {label: strength for label, (strength, _) in ridges.items()},
        "losses": losses,
        "retrieval_at_1": rows,
    }
    write_atomically(options.output, encode_json(record))
    print(f"written to {options.output}")


Judged = Mapping[str, tuple[Language, Sequence[Draw]]]
Rows = Mapping[str, Mapping[str, Mapping[str, list[float]]]]
"""Retrieval@1 of each draw, by language, method and number of pairs."""


def _drawn(languages: Sequence[Language], options: TranslationOptions) -> Judged:
    most = max(options.pairs)
    return {
        language.name: (language, draws(language, most, options.candidates, options.draws, _EVALUATION_SEED))
        for language in languages
    }


def _measured(judged: Judged, methods: Mapping[str, Scores], counts: Sequence[int]) -> Rows:
    rows: dict[str, dict[str, dict[str, list[float]]]] = {}
    for name, (language, drawn) in judged.items():
        rows[name] = {}
        for label, scores in methods.items():
            possible = [count for count in counts if count or label in ("unadapted", "meta-trained")]
            rows[name][label] = {str(n): accuracy(language, scores, drawn, n).tolist() for n in possible}
    return rows


def table(rows: Rows, judged: Judged, methods: Mapping[str, Scores], counts: Sequence[int]) -> str:
    """Aligned text: a line for each language and method, a column for each number of pairs."""
    lines = [f"retrieval@1, %, after so many pairs [95 % interval over {len(next(iter(judged.values()))[1])} draws]"]
    lines.append(f"{'':6}{'':24}" + "".join(f"{count:>20}" for count in (0, *counts)))
    for language, by_method in rows.items():
        for label in methods:
            values = by_method[label]
            cells = "".join(f"{_cell(values.get(str(n))):>20}" for n in (0, *counts))
            lines.append(f"{language:6}{label:24}{cells}")
    return "\n".join(lines)


def _cell(values: list[float] | None) -> str:
    return "" if values is None else format(t_interval(100 * np.array(values)), ".1f")
