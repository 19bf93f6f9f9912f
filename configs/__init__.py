"""Hydra presets (YAML) and how they, the schemas and a command line become one plain `TrainConfig`."""
