"""Everything that makes a model: from a recipe to a model folder.

In: an ``Experiment`` read from TOML, manifests. Out: a run folder with checkpoints, metrics and the selected
weights. In order: ``experiment``, ``augment``, ``batching``, ``objective``, ``optimisation``, ``run``,
``folder``, ``steps``, ``selection``, ``loop``; beside them ``evaluation``, ``tuning``, ``dry_run``,
``diagnosis``, ``inspection``, ``export``; ``prediction`` learns without texts, ``spelling`` to pronounce.

Public face: ``Experiment``, ``loop.train``, ``evaluation.evaluate``, ``dry_run.dry_run``,
``diagnosis.diagnose``, ``inspection.inspect_model``, ``export.export_onnx``.
"""
