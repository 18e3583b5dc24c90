"""Classifies many examples from a few labelled ones; --help explains the options."""

from metarl.commands.main import script

script("classify")
