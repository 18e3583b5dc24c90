"""Finds translations from a few sentence pairs of a language; --help explains the options."""

from metarl.commands.main import script

script("translation")
