"""Trains and evaluates a few-shot learner; --help explains the options."""

from metarl.commands.main import script

script("fewshot")
