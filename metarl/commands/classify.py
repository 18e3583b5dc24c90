"""Classifies many examples from a few labelled ones, with the probability of each class.

`metarl classify --support few.csv --input rest.csv --output out.csv`: few.csv has the columns `text` and `label`, or
columns of numbers and `label`; rest.csv the same without `label`. Of images: folders, few/class/*.png and rest/*.png.
The output has the input's columns, then `predicted`, `probability`, and the probability of each class.
Without a trained learner (--run) classes are told apart by nearness alone: topics of texts well, opinions hardly.

How long it takes: 1,000 sentences nine seconds of a processor's time.
"""

import csv
import dataclasses
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from metarl import checks
from metarl.commands.options import TrustOptions, check_output, parse, usage
from metarl.fewshot import calibrated, labelled, texts
from metarl.fewshot.conversion import Inputs, as_examples
from metarl.fewshot.datasets.images import MOST_PIXELS
from metarl.fewshot.labelled import Labelled, Unlabelled
from metarl.runs.files import write_atomically
from metarl.runs.trained import load_few_shot

_ADDED = ("predicted", "probability")


@dataclasses.dataclass(frozen=True)
class ClassifyOptions:
    """What is classified, and by what."""

    support: Path
    """The labelled examples: a .csv file, or a folder of folders of images."""
    input: Path
    """The others: a .csv file, or a folder of images."""
    output: Path
    """The .csv file to be written."""
    run: Path | None = None
    """A few-shot learner's run, trained on examples of this kind; without it, the nearest centroid."""
    text_column: str = "text"
    """The column of texts; a file without it is of numbers."""
    label_column: str = "label"
    """The column of classes in the support."""
    text_encoder: str | None = None
    """Without a run: what makes vectors of texts; universal if it is installed, else ngrams, if not given."""
    image_size: int | None = None
    """Scale images to this height and width, px."""
    trust: TrustOptions = TrustOptions()

    def __post_init__(self) -> None:
        if self.image_size is not None:
            checks.between(1, MOST_PIXELS, image_size=self.image_size)
        if self.run is not None and self.text_encoder is not None:
            raise ValueError("a run remembers its text encoder: leave --text-encoder out")


def program(arguments: Sequence[str], name: str) -> None:
    """Reads everything, predicts, then writes the output at once."""
    options = parse(ClassifyOptions, arguments, name, __doc__)
    with usage():
        check_output(options.output)
        support = labelled.read_labelled(options.support, options.text_column, options.label_column, options.image_size)
        rest = labelled.read_unlabelled(options.input, support, options.text_column, options.image_size)
        classes, probabilities = predicted(options, support, rest)
        content = as_csv(rest, classes, probabilities)
    write_atomically(options.output, content)
    print(summary(support, classes, probabilities))
    print(f"written to {options.output}")


def predicted(
    options: ClassifyOptions, support: Labelled, rest: Unlabelled
) -> tuple[tuple[str, ...], Float[np.ndarray, "example class"]]:
    """The classes and the probability of each.

    Raises:
        ValueError: a class with one example (without a run), or examples that the run's learner was not trained on.
        UsageError: what `--run` or `--text-encoder` names is not there.
    """
    if options.run is not None:
        run = load_few_shot(options.run, trust_code=options.trust.trust_code)
        print(f"learner: {run.ref.learner} of {options.run}")
        adapted = run.adapt(_as_given(support), support.labels)
        return tuple(map(str, adapted.classes)), adapted.predict(_as_given(rest))
    labelled.need_pairs(options.support, support.labels)
    if support.kind == "texts":
        print(texts.why(options.text_encoder or texts.AUTO))
    elif options.text_encoder is not None:
        raise ValueError(f"{options.support} holds no texts: leave --text-encoder out")
    print("learner: nearest centroid, its temperature by leave-one-out")
    classes = tuple(sorted(set(support.labels)))
    numbers = np.array([classes.index(label) for label in support.labels])
    few, others = (_features(options, support.kind, part.inputs) for part in (support, rest))
    if few.shape[1] != others.shape[1]:
        raise ValueError(f"images of {options.support} and {options.input} differ in size: add --image-size")
    model = calibrated.fit(few, numbers, standardise=support.kind == "numbers")
    return classes, model.predict(others)


def _as_given(part: Labelled | Unlabelled) -> Inputs:
    """Images with the channels last, as arrays have them."""
    inputs = part.inputs
    return np.moveaxis(inputs, 1, -1) if isinstance(inputs, np.ndarray) and inputs.ndim == 4 else inputs


def _features(options: ClassifyOptions, kind: labelled.Kind, inputs: Inputs) -> Float[np.ndarray, "example feature"]:
    """What is compared: features of texts, numbers, or pixels in [0, 1]."""
    if kind == "texts":
        assert isinstance(inputs, list)
        encoder = texts.text_encoder(options.text_encoder or texts.AUTO)
        return texts.features(encoder, [str(text) for text in inputs], keep=False)
    if kind == "numbers":
        return as_examples(inputs).numpy()
    return np.asarray(inputs).reshape(len(np.asarray(inputs)), -1).astype(np.float32) / 255


def as_csv(rest: Unlabelled, classes: Sequence[str], probabilities: Float[np.ndarray, "example class"]) -> bytes:
    """The input's columns, then what was predicted.

    Raises:
        ValueError: the input has a column of one of the new names.
    """
    new = (*_ADDED, *(f"p({name})" for name in classes))
    if taken := [name for name in new if name in rest.header]:
        raise ValueError(f"the input has a column {taken[0]!r} already: rename it")
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*rest.header, *new))
    for cells, row in zip(rest.cells, probabilities, strict=True):
        best = int(row.argmax())
        writer.writerow((*cells, classes[best], f"{row[best]:.4f}", *(f"{p:.4f}" for p in row)))
    return text.getvalue().encode()


def summary(support: Labelled, classes: Sequence[str], probabilities: Float[np.ndarray, "example class"]) -> str:
    """One line: how many of each class."""
    shown = Counter(support.labels)
    found = np.bincount(probabilities.argmax(1), minlength=len(classes))
    parts = ", ".join(f"{name} {count} (from {shown[name]})" for name, count in zip(classes, found, strict=True))
    return f"{len(probabilities)} classified: {parts}; mean probability {probabilities.max(1).mean():.2f}"
