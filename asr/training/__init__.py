"""Everything that makes a model: from a recipe to a model folder.

In: an `Experiment` read from TOML, manifests. Out: a run folder with checkpoints, metrics and the
selected weights. Order: `experiment`, `augment`, `batching`, `objective`, `optimisation`, `run`, `loop`;
around it `evaluation`, `tuning`, `dry_run`, `diagnosis`, `inspection`, `export`.
"""
