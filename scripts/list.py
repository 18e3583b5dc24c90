"""Lists what there is; --help explains the options."""

from metarl.commands.main import script

script("list")
