"""Evaluates trained agents on held-out tasks; --help explains the options."""

from metarl.commands.main import script

script("evaluate")
