"""Trained agents that come with the package, each with a card; `metarl.runs.zoo` finds them by name."""
