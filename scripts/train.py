"""Trains an agent; --help explains the options."""

from metarl.commands.main import script

script("train")
