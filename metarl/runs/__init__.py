"""Run folders: config, checkpoints, metrics, progress, provenance."""
