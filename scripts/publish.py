"""Puts a trained agent into the zoo; --help explains the options."""

from metarl.commands.main import script

script("publish")
