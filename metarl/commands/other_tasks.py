"""A trained few-shot learner on other tasks than it was trained for: another data set, chosen classes, another size."""

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import final

import numpy as np

from metarl.errors import UsageError, warn
from metarl.fewshot.benchmarks import ClassificationBenchmark
from metarl.fewshot.class_choice import listed, matching
from metarl.fewshot.conversion import as_examples
from metarl.fewshot.data_options import DataOptions, are_tables, data_set, open_benchmark
from metarl.fewshot.dataset import FewShotDataset
from metarl.fewshot.datasets import DATASETS
from metarl.fewshot.episode_options import EpisodeOptions
from metarl.fewshot.examples import TaskRecord
from metarl.fewshot.tables.benchmark import TableBenchmark
from metarl.runs.trained import ClassNames, TrainedFewShot
from metarl.tasks import Split

OpenedData = dict[tuple[DataOptions, EpisodeOptions], FewShotDataset]
"""Data sets that have been read, by what they were asked for with."""
_NOTHING: Mapping[Split, tuple[int, ...]] = {"train": (), "validation": (), "test": ()}


@final
@dataclasses.dataclass(frozen=True)
class OtherTasks:
    """Few-shot tasks other than a run was trained for."""

    data: str | None = None
    """Test a few-shot run on this data set: a name, or one's own images; as it was trained if not given. Images are
    scaled to the size that it was trained on, grey becomes colour or colour grey."""
    data_root: Path | None = None
    """The folder of the published data sets; METARL_DATA, or `data`, if not given."""
    test_classes: tuple[str, ...] = ()
    """The classes that a few-shot run is tested on: names, or patterns such as 'Greek/*' (quoted); those of the split
    if not given."""
    ways: int | None = None
    """Classes of a few-shot task; as trained if not given."""
    shots: int | None = None
    """Support examples of each class; as trained if not given."""
    queries: int | None = None
    """Query examples of each class; as trained if not given."""

    @property
    def given(self) -> bool:
        """Whether anything is other than it was."""
        return self != OtherTasks()

    @property
    def labels(self) -> list[str]:
        """What distinguishes them, for the name of an evaluation's file."""
        labels: list[str] = []
        if self.data is not None:
            labels.append(re.sub(r"[^A-Za-z0-9._-]", "-", Path(self.data).stem)[:60])
        if self.test_classes:
            labels.append("classes-" + hashlib.sha256("\n".join(self.test_classes).encode()).hexdigest()[:8])
        numbers = ((self.ways, "w"), (self.shots, "s"), (self.queries, "q"))
        return [*labels, *filter(None, ["".join(f"{number}{unit}" for number, unit in numbers if number is not None)])]

    def benchmark(
        self, run: TrainedFewShot, split: Split, opened: OpenedData | None = None
    ) -> ClassificationBenchmark | TableBenchmark:
        """The tasks, as the run's learner takes them.

        Args:
            run: the trained learner.
            split: whose classes.
            opened: the data sets that were read for other runs, which this one's is added to.

        Raises:
            UsageError: files are missing, or classes were trained on.
            ValueError: a name that no class has, too few classes or examples, or sizes that the learner does not take.
        """
        own = self.data is None or DataOptions(self.data).id == run.data.id
        if self.data is None and self.data_root is not None:
            raise ValueError("--data-root goes with --data")
        if are_tables(run.data.data):
            return self._tables(run)
        if not run.trained.tasks.signature.classifies:
            raise ValueError(f"{run.run.folder} is a regression: there are no other tasks for it")
        data = self._examples(run, {} if opened is None else opened)
        data = run.choice.apply(data) if own else data
        if self.test_classes:
            chosen = matching(data, self.test_classes, "--test-classes")
            data = dataclasses.replace(data, splits={**_NOTHING, split: chosen})
        _refuse_trained(run.classes, data, split, own=own)
        options = run.episodes
        if self.ways is not None and self.ways != run.trained.tasks.signature.ways:
            if not run.trained.learner.training.any_ways:
                raise ValueError(
                    f"this learner has an output for each of its {run.trained.tasks.signature.ways} ways, and cannot "
                    f"tell {self.ways} apart"
                )
            options = dataclasses.replace(options, ways=self.ways)
        options = self._sized(options)
        fitting = fitted(data, run.trained.tasks, split)
        return ClassificationBenchmark(fitting.on(str(run.trained.state.device)), options)

    def _sized(self, options: EpisodeOptions) -> EpisodeOptions:
        """With as many shots and queries as are asked for."""
        shots = options.shots if self.shots is None else self.shots
        return dataclasses.replace(
            options, shots=shots, queries=options.queries if self.queries is None else self.queries
        )

    def _tables(self, run: TrainedFewShot) -> TableBenchmark:
        """The tables that were not trained on, of the run's own or of another collection."""
        if self.test_classes:
            raise ValueError("tables are split by table: leave --test-classes out")
        options = run.data if self.data is None else DataOptions(self.data)
        if self.data_root is not None:
            options = dataclasses.replace(options, data_root=self.data_root)
        sizes = self._sized(run.episodes)
        if self.ways is not None:
            sizes = dataclasses.replace(sizes, ways=self.ways)
        opened = open_benchmark(options, sizes, run.trained.state.device)
        if not isinstance(opened, TableBenchmark):
            raise ValueError(f"{run.run.folder} was trained on tables, {opened.id} has none")
        return opened

    def _examples(self, run: TrainedFewShot, opened: OpenedData) -> FewShotDataset:
        """All that the data set has; images of one's own in the size that the run was trained on."""
        signature, options = run.trained.tasks.signature, run.data
        if self.data is not None and DataOptions(self.data).id != run.data.id:
            options = DataOptions(self.data, text_encoder=run.data.text_encoder)  # texts as the run knows them
            sized = ":" in self.data or self.data in DATASETS or self.data.endswith(".npz")
            if signature.images and not sized:
                options = dataclasses.replace(options, image_size=signature.shape[1])
        if self.data_root is not None:
            options = dataclasses.replace(options, data_root=self.data_root)
        # Only where classes are left out that are too small does it matter how large tasks are.
        key = options, run.episodes if options.skip_bad else EpisodeOptions()
        if key not in opened:
            opened[key] = data_set(*key)
        return opened[key]


def fitted(data: FewShotDataset, record: TaskRecord, split: Split) -> FewShotDataset:
    """The examples of a split's classes as the learner of the record takes them.

    Raises:
        ValueError: they cannot be made into that shape: vectors of another width, images for vectors.
    """
    kept = np.isin(data.labels, data.splits[split])
    examples = data.examples[np.flatnonzero(kept)]
    if data.shape != record.signature.shape:
        examples = as_examples(examples if data.images else examples.numpy(), shape=record.signature.shape)
    return dataclasses.replace(
        data,
        examples=examples,
        labels=data.labels[kept],
        splits={**_NOTHING, split: data.splits[split]},
        mean=record.mean,
        std=record.std,
    )


def _refuse_trained(known: ClassNames | None, data: FewShotDataset, split: Split, *, own: bool) -> None:
    """A class that was trained on says nothing about classes that were not."""
    if known is None or split == "train":
        return
    trained = [data.classes[number] for number in data.splits[split] if data.classes[number] in set(known.train)]
    if trained and own:
        raise UsageError(f"the run was trained on {listed(trained)}: leave them out of --test-classes")
    if trained:
        warn(f"the run was trained on classes of the same name as {listed(trained)}: are they others?")
