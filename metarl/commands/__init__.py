"""The programs: `python scripts/<name>.py` and `metarl <name>` are the same functions."""
