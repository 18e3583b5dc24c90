"""Looks at this machine; --help explains the options."""

from metarl.commands.main import script

script("doctor")
