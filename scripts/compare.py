"""Compares agents; --help explains the options."""

from metarl.commands.main import script

script("compare")
