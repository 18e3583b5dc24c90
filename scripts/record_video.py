"""Records a video of an agent before and after adaptation; --help explains the options."""

from metarl.commands.main import script

script("record_video")
