"""86 real tables of the Penn Machine Learning Benchmarks (Olson et al. 2017; Romano et al. 2021).

Split by table, and by family where tables hold the same or nearly the same data: those that `_FAMILIES` lists, and
those with as many rows in every class (credit_a is australian, recoded).
"""

import csv
import functools
import hashlib
from pathlib import Path

from metarl.errors import UsageError
from metarl.fewshot.datasets.storage import existing_data_root
from metarl.fewshot.tables.collection import TableCollection, families_of, split_by_family
from metarl.fewshot.tables.table import read_table

NAME = "pmlb"
INDEX = "tabular/index.csv"
SPLIT_SEED = 0

_FAMILIES = (
    ("allbp", "allhyper", "ann_thyroid", "hypothyroid", "new_thyroid"),  # thyroid disease, one hospital's records
    ("cleveland", "hungarian", "heart_statlog"),  # heart disease, one study
    ("spect", "spectf"),  # the same patients
    ("dna", "splice", "molecular_biology_promoters"),  # dna is splice, recoded
    ("australian", "credit_a", "german", "analcatdata_creditscore"),  # credits
    ("wine_quality_red", "wine_quality_white"),
    ("breast_w", "wdbc", "breast_cancer"),
    ("mfeat_morphological", "mfeat_zernike", "optdigits", "pendigits"),  # written digits; mfeat's are the same ones
    ("analcatdata_cyyoung8092", "analcatdata_cyyoung9302"),
    ("auto", "cars"),
    ("segmentation", "satimage"),
)
"""Tables by name that hold the same data, parts or versions of it, or the same matter."""


def load(root: Path | None = None) -> TableCollection:
    """The tables, from the folder of the published data sets.

    Raises:
        UsageError: a file is missing, or is another one.
    """
    return _read(existing_data_root(root))


@functools.cache
def _read(root: Path) -> TableCollection:
    index = root / INDEX
    if not index.is_file():
        raise UsageError(f"{index} is missing: the list of the tables; --data-root or METARL_DATA names the data root")
    try:
        with index.open(encoding="utf-8", newline="") as file:
            rows = [(row["name"], row["sha256"]) for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise UsageError(f"{index} is no list of tables with the columns name and sha256: {error}") from error
    tables = []
    for name, expected in rows:
        path = root / "tabular" / NAME / f"{name}.tsv.gz"
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise UsageError(f"{path} cannot be read ({error.strerror})") from error
        if digest != expected:
            raise UsageError(f"{path} has another checksum than {index} says: it is damaged or another file")
        tables.append(read_table(path))
    return TableCollection(NAME, tuple(tables), split_by_family(families_of(tables, _FAMILIES), SPLIT_SEED))
