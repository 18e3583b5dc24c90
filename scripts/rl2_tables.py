"""Tables 1 and 2 of the RL² paper; --help explains the options."""

from metarl.commands.main import script

script("rl2_tables")
