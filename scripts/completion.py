"""Prints a script that completes words; --help explains the options."""

from metarl.commands.main import script

script("completion")
