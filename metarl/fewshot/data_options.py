"""Where few-shot tasks come from, as options, and the benchmark that they name."""

import dataclasses
from pathlib import Path

import torch

from metarl import checks
from metarl.errors import UsageError
from metarl.fewshot import datasets
from metarl.fewshot.benchmarks import Benchmark, ClassificationBenchmark, RegressionBenchmark
from metarl.fewshot.class_choice import ClassChoice
from metarl.fewshot.dataset import FewShotDataset
from metarl.fewshot.datasets import Splitting
from metarl.fewshot.episode_options import EpisodeOptions, chosen, chosen_range
from metarl.fewshot.sampler import bounds
from metarl.fewshot.tables import pmlb
from metarl.fewshot.tables.benchmark import TableBenchmark
from metarl.fewshot.tables.collection import TableCollection, read_folder, table_files
from metarl.registry import canonical, load_object

SINUSOID = "sinusoid"
"""The regression that is drawn, not read."""


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """Where tasks come from."""

    data: str
    """A data set's name (--list), or one's own images: a folder of folders of pictures, one folder a class; a zip of
    it; or an .npz file with `images` and integer `labels`; or one's own texts: a .csv file with the columns `text`
    and `label`; or one's own tables: a folder of .csv or .tsv files of numbers (or .csv.gz, .tsv.gz) with a column
    called `target`. my_file.py:name for a function that returns a data set."""
    data_root: Path | None = None
    """The folder of the published data sets; METARL_DATA, or `data`, if not given."""
    download: bool = False
    """Fetch files of a published data set that are missing."""
    image_size: int | None = None
    """Scale own images to this height and width, px."""
    split_fractions: tuple[float, float, float] | None = None
    """Shares of own classes for train, validation and test, where the folder does not say it; 0.6 0.2 0.2 if not
    given."""
    split_seed: int | None = None
    """Decides which of them go where; 0 if not given."""
    skip_bad: bool = False
    """Go on without own files that cannot be read and classes that are too small; what is left out is listed."""
    text_encoder: str | None = checks.added(None)
    """What makes vectors of texts: universal, ngrams, both (universal+ngrams), sentence-transformers:NAME, or
    my_file.py:name; universal if it is installed, else ngrams, if not given. Only for texts."""

    @property
    def splitting(self) -> Splitting | None:
        """How own classes are shared out, if any of it was asked for."""
        if self.split_fractions is None and self.split_seed is None:
            return None
        return Splitting(self.split_fractions or Splitting().fractions, self.split_seed or 0)

    @property
    def id(self) -> str:
        """What a run remembers: own files by their absolute path, so that they are found from every folder."""
        own = ":" not in self.data and self.data not in (*datasets.DATASETS, SINUSOID, pmlb.NAME)
        return str(Path(self.data).resolve()) if own else canonical(self.data)


def open_benchmark(
    options: DataOptions,
    sizes: EpisodeOptions,
    device: torch.device | str = "cpu",
    classes: ClassChoice | None = None,
) -> Benchmark:
    """The tasks that the options name.

    Raises:
        UsageError: files are missing or are others.
        ValueError: options that do not fit the data, or data that contradict themselves.
    """
    if are_tables(options.data):
        if classes is not None and classes.given:
            raise ValueError(
                "tables are split by table, not by class: leave --test-classes and --validation-classes out"
            )
        return TableBenchmark(_tables(options), sizes, device)
    if options.data == SINUSOID:
        if options != DataOptions(SINUSOID):
            raise ValueError(f"{SINUSOID} is drawn, not read: leave the options of files out")
        if classes is not None and classes.given:
            raise ValueError(f"{SINUSOID} has no classes: leave --test-classes and --validation-classes out")
        return RegressionBenchmark(sizes, device)
    data = data_set(options, sizes)
    return ClassificationBenchmark((data if classes is None else classes.apply(data)).on(str(device)), sizes)


def are_tables(data: str) -> bool:
    """Whether these are tables: the published ones, or a folder of this name with files of tables in it."""
    return data == pmlb.NAME or (":" not in data and data not in datasets.DATASETS and bool(table_files(Path(data))))


def _tables(options: DataOptions) -> TableCollection:
    published = options.data == pmlb.NAME
    fitting = {"data_root": options.data_root} if published else {"split_seed": options.split_seed}
    if options != dataclasses.replace(DataOptions(options.data), **fitting):
        only = "--data-root" if published else "--split-seed"
        raise ValueError(
            f"tables are read as they are, and split by table: leave the options of files out, but for {only}"
        )
    if published:
        return pmlb.load(options.data_root)
    return read_folder(Path(options.data), options.split_seed or 0)


def data_set(options: DataOptions, sizes: EpisodeOptions) -> FewShotDataset:
    """The examples that the options name; own classes that are too small for the sizes may be left out.

    Raises:
        UsageError: files are missing or are others.
        ValueError: options that do not fit the data, or data that contradict themselves.
    """
    if ":" in options.data:
        if options != DataOptions(options.data):
            raise ValueError(f"{options.data} makes its data set by itself: leave the options of files out")
        return _from_outside(options.data)
    evaluated = sizes.evaluated
    least = bounds(evaluated.shots)[1] + chosen(sizes.queries, evaluated.queries)
    return datasets.load(
        options.data,
        options.data_root,
        download=options.download,
        image_size=options.image_size,
        splitting=options.splitting,
        skip_bad=options.skip_bad,
        text_encoder=options.text_encoder,
        min_per_class=max(least, bounds(chosen_range(sizes.train_shots, 1))[1] + 1) if options.skip_bad else 1,
    )


def _from_outside(id: str) -> FewShotDataset:
    """What the function of this id returns."""
    make = load_object(id)
    data = make() if callable(make) else make
    if not isinstance(data, FewShotDataset):
        raise UsageError(
            f"{id} must be a function that returns a FewShotDataset (metarl.fewshot.from_arrays makes one)"
        )
    return data
