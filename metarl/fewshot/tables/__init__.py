"""Few-shot tasks of tables: rows of numbers, in every table other columns and other classes."""

from metarl.fewshot.tables.collection import TableCollection, read_folder
from metarl.fewshot.tables.pmlb import load
from metarl.fewshot.tables.table import Table, read_table

__all__ = ["Table", "TableCollection", "load", "read_folder", "read_table"]
