"""Writes a page about runs; --help explains the options."""

from metarl.commands.main import script

script("report")
