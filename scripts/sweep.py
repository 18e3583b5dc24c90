"""Trains with several seeds and options; --help explains the options."""

from metarl.commands.main import script

script("sweep")
