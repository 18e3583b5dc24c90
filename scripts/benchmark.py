"""Prints speed ratios against peers; --help explains the options."""

from metarl.commands.main import script

script("benchmark")
