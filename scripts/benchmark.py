"""Prints speed ratios against peers; --help explains the options."""

from metarl.commands.main import script

if __name__ == "__main__":  # a peer's worker processes import it once more
    script("benchmark")
