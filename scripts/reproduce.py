"""Repeats figures of the results page; --help explains the options."""

from metarl.commands.main import script

script("reproduce")
